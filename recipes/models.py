"""Loading a trained model and its tokenizer, with one line that says what is wrong where that fails."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .first_line import first_line
from .hub_errors import explain
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
    check_kind(name, auto_class)
    tokenizer = load_tokenizer(name)
    return load_model(name, auto_class), tokenizer


def load_model(name: str, auto_class: str, **fields: Any) -> PreTrainedModel:
    """Load a model as `load` does, without its tokenizer, which need not be there; `fields` replace its configuration's.

    Raises:
        ValueError: there is no such model, it is of the other kind, or its files are damaged.
    """
    check_kind(name, auto_class)
    if auto_class == "AutoModelForCausalLM":
        check_writes(name)
    try:
        model, loading = getattr(transformers, auto_class).from_pretrained(name, output_loading_info=True, **fields)
    except Exception as error:  # safetensors, OSError, RuntimeError: all mean that the weights cannot be read
        raise ValueError(f"The weights of {name} cannot be read: {first_line(error)}") from None
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[kind]:
            key = sorted(map(str, loading[kind]))[0]
            raise ValueError(
                f"The weights of {name} do not fit its config.json: {kind.replace('_', ' ')}, first {key}."
            )
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return model.to(accelerator or "cpu").eval()


def check_writes(name: str):
    """Make sure that a model predicts text, and was not fine-tuned to answer a task.

    Args:
        name: a folder that is there, or "user/repository".

    Raises:
        ValueError: it was.
    """
    made = (transformers.AutoConfig.from_pretrained(name).architectures or [""])[0]
    if made.endswith(("ForSequenceClassification", "ForMultipleChoice")):
        raise ValueError(f"{name} holds a {made}, which answers a task: use `theatre classify`.")


def check_kind(name: str, auto_class: str):
    """Make sure that a model is there, and of the kind that an Auto class loads.

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
        why = explain(error, name) or f"There is no model {name!r}: {first_line(error)}"
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
