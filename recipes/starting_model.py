"""A trained language model to go on from: which model that is, and what a recipe may change of it."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from .arguments import Recipe, options_of
from .model_arguments import preset_of_kind, presets_for
from .models import load_config, load_model
from .pretrained import source_of


_NAME = "model_name_or_path"


def starting_preset(recipe: Recipe, overrides: Sequence[str], auto_class: str) -> str | None:
    """Find a preset of the kind of model that a recipe, or the command line over it, starts from; None where none is there.

    Args:
        recipe: from `read_recipe`.
        overrides: of the command line.
        auto_class: of the task.

    Raises:
        ValueError: it is of another kind, or a preset is given too.
    """
    name = source_of(recipe, overrides, [_NAME])
    if not name:
        return None
    if "preset" in {*recipe.values, *options_of(overrides)}:
        raise ValueError(f"{_NAME}={name} and a preset: the model says itself what it is made of; give one of them.")
    try:
        kind = AutoConfig.from_pretrained(name).model_type
    except (OSError, ValueError):
        return None  # of what is not there yet the options can be shown; loading it says what is wrong
    found = preset_of_kind(kind, auto_class)
    if found is None:
        kinds = sorted({model.config_class.model_type for model in presets_for(auto_class).values()})
        raise ValueError(f"{name} holds a {kind} model; task {recipe.task} starts from one of: {', '.join(kinds)}.")
    return found


def load_starting_model(name: str, auto_class: str, model_args: Any, checkpoint: str | None) -> PreTrainedModel:
    """Load the model that training starts from, with the dropout and the attention kernel that the recipe names.

    Args:
        name: folder, or model on the Hub.
        auto_class: of the task.
        model_args: of the recipe; what else they say of the model must be so already.
        checkpoint: that the run goes on from, whose weights are loaded later; None: it starts anew.

    Raises:
        ValueError: it cannot be loaded, or the recipe says that it has another architecture.
    """
    config = load_config(checkpoint or name, auto_class)
    changed = {}
    for part in fields(model_args):
        value = getattr(model_args, part.name)
        if part.name in ("preset", "attn_implementation") or value is None or value == getattr(config, part.name):
            continue
        if "dropout" not in part.name:
            raise ValueError(
                f"{part.name}={value} cannot be: {name} has {part.name}={getattr(config, part.name)}. Leave it out."
            )
        changed[part.name] = value
    # Not as it was saved: the small updates of fine-tuning are lost in half precision, which autocast is for.
    if checkpoint is None:
        model = load_model(name, auto_class, dtype=torch.float32, **changed)
    else:
        config.update(changed)
        model = getattr(transformers, auto_class).from_config(config, dtype=torch.float32)
    if attention := getattr(model_args, "attn_implementation", None):
        model.set_attn_implementation(attention)
    return model
