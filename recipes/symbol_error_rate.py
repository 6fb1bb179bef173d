"""The phoneme error rate, or the word error rate of running text: edits for each symbol of the reference."""

from collections.abc import Sequence

from .text_metric import TextMetric, as_lists


class SymbolErrorRate(TextMetric):
    """Symbols to insert, delete and replace, over those of the references; 0 is right, and above 1 is possible.

    Symbols are what white space parts: of phonemes it is the phoneme error rate, of sentences the word error rate. Of several
    references, a text is held against the nearest (fewest edits, then the longest). `compute` returns `symbol_error_rate`.
    """

    def _compute(self, predictions, references):
        edits = symbols = 0
        for prediction, known in zip(predictions, as_lists(references), strict=True):
            right = [reference.split() for reference in known]
            nearest = min((edit_distance(prediction.split(), row), -len(row)) for row in right)
            edits, symbols = edits + nearest[0], symbols - nearest[1]
        return {"symbol_error_rate": edits / symbols}


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
