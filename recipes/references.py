"""Test pairs of the same source, put together into one text with several references."""

from datasets import Dataset

from .text_metric import References


def group_references(pairs: Dataset) -> Dataset:
    """Put the pairs of each source together, at the place of the first of them.

    Args:
        pairs: columns `source`, `target` and others.

    Returns:
        The first row of every source, with one more column, `references`: its targets in order, each once.
    """
    first: dict[str, int] = {}
    known: dict[str, dict[str, None]] = {}
    for row, (source, target) in enumerate(zip(pairs["source"], pairs["target"], strict=True)):
        first.setdefault(source, row)
        known.setdefault(source, {})[target] = None
    return pairs.select(list(first.values())).add_column("references", [list(targets) for targets in known.values()])


def references_of(test: Dataset) -> References:
    """Return the references of each text of a test set: a list of each where they are grouped, else one."""
    return test["references" if "references" in test.column_names else "target"][:]
