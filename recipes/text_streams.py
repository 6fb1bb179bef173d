"""Text that is read while it is used: rows come one by one, in their order, and can go on from any place.

Where `text_data` reads all of a text into memory or a table, these keep no more than a row, and the place they have come to.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from .bad_lines import StreamedBadLines
from .line_reader import LineReader
from .row_parsing import BadLineError
from .text_data import check_separator
from .tokenization import PIECE, SEAM


class TextRow(NamedTuple):
    """A pair, or a document or a part of one."""

    number: int  # of the row, from 1
    origin: str  # "train.de:17"
    texts: tuple[str, ...]  # source and target, or the document
    ends: bool = True  # False where the document goes on in the next row


class TextStream(Iterator[TextRow]):
    """Rows of text in their order, from the beginning or a place; bad ones are reported and left out.

    Args:
        name: of the text, for messages.
        parse: makes texts of what is read; raises BadLineError.
        bad: what happens to bad rows.
        limit: give no more good rows than this.
    """

    part: int | None = None  # characters that a part of a long document has at least; None: documents come whole

    def __init__(
        self,
        name: str,
        parse: Callable[[Any], tuple[str, ...]],
        bad: StreamedBadLines,
        limit: int | None = None,
    ):
        self.name, self.parse, self.bad, self.limit = name, parse, bad, limit
        self.restart()

    def restart(self, place: dict[str, Any] | None = None):
        """Begin anew, or where `place()` was."""
        place = place or {}
        self.number, self.good = place.get("number", 0), place.get("good", 0)
        self._seek(place)

    def place(self) -> dict[str, Any]:
        """Say, in what JSON can hold, where the next row is."""
        return {"number": self.number, "good": self.good, **self._place()}

    def __next__(self) -> TextRow:
        while self.limit is None or self.good < self.limit:
            row = self._read()
            self.number += 1
            try:
                texts = self.parse(row)
            except BadLineError as problem:
                self.bad.report(f"{self.name}:{self.number}", str(problem))
                continue
            self.good += 1
            return TextRow(self.number, f"{Path(self.name).name}:{self.number}", texts)
        raise StopIteration

    def describe(self) -> list[str]:
        """Name what is read, with sizes: where that changes, it is another text."""
        raise NotImplementedError

    def _seek(self, place: dict[str, Any]):
        raise NotImplementedError

    def _place(self) -> dict[str, Any]:
        raise NotImplementedError

    def _read(self) -> Any:
        raise NotImplementedError


class LineStream(TextStream):
    """Rows that are lines of a file, or of two files side by side; what `parse` gets is a line of each.

    Args:
        paths: of one or two files.
        parse: as for TextStream.
        bad: as for TextStream.
        limit: as for TextStream.
    """

    def __init__(self, paths: Sequence[Path], parse: Callable, bad: StreamedBadLines, limit: int | None = None):
        self.paths = list(paths)
        super().__init__(str(paths[0]), parse, bad, limit)

    def describe(self) -> list[str]:
        """Names and bytes of the files."""
        return [f"{path.name} of {path.stat().st_size:,} bytes" for path in self.paths]

    def _seek(self, place: dict[str, Any]):
        offsets = place.get("offsets", [0] * len(self.paths))
        self._readers = [
            LineReader(path, offset, self.number) for path, offset in zip(self.paths, offsets, strict=True)
        ]

    def _place(self) -> dict[str, Any]:
        return {"offsets": [reader.offset for reader in self._readers]}

    def _read(self) -> tuple[str, ...]:
        lines = [next(reader, None) for reader in self._readers]
        if None in lines:
            if lines[0] != lines[-1]:
                ended, longer = sorted(self.paths, key=lambda path: lines[self.paths.index(path)] is not None)
                raise ValueError(
                    f"{ended} ends after {self.number:,} lines, and {longer} does not: each source line needs its target line."
                )
            raise StopIteration
        return tuple(line.removesuffix("\n") for line in lines if line is not None)


class DatasetStream(TextStream):
    """Rows of a data set: one that `datasets` streams, or one that lies on the disk.

    Args:
        name: of the data set, with its split.
        data: from `open_dataset`.
        parse: as for TextStream; it gets a row as a mapping.
        bad: as for TextStream.
        limit: as for TextStream.
    """

    def __init__(self, name: str, data: Any, parse: Callable, bad: StreamedBadLines, limit: int | None = None):
        self.data = data
        super().__init__(name, parse, bad, limit)

    def describe(self) -> list[str]:
        """Name and, where it is known, number of rows."""
        return [self.name, *([f"{len(self.data):,} rows"] if isinstance(self.data, Dataset) else [])]

    def _seek(self, place: dict[str, Any]):
        self._rows: Iterator[Any] | None = None
        self._begin = place.get("state")
        if not isinstance(self.data, Dataset):
            self._live = copy.deepcopy(self.data)  # its state can be set, but not set back
            if self._begin is not None:
                self._live.load_state_dict(self._begin)

    def _place(self) -> dict[str, Any]:
        if isinstance(self.data, Dataset):
            return {}
        return {"state": self._live.state_dict() if self._rows is not None else self._begin}

    def _read(self) -> Any:
        if isinstance(self.data, Dataset):
            if self.number == len(self.data):
                raise StopIteration
            return self.data[self.number]
        if self._rows is None:
            self._rows = iter(self._live)
        return next(self._rows)


class MemoryStream(TextStream):
    """Documents that are in memory, long ones in parts, for what else needs a stream.

    Args:
        documents: column `text`, and `origin` if it has one.
        bad: as for TextStream; of what was read already nothing is bad.
        part: as for DocumentStream.
    """

    def __init__(self, documents: Dataset, bad: StreamedBadLines, part: int | None):
        self.documents, self.part = documents, part
        super().__init__("training text", lambda texts: texts, bad)

    def describe(self) -> list[str]:
        """Number of documents and characters."""
        return [f"{len(self.documents):,} documents of {sum(map(len, self.documents['text'])):,} characters"]

    def _seek(self, place: dict[str, Any]):
        self._row, self._start = place.get("row", 0), place.get("start", 0)
        self._document: Any = None

    def _place(self) -> dict[str, Any]:
        return {"row": self._row, "start": self._start}

    def __next__(self) -> TextRow:
        if self._row == len(self.documents):
            raise StopIteration
        self._document = self._document or self.documents[self._row]
        text, start = self._document["text"], self._start
        origin = self._document.get("origin", f"document {self._row + 1}")
        seam = SEAM.search(text, start + self.part) if self.part is not None else None
        self.number += 1
        if seam:
            self._start = seam.start()
            return TextRow(self.number, origin, (text[start : self._start],), ends=False)
        self._row, self._start, self._document = self._row + 1, 0, None
        self.good += 1
        return TextRow(self.number, origin, (text[start:],))


class DocumentStream(TextStream):
    """Documents of plain text files, each a file or what stands between separators; long ones come in parts.

    Args:
        paths: of the files.
        separator: what stands between the documents of a file; None: a file is one.
        bad: as for TextStream; of plain text nothing is bad.
        part: characters that a part has at least, where it may end before a space or newline that follows something else; None:
            documents come whole.
    """

    def __init__(self, paths: Sequence[Path], separator: str | None, bad: StreamedBadLines, part: int | None):
        self.paths, self.separator, self.part = list(paths), separator, part
        super().__init__(str(paths[0]), lambda texts: texts, bad)

    def describe(self) -> list[str]:
        """Names and bytes of the files."""
        return [f"{path.name} of {path.stat().st_size:,} bytes" for path in self.paths]

    def _seek(self, place: dict[str, Any]):
        self._file, self._text, self._line = place.get("file", 0), place.get("text", ""), place.get("line", 1)
        self._inside = place.get("inside", False)  # a document, of which a part was given already
        self._reader = self._open(place.get("offset", 0), place.get("lines", 0))

    def _open(self, offset: int = 0, number: int = 0) -> LineReader | None:
        return LineReader(self.paths[self._file], offset, number) if self._file < len(self.paths) else None

    def _place(self) -> dict[str, Any]:
        reader = self._reader
        return {
            "file": self._file,
            "offset": reader.offset if reader else 0,
            "lines": reader.number if reader else 0,
            "line": self._line,
            "text": self._text,
            "inside": self._inside,
        }

    def __next__(self) -> TextRow:
        while True:
            name, line = self.paths[min(self._file, len(self.paths) - 1)].name, self._line
            text, ends = self._read()
            blank = not text or text.isspace()
            if blank and not (self._inside or not ends):
                continue
            self.number += 1
            self.good += ends
            self._inside = not ends
            return TextRow(self.number, f"{name}:{line}", (text,), ends)

    def _read(self) -> tuple[str, bool]:
        """Return the next part of a document, and whether the document ends there."""
        separator = self.separator or ""
        looked = 0  # characters of the text in which there is no separator
        while self._reader is not None:
            found = self._text.find(separator, max(0, looked - len(separator))) if separator else -1
            if found >= 0:
                text, self._text = self._text[:found], self._text[found + len(separator) :]
                self._line += text.count("\n") + separator.count("\n")
                return text, True
            seam = SEAM.search(self._text, self.part) if self.part is not None else None
            # What may be the beginning of a separator stays whole.
            if seam and seam.start() <= len(self._text) - len(separator) + 1:
                text, self._text = self._text[: seam.start()], self._text[seam.start() :]
                self._line += text.count("\n")
                return text, False
            looked = len(self._text)
            added = self._more()
            if added is None:
                text, self._text, self._line = self._text, "", 1
                self._file += 1
                self._reader = self._open()
                return text, True
            self._text += added
        check_separator(self.name, self.separator, self.good, len(self.paths))
        raise StopIteration

    def _more(self) -> str | None:
        """Read some lines; None at the end of the file."""
        assert self._reader is not None
        lines, size = [], 0
        for line in self._reader:
            lines.append(line)
            size += len(line)
            if size > (self.part or PIECE):
                break
        return "".join(lines) if lines else None
