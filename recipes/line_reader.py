"""The lines of a text file, read one by one from any place in it."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


BYTE_ORDER_MARK = "\ufeff"


class LineReader(Iterator[str]):
    r"""Yield the lines of a UTF-8 file, each ended by one newline character, but the last as it is.

    Only "\n" and "\r\n" end a line. `offset` (bytes of the unpacked file) and `number` (lines) say how far it has been read: a
    reader made with them goes on there. A gzipped file has to be unpacked up to that place, but is not read again.

    Args:
        path: of a file that exists; gzipped if it ends in `.gz`.
        offset: where a line begins.
        number: lines before it.

    Raises:
        ValueError: by `next`: the file is empty, not UTF-8, a damaged gzip, or cannot be read; the message names the place.
    """

    def __init__(self, path: Path, offset: int = 0, number: int = 0):
        self.path, self.offset, self.number = path, offset, number
        self._handle: IO[bytes] | None = None

    def __next__(self) -> str:
        raw = self._read()
        if not raw:
            if self.offset == 0:
                raise ValueError(f"{self.path} is empty.")
            self.close()
            raise StopIteration
        self.number += 1
        line = _decoded(raw, f"{self.path}:{self.number}", self.offset)
        if self.offset == 0:
            line = line.removeprefix(BYTE_ORDER_MARK)
        self.offset += len(raw)
        if not line:  # a file that is nothing but the mark is empty
            return next(self)
        return line[:-2] + "\n" if line.endswith("\r\n") else line

    def close(self):
        """Let go of the file; reading on opens it again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _read(self) -> bytes:
        try:
            if self._handle is None:
                opened: Any = gzip.open if self.path.suffix == ".gz" else open
                self._handle = opened(self.path, "rb")
                self._handle.seek(self.offset)
            return self._handle.readline()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.close()
            raise ValueError(f"{self.path} is not a whole gzip file ({error}): copy or pack it again.") from error
        except OSError as error:
            self.close()
            raise ValueError(f"{self.path} cannot be read: {error.strerror or error}.") from error


def _decoded(line: bytes, place: str, offset: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        found = f"byte 0x{line[error.start]:02x} at offset {offset + error.start:,}"
        raise ValueError(f"{place}: {found} is not UTF-8 ({error.reason}); convert the file to UTF-8.") from error
