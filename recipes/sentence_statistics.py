"""What each text adds to a figure: of this a score is made, its interval, its comparison with another, and its parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import sacrebleu

from .bootstrap import interval


@dataclass(frozen=True)
class Statistics:
    """A figure of a corpus that is a function of sums over its texts.

    Args:
        rows: what each text adds, (texts, numbers).
        figure: of the sum of rows.
        signature: what makes the figure comparable, if there is more to say than its name.
        lower_is_better: whether less of it is better.
    """

    rows: np.ndarray
    figure: Callable[[np.ndarray], float]
    signature: str | None = None
    lower_is_better: bool = False

    @property
    def score(self) -> float:
        """The figure of all texts."""
        return float(self.figure(self.rows.sum(0)))

    def of(self, texts: np.ndarray) -> "Statistics":
        """Return the statistics of some of the texts, by their numbers or a mask."""
        return replace(self, rows=self.rows[texts])

    def scores(self, name: str) -> dict[str, Any]:
        """Return the figure under a name, with the bounds of its 95 % interval and its signature."""
        low, high = interval(self.rows, self.figure)
        found = {name: self.score, f"{name}_low": low, f"{name}_high": high}
        return found if self.signature is None else {**found, f"{name}_signature": self.signature}


def statistics_of(
    rows: Sequence[Sequence[float]],
    figure: Callable[[np.ndarray], float],
    signature: str | None = None,
    *,
    lower_is_better: bool = False,
) -> Statistics:
    """Make statistics of what each text adds."""
    return Statistics(np.asarray(rows, dtype=np.float64), figure, signature, lower_is_better)


def mean_statistics(
    values: Sequence[float], factor: float = 1.0, signature: str | None = None, *, lower_is_better: bool = False
) -> Statistics:
    """Make statistics of a figure that is the mean of a value of each text, times a factor."""
    # The number of texts is a sum too, so that a part of them has its own mean.
    rows = [[value, 1.0] for value in values]
    return statistics_of(rows, lambda total: factor * total[0] / total[1], signature, lower_is_better=lower_is_better)


def sacrebleu_statistics(
    metric: sacrebleu.metrics.base.Metric, predictions: Sequence[str], streams: Sequence[Sequence[Any]]
) -> Statistics:
    """Take the statistics that sacrebleu makes, with its signature of the score.

    Args:
        metric: of sacrebleu.
        predictions: texts.
        streams: references, as sacrebleu wants them.
    """
    rows = metric._extract_corpus_statistics(predictions, streams)
    return statistics_of(
        rows,
        lambda total: metric._compute_score_from_stats(total.tolist()).score,
        str(metric.get_signature()),
        lower_is_better=isinstance(metric, sacrebleu.metrics.TER),
    )
