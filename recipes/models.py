"""Loading a trained model and its tokenizer, with one line that says what is wrong where that fails."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .first_line import first_line
from .hub_errors import explain
from .run_folder import read_json
from .text_data import is_local, near_names
from .tokenization import load_tokenizer


def load(name: str, auto_class: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model folder, or a model on the Hub, onto the accelerator if there is one.

    Args:
        name: a folder, or "user/repository".
        auto_class: "AutoModelForSeq2SeqLM" to translate, "AutoModelForCausalLM" to continue text.

    Raises:
        ValueError: there is no such model, it is of the other kind, its files are damaged, or it has no tokenizer.
    """
    load_config(name, auto_class)  # of the two, the error that says more
    tokenizer = load_tokenizer(name)
    return load_model(name, auto_class), tokenizer


def load_model(name: str, auto_class: str, **fields: Any) -> PreTrainedModel:
    """Load a model as `load` does, without its tokenizer, which need not be there; `fields` replace its configuration's.

    Raises:
        ValueError: there is no such model, it is of the other kind, or its files are damaged.
    """
    config = load_config(name, auto_class)
    if auto_class == "AutoModelForCausalLM":
        check_writes(name, config)
    try:
        model, loading = getattr(transformers, auto_class).from_pretrained(name, output_loading_info=True, **fields)
    except Exception as error:  # safetensors, OSError, RuntimeError: all mean that the weights cannot be read
        raise ValueError(f"The weights of {name} cannot be read: {first_line(error)}") from None
    check_weights(name, model, loading)
    settings = Path(name) / "generation_config.json"
    if settings.is_file():
        read_json(settings)  # the library would go on without them
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return model.to(accelerator or "cpu").eval()


def check_weights(name: str, model: PreTrainedModel, loading: dict[str, Any], new: tuple[str, ...] = ()):
    """Make sure that a model's weights are those of its file, for whatever else the library would draw at random.

    Args:
        name: that the user knows it by.
        model: as `from_pretrained` made it.
        loading: what `from_pretrained` says of it with `output_loading_info`.
        new: how the names of weights begin that the file may lack.

    Raises:
        ValueError: weights are missing, of another shape, or have no place in the model.
    """
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(str(key) for key in loading[kind] if kind != "missing_keys" or not str(key).startswith(new))
        if keys:
            raise ValueError(
                f"The weights of {name} do not fit {type(model).__name__}: {kind.replace('_', ' ')}, first {keys[0]}."
            )


def check_writes(name: str, config: PreTrainedConfig):
    """Make sure that a model predicts text, and was not fine-tuned to answer a task.

    Args:
        name: a folder, or "user/repository".
        config: of the model.

    Raises:
        ValueError: it was.
    """
    made = (config.architectures or [""])[0]
    if made.endswith(("ForSequenceClassification", "ForMultipleChoice")):
        raise ValueError(f"{name} holds a {made}, which answers a task: use `theatre classify`.")


def load_config(name: str, auto_class: str) -> PreTrainedConfig:
    """Load the configuration of a model that must be there, and of the kind that an Auto class loads.

    Raises:
        ValueError: it is not; the message says what is.
    """
    if is_local(name) and not Path(name).exists():
        raise ValueError(f"There is no model folder {name}. {near_names(Path(name))}")
    if Path(name).exists() and not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name} is no model folder: it has no config.json. Give the output folder of a run.")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        there = f"The configuration of {name} cannot be read" if Path(name).exists() else f"There is no model {name!r}"
        why = explain(error, name) or f"{there}: {first_line(error)}"
        if not Path(name).exists():
            why += f" There is no folder of this name here either. {near_names(Path(name))}"
        raise ValueError(why) from None
    fits = getattr(transformers, auto_class)._model_mapping
    # One configuration may serve both kinds.
    if type(config) not in fits or config.is_encoder_decoder != (auto_class == "AutoModelForSeq2SeqLM"):
        does = (
            "translates: use `theatre translate`"
            if config.is_encoder_decoder
            else "continues text: use `theatre generate`"
        )
        raise ValueError(f"{name} holds a {config.model_type} model, which {does}.")
    return config
