"""A second system on the same texts, to compare with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.recipes.line_reader import LineReader
from transformer_theatre.recipes.models import check_writes, load, load_config
from transformer_theatre.recipes.paired_bootstrap import differences, summary
from transformer_theatre.recipes.sentence_statistics import Statistics
from transformer_theatre.recipes.text_data import bare_name, is_local
from transformer_theatre.recipes.tokenization import encode_pairs

from .measure import Measured, measure_pairs, measure_running_text, score_outputs
from .texts import PairText, RunningText


class Baseline:
    """A model, or a file of what one has written.

    Args:
        name: model folder, model on the Hub, or file of outputs.
        auto_class: that loads the model.

    Raises:
        ValueError: there is none, or it does something else.
    """

    def __init__(self, name: str, auto_class: str):
        self.given, self.path, self.auto_class = name, Path(name), auto_class
        self.is_file = self.path.is_file()
        self.name = bare_name(name)
        if self.is_file and auto_class != "AutoModelForSeq2SeqLM":
            raise ValueError(f"--baseline {name} is a file: of a language model give its folder.")
        if not self.is_file and is_local(name) and not (self.path / "config.json").is_file():
            raise ValueError(f"--baseline {name}: There is no model folder of this name, and no file of outputs.")
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return model and tokenizer, loaded when first asked for: the memory that the other model takes is its own."""
        if self._loaded is None:
            self._loaded = load(self.given, self.auto_class)
        return self._loaded

    def texts_of(self, texts: Mapping[str, PairText | RunningText]) -> list[str]:
        """Choose the texts that it can be compared on, before anything is measured: all, or the one that its file is of.

        Raises:
            ValueError: its file has the lines of none of them, or of several; or a row is not for its model.
        """
        if not self.is_file:
            config = load_config(self.given, self.auto_class)
            check_writes(self.given, config)
            for text in texts.values():
                if isinstance(text, RunningText):
                    self._check_rows(text, config)
            return list(texts)
        lines = sum(1 for _ in LineReader(self.path))
        sizes = {name: len(text.texts) for name, text in texts.items() if isinstance(text, PairText)}
        fitting = [name for name, size in sizes.items() if size == lines]
        if len(fitting) != 1:
            have = " and ".join(f"{size:,}{f' ({name})' if name else ''}" for name, size in sizes.items())
            right = (
                "a file of outputs needs one for each"
                if not fitting
                else "name the files of one text in place of a recipe"
            )
            raise ValueError(f"{self.path} has {lines:,} lines, and the text {have}: {right}.")
        return fitting

    def _check_rows(self, text: RunningText, config: PreTrainedConfig):
        model_class = getattr(transformers, self.auto_class)._model_mapping[type(config)]
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and text.row_length > limit:
            raise ValueError(
                f"--baseline {self.given} takes {limit} tokens, and a row of the text has {text.row_length}: give a recipe with "
                f"--row_length {limit}."
            )
        if text.apart and not model_class._supports_sdpa:
            raise ValueError(
                f"--baseline {self.given} has no attention to keep the documents of a row apart: give "
                "--attend_across_documents true."
            )

    def written(self, text: PairText, comet: Callable[[Sequence[dict[str, str]]], Statistics] | None) -> Measured:
        """Measure the outputs that its file holds, of a text that `texts_of` has chosen."""
        outputs = [line.removesuffix("\n") for line in LineReader(self.path)]
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

    def on_running_text(self, text: RunningText) -> tuple[Measured, bool]:
        """Measure it on a running text; say whether its rows are those of the other, which only the same tokenizer makes."""
        model, tokenizer = self.loaded()
        blocks = text.cut(tokenizer)
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
