"""Reading weights: tensors and nothing else. No file is trusted; a pickle cannot run code here."""

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .first_line import first_line


_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read all weights of a folder, in one file or several.

    Raises:
        ValueError: there are none, or they cannot be read.
    """
    for name in _WEIGHTS:
        index = folder / f"{name}.index.json"
        if (folder / name).is_file():
            return _tensors_of_file(folder / name)
        if index.is_file():
            files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            parts = [_tensors_of_file(folder / file) for file in files]
            return {key: value for part in parts for key, value in part.items()}
    raise ValueError(f"{folder} holds no weights: neither {' nor '.join(_WEIGHTS)} is there.")


def _tensors_of_file(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read: {first_line(error)}") from None
    tensors = load_pickled_tensors(path)
    if not isinstance(tensors, dict) or not all(isinstance(value, torch.Tensor) for value in tensors.values()):
        raise ValueError(f"{path} is no dictionary of tensors.")
    return tensors


def load_pickled_tensors(path: Path) -> Any:
    """Load a file that `torch.save` wrote, of tensors and plain values alone.

    Raises:
        ValueError: it holds anything else, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values, and is not loaded: it could run code. {first_line(error)}"
        ) from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {first_line(error)}") from None
