r"""Read the user's text into a `datasets.Dataset`: pairs of source and target, or documents.

Both come from files (also gzipped), from a folder that `datasets` saved, or from the Hub. Every row carries its `origin`
("train.de.gz:17": file and line, from 1), so that whatever is wrong with it later can be found again. Only "\n" and
"\r\n" end a line: U+2028, form feeds and the like stay inside.
"""

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets, load_dataset, load_from_disk
from transformers.utils import logging

from .bad_lines import BadLines
from .first_line import first_line
from .line_reader import LineReader
from .row_parsing import BadLineError, parse_fields, parse_json, parse_parallel, parse_tsv
from .template import Template


JSON_LINES = (".jsonl", ".ndjson", ".json")
TABLES = (".csv", ".tsv")
logger = logging.get_logger(__name__)
# In the description of a data set that was read, which goes with it when rows are selected.
_LEFT_OUT = "rows left out"


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
    bad = BadLines(bad_lines, "pairs")
    paths, parse = pair_files(source, target, source_field, target_field, lists=True)
    sides = [list(_stripped(path)) for path in paths]
    if len(sides[0]) != len(sides[-1]):
        counts = f"{paths[0]} has {len(sides[0]):,} lines but {paths[1]} has {len(sides[1]):,}"
        raise ValueError(f"{counts}: each source line needs its target line.")
    return _collect(zip(*sides, strict=True), parse, ("source", "target"), paths[0], bad)


def pair_files(
    source: str | Path,
    target: str | Path | None,
    source_field: str | int,
    target_field: str | int,
    *,
    lists: bool = False,
) -> tuple[list[Path], Callable[[tuple[str, ...]], tuple[str, ...]]]:
    """Find the one or two files that hold pairs, and how a line of each becomes a pair; the arguments are `read_pairs`'s.

    With `lists`, the target of a row of JSON lines may be a list of texts.

    Returns:
        The paths, and a function from lines, one of each file, to source and target; it raises `BadLineError`.

    Raises:
        ValueError: a file is missing, or a field does not apply.
    """
    path, fields = _existing_file(source), (str(source_field), str(target_field))
    if target is not None:
        if fields != ("source", "target"):
            raise ValueError(
                f"The fields {', '.join(fields)} are for one file of pairs, not for {source} and {target}."
            )
        paths = [path, _existing_file(target)]
        for path in paths:
            if _kind(path) in (".tsv", *JSON_LINES):
                raise ValueError(f"{path} is a file of pairs: give it alone, or rename it if it holds plain lines.")
        return paths, partial(parse_parallel, names=[path.name for path in paths])
    if _kind(path) == ".tsv":
        columns = _column(fields[0], "source", 1), _column(fields[1], "target", 2)
        return [path], partial(parse_tsv, columns=columns)
    if _kind(path) in JSON_LINES:
        return [path], partial(parse_json, fields=fields, lists=lists)
    raise ValueError(f"{path} needs a target file beside it: only .tsv and .jsonl (also .gz) hold both sides.")


def read_documents(
    path: str | Path,
    *,
    text_field: str = "text",
    separator: str | None = None,
    bad_lines: str = "error",
    template: Template | None = None,
) -> Dataset:
    r"""Read documents for language modelling; files may be gzipped (`.gz`).

    Args:
        path: a text file (one document), a folder of `.txt` files (one document each, by name), or a `.jsonl` file or a folder
            of such (one document a row).
        text_field: JSON lines: name of the field, dotted if nested.
        separator: what stands between the documents of a text file, such as "<|endoftext|>", or "\n" where each line is
            one. None: the whole file is one document.
        bad_lines: as for `read_pairs`, for rows of JSON lines.
        template: how fields of a row of JSON lines become a document; None: it is the field `text_field`.

    Returns:
        Columns `text` and `origin`. The text is the file's, but for separators, and for "\r\n", which becomes "\n".

    Raises:
        ValueError: a file is missing, empty, not UTF-8 or a damaged gzip; the folder holds no text; the separator does
            not occur; a row is bad; or an argument does not apply. The message names file and line.
    """
    bad = BadLines(bad_lines, "documents")
    files, parse = document_files(path, text_field, separator, template)
    if parse is not None:
        tables = [_collect(zip(_stripped(file)), parse, ("text",), file, bad) for file in files]
        return concatenate_datasets(tables)
    found = [document for file in files for document in _documents_of(file, separator)]
    check_separator(path, separator, len(found), len(files))
    return Dataset.from_dict({"text": [text for text, _ in found], "origin": [origin for _, origin in found]})


