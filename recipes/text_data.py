r"""Read the user's text into a `datasets.Dataset`: pairs of source and target, or documents.

Both come from files (also gzipped), from a folder that `datasets` saved, or from the Hub. Every row carries its `origin`
("train.de.gz:17": file and line, from 1), so that whatever is wrong with it later can be found again. Only "\n" and
"\r\n" end a line: U+2028, form feeds and the like stay inside.
"""

import difflib
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from .bad_lines import BadLines
from .first_line import first_line


JSON_LINES = (".jsonl", ".ndjson", ".json")
BYTE_ORDER_MARK = "\ufeff"


class _BadLineError(ValueError):
    """What is wrong with one line; its place is added by whoever knows it."""


def read_pairs(
    source: str | Path,
    target: str | Path | None = None,
    *,
    source_field: str | int = "source",
    target_field: str | int = "target",
    bad_lines: str = "error",
) -> Dataset:
    """Read pairs from two parallel text files, or from one TSV or JSON lines file; each may be gzipped (`.gz`).

    Args:
        source: file of source lines, with `target`; or of pairs: `.tsv` (no header, no quoting) or `.jsonl`.
        target: file of target lines, one for each source line; None if `source` holds both.
        source_field: JSON lines: name of the field, dotted if nested ("translation.de"); TSV: number of the column,
            from 1. The default is column 1 of a TSV.
        target_field: the same for the target. The default is column 2 of a TSV. A field of JSON lines may hold a list of
            texts: several references, or translations, of the source, each of which makes a pair.
        bad_lines: "error" stops at the first pair that cannot be used (an empty side, a missing column or field,
            malformed JSON); "skip" leaves such pairs out and warns once. A broken file is always an error.

    Returns:
        Columns `source`, `target`, `origin`, all strings, exactly as in the file.

    Raises:
        ValueError: a file is missing, empty, not UTF-8 or a damaged gzip; two files differ in length; a line is bad; or a
            field does not apply. The message names file and line.
    """
    path, bad, fields = _existing_file(source), BadLines(bad_lines, "pairs"), (str(source_field), str(target_field))
    parse: Callable[[str], tuple[str, ...]]
    if target is not None:
        if fields != ("source", "target"):
            raise ValueError(
                f"The fields {', '.join(fields)} are for one file of pairs, not for {source} and {target}."
            )
        return _read_parallel(path, _existing_file(target), bad)
    if _kind(path) == ".tsv":
        parse = partial(_parse_tsv, columns=(_column(fields[0], "source", 1), _column(fields[1], "target", 2)))
    elif _kind(path) in JSON_LINES:
        parse = partial(_parse_json, fields=fields)
    else:
        raise ValueError(f"{path} needs a target file beside it: only .tsv and .jsonl (also .gz) hold both sides.")
    return _collect(_stripped(path), parse, ("source", "target"), path, bad)


def read_documents(
    path: str | Path, *, text_field: str = "text", separator: str | None = None, bad_lines: str = "error"
) -> Dataset:
    r"""Read documents for language modelling; files may be gzipped (`.gz`).

    Args:
        path: a text file (one document), a folder of `.txt` files (one document each, by name), or a `.jsonl` file (one
            document a row).
        text_field: JSON lines: name of the field, dotted if nested.
        separator: what stands between the documents of a text file, such as "<|endoftext|>", or "\n" where each line is
            one. None: the whole file is one document.
        bad_lines: as for `read_pairs`, for rows of JSON lines.

    Returns:
        Columns `text` and `origin`. The text is the file's, but for separators, and for "\r\n", which becomes "\n".

    Raises:
        ValueError: a file is missing, empty, not UTF-8 or a damaged gzip; the folder holds no text; the separator does
            not occur; a row is bad; or an argument does not apply. The message names file and line.
    """
    path, bad = Path(path).expanduser(), BadLines(bad_lines, "documents")
    if _kind(path) in JSON_LINES and not path.is_dir():
        if separator is not None:
            raise ValueError(f"separator={separator!r} is for plain text; in {path} each row is a document.")
        return _collect(_stripped(path), partial(_parse_json, fields=(text_field,)), ("text",), path, bad)
    if text_field != "text":
        raise ValueError(f"text_field={text_field!r} is for JSON lines; {path} is plain text.")
    files = sorted(file for file in path.iterdir() if _kind(file) == ".txt") if path.is_dir() else [path]
    if not files:
        saved = "; `datasets` saved it, so use load_documents" if _is_saved(path) else ""
        raise ValueError(f"The folder {path} holds no .txt or .txt.gz file{saved}.")
    found = [document for file in files for document in _documents_of(file, separator)]
    if separator is not None and len(found) <= len(files):
        raise ValueError(f"separator={separator!r} does not stand between any two documents of {path}.")
    return Dataset.from_dict({"text": [text for text, _ in found], "origin": [origin for _, origin in found]})


