"""The reproduction contract of a recipe: a published or promised figure, and whether a run reached it."""

from typing import Any


_KEYS = {"metric", "figure", "tolerance", "lower_is_better", "source", "budget"}


def verdict(anchor: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Hold what a run measured against its recipe's anchor.

    Args:
        anchor: `metric` (a key of metrics.json), `figure` (its published value), `tolerance` (how far below it still
            passes; above it where `lower_is_better`), `source` (who published it, how it was scored), `budget`.
        metrics: content of metrics.json.

    Returns:
        One line that begins with PASS or FAIL.

    Raises:
        ValueError: the anchor has an unknown key, or names a metric that was not measured.
    """
    if unknown := set(anchor) - _KEYS:
        raise ValueError(f"anchor: unknown key {min(unknown)!r}; it may have: {', '.join(sorted(_KEYS))}.")
    metric, figure, tolerance = anchor["metric"], float(anchor["figure"]), float(anchor.get("tolerance", 0))
    if metric not in metrics:
        raise ValueError(f"anchor: metric {metric!r} was not measured; measured were: {', '.join(metrics)}.")
    difference = metrics[metric] - figure
    passed = difference <= tolerance if anchor.get("lower_is_better") else difference >= -tolerance
    return (
        f"{'PASS' if passed else 'FAIL'}: {metric} {metrics[metric]:.4g} against {figure:.4g} "
        f"({difference:+.4g}, tolerance {tolerance:.4g}; {anchor['source']})"
    )
