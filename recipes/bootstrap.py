"""95 % intervals of figures of a text, by the bootstrap: the figure of many texts drawn from the same sentences."""

from collections.abc import Callable
from typing import Any

import numpy as np


# As sacrebleu has them, so that half the width of an interval here is the "±" that sacrebleu prints.
RESAMPLES, SEED = 1000, 12345
SIGNATURE = f"bootstrap|bs:{RESAMPLES}|seed:{SEED}|level:95"


def interval(statistics: Any, figure: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Return the bounds between which 95 % of the figures of resampled texts lie (Koehn, 2004, section 3).

    The smallest and the largest fortieth of them are left out, as `sacrebleu` does. Every figure of a text is resampled with the same
    draws.

    Args:
        statistics: what each sentence adds to the figure, an array of (sentences, numbers).
        figure: of the sum of the statistics, (numbers,).

    Returns:
        The lower and the upper bound. `SIGNATURE` says how they were found.
    """
    statistics = np.asarray(statistics, dtype=np.float64)
    return interval_of_counts(len(statistics), lambda counts: figure(counts @ statistics))


def interval_of_counts(size: int, figure: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Do as `interval`, with the same draws, for a figure that is none of a sum, such as a correlation of ranks.

    Args:
        size: sentences of the text, or rows.
        figure: of how often each of them is drawn, (size,), whole numbers.
    """
    generator = np.random.default_rng(SEED)
    figures = []
    for _ in range(RESAMPLES):
        # How often each sentence is drawn: a text of 100,000 of them needs no 1,000 copies of its statistics.
        drawn = generator.choice(size, size=size, replace=True)
        figures.append(figure(np.bincount(drawn, minlength=size)))
    figures.sort()
    outside = RESAMPLES // 40
    return float(figures[outside]), float(figures[-outside - 1])
