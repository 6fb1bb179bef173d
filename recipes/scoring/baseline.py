"""A second system on the same texts, to compare with."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.recipes.line_reader import LineReader
from transformer_theatre.recipes.models import load
from transformer_theatre.recipes.paired_bootstrap import differences, summary
from transformer_theatre.recipes.sentence_statistics import Statistics
from transformer_theatre.recipes.text_data import is_local
from transformer_theatre.recipes.tokenization import encode_blocks, encode_pairs

from .measure import Measured, measure_pairs, measure_running_text, score_outputs
from .texts import PairText, RunningText


def name_of(model: str) -> str:
    """Name a model without its place: the folder's own name, or the name on the Hub."""
    path = Path(model)
    return path.resolve().name if path.exists() else model


class Baseline:
    """A model, or a file of what one has written.

    Args:
        name: model folder, model on the Hub, or file of outputs.
        auto_class: that loads the model.

    Raises:
        ValueError: there is none, or it does something else.
    """

    def __init__(self, name: str, auto_class: str):
        self.path = Path(name)
        self.is_file = self.path.is_file()
        self.name = name_of(name)
        if self.is_file and auto_class != "AutoModelForSeq2SeqLM":
            raise ValueError(f"--baseline {name} is a file: of a language model give its folder.")
        if not self.is_file and is_local(name) and not (self.path / "config.json").is_file():
            raise ValueError(f"--baseline {name}: There is no model folder of this name, and no file of outputs.")
        self._load = partial(load, name, auto_class)
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return model and tokenizer, loaded when first asked for: the memory that the other model takes is its own."""
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded

    def written(self, text: PairText, comet: Callable[[Sequence[dict[str, str]]], Statistics] | None) -> Measured:
        """Measure the outputs that its file holds.

        Raises:
            ValueError: the file has not a line for each text.
        """
        outputs = [line.removesuffix("\n") for line in LineReader(self.path)]
        if len(outputs) != len(text.texts):
            raise ValueError(
                f"{self.path} has {len(outputs):,} lines, and the text {len(text.texts):,}: a file of outputs needs one for each."
            )
        return score_outputs(outputs, text, comet)

    def on_pairs(
        self, text: PairText, num_beams: int, comet: Callable[[Sequence[dict[str, str]]], Statistics] | None
    ) -> Measured:
        """Measure the model on pairs, by as many beams as the other."""
        model, tokenizer = self.loaded()
        names = ["source", "target", "origin", *(["references"] if "references" in text.texts.column_names else [])]
        plain = text.pairs.select_columns([name for name in names if name in text.pairs.column_names])
        encoded = encode_pairs(plain, tokenizer, max_length=10**9)
        texts = text.texts.select_columns([name for name in names if name in text.texts.column_names])
        return measure_pairs(model, tokenizer, replace(text, pairs=encoded, texts=texts, num_beams=num_beams), comet)

    def on_running_text(self, text: RunningText, row_length: int) -> tuple[Measured, bool]:
        """Measure it on a running text; say whether its rows are those of the other, which only the same tokenizer makes."""
        model, tokenizer = self.loaded()
        blocks = encode_blocks(Dataset.from_dict({"text": list(text.documents)}), tokenizer, row_length)
        same = blocks["labels"][:] == text.blocks["labels"][:]
        return measure_running_text(model, tokenizer, replace(text, blocks=blocks)), same


def compared(name: str, model: Measured, baseline: Measured) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Compare two systems by every figure of which both have the statistics.

    Returns:
        `baseline`, its name, and `figures`: of each what `paired_comparison` says; and the differences in each draw, by figure.
    """
    figures, drawn = {}, {}
    for key in model.statistics.keys() & baseline.statistics.keys():
        drawn[key] = differences(model.statistics[key], baseline.statistics[key])
        figures[key] = summary(model.statistics[key], baseline.statistics[key], drawn[key])
    order = [key for key in model.statistics if key in figures]
    found: dict[str, Any] = {"baseline": name, "figures": {key: figures[key] for key in order}}
    if "num_beams" in baseline.figures:
        found["num_beams"] = baseline.figures["num_beams"]
    return found, drawn
