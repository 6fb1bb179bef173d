"""A figure by the length of the texts: translators of the LSTM's days grew worse with it (Cho et al., 2014)."""

import statistics as middle
from collections.abc import Sequence
from typing import Any

import numpy as np

from transformer_theatre.recipes.bootstrap import interval
from transformer_theatre.recipes.sentence_statistics import Statistics
from transformer_theatre.recipes.text_metric import References, as_lists


# Groups of as many texts as can be had, of at least so many: the interval of fewer says nothing.
GROUPS, LEAST = 8, 20


def lengths_of(references: References) -> tuple[list[int], str]:
    """Count the words of the first reference of each text, or its characters where no white space parts words.

    Returns:
        The lengths, and their unit.
    """
    first = [known[0] for known in as_lists(references)]
    words = [len(text.split()) for text in first]
    return (words, "words") if middle.median(words) > 1 else ([len(text) for text in first], "characters")


def groups_of(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Part lengths into neighbouring groups, each with about as many texts and no fewer than `LEAST`: the first and last length of each."""
    ordered = np.sort(np.asarray(lengths))
    count = max(1, min(GROUPS, len(ordered) // LEAST))
    # The last length of each group: a length is in one group only.
    ends = sorted({int(ordered[round((number + 1) * len(ordered) / count) - 1]) for number in range(count)})
    kept, counted = [], 0
    for end in ends:
        upto = int(np.searchsorted(ordered, end, "right"))
        if upto - counted >= LEAST:
            kept.append(end)
            counted = upto
    # What is too few for a group has gone to the next; at the end, it goes to the one before.
    ends = [*kept[:-1], ends[-1]]
    starts = [int(ordered[0]), *(int(ordered[ordered > end][0]) for end in ends[:-1])]
    return list(zip(starts, ends, strict=True))


def by_length(
    name: str, model: Statistics, references: References, baseline: Statistics | None = None
) -> dict[str, Any]:
    """Score the texts of each group of lengths.

    Args:
        name: of the figure.
        model: its statistics.
        references: of the texts.
        baseline: of another system, to stand beside it.

    Returns:
        `metric`, `unit` of the lengths, and `groups`: of each `from` and `to` (lengths), `texts`, `value`, `low` and `high` (its 95 %
        interval), and `baseline` with `baseline_low` and `baseline_high`.
    """
    lengths, unit = lengths_of(references)
    groups = []
    for first, last in groups_of(lengths):
        inside = (np.asarray(lengths) >= first) & (np.asarray(lengths) <= last)
        group: dict[str, Any] = {"from": first, "to": last, "texts": int(inside.sum())}
        for key, one in (("value", model), ("baseline", baseline)):
            if one is not None:
                part, side = one.of(inside), "" if key == "value" else "baseline_"
                low, high = interval(part.rows, part.figure)
                group |= {key: part.score, f"{side}low": low, f"{side}high": high}
        groups.append(group)
    return {"metric": name, "unit": unit, "groups": groups}
