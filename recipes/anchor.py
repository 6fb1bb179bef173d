"""The reproduction contract of a recipe: a published or promised figure, and whether a run reached it."""

from typing import Any


_NEEDED = {"metric", "figure", "source"}
_KEYS = _NEEDED | {"tolerance", "lower_is_better", "budget"}


def check_anchor(anchor: Any, place: str):
    """Make sure that a recipe's anchor can be held against a run.

    Args:
        anchor: the block of the recipe.
        place: file and line, for messages.

    Raises:
        ValueError: a key is unknown or missing, or a figure is no number.
    """
    if not isinstance(anchor, dict) or not anchor.keys() >= _NEEDED or anchor.keys() - _KEYS:
        raise ValueError(
            f"{place}: anchor must have the keys {', '.join(sorted(_NEEDED))}, and may have "
            f"{', '.join(sorted(_KEYS - _NEEDED))}; it is {str(anchor)[:80]!r}."
        )
    for key in ("figure", "tolerance"):
        if not isinstance(anchor.get(key, 0), (int, float)):
            raise ValueError(f"{place}: anchor: {key}={anchor[key]!r} must be a number.")


def verdict(anchor: dict[str, Any], metrics: dict[str, Any]) -> str:
    """Hold what a run measured against its recipe's anchor.

    Args:
        anchor: `metric` (a key of metrics.json), `figure` (its published value), `tolerance` (how far below it still
            passes; above it where `lower_is_better`), `source` (who published it, how it was scored), `budget`.
        metrics: content of metrics.json.

    Returns:
        One line that begins with PASS or FAIL, or with NOT MEASURED where the run has no such metric.
    """
    metric, figure, tolerance = anchor["metric"], float(anchor["figure"]), float(anchor.get("tolerance", 0))
    if metric not in metrics:
        return f"NOT MEASURED: {metric} (against {figure:.4g}; {anchor['source']})"
    difference = metrics[metric] - figure
    passed = difference <= tolerance if anchor.get("lower_is_better") else difference >= -tolerance
    return (
        f"{'PASS' if passed else 'FAIL'}: {metric} {metrics[metric]:.4g} against {figure:.4g} "
        f"({difference:+.4g}, tolerance {tolerance:.4g}; {anchor['source']})"
    )
