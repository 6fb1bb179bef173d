"""ROUGE (Lin, 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), for summaries of one sentence or a few."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from .sentence_statistics import Statistics, mean_statistics
from .text_metric import References, TextMetric, as_lists


# Letters and digits of any script; the `rouge_score` package takes those of ASCII only, and parts words at all others.
_WORD = re.compile(r"[^\W_]+")


class Rouge(TextMetric):
    """ROUGE-1, ROUGE-2 and ROUGE-L: F-scores of words, of pairs of words and of the longest common subsequence, from 0 to 100.

    Words are lower-cased and not stemmed; what stands between them is dropped. A text takes, of each score, that of its best
    reference, as `rouge_score` does; the score of all texts is the mean. `compute` returns `rouge1`, `rouge2` and `rougeL`, each
    with the bounds of its 95 % interval, `rouge1_low` and `rouge1_high`.
    """

    def _compute(self, predictions, references):
        figures: dict[str, Any] = {}
        for name, statistics in rouge_statistics(predictions, references).items():
            figures |= statistics.scores(name)
        return figures


def rouge_statistics(predictions: Sequence[str], references: References) -> dict[str, Statistics]:
    """Return the statistics of `rouge1`, `rouge2` and `rougeL`: of each text the score of its best reference."""
    texts = [
        (words(text), [*map(words, known)]) for text, known in zip(predictions, as_lists(references), strict=True)
    ]
    return {
        name: mean_statistics([max(score(written, reference) for reference in known) for written, known in texts], 100)
        for name, score in _SCORES.items()
    }


def words(text: str) -> list[str]:
    """Split a text into the words that ROUGE compares."""
    return _WORD.findall(text.lower())


def rouge_n(n: int, prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F-score of the n-grams that two texts share (section 2), from 0 to 1."""
    written, right = (Counter(zip(*(text[i:] for i in range(n)), strict=False)) for text in (prediction, reference))
    return _f_score((written & right).total(), written.total(), right.total())


def rouge_l(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F-score of the longest common subsequence of two texts (section 3.1, beta 1), from 0 to 1."""
    return _f_score(longest_common_subsequence(prediction, reference), len(prediction), len(reference))


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the words of the longest sequence that is in both, in order but with gaps."""
    lengths = [0] * (len(b) + 1)  # of the words of `a` so far and the first so many of `b`
    for word in a:
        before = 0
        for place, other in enumerate(b, 1):
            here = lengths[place]
            lengths[place] = before + 1 if word == other else max(here, lengths[place - 1])
            before = here
    return lengths[-1]


def _f_score(shared: int, written: int, right: int) -> float:
    # The harmonic mean of shared / written and shared / right.
    return 2 * shared / (written + right) if shared else 0.0


_SCORES: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "rouge1": lambda prediction, reference: rouge_n(1, prediction, reference),
    "rouge2": lambda prediction, reference: rouge_n(2, prediction, reference),
    "rougeL": rouge_l,
}
