"""Lines of stdin, as they come."""

import sys
from collections.abc import Iterator

from .line_reader import BYTE_ORDER_MARK


# Lines that are read, sorted by length and worked on together.
CHUNK = 2000


def stdin_lines() -> Iterator[str]:
    """Yield the lines of stdin, without their ends.

    Raises:
        ValueError: a line is not UTF-8; the message names it.
    """
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"stdin:{number}: byte {error.start + 1} of the line is no UTF-8.") from None
        yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
