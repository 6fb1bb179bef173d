"""95 % intervals of figures of a text, by the bootstrap: the figure of many texts drawn from the same sentences."""

from collections.abc import Callable, Iterator, Sequence
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
    return bounds([figure(drawn @ statistics) for drawn in draws(len(statistics))])


def draws(sentences: int) -> Iterator[np.ndarray]:
    """Yield how often each of a number of sentences is in each of the texts that are drawn, always the same ones."""
    generator = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        # How often: a text of 100,000 sentences needs no 1,000 copies of its statistics.
        drawn = generator.choice(sentences, size=sentences, replace=True)
        yield np.bincount(drawn, minlength=sentences)


def bounds(figures: Sequence[float]) -> tuple[float, float]:
    """Leave out the smallest and the largest fortieth of figures, and return the smallest and the largest of the others."""
    outside, ordered = len(figures) // 40, sorted(figures)
    return float(ordered[outside]), float(ordered[-outside - 1])
