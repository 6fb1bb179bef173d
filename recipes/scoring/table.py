"""The figures of an evaluation as a table for a terminal; text from elsewhere cannot move its cursor."""

from collections.abc import Sequence
from typing import Any

from transformer_theatre.recipes.card_results import SHOWN, figure, interval_of, p_value
from transformer_theatre.recipes.card_text import shortened, visible


def table(name: str, record: dict[str, Any]) -> str:
    """Lay out what was found on one text.

    Args:
        name: of the text, such as "test"; empty for files.
        record: of evaluation.json.
    """
    of = f"{record['texts']:,} texts, beam {record['num_beams']}" if "texts" in record else f"{record['rows']:,} rows"
    if "unknown_tokens" in record:
        of += f", {record['unknown_tokens']:,} of {record['tokens']:,} tokens unknown: no figure to compare tokenizers by"
    title = f"{f'{name}: ' if name else ''}{' and '.join(map(visible, record['files']))} ({of})"
    rows = [["", "value", "95 % interval", ""]] + [
        [shown.name, figure(key, record[key]), interval_of(key, record), record.get(f"{key}_signature", "")]
        for key, shown in SHOWN.items()
        if key in record
    ]
    parts = [title, _columns(rows), _speed(record["speed"])]
    if "comparison" in record:
        parts.append(_comparison(record["comparison"]))
    if worst := record.get("worst"):
        parts.append(_worst(worst))
    return "\n\n".join(parts)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place == 1 else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _speed(speed: dict[str, Any]) -> str:
    words = [f"{speed['seconds']:,.1f} seconds"]
    for key, what in (
        ("texts_per_second", "texts"),
        ("output_tokens_per_second", "output tokens"),
        ("tokens_per_second", "tokens"),
    ):
        if key in speed:
            words.append(f"{speed[key]:,.1f} {what} a second")
    if "peak_memory_bytes" in speed:
        words.append(f"{speed['peak_memory_bytes'] / 2**20:,.0f} MiB of memory at most")
    return ", ".join(words)


def _comparison(comparison: dict[str, Any]) -> str:
    rows = [["", "difference", "95 % interval", "this", "baseline", "p"]] + [
        [
            SHOWN[key].name if key in SHOWN else key,
            f"{'+' if row['difference'] >= 0 else ''}{figure(key, row['difference'])}",
            f"{figure(key, row['low'])} to {figure(key, row['high'])}",
            figure(key, row["model"]),
            figure(key, row["baseline"]),
            p_value(row["p_value"]),
        ]
        for key, row in comparison["figures"].items()
    ]
    text = f"Against {visible(comparison['baseline'])}; p: of a difference as large by chance\n\n{_columns(rows)}"
    return f"{text}\n{comparison['note']}" if "note" in comparison else text


def _worst(worst: Sequence[dict[str, Any]]) -> str:
    lines = ["The worst:"]
    for row in worst:
        if "output" not in row:
            lines += [f"  row {row['number']}: {row['nll']:.4f} nats per token: {_text(row['text'])}"]
            continue
        lines += [
            f"  {visible(row['place'])}, chrF2 {row['chrf']:.1f}",
            f"    source     {_text(row['source'])}",
            f"    reference  {_text(row['references'][0])}",
            f"    output     {_text(row['output'])}",
        ]
    return "\n".join(lines)


def _text(text: str) -> str:
    return shortened(visible(text), 160) or "(nothing)"
