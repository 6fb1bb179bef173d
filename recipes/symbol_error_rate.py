"""The phoneme error rate, or the word error rate of running text: edits for each symbol of the reference."""

from collections.abc import Sequence

from .sentence_statistics import Statistics, statistics_of
from .text_metric import References, TextMetric, as_lists


class SymbolErrorRate(TextMetric):
    """Symbols to insert, delete and replace, over those of the references; 0 is right, and above 1 is possible.

    Symbols are what white space parts: of phonemes it is the phoneme error rate, of sentences the word error rate. Of several
    references, a text is held against the nearest (fewest edits, then the longest). `compute` returns `symbol_error_rate`, with
    the bounds of its 95 % interval, `symbol_error_rate_low` and `symbol_error_rate_high`.
    """

    def _compute(self, predictions, references):
        return symbol_error_statistics(predictions, references).scores("symbol_error_rate")


def symbol_error_statistics(predictions: Sequence[str], references: References) -> Statistics:
    """Return edits and symbols of each text, against its nearest reference."""
    counts = []
    for prediction, known in zip(predictions, as_lists(references), strict=True):
        right = [reference.split() for reference in known]
        edits, symbols = min((edit_distance(prediction.split(), row), -len(row)) for row in right)
        counts.append([edits, -symbols])
    return statistics_of(counts, lambda total: total[0] / max(1, total[1]), lower_is_better=True)


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the fewest insertions, deletions and replacements that make one row of symbols the other (Levenshtein, 1966)."""
    distances = list(range(len(b) + 1))  # between the symbols of `a` so far and the first so many of `b`
    for row, symbol in enumerate(a, 1):
        before, distances[0] = distances[0], row
        for place, other in enumerate(b, 1):
            here = distances[place]
            distances[place] = min(before + (symbol != other), here + 1, distances[place - 1] + 1)
            before = here
    return distances[-1]