def load_pairs(
    name: str | Path,
    split: str | None = None,
    source_field: str = "source",
    target_field: str = "target",
    bad_lines: str = "error",
    *,
    config_name: str | None = None,
) -> Dataset:
    """Load pairs from a folder that `datasets` saved, a folder of data files, or the Hub.

    Args:
        name: a folder, or a dataset's name on the Hub. What exists here is never looked for there.
        split: "train", "validation[:1000]", ... None: the only one there is.
        source_field: name of the column, dotted if nested ("translation.de").
        target_field: the same for the target.
        bad_lines: as for `read_pairs`.
        config_name: the Hub's name for a part of a dataset, such as "de-en" of "wmt14".

    Returns:
        Columns `source`, `target`, `origin` ("wmt14[train]:17", rows from 1).

    Raises:
        ValueError: there is no such dataset, split or field, or a row is bad.
    """
    fields, bad = (source_field, target_field), BadLines(bad_lines, "pairs")
    return _load_columns(name, split, config_name, fields, ("source", "target"), bad)


def load_documents(
    name: str | Path,
    split: str | None = None,
    text_field: str = "text",
    bad_lines: str = "error",
    *,
    config_name: str | None = None,
) -> Dataset:
    """Load documents, as columns `text` and `origin`; every argument is that of `load_pairs`.

    Raises:
        ValueError: there is no such dataset, split or field, or a row is bad.
    """
    return _load_columns(name, split, config_name, (text_field,), ("text",), BadLines(bad_lines, "documents"))


def is_local(name: str | Path) -> bool:
    """Tell a path, even one where nothing is, from a name on the Hub.

    A path exists, or lies in a folder that does, or is spelled as no name on the Hub can be.
    """
    path = Path(name).expanduser()
    in_folder = path.parent != Path() and path.parent.is_dir()
    spelled = path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1
    return path.exists() or in_folder or spelled or _kind(path) in (".tsv", ".txt", *JSON_LINES)


def near_names(path: Path) -> str:
    """Say in a sentence which names in the folder of a missing path come near it."""
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, sorted(child.name for child in path.parent.iterdir()))
    return f"Near names in {path.parent}: {', '.join(near)}." if near else f"No name in {path.parent} comes near."


def _collect(
    rows: Iterable[Any],
    parse: Callable[[Any], tuple[str, ...]],
    columns: tuple[str, ...],
    place: str | Path,
    bad: BadLines,
) -> Dataset:
    """Parse every row into `columns`; messages begin with `place`, origins with its last part if it is a path."""
    label = place.name if isinstance(place, Path) else place
    kept, origins = [], []
    for number, row in enumerate(rows, start=1):
        try:
            found = _each(parse(row))
            kept += found
            origins += [f"{label}:{number}"] * len(found)
        except _BadLineError as problem:
            bad.report(f"{place}:{number}", str(problem))
    bad.close(len(kept))
    if not kept:
        raise ValueError(f"{place} is empty: it holds no {bad.unit}.")
    return Dataset.from_dict({**dict(zip(columns, zip(*kept, strict=True), strict=True)), "origin": origins})


def _each(cells: tuple[Any, ...]) -> list[tuple[str, ...]]:
    """Make as many rows of one as its last cell has texts."""
    return [(*cells[:-1], text) for text in cells[-1]] if isinstance(cells[-1], list) else [cells]


def _read_parallel(source: Path, target: Path, bad: BadLines) -> Dataset:
    for path in (source, target):
        if _kind(path) in (".tsv", *JSON_LINES):
            raise ValueError(f"{path} is a file of pairs: give it alone, or rename it if it holds plain lines.")
    sources, targets = list(_stripped(source)), list(_stripped(target))
    if len(sources) != len(targets):
        counts = f"{source} has {len(sources):,} lines but {target} has {len(targets):,}"
        raise ValueError(f"{counts}: each source line needs its target line.")

    def parse(row: tuple[str, str]) -> tuple[str, ...]:
        # The message begins with the source's name and the line, which is the same in both files.
        return _filled(row[0], f"line of {source.name}"), _filled(row[1], f"line of {target.name}")

    return _collect(zip(sources, targets, strict=True), parse, ("source", "target"), source, bad)


def _parse_tsv(line: str, columns: tuple[int, int]) -> tuple[str, ...]:
    cells = line.split("\t")
    if len(cells) < max(columns):
        raise _BadLineError(f"the number of columns is {len(cells)}, but {max(columns)} are needed, with tabs between")
    return tuple(_filled(cells[number - 1], f"column {number}") for number in columns)


def _parse_json(line: str, fields: tuple[str, ...]) -> tuple[str, ...]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise _BadLineError(f"the line is not JSON: {error.msg} at character {error.pos + 1}") from error
    if not isinstance(row, dict):
        raise _BadLineError(f'the line is {row!r:.40}, not a JSON object such as {{"{fields[0]}": "..."}}')
    return _parse_fields(row, fields)


