"""Rows of token ids made of text that is read while it is trained on: pairs, or full rows of running text."""

import base64
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from .bpe_dropout import BpeDropout, draw_for
from .document_rows import positions_in_documents
from .pair_dropout import drop_pair
from .text_streams import TextRow, TextStream
from .tokenization import IGNORED, PIECE, can_be_cut, encode_batch, pieces_of, unknown_token


logger = logging.get_logger(__name__)
Features = dict[str, list[int]]


class StreamRows(Protocol):
    """What `StreamBatches` fills its buffer from."""

    sides: int  # texts of a row
    text: TextStream

    def restart(self, epoch: int, place: dict[str, Any] | None = None):
        """Begin an epoch, or go on where `place()` was."""

    def place(self) -> dict[str, Any]:
        """Say, in what JSON can hold, where the next row is."""

    def __next__(self) -> Any:
        """Read the next row; StopIteration at the end of the epoch."""

    def encode(self, rows: Sequence[Any]) -> list[tuple[Any, Features]]:
        """Turn rows into what a model takes; those that cannot be used are reported and left out."""

    def describe(self) -> str:
        """Say what is read: where that changes, it is other data."""

    def dump(self, row: Any) -> Any:
        """Turn a row into what JSON can hold."""

    def load(self, row: Any) -> Any:
        """Turn it back."""


