"""The table and the plot of `theatre compare gpt1-ablation`, and what of it agrees with the paper."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Picture

from .bootstrap import SIGNATURE, bounds, draws
from .run_folder import write_json, write_whole
from .task_metrics import Figure


TITLES = {
    "full": "Transformer, auxiliary loss (full)",
    "no-pretraining": "Transformer without pre-training",
    "no-auxiliary-loss": "Transformer without auxiliary loss",
    "lstm": "LSTM, auxiliary loss",
}
# Radford et al., 2018, table 5, in the order of `TITLES`: Matthews for CoLA, Pearson for STS-B, accuracy for SST-2 and RTE.
PAPER = {
    "cola/small": (45.4, 18.9, 47.9, 30.3),
    "sst2/small": (91.3, 84.0, 92.0, 90.5),
    "stsb/small": (82.0, 30.9, 83.2, 71.8),
    "rte/small": (56.0, 53.8, 54.4, 54.6),
}
# What section 5 says of all tasks: the sign of what the full model is better by. Of the auxiliary loss it says nothing of the kind.
_OF_ALL = {"no-pretraining": 1.0, "lstm": 1.0}


@dataclass(frozen=True)
class Cell:
    """A figure of the table, mean over the seeds, and how far the full model is above it, on the same test rows.

    Bounds are those of 95 % intervals, by drawing test rows again; seeds are not drawn.
    """

    recipe: str
    variant: str
    metric: str
    rows: int
    seeds: int
    value: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float

    @classmethod
    def of(
        cls, recipe: str, variant: str, metric: str, rows: int, figures: Sequence[Figure], full: Sequence[Figure]
    ) -> "Cell":
        """Measure a cell.

        Args:
            recipe: its name.
            variant: a key of `TITLES`.
            metric: what the figures are.
            rows: of the test.
            figures: of each seed.
            full: of each seed of the full model.
        """
        value, gain = _mean(figures), _difference(full, figures)
        once = np.ones(rows)
        low, high = bounds([value(drawn) for drawn in draws(rows)])
        gain_low, gain_high = bounds([gain(drawn) for drawn in draws(rows)])
        measured = (value(once), low, high, gain(once), gain_low, gain_high)
        return cls(recipe, variant, metric, rows, len(figures), *measured)

    @property
    def verdict(self) -> str:
        """Whether the sign of the gain is the paper's, as far as the test rows can tell."""
        if self.variant == "full":
            return ""
        paper = paper_gain(self.recipe, self.variant)
        if paper is None:
            return "the paper does not say"
        if self.gain_low <= 0 <= self.gain_high:
            return "undecided"
        return "agrees" if (self.gain > 0) == (paper > 0) else "disagrees"


def _mean(figures: Sequence[Figure]) -> Figure:
    return lambda counts: float(np.mean([figure(counts) for figure in figures]))


def _difference(full: Sequence[Figure], others: Sequence[Figure]) -> Figure:
    return lambda counts: _mean(full)(counts) - _mean(others)(counts)


def paper_gain(recipe: str, variant: str) -> float | None:
    """Points by which the paper's full model is above a variant; where its table lacks the task, the sign that its text gives."""
    if recipe in PAPER:
        return PAPER[recipe][0] - PAPER[recipe][list(TITLES).index(variant)]
    return _OF_ALL.get(variant)


def write_report(folder: Path, cells: Sequence[Cell], *, has_lstm: bool):
    """Write ablation.md, ablation.json and ablation.png, and print the table."""
    text = table(cells, has_lstm=has_lstm)
    print(f"\n{text}")
    write_whole(folder / "ablation.md", text)
    contents = [{**asdict(cell), "paper": paper_figure(cell), "verdict": cell.verdict} for cell in cells]
    write_json(folder / "ablation.json", {"cells": contents, "interval_signature": SIGNATURE})
    plot(cells, folder / "ablation.png")
    print(f"Written to {folder}: ablation.md, ablation.json, ablation.png.")


def paper_figure(cell: Cell) -> float | None:
    """The figure of the paper's table for the same task, of its own splits; None where it has none."""
    row: Any = PAPER.get(cell.recipe)
    return None if row is None else row[list(TITLES).index(cell.variant)]


