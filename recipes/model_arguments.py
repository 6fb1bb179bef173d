"""What a recipe says of its model: the preset that it starts from, and every field of that preset's configuration."""

import functools
import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from typing import Any

from transformers.utils import logging

from transformer_theatre.modeling import AUTO_CLASSES

from .arguments import Recipe, options_of
from .nearest import nearest


logger = logging.get_logger(__name__)
# Fields of a configuration that the tokenizer or the task decides, or that no recipe needs.
_NOT_ARGUMENTS = {"pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "is_encoder_decoder"}
_NOT_ARGUMENTS |= {"use_cache", "attribute_map", "model_type"}
# What only models from elsewhere have, which `theatre convert` brings.
_NOT_ARGUMENTS |= {"source_vocab_size", "output_bias", "position_offset"}
_FIELD = re.compile(r"^    (\w+): ([\w| \[\]]+) = .*?(?:  # (.*))?$", re.MULTILINE)


@functools.cache
def presets_for(auto_class: str) -> dict[str, Any]:
    """Map the name of every preset of a task to its model class.

    Args:
        auto_class: "AutoModelForSeq2SeqLM" for pairs of texts, "AutoModelForCausalLM" for running text.
    """
    presets = {}
    for model_class in AUTO_CLASSES[auto_class]:
        config_class: Any = model_class.config_class
        for name in sys.modules[config_class.__module__].PRESETS:
            if config_class.from_preset(name).is_encoder_decoder == (auto_class == "AutoModelForSeq2SeqLM"):
                presets[name] = model_class
    return presets


def preset_of_kind(model_type: str, auto_class: str) -> str | None:
    """Name the first preset of a task whose model is of a kind, such as "theatre_gpt"; None where none is."""
    presets = presets_for(auto_class)
    return next((name for name, model in presets.items() if model.config_class.model_type == model_type), None)


def preset_of(recipe: Recipe, overrides: Sequence[str], auto_class: str, default: str) -> str:
    """Return the preset that a recipe names, or what the command line says over it.

    Args:
        recipe: from `read_recipe`.
        overrides: `["--preset", "transformer-tiny", ...]`.
        auto_class: as for `presets_for`.
        default: where neither names one.

    Raises:
        ValueError: no model of the task has a preset of this name; the message lists those there are.
    """
    known = presets_for(auto_class)
    words = options_of(overrides).get("preset")
    preset = " ".join(words) if words is not None else recipe.values.get("preset", default)
    if preset in known:
        return preset
    where = f"{recipe.path}:{recipe.lines['preset']}: " if words is None else ""
    raise ValueError(
        f"{where}There is no preset {preset!r} for task {recipe.task}{nearest(str(preset), known)}. "
        f"Choose one of: {', '.join(known)}."
    )


def recipe_fields(config_class: Any) -> dict[str, tuple[str, str]]:
    """Map every field of a configuration that a recipe may set to its type and its comment, as the class's source has them."""
    found = _FIELD.findall(inspect.getsource(config_class))
    return {name: (kind, comment) for name, kind, comment in found if name not in _NOT_ARGUMENTS}


@functools.cache
def model_arguments(auto_class: str, preset: str) -> Any:
    """Make the dataclass of arguments that a model takes: every field of its configuration, with its comment as help.

    Args:
        auto_class: as for `presets_for`.
        preset: what the fields depart from; another one may be of another model, with other fields.
    """
    presets = presets_for(auto_class)
    model_class, config_class = presets[preset], presets[preset].config_class
    note = f"published model that the fields below depart from: {', '.join(presets)}"
    members: list[tuple] = [("preset", str, field(default=preset, metadata={"help": note}))]
    if model_class._supports_sdpa:
        note = "eager, sdpa, flash_attention_2, flex_attention"
        members.append(("attn_implementation", str, field(default="sdpa", metadata={"help": note})))
    for name, (kind, comment) in recipe_fields(config_class).items():
        python_type = {"int": int, "str": str, "bool": bool}.get(kind, float)
        note = f"{comment or name} (default: the preset's)".replace("%", "%%")
        members.append((name, python_type | None, field(default=None, metadata={"help": note})))
    return make_dataclass(f"{config_class.__name__}Arguments", members, namespace={"_argument_group_name": "model"})


def model_config(model_class: Any, arguments: Any, **given: Any) -> Any:
    """Build a configuration from its arguments.

    Args:
        model_class: such as `TransformerForConditionalGeneration`.
        arguments: an instance of the class that `model_arguments` made.
        **given: fields that the arguments do not decide, such as token ids.
    """
    chosen = {f.name: getattr(arguments, f.name) for f in fields(arguments)}
    preset, attention = chosen.pop("preset"), chosen.pop("attn_implementation", None)
    chosen = {name: value for name, value in chosen.items() if value is not None}
    config = model_class.config_class.from_preset(preset, **chosen, **given)
    if attention is not None:
        config._attn_implementation = attention
    return config


def settle_positions(model_class: Any, arguments: Any, length: int | None):
    """Let a model with random weights have no more learned positions than its rows have tokens: others would never be learned.

    Args:
        model_class: as for `model_config`.
        arguments: as for `model_config`; their `max_position_embeddings` is set, unless it was given.
        length: tokens of a row that the recipe asks for; None: as many as the model takes.
    """
    if length is None or not hasattr(arguments, "max_position_embeddings"):
        return
    if arguments.max_position_embeddings is None:
        preset = model_class.config_class.from_preset(arguments.preset)
        arguments.max_position_embeddings = min(length, preset.max_position_embeddings)
    elif arguments.max_position_embeddings > length:
        logger.warning(
            f"max_position_embeddings={arguments.max_position_embeddings}, and rows have {length} tokens: the positions beyond "
            "are not learned, and longer text will be read by random ones."
        )


def vocabulary_size(model_class: Any, arguments: Any) -> int:
    """Pieces that the tokenizer should have: what the arguments say, or else their preset."""
    given = arguments.vocab_size
    return model_class.config_class.from_preset(arguments.preset).vocab_size if given is None else given
