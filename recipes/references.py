"""Rows of the same source, put together into one text with several references."""

from datasets import Dataset


def texts_and_references(rows: Dataset, group: bool) -> tuple[list[str], list[str] | list[list[str]]]:
    """Return the sources of a test set, each with its reference, or its references.

    Args:
        rows: columns `source` and `target`.
        group: rows of the same source are one text, at the place of the first of them; its references are their targets in order,
            each once.
    """
    if not group:
        return rows["source"][:], rows["target"][:]
    references: dict[str, dict[str, None]] = {}
    for source, target in zip(rows["source"], rows["target"], strict=True):
        references.setdefault(source, {})[target] = None
    return list(references), [list(targets) for targets in references.values()]