def document_files(
    path: str | Path, text_field: str, separator: str | None, template: Template | None = None
) -> tuple[list[Path], Callable[[tuple[str, ...]], tuple[str, ...]] | None]:
    """Find the files that hold documents; the arguments are `read_documents`'s.

    Returns:
        The paths; and a function from a line to its document, which raises `BadLineError`, or None for plain text.

    Raises:
        ValueError: an argument does not apply, a file is missing, or the folder holds no text, or text of both kinds.
    """
    path = Path(path).expanduser()
    files = _documents_in(path) if path.is_dir() else [_existing_file(path)]
    if _kind(files[0]) in JSON_LINES:
        if separator is not None:
            raise ValueError(f"separator={separator!r} is for plain text; in {path} each row is a document.")
        return files, template.of_line if template is not None else partial(parse_json, fields=(text_field,))
    if _kind(path) in TABLES:
        raise ValueError(
            f"{path} is a table and no running text: make a .jsonl file of it, with a document in each row; or put it into a folder of its "
            "own, and give that as dataset; or name it .txt, and what stands in it is learned as it is."
        )
    if text_field != "text":
        raise ValueError(f"text_field={text_field!r} is for JSON lines; {path} is plain text.")
    if template is not None:
        raise ValueError(f"template={template.text!r} is for JSON lines and data sets; {path} is plain text.")
    return files, None


def _documents_in(folder: Path) -> list[Path]:
    """List the files of a folder, by name, that hold documents."""
    files = sorted(file for file in folder.iterdir() if _kind(file) in (".txt", *JSON_LINES))
    if not files:
        saved = "; `datasets` saved it: name it as `dataset`, not as a text" if _is_saved(folder) else ""
        raise ValueError(f"The folder {folder} holds no .txt, .txt.gz, .jsonl or .jsonl.gz file{saved}.")
    other = next((file for file in files if (_kind(file) == ".txt") != (_kind(files[0]) == ".txt")), None)
    if other is not None:
        raise ValueError(
            f"The folder {folder} holds plain text and JSON lines, {files[0].name} and {other.name}: name one of them."
        )
    if left := sorted(file.name for file in folder.iterdir() if file not in files and not file.name.startswith(".")):
        more = f" and {len(left) - 3:,} more" if len(left) > 3 else ""
        logger.warning_once(  # type: ignore[attr-defined]
            f"Of the folder {folder} {len(files):,} files are read, and none of another ending or in a folder: not {', '.join(left[:3])}{more}."
        )
    return files


def check_separator(path: str | Path, separator: str | None, documents: int, files: int):
    """Make sure that a separator of documents separates some.

    Raises:
        ValueError: it does not.
    """
    if separator is not None and documents <= files:
        raise ValueError(f"separator={separator!r} does not stand between any two documents of {path}.")


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
    template: Template | None = None,
) -> Dataset:
    """Load documents, as columns `text` and `origin`; every argument is that of `load_pairs`, or of `read_documents`.

    Raises:
        ValueError: there is no such dataset, split or field, or a row is bad.
    """
    fields = (text_field,) if template is None else template.fields
    parse = None if template is None else template.of_row
    return _load_columns(name, split, config_name, fields, ("text",), BadLines(bad_lines, "documents"), parse)


def is_local(name: str | Path) -> bool:
    """Tell a path, even one where nothing is, from a name on the Hub.

    A path exists, or lies in a folder that does, or is spelled as no name on the Hub can be.
    """
    path = Path(name).expanduser()
    in_folder = path.parent != Path() and path.parent.is_dir()
    spelled = path.is_absolute() or str(name).startswith((".", "~")) or str(name).count("/") > 1
    return path.exists() or in_folder or spelled or _kind(path) in (".tsv", ".txt", *JSON_LINES)


def bare_name(name: str | Path) -> str:
    """Leave out where a file or folder lies, by whatever path it is given, as `.`; a name on the Hub stays as it is."""
    # Links are not followed: what one leads to may have a number for a name.
    return os.path.basename(os.path.abspath(Path(name).expanduser())) if is_local(name) else str(name)


def near_names(path: Path) -> str:
    """Say in a sentence which names in the folder of a missing path come near it."""
    if not path.parent.is_dir():
        return f"There is no folder {path.parent} either."
    near = difflib.get_close_matches(path.name, sorted(child.name for child in path.parent.iterdir()))
    return f"Near names in {path.parent}: {', '.join(near)}." if near else f"No name in {path.parent} comes near."


