"""The training, validation and test rows of a task, as its recipe names them, with numbered labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .bad_lines import BadLines
from .data_arguments import SPLITS, split_of_dataset
from .task_arguments import TaskDataArguments
from .task_kinds import TASKS, columns_of
from .task_metrics import CLASS_METRICS, NUMBER_METRICS
from .task_rows import (
    RawRow,
    RowFormat,
    class_names,
    load_rows,
    number_answers,
    number_classes,
    read_rows,
    scores,
    split_off,
)


@dataclass(frozen=True)
class TaskSplits:
    """The rows of a task.

    Args:
        rows: name of each split that there is -> its rows: the texts, as the task's encoder wants them, `label` and `origin`.
        names: of the classes; none where labels are numbers, or answers.
        question_words: question -> the word that stands behind the context; none where there are no questions.
    """

    rows: dict[str, Dataset]
    names: list[str]
    question_words: dict[str, str]


def answers_with(task: str, data: TaskDataArguments) -> str:
    """Say what the labels of a task are: "classes", "numbers" or "answers"."""
    if task == "multiple_choice":
        return "answers"
    return "numbers" if task == "similarity" and not data.labels else "classes"


def metrics_of(task: str, data: TaskDataArguments) -> list[str]:
    """Name the metrics of a task, the one that chooses among checkpoints first.

    Raises:
        ValueError: one that is asked for cannot be measured on such labels.
    """
    numbers = answers_with(task, data) == "numbers"
    possible = NUMBER_METRICS if numbers else CLASS_METRICS
    if wrong := [name for name in data.metrics if name not in possible]:
        kind = answers_with(task, data)
        raise ValueError(f"metrics: {wrong[0]!r} is not of {kind}, which have: {', '.join(possible)}.")
    return data.metrics or (list(NUMBER_METRICS) if numbers else ["accuracy"])


def row_format(task: str, data: TaskDataArguments) -> RowFormat:
    """Say where the texts of a row stand.

    Raises:
        ValueError: there are more of them, or fewer, than the task reads; or an option is none of the task's.
    """
    names = TASKS[task].texts
    texts = data.text_fields or ([] if task == "multiple_choice" else list(names))
    least, most = (3, 1000) if task == "multiple_choice" else (len(names), len(names))
    if not least <= len(texts) <= most:
        what = "the context, and two answers or more" if task == "multiple_choice" else " and ".join(names)
        raise ValueError(f"text_fields={' '.join(texts)} must name what task {task} reads: {what}.")
    if data.label_field in texts:
        raise ValueError(
            f"label_field={data.label_field} is one of text_fields={' '.join(texts)}: the answer would be read."
        )
    if data.question_field and task != "multiple_choice":
        raise ValueError(f"question_field={data.question_field} is for task multiple_choice, and this is {task}.")
    if data.labels and task == "multiple_choice":
        raise ValueError(f"labels={' '.join(data.labels)} are for classes, and task multiple_choice has answers.")
    words = dict(pair.split("=", 1) for pair in data.question_words)
    return RowFormat(tuple(texts), data.label_field, data.question_field, words)


def read_splits(task: str, data: TaskDataArguments, names: Sequence[str] = ()) -> TaskSplits:
    """Read the rows that the arguments name.

    Args:
        task: a key of `task_kinds.TASKS`.
        data: of the recipe.
        names: of the classes, where a model has them already.

    Raises:
        ValueError: there is nothing to train on, a file is wrong, or a row is bad; the message names file and line.
    """
    form = row_format(task, data)
    raw: dict[str, list[RawRow]] = {}
    found: list[str] | None = None
    for split in SPLITS:
        rows, named = _read(data, split, form)
        found = found or named
        if rows is not None:
            raw[split] = rows
    if "train" not in raw:
        raise ValueError("There is nothing to train on: give train_file, or dataset.")
    known: list[str] = []
    if answers_with(task, data) == "classes":
        known = list(names) or data.labels or found or class_names(raw["train"])
        if found and known != found and sorted(known) == sorted(found):
            raise ValueError(
                f"labels={' '.join(known)}: the data set has them in another order, {' '.join(found)}, by which its rows are numbered."
            )
    splits = {split: _numbered(rows, task, data, known) for split, rows in raw.items()}
    if known and len(classes := set(splits["train"]["label"])) < 2:
        raise ValueError(f"All training rows have the label {known[classes.pop()]!r}: there is nothing to tell apart.")
    return TaskSplits(_with_shares(splits, task, data), known, form.question_words or {})


def _read(data: TaskDataArguments, split: str, form: RowFormat) -> tuple[list[RawRow] | None, list[str] | None]:
    """Read a split, if it is named, and what its data set calls the classes."""
    bad = BadLines(data.bad_lines, "rows")
    if name := split_of_dataset(data, split):
        return load_rows(str(data.dataset), name, form, bad, data.dataset_config)
    files = getattr(data, f"{split}_file")
    if not files:
        return None, None
    root = Path(data.data_dir or ".")
    return read_rows([root / file for file in ([files] if isinstance(files, str) else files)], form, bad), None


def _numbered(rows: list[RawRow], task: str, data: TaskDataArguments, names: Sequence[str]) -> Dataset:
    bad = BadLines(data.bad_lines, "rows")
    kind = answers_with(task, data)
    found: Any
    if kind == "classes":
        found = list(number_classes(rows, names, bad))
    else:
        found = list(scores(rows, bad) if kind == "numbers" else number_answers(rows, bad))
    bad.close(len(found))
    texts = columns_of(task, [row.texts for row, _ in found])
    return Dataset.from_dict(
        {**texts, "label": [label for _, label in found], "origin": [row.origin for row, _ in found]}
    )


def _with_shares(splits: dict[str, Dataset], task: str, data: TaskDataArguments) -> dict[str, Dataset]:
    """Take shares of the training rows for the splits that are not there."""
    start = 0.0
    for split in ("test", "validation"):
        share = getattr(data, f"{split}_share")
        if share and split in splits:
            raise ValueError(f"{split}_share={share} has no use beside rows of their own: leave one of them out.")
        if share:
            group = splits["train"][TASKS[task].texts[0]]
            splits["train"], splits[split] = split_off(splits["train"], group, start, share)
            if not len(splits[split]) or not len(splits["train"]):
                raise ValueError(f"{split}_share={share} leaves no rows on one of its sides.")
            start += share
    if data.max_train_samples:
        splits["train"] = splits["train"].select(range(min(data.max_train_samples, len(splits["train"]))))
    return splits


def encode_split(
    rows: Dataset, task: str, tokenizer: PreTrainedTokenizerBase, max_length: int, *, sort: bool
) -> Dataset:
    """Turn rows into token ids.

    Args:
        rows: of `TaskSplits`.
        task: a key of `task_kinds.TASKS`.
        tokenizer: with task tokens.
        max_length: tokens of a sequence.
        sort: put rows of like length side by side, which are measured faster so.

    Returns:
        Columns `input_ids`, `labels`, `length` and `origin`.
    """
    encoded = TASKS[task].encode(rows, tokenizer, max_length)
    encoded = encoded.select_columns(["input_ids", "label", "length", "origin"]).rename_column("label", "labels")
    lengths: Any = encoded["length"][:]
    return encoded.select(sorted(range(len(encoded)), key=lengths.__getitem__)) if sort else encoded
