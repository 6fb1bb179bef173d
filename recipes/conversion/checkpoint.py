"""Reading checkpoints: tensors and nothing else. No file is trusted; a pickle cannot run code here."""

import functools
import json
import pickle
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import HFValidationError
from transformers import PreTrainedModel

from transformer_theatre.recipes.first_line import first_line
from transformer_theatre.recipes.text_data import is_local, near_names
from transformer_theatre.recipes.weights import read_weights

from .carried_tokenizer import read_tokenizer
from .format import Source


# Weights come last, and pickled ones only where there are no others.
_SMALL_FILES = ["*.json", "*.txt", "*.spm", "*.model", "README.md"]


def find(name: str, weights: bool = True) -> Path:
    """Find a model's file or folder; a name that is no path is a repository on the Hub, which is downloaded.

    Args:
        name: a path, or "user/repository".
        weights: download them too.

    Raises:
        ValueError: there is none.
    """
    if is_local(name):
        path = Path(name).expanduser()
        if not path.exists():
            raise ValueError(f"There is no model {path}. {near_names(path)}")
        return path
    try:
        for large in (["*.safetensors"], ["pytorch_model*.bin"], ["ckpt.pt", "meta.pkl"]) if weights else ([],):
            folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=[*_SMALL_FILES, *large]))
            if any(file.match(pattern) for file in folder.iterdir() for pattern in large):
                break
    except (OSError, ValueError, HFValidationError) as error:  # the Hub's own errors are OSErrors
        raise ValueError(f"There is no model {name!r}: {first_line(error)}") from None
    return folder


def model_type(folder: Path) -> str | None:
    """Tell what the config.json of a folder says; None: there is none, or it does not say.

    Raises:
        ValueError: config.json is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return fields.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no JSON object: {first_line(error)}") from None


def read_folder(folder: Path, model_class: type[PreTrainedModel], prefix: str) -> Source:
    """Read a model folder of the library's.

    Args:
        folder: with config.json, weights, and a tokenizer if there is one.
        model_class: the library's class, for comparison.
        prefix: what the names of its body begin with; a checkpoint of the body alone has them without.

    Raises:
        ValueError: the configuration or the weights cannot be read.
    """
    # First of all: only what this can read is shown to the library.
    tensors = read_weights(folder)
    if not any(name.startswith(prefix) for name in tensors):
        tensors = {name if name.startswith("lm_head.") else prefix + name: value for name, value in tensors.items()}
    try:
        config = model_class.config_class.from_pretrained(folder)
    except Exception as error:  # the library's validation raises its own
        raise ValueError(f"{folder / 'config.json'} cannot be read: {first_line(error)}") from None
    load_reference = functools.partial(model_class.from_pretrained, folder, dtype=torch.float32)
    return Source(config, tensors, load_reference, read_tokenizer(folder))


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_plain_pickle(path: Path) -> Any:
    """Load a pickle of plain values: numbers, strings, lists, dictionaries.

    Raises:
        ValueError: it holds anything else, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file).load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path} holds more than plain values, and is not loaded: {first_line(error)}") from None