class UnknownTokens:
    """Warns, once in a process, of text in a stream that the tokenizer does not know: only a sample was read before."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.token, self.id = tokenizer.unk_token, unknown_token(tokenizer)

    def look(self, ids: Sequence[int], origin: str):
        """Look through the tokens of a text."""
        if self.id is not None and self.id in ids:
            logger.warning(
                f"{origin} holds characters that the tokenizer does not know (it learns from the first --tokenizer_samples of a stream): they "
                f"become {self.token}, and so will others."
            )
            self.id = None


class PairRows:
    """Pairs, as text until they are wanted.

    Args:
        text: pairs.
        tokenizer: for both sides.
        max_length: tokens that a side may have, the end token included.
        most: tokens that a side may have if a batch is to hold the pair at all, or None.
        dropout: splits words in other pieces each epoch, or None.
        seed: of the dropout.
        dropout_sides: "source", "target" or "both".
    """

    sides = 2

    def __init__(
        self,
        text: TextStream,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        *,
        most: int | None = None,
        dropout: BpeDropout | None = None,
        seed: int = 0,
        dropout_sides: str = "both",
    ):
        self.text, self.tokenizer, self.max_length, self.most = text, tokenizer, max_length, most
        self.dropout, self.seed, self.dropout_sides = dropout, seed, dropout_sides
        self.epoch, self.unknown = 0, UnknownTokens(tokenizer)

    def restart(self, epoch: int, place: dict[str, Any] | None = None):
        """Begin an epoch, or go on where `place()` was."""
        self.epoch = epoch
        self.text.restart(place)

    def place(self) -> dict[str, Any]:
        """Say where the next pair is."""
        return self.text.place()

    def __next__(self) -> TextRow:
        return next(self.text)

    def encode(self, rows: Sequence[TextRow]) -> list[tuple[TextRow, Features]]:
        """Encode pairs; those that are too long are reported and left out."""
        if not rows:
            return []
        batch = encode_batch(
            {"source": [r.texts[0] for r in rows], "target": [r.texts[1] for r in rows]}, self.tokenizer
        )
        kept = []
        for row, source, target in zip(rows, batch["input_ids"], batch["labels"], strict=True):
            if self._fits(row, len(source), len(target)):
                self.unknown.look(source, row.origin)
                self.unknown.look(target, row.origin)
                source, target = self._drop(row, source, target)
                kept.append((row, {"input_ids": source, "attention_mask": [1] * len(source), "labels": target}))
        return kept

    def describe(self) -> str:
        """Say what is read."""
        return f"pairs of at most {self.max_length} tokens on a side"

    def dump(self, row: TextRow) -> list[Any]:
        """Turn a pair into what JSON can hold."""
        return [row.number, row.origin, *row.texts]

    def load(self, row: list[Any]) -> TextRow:
        """Turn it back."""
        number, origin, *texts = row
        return TextRow(number, origin, tuple(texts))

    def _fits(self, row: TextRow, source: int, target: int) -> bool:
        sizes = f"the pair has {source:,} source and {target:,} target tokens"
        if max(source, target) > self.max_length:
            self.text.bad.report(row.origin, f"{sizes}, more than max_length={self.max_length} allows on a side")
            return False
        if self.most is not None and max(source, target) > self.most:
            self.text.bad.report(row.origin, f"{sizes}; max_tokens_per_batch leaves {self.most} to a side")
            return False
        return True

    def _drop(self, row: TextRow, source: list[int], target: list[int]) -> tuple[list[int], list[int]]:
        if self.dropout is None:
            return source, target
        most = self.max_length if self.most is None else min(self.max_length, self.most)
        draw = draw_for(self.seed, self.epoch, row.number)
        return drop_pair(self.dropout, self.dropout_sides, row.texts, (source, target), draw, most)


class PackedRow(NamedTuple):
    """A full row of running text."""

    origin: str  # of the document that it begins in
    tokens: bytes  # int32, one more than a model reads


class PackedRows:
    """Documents one after the other, an end token before the first and after each, cut into rows of the same length.

    As in `encode_blocks`, each token is predicted once, the first of a row by the row before. Nothing is padded: what does not
    fill a row any more at the end of an epoch is the beginning of the first row of the next.

    Args:
        text: documents; in parts only if the tokens of parts are those of the whole.
        tokenizer: its own special tokens are not added.
        length: tokens of a row.
        dropout: splits words in other pieces each epoch, or None.
        seed: of the dropout.
        apart: whether the documents of a row do not see one another; see `documents_apart`.

    Raises:
        ValueError: the tokenizer has no end token.
    """

    sides = 1

    def __init__(
        self,
        text: TextStream,
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        *,
        dropout: BpeDropout | None = None,
        seed: int = 0,
        apart: bool = False,
    ):
        if tokenizer.eos_token_id is None:
            raise ValueError("A stream of documents needs an end token between them; the tokenizer has none.")
        self.text, self.tokenizer, self.length = text, tokenizer, length
        self.dropout, self.seed, self.apart = dropout, seed, apart
        if not can_be_cut(tokenizer):
            text.part = None
        self.end, self.cut = tokenizer.eos_token_id, can_be_cut(tokenizer)
        self.unknown = UnknownTokens(tokenizer)
        self._waiting, self._begins, self.epoch = [self.end], deque[tuple[int, str]](), 0

    def restart(self, epoch: int, place: dict[str, Any] | None = None):
        """Begin an epoch, or go on where `place()` was; without a place, what was left over stays, unless it is the first."""
        if place is not None:
            self._waiting = np.frombuffer(base64.b64decode(place["waiting"]), dtype=np.int32).tolist()
            self._begins = deque((at, origin) for at, origin in place["begins"])
        elif epoch == 0:
            self._waiting, self._begins = [self.end], deque()
        self.epoch = epoch
        self.text.restart(place["text"] if place else None)

    def place(self) -> dict[str, Any]:
        """Say where the next document is, with the tokens that do not fill a row yet."""
        waiting = base64.b64encode(np.array(self._waiting, dtype=np.int32).tobytes()).decode()
        return {"text": self.text.place(), "waiting": waiting, "begins": list(self._begins)}

    def __next__(self) -> PackedRow:
        while len(self._waiting) <= self.length:
            rows: list[TextRow] = []
            size = 0
            # Some at once, which is faster.
            while size < PIECE // 8 and len(rows) < 256 and (row := next(self.text, None)):
                rows.append(row)
                size += len(row.texts[0])
            if not rows:
                raise StopIteration
            self._add(rows)
        while len(self._begins) > 1 and self._begins[1][0] <= 0:
            self._begins.popleft()
        full = PackedRow(self._begins[0][1], np.array(self._waiting[: self.length + 1], dtype=np.int32).tobytes())
        del self._waiting[: self.length]
        self._begins = deque((at - self.length, origin) for at, origin in self._begins)
        return full

    def encode(self, rows: Sequence[PackedRow]) -> list[tuple[PackedRow, Features]]:
        """Make labels: all tokens but the first, which the row before has predicted; the last is a label only."""
        encoded = []
        for row in rows:
            tokens = np.frombuffer(row.tokens, dtype=np.int32)
            ids, labels = tokens[:-1].tolist(), [IGNORED, *tokens[1:].tolist()]
            features = {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}
            if self.apart:
                features["position_ids"] = positions_in_documents(tokens[:-1], self.end).tolist()
            encoded.append((row, features))
        return encoded

    def describe(self) -> str:
        """Say what is read."""
        return f"rows of {self.length} tokens{', documents apart,' if self.apart else ''}"

    def dump(self, row: PackedRow) -> list[str]:
        """Turn a row into what JSON can hold."""
        return [row.origin, base64.b64encode(row.tokens).decode()]

    def load(self, row: list[str]) -> PackedRow:
        """Turn it back."""
        return PackedRow(row[0], base64.b64decode(row[1]))

    def _add(self, rows: Sequence[TextRow]):
        pieces = [list(pieces_of(row.texts[0])) if self.cut else [row.texts[0]] for row in rows]
        flat = [piece for parts in pieces for piece in parts]
        encoded = iter(self.tokenizer(flat, add_special_tokens=False, verbose=False)["input_ids"])
        for row, parts in zip(rows, pieces, strict=True):
            # Where it begins among those that wait, with the end token before it.
            self._begins.append((len(self._waiting) - 1, row.origin))
            draw = draw_for(self.seed, self.epoch, row.number)
            for piece in parts:
                ids = next(encoded)
                self.unknown.look(ids, row.origin)
                dropped = self.dropout.encode_bare(piece, draw) if self.dropout is not None else None
                self._waiting += ids if dropped is None else dropped
            if row.ends:
                self._waiting.append(self.end)
