import random
from functools import cache

import pytest

from transformer_theatre.recipes.symbol_error_rate import SymbolErrorRate, edit_distance


def rate(predictions, references):
    found = SymbolErrorRate(keep_in_memory=True).compute(predictions=predictions, references=references)
    return found["symbol_error_rate"]


@cache
def by_definition(a, b):
    if not a or not b:
        return len(a) + len(b)
    changed = by_definition(a[1:], b[1:]) + (a[0] != b[0])
    return min(changed, by_definition(a[1:], b) + 1, by_definition(a, b[1:]) + 1)


def test_the_distance_is_levenshteins():
    rng = random.Random(0)
    for _ in range(100):
        a, b = (tuple(rng.choices("abc", k=rng.randint(0, 7))) for _ in range(2))
        assert edit_distance(a, b) == by_definition(a, b)


def test_errors_are_counted_over_all_symbols_of_the_references():
    """One replaced, one missing, one too many, of 4 + 3 symbols."""
    assert rate(["AA R K EH", "M AH B"], ["AA R D EH", "M AH B"]) == pytest.approx(1 / 7)
    assert rate(["AA R EH", "M AH B B"], ["AA R D EH", "M AH B"]) == pytest.approx(2 / 7)
    assert rate(["", ""], ["AA R D EH", "M AH B"]) == 1


def test_of_several_references_the_nearest_counts():
    known = [["EY", "AH", "EY B AH"], ["R EH D", "R IY D"]]
    assert rate(["AH", "R IY D"], known) == 0
    assert rate(["EY B", "R IY"], known) == pytest.approx(2 / 6)  # of "EY" and "EY B AH", as near, the longer
