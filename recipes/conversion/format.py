"""What each file of this folder tells of one format."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .names import Names


@dataclass
class Source:
    """A model from elsewhere, as its files have it.

    Args:
        config: its configuration.
        tensors: its weights, under its own names.
        load_reference: loads the same model as code that is not ours runs it, float32, with `generate`, to compare with.
        tokenizer: its own; None: there is none, and `missing_tokenizer` says what to do about it.
        missing_tokenizer: one sentence.
    """

    config: PreTrainedConfig
    tensors: dict[str, torch.Tensor]
    load_reference: Callable[[], PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase | None = None
    missing_tokenizer: str = ""

    @functools.cached_property
    def reference(self) -> PreTrainedModel:
        """What `load_reference` loads, once, and only after the tables have found nothing wrong."""
        return self.load_reference().eval()


@dataclass(frozen=True)
class Format:
    """One format.

    Args:
        name: one word, as in `--to`.
        what: one line for `--help`.
        matches: whether a file or folder is of this format.
        read: reads it.
        ours: the class that it becomes.
        to_our_config: makes our configuration; tensors are given, as some formats say there what others say in a field.
        names: makes the table of names, for our configuration.
        theirs: the class that `--to` makes; None: there is no way back.
        to_their_config: makes the configuration of that class.
    """

    name: str
    what: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], Source]
    ours: type[PreTrainedModel]
    to_our_config: Callable[[PreTrainedConfig, dict[str, torch.Tensor]], PreTrainedConfig]
    names: Callable[[PreTrainedConfig], Names]
    theirs: type[PreTrainedModel] | None = None
    to_their_config: Callable[[PreTrainedConfig], PreTrainedConfig] | None = None
