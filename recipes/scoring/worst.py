"""The texts that a model is worst at, with their places, so that somebody looks at them."""

from typing import Any

import numpy as np
import sacrebleu
from transformers import PreTrainedTokenizerBase

from transformer_theatre.recipes.sentence_statistics import Statistics
from transformer_theatre.recipes.text_metric import as_lists

from .measure import nats_per_token
from .texts import PairText, RunningText


def sentence_chrf(outputs: list[str], text: PairText) -> list[float]:
    """Score each output by itself, as sacrebleu does."""
    metric = sacrebleu.metrics.CHRF()
    return [
        metric.sentence_score(output, known).score
        for output, known in zip(outputs, as_lists(text.references), strict=True)
    ]


def worst_outputs(outputs: list[str], text: PairText, scores: list[float], most: int) -> list[dict[str, Any]]:
    """Return the outputs of the lowest chrF2, but for those that are right: `place` (file and line), `number` (from 1), `chrf`, `source`, `references`, `output`.

    Args:
        outputs: of each text.
        text: that they are of.
        scores: of each, by `sentence_chrf`.
        most: how many.
    """
    references = as_lists(text.references)
    wrong = [row for row, output in enumerate(outputs) if output not in references[row]]
    order = sorted(wrong, key=lambda row: (scores[row], row))[:most]
    return [
        {
            "place": text.texts[row]["origin"],
            "number": row + 1,
            "chrf": scores[row],
            "source": text.texts[row]["source"],
            "references": references[row],
            "output": outputs[row],
        }
        for row in order
    ]


def worst_rows_of_text(
    text: RunningText, nll: Statistics, tokenizer: PreTrainedTokenizerBase, most: int
) -> list[dict[str, Any]]:
    """Return the rows of a running text that a model finds least likely: `number` (from 1), `nll` (nats per token), `text`."""
    values = nats_per_token(nll)
    return [
        {
            "number": int(row) + 1,
            "nll": float(values[row]),
            "text": str(tokenizer.decode(text.blocks[int(row)]["input_ids"])),
        }
        for row in np.argsort(-values, kind="stable")[:most]
    ]