def _parse_fields(row: dict[str, Any], fields: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the texts of fields; of the second of two, the target, a list of texts if it holds one."""
    return tuple(_field(row, name, lists=number == 1) for number, name in enumerate(fields))


def _field(row: dict[str, Any], name: str, *, lists: bool) -> str | list[str]:
    value: Any = row
    for key in [name] if name in row else name.split("."):
        if not isinstance(value, dict) or key not in value:
            raise _BadLineError(
                f'there is no field "{name}"; the fields are: {", ".join(_field_names(row)) or "none"}'
            )
        value = value[key]
    texts = value if lists and isinstance(value, list) and value else [value]
    for text in texts:
        if not isinstance(text, str):
            raise _BadLineError(f'the field "{name}" is {value!r:.40} ({type(value).__name__}), not a string')
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
        raise _BadLineError(f"the {name} is empty")
    # JSON can spell one half of a surrogate pair ("\ud83d"), which no tokenizer can take.
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise _BadLineError(f"the {name} holds half a surrogate pair, which is no character")
    return text


def _lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, each ended by one newline character, but the last as it is."""
    path = _existing_file(path)
    offset = 0  # bytes of the unpacked file before this line
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                line = _decoded(raw, f"{path}:{number}", offset)
                if number == 1:
                    line = line.removeprefix(BYTE_ORDER_MARK)
                if line:  # a file that is nothing but the mark is empty
                    yield line[:-2] + "\n" if line.endswith("\r\n") else line
                offset += len(raw)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a whole gzip file ({error}): copy or pack it again.") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}.") from error
    if offset == 0:
        raise ValueError(f"{path} is empty.")


def _decoded(line: bytes, place: str, offset: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at offset {offset + error.start:,}"
        raise ValueError(f"{place}: {found} is not UTF-8 ({error.reason}); convert the file to UTF-8.") from error


def _stripped(path: Path) -> Iterator[str]:
    return (line.removesuffix("\n") for line in _lines(path))


def _documents_of(path: Path, separator: str | None) -> Iterator[tuple[str, str]]:
    """Yield (text, origin) of each document in a text file; what is nothing but white space is none."""
    text = "".join(_lines(path))
    if not text or text.isspace():
        raise ValueError(f"{path} is empty: it holds no text.")
    line = 1
    for piece in text.split(separator) if separator else [text]:
        if piece and not piece.isspace():
            yield piece, f"{path.name}:{line}"
        line += piece.count("\n") + (separator or "").count("\n")


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _existing_file(path: str | Path) -> Path:
    # A name stands for the same file packed or unpacked.
    packed = Path(path).suffix == ".gz"
    twin = Path(path).with_suffix("") if packed else Path(f"{path}.gz")
    if not Path(path).expanduser().exists() and twin.expanduser().is_file():
        path = twin
    path = Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a file is needed here.")
    if not path.exists():
        raise ValueError(f"There is no file {path}. {near_names(path)}")
    return path


def _column(field: str, default_name: str, default: int) -> int:
    if field == default_name:
        return default
    if not field.isdecimal() or int(field) < 1:
        raise ValueError(f"{default_name}_field={field!r} must be a column's number, from 1: a TSV has no header.")
    return int(field)


def _load_columns(
    name: str | Path,
    split: str | None,
    config_name: str | None,
    fields: tuple[str, ...],
    columns: tuple[str, ...],
    bad: BadLines,
) -> Dataset:
    data = _load(str(name), split, config_name)
    roots = {field if field in data.column_names else field.split(".")[0] for field in fields}
    if roots <= set(data.column_names):
        data = data.select_columns(sorted(roots))  # the others may hold pictures, which are slow to decode
    label = f"{name}[{data.split}]" if data.split else str(name)
    place = Path(label) if is_local(name) else label
    return _collect(data, partial(_parse_fields, fields=fields), columns, place, bad)


def _load(name: str, split: str | None, config_name: str | None) -> Dataset:
    path, local = Path(name).expanduser(), is_local(name)
    if path.is_file():
        raise ValueError(f"{path} is a file, not a dataset: read_pairs and read_documents read files.")
    if local and not path.exists():
        raise ValueError(f"There is no folder {path}. {near_names(path)}")
    name = str(path) if local else name
    try:
        data = load_from_disk(name) if _is_saved(path) else load_dataset(name, config_name, split=split)
    except Exception as error:  # the Hub, its client and every file format raise their own
        tried = "cannot be loaded" if local else "is no folder here, and does not come from the Hub"
        raise ValueError(f"{name} {tried}: {first_line(error)}") from error
    if isinstance(data, DatasetDict):
        if (split or next(iter(data))) not in data or (split is None and len(data) > 1):
            raise ValueError(f"split={split!r} must be one of those of {name}: {', '.join(map(str, data))}.")
        return data[split or next(iter(data))]
    if split is not None and _is_saved(path) and str(data.split) != split:
        raise ValueError(f"split={split!r}: {name} was saved as one dataset, without splits; leave split out.")
    return data
