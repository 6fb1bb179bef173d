"""Pictures of an evaluation: the score by length, the scores of single texts, and whether a difference is real.

Only the font that comes with matplotlib is used, and no display.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from transformer_theatre.recipes.attention_picture import save_picture
from transformer_theatre.recipes.card_results import SHOWN, figure, p_value
from transformer_theatre.recipes.card_text import shortened, visible


_MODEL, _BASELINE = "#1f5fa8", "#d9822b"


def draw_by_length(found: dict[str, Any], names: Sequence[str], path: Path):
    """Draw a figure by length, with intervals, and that of a baseline beside it.

    Args:
        found: of `by_length`.
        names: of the model, and of the baseline if there is one.
        path: ends in ".png".
    """
    groups = found["groups"]
    places = np.arange(len(groups))
    with _style():
        drawn, axes = _axes(max(6.0, 0.95 * len(groups) + 2))
        sides = [("value", "", _MODEL, "o"), ("baseline", "baseline_", _BASELINE, "s")][: len(names)]
        for (key, side, colour, marker), name, shift in zip(
            sides, names, (0, 0) if len(names) == 1 else (-0.08, 0.08), strict=False
        ):
            values = np.array([_shown(found["metric"], group[key]) for group in groups])
            bounds = np.array(
                [[_shown(found["metric"], group[f"{side}{end}"]) for group in groups] for end in ("low", "high")]
            )
            errors = np.abs(bounds - values)
            axes.errorbar(
                places + shift,
                values,
                errors,
                color=colour,
                marker=marker,
                capsize=3,
                linewidth=1.5,
                label=_name(name),
            )
        labels = [str(g["from"]) if g["from"] == g["to"] else f"{g['from']}\u2013{g['to']}" for g in groups]
        axes.set_xticks(places, [f"{label}\n{g['texts']:,}" for label, g in zip(labels, groups, strict=True)])
        axes.set(
            xlabel=f"length of the reference, {found['unit']}; below it, number of texts",
            ylabel=_title(found["metric"]),
        )
        axes.set_title(f"{_title(found['metric'])} by length, with 95 % intervals")
        if len(names) > 1:
            axes.legend(frameon=False)
        save_picture(drawn, path)


def draw_texts(values: Sequence[float], what: str, worst: str, path: Path):
    """Draw how often single texts have which score.

    Args:
        values: of each text.
        what: they are.
        worst: "left" or "right": where the worst are.
        path: ends in ".png".
    """
    with _style():
        drawn, axes = _axes(6.5)
        axes.hist(values, bins=min(40, max(5, len(values) // 5)), color=_MODEL, edgecolor="white", linewidth=0.5)
        middle = float(np.median(values))
        axes.axvline(middle, color="black", linewidth=1, linestyle="--")
        axes.annotate(
            f"median {middle:.3g}",
            (middle, 1),
            xycoords=("data", "axes fraction"),
            xytext=(4, -12),
            textcoords="offset points",
        )
        axes.set(xlabel=f"{what} (worst: {worst})", ylabel="texts", title=f"Single texts: {what}")
        save_picture(drawn, path)


def draw_difference(name: str, row: dict[str, Any], drawn_differences: np.ndarray, baseline: str, path: Path):
    """Draw the difference of two systems in texts drawn from the same sentences, beside none at all.

    Args:
        name: of the figure.
        row: what `paired_comparison` says of it.
        drawn_differences: in each draw.
        baseline: its name.
        path: ends in ".png".
    """
    with _style():
        drawn, axes = _axes(6.5)
        values = np.array([_shown(name, value) for value in drawn_differences])
        spread = float(np.ptp(values))
        axes.hist(values, bins=40 if spread > 0 else 1, color=_MODEL, edgecolor="white", linewidth=0.5)
        axes.axvline(0, color="black", linewidth=1.2)
        axes.axvline(_shown(name, row["difference"]), color=_BASELINE, linewidth=2)
        low, high = (_shown(name, row[side]) for side in ("low", "high"))
        axes.axvspan(low, high, color=_BASELINE, alpha=0.15, zorder=0)
        sign = "+" if row["difference"] >= 0 else ""
        axes.set_title(
            f"{_title(name)} minus that of {_name(baseline)}:\n{sign}{figure(name, row['difference'])}, p = {p_value(row['p_value'])}"
        )
        axes.set(xlabel="difference (shaded: 95 % interval; black: none)", ylabel="texts drawn, of 1,000")
        save_picture(drawn, path)


def _style():
    # The defaults, whatever the user's matplotlibrc says of fonts or TeX.
    return matplotlib.style.context(
        ["default", {"axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}]
    )


def _axes(width: float) -> tuple[Figure, Axes]:
    drawn = Figure(figsize=(width, 4.2), layout="constrained")
    axes = drawn.add_subplot()
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.set_axisbelow(True)
    return drawn, axes


def _title(metric: str) -> str:
    return SHOWN[metric].name if metric in SHOWN else metric


def _name(text: str) -> str:
    return shortened(visible(text), 40)


def _shown(metric: str, value: float) -> float:
    return 100 * value if metric in SHOWN and SHOWN[metric].percent else value