def table(cells: Sequence[Cell], *, has_lstm: bool) -> str:
    """Lay the comparison out in Markdown."""
    by_place = {(cell.recipe, cell.variant): cell for cell in cells}
    recipes = list(dict.fromkeys(cell.recipe for cell in cells))
    variants = [variant for variant in TITLES if any(cell.variant == variant for cell in cells)]
    first = {recipe: by_place[recipe, "full"] for recipe in recipes}
    heads = [f"{recipe.removesuffix('/small')} ({first[recipe].metric})" for recipe in recipes]
    lines = ["# What pre-training, the auxiliary loss and the Transformer bring", ""]
    lines += [f"| times 100 | mean | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for variant in variants:
        row = [by_place[recipe, variant] for recipe in recipes]
        mean = np.mean([cell.value for cell in row])
        figures = " | ".join(f"{100 * cell.value:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]" for cell in row)
        lines.append(f"| {TITLES[variant]} | {100 * mean:.1f} | {figures} |")
    lines += ["", _about(first.values()), ""]
    lines += ["## What the full model is better by, and what the paper says", ""]
    lines += ["| task | without | points, 95 % interval | in the paper | |", "|---|---|---|---|---|"]
    for variant in variants[1:]:
        for recipe in recipes:
            cell = by_place[recipe, variant]
            paper = paper_gain(recipe, variant)
            said = "-" if paper is None else f"{paper:+.1f}" if recipe in PAPER else "above 0, by its text"
            points = f"{100 * cell.gain:+.1f} [{100 * cell.gain_low:+.1f}, {100 * cell.gain_high:+.1f}]"
            lines.append(f"| {recipe} | {_WITHOUT[variant]} | {points} | {said} | {cell.verdict} |")
    if not has_lstm:
        lines += ["", "The LSTM was not trained: no pre-trained one was given (--pretrained_lstm)."]
    lines += ["", _summary([cell for cell in cells if cell.variant != "full"]), ""]
    return "\n".join(lines)


_WITHOUT = {"no-pretraining": "pre-training", "no-auxiliary-loss": "auxiliary loss", "lstm": "Transformer (LSTM)"}


def _about(firsts: Any) -> str:
    sizes = ", ".join(f"{cell.recipe} {cell.rows:,}" for cell in firsts)
    seeds = max(cell.seeds for cell in firsts)
    return (
        f"Test rows: {sizes}. {'Mean of ' + str(seeds) + ' seeds. ' if seeds > 1 else ''}In brackets 95 % intervals, from drawing "
        f"test rows again ({SIGNATURE}); how far runs with other seeds would differ is not in them."
    )


def _summary(cells: Sequence[Cell]) -> str:
    counts = {word: sum(cell.verdict == word for cell in cells) for word in ("agrees", "disagrees", "undecided")}
    agree, disagree, undecided = (
        f"{count} {one if count == 1 else more}"
        for count, one, more in (
            (counts["agrees"], "agrees", "agree"),
            (counts["disagrees"], "disagrees", "disagree"),
            (counts["undecided"], "is undecided: its", "are undecided: their"),
        )
    )
    return (
        f"Of the signs that the paper gives (Radford et al., 2018, table 5 and section 5), {agree}, {disagree}, and {undecided} "
        "interval holds 0."
    )


def plot(cells: Sequence[Cell], path: Path):
    """Draw a group of bars for each recipe, one for each variant, with the bounds of the intervals."""
    recipes = list(dict.fromkeys(cell.recipe for cell in cells))
    variants = [variant for variant in TITLES if any(cell.variant == variant for cell in cells)]
    picture = Picture(figsize=(2.5 + 1.3 * len(recipes), 4.2), layout="constrained")
    axes = picture.add_subplot()
    width = 0.8 / len(variants)
    for place, variant in enumerate(variants):
        row = [next(cell for cell in cells if (cell.recipe, cell.variant) == (name, variant)) for name in recipes]
        at = np.arange(len(recipes)) + (place - (len(variants) - 1) / 2) * width
        values = 100 * np.array([cell.value for cell in row])
        # A figure may lie outside the interval of resampled rows by a hair.
        sides = [100 * np.array([max(0.0, cell.value - cell.low) for cell in row])]
        sides += [100 * np.array([max(0.0, cell.high - cell.value) for cell in row])]
        axes.bar(at, values, width, yerr=sides, capsize=2, label=TITLES[variant], error_kw={"linewidth": 0.8})
    axes.set_xticks(np.arange(len(recipes)))
    metrics = {cell.recipe: cell.metric for cell in cells}
    axes.set_xticklabels([f"{name.removesuffix('/small')}\n{metrics[name]}" for name in recipes], fontsize=8)
    axes.set_ylabel("test figure, times 100")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, 1.18), ncols=2, frameon=False)
    FigureCanvasAgg(picture)
    picture.savefig(path, dpi=150)
