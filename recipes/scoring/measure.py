"""What a model scores on one text."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.recipes.bootstrap import SIGNATURE
from transformer_theatre.recipes.evaluation import negative_log_likelihood
from transformer_theatre.recipes.likelihood import likelihood, size_of
from transformer_theatre.recipes.metrics import text_statistics
from transformer_theatre.recipes.run_counters import peak_memory
from transformer_theatre.recipes.sentence_statistics import Statistics, statistics_of

from .texts import PairText, RunningText


@dataclass
class Measured:
    """What was found on one text.

    Args:
        figures: flat: scores, intervals, signatures, likelihood; as metrics.json has them.
        statistics: what each text adds to each figure.
        outputs: what a translator wrote; None of a language model.
        speed: what it took.
    """

    figures: dict[str, Any]
    statistics: dict[str, Statistics]
    outputs: list[str] | None
    speed: dict[str, Any]


def measure_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    text: PairText,
    comet: Callable[[Sequence[dict[str, str]]], Statistics] | None = None,
) -> Measured:
    """Translate a text, score what was written, and measure the likelihood of the references.

    Args:
        model: encoder-decoder.
        tokenizer: the model's own.
        text: encoded by it.
        comet: scores texts by COMET.
    """
    beams = beams_of(model, text)
    _begin(model)
    begun = time.monotonic()
    outputs = model.translate(text.texts["source"][:], tokenizer=tokenizer, num_beams=beams, progress=True)  # type: ignore[operator]
    wrote = time.monotonic() - begun
    rows = negative_log_likelihood(model, tokenizer, text.pairs)
    written = sum(map(len, tokenizer(outputs, add_special_tokens=False)["input_ids"]))  # type: ignore[arg-type]
    measured = score_outputs(outputs, text, comet)
    measured.figures |= {"num_beams": beams, "alpha": model.default_alpha}  # type: ignore[dict-item]
    measured.figures |= likelihood(rows, size_of(text.pairs["target"]))
    measured.statistics["bits_per_byte"] = bits_per_byte_statistics(rows, text.pairs)
    measured.speed = {
        "seconds": round(wrote, 3),
        "texts_per_second": round(len(outputs) / wrote, 2),
        "output_tokens_per_second": round(written / wrote, 1),
        "scoring_seconds": round(time.monotonic() - begun - wrote, 3),
        **_peak(model.device),
    }
    return measured


def score_outputs(
    outputs: list[str], text: PairText, comet: Callable[[Sequence[dict[str, str]]], Statistics] | None = None
) -> Measured:
    """Score outputs, whoever wrote them."""
    statistics = text_statistics(outputs, text.references, text.language, text.metrics)
    if comet is not None:
        statistics["comet"] = comet(
            [
                {"src": source, "mt": output, "ref": known if isinstance(known, str) else known[0]}
                for source, output, known in zip(text.texts["source"], outputs, text.references, strict=True)
            ]
        )
    figures: dict[str, Any] = {"texts": len(outputs)}
    for name, one in statistics.items():
        figures |= one.scores(name)
    return Measured({**figures, "interval_signature": SIGNATURE}, statistics, outputs, {})


def beams_of(model: PreTrainedModel, text: PairText) -> int:
    """Say how many beams the search has."""
    return text.num_beams or model.generation_config.num_beams or 1  # type: ignore[union-attr]


def bits_per_byte_statistics(rows: Sequence[Sequence[float]], pairs: Dataset) -> Statistics:
    """Return of each pair the bits that its reference takes, and its bytes: what models of any tokenizers can be compared by."""
    bits = [
        [nats / math.log(2), len(target.encode())] for (nats, _), target in zip(rows, pairs["target"], strict=True)
    ]
    return statistics_of(bits, lambda total: total[0] / total[1], lower_is_better=True)


def measure_running_text(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: RunningText) -> Measured:
    """Measure the likelihood of a running text.

    Args:
        model: causal.
        tokenizer: the model's own.
        text: encoded by it.
    """
    _begin(model)
    begun = time.monotonic()
    rows = negative_log_likelihood(model, tokenizer, text.blocks)
    took = time.monotonic() - begun
    figures = {"rows": len(rows), **likelihood(rows, size_of(text.documents["text"])), "interval_signature": SIGNATURE}
    speed = {"seconds": round(took, 3), "tokens_per_second": round(figures["tokens"] / took, 1), **_peak(model.device)}
    nll = statistics_of(rows, lambda total: total[0] / max(1.0, total[1]), lower_is_better=True)
    return Measured(figures, {"nll": nll}, None, speed)


def nats_per_token(statistics: Statistics) -> np.ndarray:
    """Of each row, the mean negative log-likelihood of its tokens."""
    return statistics.rows[:, 0] / np.maximum(1.0, statistics.rows[:, 1])


def _begin(model: PreTrainedModel):
    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(model.device)


def _peak(device: torch.device) -> dict[str, int]:
    found = peak_memory(device)
    return {} if found is None else {"peak_memory_bytes": found}
