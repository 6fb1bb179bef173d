"""How a line of a file, or a row of a data set, becomes a pair or a document; all of them raise `BadLineError`."""

import json
from collections.abc import Iterator, Sequence
from typing import Any


class BadLineError(ValueError):
    """What is wrong with one line; its place is added by whoever knows it."""


def parse_parallel(lines: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    """Take a pair from a line of each of two files of these names.

    Raises:
        BadLineError: a line is empty.
    """
    # The message begins with the source's name and the line, which is the same in both files.
    return tuple(_filled(line, f"line of {name}") for line, name in zip(lines, names, strict=True))


def parse_tsv(lines: tuple[str, ...], columns: tuple[int, ...]) -> tuple[str, ...]:
    """Take the cells of some columns (from 1) from one line.

    Raises:
        BadLineError: one is missing or empty.
    """
    cells = lines[0].split("\t")
    if len(cells) < max(columns):
        raise BadLineError(f"the number of columns is {len(cells)}, but {max(columns)} are needed, with tabs between")
    return tuple(_filled(cells[number - 1], f"column {number}") for number in columns)


def parse_json(lines: tuple[str, ...], fields: tuple[str, ...], *, lists: bool = False) -> tuple[Any, ...]:
    """Take the named fields from one line of JSON; see `parse_fields`.

    Raises:
        BadLineError: it is no JSON object, or a field is missing, empty, or no text.
    """
    return parse_fields(json_object(lines[0], fields[0]), fields, lists=lists)


def json_object(line: str, field: str) -> dict[str, Any]:
    """Read a line that is an object of JSON, such as one with this field.

    Raises:
        BadLineError: it is none.
    """
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        array = (
            "; one array for all is no JSON lines: `jq -c .[] FILE` makes them of it" if line.startswith("[") else ""
        )
        raise BadLineError(f"the line is not JSON: {error.msg} at character {error.pos + 1}{array}") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise BadLineError(f"the line is JSON that cannot be read: {str(error).partition(';')[0]}") from error
    if not isinstance(row, dict):
        raise BadLineError(f'the line is {row!r:.40}, not a JSON object such as {{"{field}": "..."}}')
    return row


def parse_fields(row: dict[str, Any], fields: tuple[str, ...], *, lists: bool = False) -> tuple[Any, ...]:
    """Take the named fields of a row, dotted where they are nested.

    Args:
        row: names and values.
        fields: names.
        lists: whether the second of two, the target, may hold a list of texts, which is then given as it is.

    Raises:
        BadLineError: one is missing, empty, or no text.
    """
    return tuple(value_of(row, name, of_text=True, lists=lists and number == 1) for number, name in enumerate(fields))


def value_of(row: dict[str, Any], name: str, *, of_text: bool = False, lists: bool = False) -> Any:
    """Take a field of a row, dotted where it is nested.

    Args:
        row: names and values.
        name: of the field.
        of_text: it must be text.
        lists: or a list of texts.

    Raises:
        BadLineError: it is missing, or not what it must be.
    """
    value: Any = row
    for key in [name] if name in row else name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise BadLineError(f'there is no field "{name}"; the fields are: {", ".join(_field_names(row)) or "none"}')
        value = value[key]
    if not of_text:
        return value
    for text in value if lists and isinstance(value, list) and value else [value]:
        if not isinstance(text, str):
            raise BadLineError(f'the field "{name}" is {value!r:.40} ({type(value).__name__}), not a string')
        _filled(text, f'field "{name}"')
    return value


def _field_names(row: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in row.items():
        if isinstance(value, dict) and value:
            yield from _field_names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _filled(text: str, name: str) -> str:
    if not text or text.isspace():
        raise BadLineError(f"the {name} is empty")
    # JSON can spell one half of a surrogate pair ("\ud83d"), which no tokenizer can take.
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise BadLineError(f"the {name} holds half a surrogate pair, which is no character")
    return text
