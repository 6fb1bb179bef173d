"""Read the labelled rows of a task: from TSV or JSON lines (also gzipped), from a folder that `datasets` saved, or from the Hub.

Every row carries its `origin` (file and line), and whatever is wrong with it is named with both.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset

from .bad_lines import BadLines
from .line_reader import LineReader
from .nearest import nearest
from .row_parsing import BadLineError, json_object, parse_fields, parse_tsv, value_of
from .text_data import JSON_LINES, ending_of, find_file, open_dataset


_NUMBER = re.compile(r"-?\d+(\.\d*)?")
_WHOLE = re.compile(r"-?\d+\.0+")


@dataclass(frozen=True)
class RowFormat:
    """Where the texts and the label of a row stand.

    Args:
        texts: names of fields, or numbers of columns from 1, in the order in which the task reads them.
        label: name or number of the label's; None: rows have no label.
        question: name or number of the field whose word stands behind the first text; None: there is none.
        question_words: value of that field -> the word, such as "cause" -> "because".
    """

    texts: tuple[str, ...]
    label: str | None = None
    question: str | None = None
    question_words: dict[str, str] | None = None

    @property
    def fields(self) -> list[str]:
        """All of them."""
        return [*self.texts, *(name for name in (self.question, self.label) if name is not None)]


@dataclass(frozen=True)
class RawRow:
    """A row as it was read: its place for messages, its origin, its texts, and its label as it stands there.

    `numbered` says that the label is the number of a class, as in a data set that names its classes, and never a name.
    """

    place: str
    origin: str
    texts: list[str]
    label: Any
    numbered: bool = False


def read_rows(paths: Sequence[Path], form: RowFormat, bad: BadLines) -> list[RawRow]:
    """Read the rows of files, one file after the other.

    Args:
        paths: of `.tsv` (no header, no quoting) or `.jsonl`, also `.gz`.
        form: where things stand.
        bad: what to do with rows that cannot be used.

    Raises:
        ValueError: a file is missing or damaged, is of another kind, a row is bad, or none is left.
    """
    rows: list[RawRow] = []
    for path in map(find_file, paths):
        parse = _parser_of(path, form)
        for number, line in enumerate(LineReader(path), start=1):
            place = f"{path}:{number}"
            try:
                texts, label = parse(line.removesuffix("\n"))
            except BadLineError as problem:
                bad.report(place, str(problem))
                continue
            rows.append(RawRow(place, f"{path.name}:{number}", texts, label))
    bad.close(len(rows))
    return rows


def load_rows(
    name: str, split: str, form: RowFormat, bad: BadLines, config_name: str | None = None
) -> tuple[list[RawRow], list[str] | None]:
    """Load the rows of a split of a data set, from a folder or the Hub; see `text_data.open_dataset`.

    Returns:
        The rows, and the names of the classes where the data set itself has them.

    Raises:
        ValueError: there is no such data set, split or field, or a row is bad.
    """
    data = open_dataset(name, split, config_name, form.fields)
    feature = data.features.get(form.label)
    numbered = isinstance(feature, ClassLabel)
    rows = []
    for number, row in enumerate(data, start=1):
        place = f"{name}[{split}]:{number}"
        try:
            texts, label = _cells_of(row, form)
        except BadLineError as problem:
            bad.report(place, str(problem))
            continue
        rows.append(RawRow(place, place, texts, label, numbered))
    bad.close(len(rows))
    return rows, list(feature.names) if numbered else None


def _parser_of(path: Path, form: RowFormat) -> Any:
    """Give the function that turns a line of a file into its texts and its label; it raises `BadLineError`."""
    if ending_of(path) in JSON_LINES:
        return lambda line: _cells_of(json_object(line, form.texts[0]), form)
    if ending_of(path) != ".tsv":
        raise ValueError(
            f"{path} holds no rows that can be read: give a .tsv or .jsonl file (also .gz); or put it into a folder of its own, "
            "and give that as dataset."
        )
    for name in form.fields:
        if not name.isdecimal() or int(name) < 1:
            raise ValueError(
                f"{path}: {name!r} must be the number of a column, from 1: a TSV has no header (text_fields, label_field)."
            )
    columns = tuple(map(int, form.fields))

    def parse(line: str) -> tuple[list[str], Any]:
        cells = list(parse_tsv((line,), columns))
        label = cells.pop().strip() if form.label is not None else None
        if label is not None:
            _check_label(label, f"column {form.label}")
        question = cells.pop() if form.question is not None else None
        return _with_question_of(cells, question, form), label

    return parse


def _check_label(label: Any, where: str):
    if label is None or (isinstance(label, str) and not label.strip()) or label != label:  # NaN differs from itself
        raise BadLineError(f"{where} is empty")
    if isinstance(label, (list, dict)):
        raise BadLineError(f"{where} is {label!r:.40}, and must be one label")
    if isinstance(label, str) and (len(label.splitlines()) > 1 or "\t" in label):
        raise BadLineError(f"{where} is {label!r:.40}, and a label is one line of text without tabs")


def _cells_of(row: dict[str, Any], form: RowFormat) -> tuple[list[str], Any]:
    """Take texts and label from a row that has names."""
    texts = list(parse_fields(row, form.texts))
    question = None if form.question is None else str(value_of(row, form.question))
    label = None if form.label is None else value_of(row, form.label)
    if form.label is not None:
        _check_label(label, f'the field "{form.label}"')
    return _with_question_of(texts, question, form), label


def with_question(texts: Sequence[str], question: str, words: Mapping[str, str], field: str) -> list[str]:
    """Put the word of a question behind the first text.

    Args:
        texts: the context and its answers.
        question: such as "cause".
        words: question -> its word, such as "because".
        field: what the question stands in, for the message.

    Raises:
        BadLineError: there is no word for the question.
    """
    if question not in words:
        raise BadLineError(f"{field} is {question!r}, and must be one of: {', '.join(words)}")
    return [f"{texts[0]} {words[question]}", *texts[1:]]


def _with_question_of(texts: list[str], question: str | None, form: RowFormat) -> list[str]:
    if question is None:
        return texts
    return with_question(texts, question, form.question_words or {}, f'the field "{form.question}"')


def class_names(rows: Iterable[RawRow]) -> list[str]:
    """List the labels that rows have, in order: of numbers if all are, else of the alphabet."""
    found = {_whole(_word(row.label)) for row in rows}
    return sorted(found, key=int) if all(word.isdecimal() for word in found) else sorted(found)


def number_classes(rows: Iterable[RawRow], names: Sequence[str], bad: BadLines) -> Iterator[tuple[RawRow, int]]:
    """Give each row the number of its class, from 0.

    A label is the name of a class or, where no name is a number itself, its number; of rows that are `numbered` its number.

    Raises:
        ValueError: a label is neither; the message names file and line.
    """
    by_name = {_whole(name.strip()): number for number, name in enumerate(names)}
    if len(by_name) < len(names):
        raise ValueError(f"The classes {', '.join(map(repr, names))} are not all different.")
    by_number = {str(number): number for number in range(len(names))}
    numbers = f"0 to {len(names) - 1}"
    free = by_name, f"one of {', '.join(names)}"
    if not any(_NUMBER.fullmatch(name.strip()) for name in names):
        free = by_number | by_name, f"{free[1]}, or its number, {numbers}"
    fixed = by_number, f"the number of a class, {numbers}"
    for row in rows:
        word, (known, right) = _whole(_word(row.label)), fixed if row.numbered else free
        if word in known:
            yield row, known[word]
        else:
            bad.report(row.place, f"the label {word!r} must be {right}{nearest(word, names)}")


def number_answers(rows: Iterable[RawRow], bad: BadLines) -> Iterator[tuple[RawRow, int]]:
    """Give each row the number of its right answer, from 0.

    Raises:
        ValueError: a label is no such number; the message names file and line.
    """
    for row in rows:
        word, last = _whole(_word(row.label)), len(row.texts) - 2
        if word.isdecimal() and int(word) <= last:
            yield row, int(word)
        else:
            bad.report(row.place, f"the label {word!r} must be the number of the right answer, 0 to {last}")


def scores(rows: Iterable[RawRow], bad: BadLines) -> Iterator[tuple[RawRow, float]]:
    """Give each row its label as a number.

    Raises:
        ValueError: a label is none; the message names file and line.
    """
    for row in rows:
        try:
            value = float(row.label)
        except (TypeError, ValueError):
            value = math.nan
        if value == -100:
            bad.report(
                row.place, "the label -100 is what the library takes for no label: put the scores on another scale"
            )
        elif math.isfinite(value):
            yield row, value
        else:
            bad.report(row.place, f"the label {_word(row.label)!r} must be a number")


def _word(label: Any) -> str:
    """Spell a label as it would stand in a TSV; JSON's `true` is the class 1."""
    return str(int(label) if isinstance(label, bool) else label).strip()


def _whole(word: str) -> str:
    """Spell a whole number without a fraction: 1 becomes 1.0 in a table with gaps."""
    return word.partition(".")[0] if _WHOLE.fullmatch(word) else word


def split_off(data: Dataset, group: Sequence[str], start: float, share: float) -> tuple[Dataset, Dataset]:
    """Take a share of the rows away, always the same, whatever else is in the data.

    Rows of the same group stay together: a text is not learnt from and measured on.

    Args:
        data: rows.
        group: of each row, such as its first text.
        start: where the share begins; another share begins where this one ends.
        share: of the rows, about.

    Returns:
        The rows that are left, and those that were taken.
    """
    places = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64 for text in group]
    taken = [number for number, place in enumerate(places) if start <= place < start + share]
    left = sorted(set(range(len(data))).difference(taken))
    return data.select(left), data.select(taken)
