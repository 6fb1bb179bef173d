"""Streams of text one after the other, as one."""

from collections.abc import Sequence
from typing import Any

from .text_streams import TextRow, TextStream


class ChainedStreams(TextStream):
    """Read one stream of documents to its end, then the next.

    Args:
        streams: at least one; they share their `bad`.
    """

    def __init__(self, streams: Sequence[TextStream]):
        self.streams = list(streams)
        super().__init__(self.streams[0].name, self.streams[0].parse, self.streams[0].bad)

    @property
    def part(self) -> int | None:  # type: ignore[override]  # what is set here holds for each of them
        """Characters that a part of a long document has at least; None: documents come whole."""
        return self.streams[0].part

    @part.setter
    def part(self, characters: int | None):
        for stream in self.streams:
            stream.part = characters

    def describe(self) -> list[str]:
        """What each names."""
        return [name for stream in self.streams for name in stream.describe()]

    def __next__(self) -> TextRow:
        while self._at < len(self.streams):
            stream = self.streams[self._at]
            row = next(stream, None)
            if row is not None:
                self.number += 1
                self.good += row.ends
                return row._replace(number=self.number)
            self._at += 1
            if self._at < len(self.streams):
                self.streams[self._at].restart()
        raise StopIteration

    def _seek(self, place: dict[str, Any]):
        self._at = place.get("stream", 0)
        if self._at < len(self.streams):
            self.streams[self._at].restart(place.get("inside"))

    def _place(self) -> dict[str, Any]:
        inside = self.streams[self._at].place() if self._at < len(self.streams) else None
        return {"stream": self._at, "inside": inside}