def find_file(path: str | Path) -> Path:
    """Return the path of a file that is there, under this name or the name that it has packed or unpacked.

    Raises:
        ValueError: there is none.
    """
    return _existing_file(path)


def ending_of(path: Path) -> str:
    """Return the ending that says what a file holds, in lower case: of "a.TSV.gz" it is ".tsv"."""
    return _kind(path)


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
        except BadLineError as problem:
            bad.report(f"{place}:{number}", str(problem))
    bad.close(len(kept))
    if not kept:
        raise ValueError(f"{place} is empty: it holds no {bad.unit}.")
    found = Dataset.from_dict({**dict(zip(columns, zip(*kept, strict=True), strict=True)), "origin": origins})
    found.info.description = json.dumps({_LEFT_OUT: len(bad.reports)})
    return found


def left_out(rows: Dataset) -> int:
    """Count the rows that could not be used when a text was read."""
    return json.loads(rows.info.description or "{}").get(_LEFT_OUT, 0)


def _each(cells: tuple[Any, ...]) -> list[tuple[str, ...]]:
    """Make as many rows of one as its last cell has texts."""
    return [(*cells[:-1], text) for text in cells[-1]] if isinstance(cells[-1], list) else [cells]


def _stripped(path: Path) -> Iterator[str]:
    return (line.removesuffix("\n") for line in LineReader(_existing_file(path)))


def _documents_of(path: Path, separator: str | None) -> Iterator[tuple[str, str]]:
    """Yield (text, origin) of each document in a text file; what is nothing but white space is none."""
    text = "".join(LineReader(path))
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
    parse: Callable[[Any], tuple[str, ...]] | None = None,
) -> Dataset:
    data = open_dataset(name, split, config_name, fields)
    label = f"{name}[{data.split}]" if data.split else str(name)
    place = Path(label) if is_local(name) else label
    return _collect(data, parse or partial(parse_fields, fields=fields, lists=True), columns, place, bad)


def open_dataset(
    name: str | Path, split: str | None, config_name: str | None, fields: Sequence[str], *, streaming: bool = False
) -> Any:
    """Open a data set, of which only the columns that hold `fields` are read; the arguments are `load_pairs`'s.

    Args:
        name: a folder, or a dataset's name on the Hub.
        split: or None: the only one there is.
        config_name: the Hub's name for a part of a dataset.
        fields: names of columns, dotted if nested.
        streaming: read it while it is used: the result is an `IterableDataset`, or, of a folder that `datasets` saved, a
            `Dataset` that stays on the disk.

    Raises:
        ValueError: there is no such data set or split.
    """
    data = _load(str(name), split, config_name, streaming)
    known = data.column_names or []  # of a stream they may not be known
    roots = {field if field in known else field.split(".")[0] for field in fields}
    if roots <= set(known):
        data = data.select_columns(sorted(roots))  # the others may hold pictures, which are slow to decode
    return data


def _load(name: str, split: str | None, config_name: str | None, streaming: bool) -> Any:
    path, local = Path(name).expanduser(), is_local(name)
    if path.is_file():
        raise ValueError(f"{path} is a file, not a dataset: read_pairs and read_documents read files.")
    if local and not path.exists():
        raise ValueError(f"There is no folder {path}. {near_names(path)}")
    name, options = str(path) if local else name, {"streaming": True} if streaming else {}
    where = str(path.absolute()) if local else name  # "csv" alone would be what reads all such files around here
    try:
        data = load_from_disk(where) if _is_saved(path) else load_dataset(where, config_name, split=split, **options)
    except Exception as error:  # the Hub, its client and every file format raise their own
        tried = "cannot be loaded" if local else "is no folder here, and does not come from the Hub"
        raise ValueError(f"{name} {tried}: {first_line(error)}") from error
    if isinstance(data, dict):  # of the splits
        if (split or next(iter(data))) not in data or (split is None and len(data) > 1):
            raise ValueError(f"split={split!r} must be one of those of {name}: {', '.join(map(str, data))}.")
        return data[split or next(iter(data))]
    if _is_saved(path) and split not in (None, str(data.split or "train")):
        raise ValueError(
            f"split={split!r}: {name} was saved as one data set, without splits, which is called {data.split or 'train'}."
        )
    return data
