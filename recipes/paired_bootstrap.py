"""Whether the difference of two systems on the same texts is real: paired bootstrap resampling (Koehn, 2004, section 4)."""

from typing import Any

import numpy as np

from .bootstrap import RESAMPLES, SEED, bounds, draws
from .sentence_statistics import Statistics


def paired_comparison(model: Statistics, baseline: Statistics) -> dict[str, Any]:
    """Compare two systems by a figure, in texts drawn from the same sentences for both.

    Args:
        model: of the one system.
        baseline: the same figure of the other, of the same texts in the same order.

    Returns:
        `model` and `baseline`, the figures; `difference`, of the first to the second, with `low` and `high`, the bounds of its
        95 % interval; `p_value`, that of sacrebleu's `PairedTest(..., test_type="bs")`, of a difference as large by chance alone;
        `wins`, the share of draws in which the model is better (Koehn's figure); `signature`, as sacrebleu has it.

    Raises:
        ValueError: they are not of the same number of texts.
    """
    return summary(model, baseline, differences(model, baseline))


def differences(model: Statistics, baseline: Statistics) -> np.ndarray:
    """Return the difference in each draw.

    Raises:
        ValueError: the statistics are not of the same number of texts.
    """
    if len(model.rows) != len(baseline.rows):
        raise ValueError(
            f"{len(model.rows)} texts cannot be compared with {len(baseline.rows)}: both must be the same."
        )
    return np.array(
        [model.figure(n @ model.rows) - baseline.figure(n @ baseline.rows) for n in draws(len(model.rows))]
    )


def summary(model: Statistics, baseline: Statistics, drawn: np.ndarray) -> dict[str, Any]:
    """Sum up the differences of all draws; see `paired_comparison`."""
    difference = model.score - baseline.score
    # As sacrebleu, after Moses: how often the size of a difference departs from its mean by more than the real one's.
    sizes = np.abs(drawn)
    by_chance = int((sizes - sizes.mean() > abs(difference)).sum())
    # Of two systems that write the same its formula makes the smallest p there is, as no draw departs by more than nothing.
    chance = (by_chance + 1) / (RESAMPLES + 1) if sizes.any() else 1.0
    better = drawn < 0 if model.lower_is_better else drawn > 0
    low, high = bounds(drawn.tolist())
    return {
        "model": model.score,
        "baseline": baseline.score,
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": chance,
        "wins": float(better.mean()),
        "signature": paired_signature(model.signature),
    }


def paired_signature(signature: str | None) -> str:
    """Say of a signature that the figure was compared by this test, as sacrebleu does."""
    test = f"bs:{RESAMPLES}|seed:{SEED}"
    references, bar, rest = (signature or "paired").partition("|")
    return f"{references}|{test}{bar}{rest}"
