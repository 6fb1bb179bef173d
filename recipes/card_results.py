"""The figures of a model card: each with its interval and with what makes it comparable."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .card_text import escape, shortened


@dataclass(frozen=True)
class Shown:
    """How a figure is shown.

    Args:
        name: in words.
        how: what it was measured by; `{x}` is the figure's `_x` beside it, such as its signature.
        percent: it is a share.
        hub: the Hub's name of the metric; None: it is no part of the metadata.
    """

    name: str
    how: str
    percent: bool = False
    hub: str | None = None


# By the name of a figure, without that of the text it is of; the card has them in this order.
SHOWN = {
    "bleu": Shown("BLEU", "{signature}", hub="bleu"),
    "bleu_lowercase": Shown("BLEU, lower-cased", "{signature}"),
    "bleu_moses_lowercase": Shown("BLEU, lower-cased, in the tokens of Moses", "{signature}"),
    "chrf": Shown("chrF2", "{signature}", hub="chrf"),
    "ter": Shown("TER", "lower is better: {signature}", hub="ter"),
    "comet": Shown("COMET", "{signature}", hub="comet"),
    "accuracy": Shown("accuracy, %", "share of right answers", percent=True, hub="accuracy"),
    "f1": Shown("F1, %", "of class 1, or mean over more than two classes", percent=True, hub="f1"),
    "matthews_correlation": Shown("Matthews correlation", "from -1 to 1", hub="matthews_correlation"),
    "pearsonr": Shown("Pearson's correlation", "from -1 to 1", hub="pearsonr"),
    "spearmanr": Shown("Spearman's rank correlation", "from -1 to 1", hub="spearmanr"),
    "exact_match": Shown("exact match, %", "share of outputs that equal a reference", percent=True, hub="exact_match"),
    "rouge1": Shown("ROUGE-1", "F-score of words, best reference, no stemming", hub="rouge"),
    "rouge2": Shown("ROUGE-2", "the same of pairs of words", hub="rouge"),
    "rougeL": Shown("ROUGE-L", "the same of the longest common subsequence", hub="rouge"),
    "symbol_error_rate": Shown(
        "symbol error rate, %", "edits per symbol of the nearest reference; lower is better", percent=True, hub="wer"
    ),
    "perplexity": Shown("perplexity", "per token, without label smoothing; lower is better", hub="perplexity"),
    "nll": Shown("negative log-likelihood", "nats per token, without label smoothing; lower is better"),
    "bits_per_byte": Shown("bits per byte", "of text, whatever the tokenizer; lower is better", hub="bits_per_byte"),
    "bits_per_character": Shown("bits per character", "of text, whatever the tokenizer; lower is better"),
}
# What holds a capital letter of a reference against a model that writes none.
CASED = ("bleu", "chrf", "ter", "comet", "exact_match", "symbol_error_rate")
# How outputs were searched for.
_SEARCH = {"num_beams": "beam", "alpha": "alpha"}
# Key of metrics.json -> what it was measured on.
SETS = {"test": "test", "eval": "validation"}


def figures_of(metrics: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Take from a flat object what was measured on one text: "test_bleu" is the "bleu" of prefix "test"."""
    return {key.removeprefix(f"{prefix}_"): value for key, value in metrics.items() if key.startswith(f"{prefix}_")}


def result_rows(figures: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lay out the figures of one text as rows of a table: name, value, interval, how; only those that there are."""
    rows = []
    for key, shown in SHOWN.items():
        if key not in figures:
            continue
        how = shown.how.format_map(_Beside(figures, key))
        search = ", ".join(f"{word} {figures[name]}" for name, word in _SEARCH.items() if name in figures)
        rows.append(
            {
                "name": escape(shown.name),
                "value": figure(key, figures[key]),
                "interval": interval_of(key, figures),
                "how": escape(f"{how}; {search}" if search and _is_search(key) else how),
            }
        )
    return rows


class _Beside(dict):
    """What stands beside a figure: "signature" is its "bleu_signature"."""

    def __init__(self, figures: Mapping[str, Any], key: str):
        super().__init__({name.removeprefix(f"{key}_"): v for name, v in figures.items() if name.startswith(key)})

    def __missing__(self, key: str) -> str:
        return "not known"


def _is_search(key: str) -> bool:
    return key in ("bleu", "bleu_lowercase", "bleu_moses_lowercase", "chrf", "ter", "comet", "exact_match") or (
        key.startswith("rouge") or key == "symbol_error_rate"
    )


def figure(key: str, value: float) -> str:
    """Write a figure with the digits that people read; a share in percent."""
    if key in SHOWN and SHOWN[key].percent:
        return f"{100 * value:.2f}"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"


def interval_of(key: str, figures: Mapping[str, Any]) -> str:
    """Write the bounds of a figure; nothing where there are none."""
    bounds = [figures[f"{key}_{side}"] for side in ("low", "high") if f"{key}_{side}" in figures]
    return " to ".join(figure(key, bound) for bound in bounds)


def comparison_rows(comparison: Mapping[str, Any]) -> list[dict[str, str]]:
    """Lay out a paired comparison, as evaluation.json has it, as rows of a table."""
    return [
        {
            "name": escape(SHOWN[key].name if key in SHOWN else key),
            "model": figure(key, row["model"]),
            "baseline": figure(key, row["baseline"]),
            "difference": f"{'+' if row['difference'] >= 0 else ''}{figure(key, row['difference'])}",
            "interval": " to ".join(figure(key, row[side]) for side in ("low", "high")),
            "p": p_value(row["p_value"]),
            "signature": escape(row["signature"]),
        }
        for key, row in comparison["figures"].items()
    ]


def p_value(p: float) -> str:
    """Write the probability of a difference by chance."""
    return f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def worst_rows(worst: Sequence[Mapping[str, Any]], most: int = 5) -> list[dict[str, str]]:
    """Lay out the outputs that are farthest from their references, the worst first."""
    return [
        {
            "place": escape(row["place"]),
            "chrf": f"{row['chrf']:.1f}",
            "source": escape(shortened(row["source"])),
            "reference": escape(shortened(row["references"][0])),
            "output": escape(shortened(row["output"])) or "(nothing)",
        }
        for row in worst[:most]
        if "chrf" in row
    ]
