"""The metrics of GPT-1's tables, with 95 % intervals, as `evaluate` modules that work without a network.

Each is a function of how often every row counts: the figure counts each once, its interval (`bootstrap`) as often as it is drawn,
so that a resampled correlation of ranks is that of the resampled rows, with ranks of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .bootstrap import SIGNATURE, bounds, draws


# Of how often each row counts, (rows,).
Figure = Callable[[np.ndarray], float]


class TaskMetric(evaluate.Metric):
    """Predictions against their references, a number each; `compute` returns the figure, and the bounds of its interval."""

    key = ""
    kind = "int32"

    def _info(self):
        number = datasets.Value(self.kind)
        features = datasets.Features({"predictions": number, "references": number})
        return evaluate.MetricInfo(description=type(self).__doc__, citation="", features=features)

    def _compute(self, predictions, references):
        size, figure = len(predictions), self.figure(np.asarray(predictions), np.asarray(references))
        low, high = bounds([figure(drawn) for drawn in draws(size)])
        return {self.key: figure(np.ones(size)), f"{self.key}_low": low, f"{self.key}_high": high}

    @staticmethod
    def figure(predictions: np.ndarray, references: np.ndarray) -> Figure:
        """Prepare the figure of rows, (rows,) each, to be asked for any counts of them."""
        raise NotImplementedError


class Accuracy(TaskMetric):
    """Share of rows whose class, or answer, is right, from 0 to 1: `accuracy`, `accuracy_low`, `accuracy_high`."""

    key = "accuracy"

    @staticmethod
    def figure(predictions: np.ndarray, references: np.ndarray) -> Figure:
        """Prepare the share."""
        right = (predictions == references).astype(float)
        return lambda counts: float(counts @ right / counts.sum())


class F1(TaskMetric):
    """Harmonic mean of precision and recall, from 0 to 1, of class 1 where there are two; of more, the mean over the classes.

    Classes are those that are predicted or there, as in scikit-learn; one that is so in no row that is drawn has 0.
    """

    key = "f1"

    @staticmethod
    def figure(predictions: np.ndarray, references: np.ndarray) -> Figure:
        """Prepare the mean."""
        predicted, right = _one_hot(predictions, references)
        both = predicted * right
        classes = np.array([1]) if predicted.shape[1] == 2 else np.flatnonzero((predicted + right).any(0))

        def f1(counts: np.ndarray) -> float:
            hits, sums = 2 * (counts @ both), counts @ (predicted + right)
            return float(np.divide(hits, sums, out=np.zeros_like(hits), where=sums > 0)[classes].mean())

        return f1


class MatthewsCorrelation(TaskMetric):
    """Correlation of classes, from -1 to 1 (Matthews, 1975; of more than two classes Gorodkin, 2004, equation 8).

    0 where all rows are predicted, or are, of one class: then nothing can be told apart.
    """

    key = "matthews_correlation"

    @staticmethod
    def figure(predictions: np.ndarray, references: np.ndarray) -> Figure:
        """Prepare the correlation."""
        predicted, right = _one_hot(predictions, references)
        hit = (predictions == references).astype(float)

        def matthews(counts: np.ndarray) -> float:
            total, p, t = counts.sum(), counts @ predicted, counts @ right
            spread = (total**2 - p @ p) * (total**2 - t @ t)
            return float((counts @ hit * total - p @ t) / np.sqrt(spread)) if spread > 0 else 0.0

        return matthews


class PearsonR(TaskMetric):
    """Pearson's correlation of numbers, from -1 to 1; 0 where either side is one number: then nothing varies."""

    key = "pearsonr"
    kind = "float64"

    @staticmethod
    def figure(predictions: np.ndarray, references: np.ndarray) -> Figure:
        """Prepare the correlation."""
        x, y = predictions.astype(float), references.astype(float)
        return lambda counts: _correlation(x, y, counts)


class SpearmanR(TaskMetric):
    """Spearman's correlation: Pearson's of the ranks, equal numbers sharing the mean of theirs; 0 where either side is one number."""

    key = "spearmanr"
    kind = "float64"

    @staticmethod
    def figure(predictions: np.ndarray, references: np.ndarray) -> Figure:
        """Prepare the correlation."""
        x, y = (np.unique(side, return_inverse=True)[1] for side in (predictions, references))
        return lambda counts: _correlation(_ranks(x, counts), _ranks(y, counts), counts)


def _one_hot(predictions: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spread classes over columns, at least two of them: (rows, classes) each."""
    classes = max(2, 1 + int(max(predictions.max(), references.max())))
    return np.eye(classes)[predictions], np.eye(classes)[references]


def _ranks(places: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rank rows, each of which counts as often as it is drawn; `places` number the distinct values in order."""
    drawn = np.bincount(places, weights=counts)
    return (np.cumsum(drawn) - (drawn - 1) / 2)[places]


def _correlation(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> float:
    total = counts.sum()
    x, y = x - counts @ x / total, y - counts @ y / total
    spread = (counts @ x**2) * (counts @ y**2)
    # Rounding leaves numbers that are all the same a little apart.
    return float(counts @ (x * y) / np.sqrt(spread)) if spread > 1e-24 * total**2 else 0.0


CLASS_METRICS: dict[str, type[TaskMetric]] = {kind.key: kind for kind in (Accuracy, F1, MatthewsCorrelation)}
NUMBER_METRICS: dict[str, type[TaskMetric]] = {kind.key: kind for kind in (PearsonR, SpearmanR)}
TASK_METRICS = {**CLASS_METRICS, **NUMBER_METRICS}


def score_answers(predictions: Sequence[float], references: Sequence[float], metrics: Sequence[str]) -> dict[str, Any]:
    """Compute metrics of classes, answers or numbers, each with the bounds of its interval.

    Args:
        predictions: of each row, a class or answer, from 0, or a number.
        references: of each row.
        metrics: names of `TASK_METRICS`.

    Raises:
        ValueError: there are no rows, or not as many predictions as references.
    """
    if not len(references) or len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions cannot be scored against {len(references)} references.")
    scores: dict[str, Any] = {}
    for name in metrics:
        found = TASK_METRICS[name](keep_in_memory=True).compute(predictions=predictions, references=references)
        scores |= found or {}
    return scores | {"interval_signature": SIGNATURE}
