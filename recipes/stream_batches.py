"""Batches of a text that is read while it is trained on, shuffled in a buffer; where they have come to can be saved."""

import collections
import copy
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, Sampler, get_worker_info
from transformers import TrainerCallback

from .stream_rows import Features, StreamRows
from .token_batches import cut_by_tokens


STREAM_FILE = "stream.json.gz"
NOTE = "stream_note"
# Rows that stand for all where a run that goes on looks whether the text is the same.
_FINGERPRINT_ROWS = 1000


@dataclass(frozen=True)
class StreamState:
    """Where a stream was before it filled its buffer: all that follows can be made from it."""

    batch: int = 0  # batches before, of all processes
    epoch: int = 0
    fill: int = 0  # how often the buffer was filled in this epoch
    kept: int = 0  # rows in the epoch's batches before
    bad: tuple[int, bool, tuple[str, ...]] = (0, False, ())
    place: dict[str, Any] | None = None
    buffer: tuple[Any, ...] = ()


@dataclass
class StreamNote:
    """What travels with a batch: where its rows come from, and the state from which it was made, or what went wrong."""

    origins: list[str] = field(default_factory=list)
    state: StreamState | None = None
    error: str = ""


class StreamBatches(Dataset):
    """The batches of a stream, by number, forwards: `batches[[0]]`, `batches[[1]]`, ...; without end, epoch after epoch.

    A buffer is filled with rows; a random half of them leaves it, is sorted by length and cut into batches (or cut as it is),
    which come in random order; then the buffer is filled again. A row may thus wait long, and meets rows from far away, but no
    more than `buffer` rows are ever held. At the end of an epoch the buffer is emptied: each row comes once an epoch. All
    follows from the seed and the epoch, so that every process makes the same batches, and takes each `world_size`-th.

    Args:
        rows: what to read.
        collate: makes a batch of features.
        seed: of the order.
        buffer: rows.
        max_tokens: of a batch, padding counted, of all sides together; or None.
        batch_size: rows of a batch, where `max_tokens` is None.
        grouped: whether batches of `batch_size` rows are of rows of like length.
        world_size: processes.
        rank: number of this process.
    """

    def __init__(
        self,
        rows: StreamRows,
        collate: Callable[[list[Features]], Any],
        *,
        seed: int,
        buffer: int,
        max_tokens: int | None = None,
        batch_size: int = 1,
        grouped: bool = False,
        world_size: int = 1,
        rank: int = 0,
    ):
        self.rows, self.collate, self.seed, self.buffer_size = rows, collate, seed, buffer
        self.max_tokens, self.batch_size, self.grouped = max_tokens, batch_size, grouped
        self.world_size, self.rank = world_size, rank
        rows.text.bad.quiet = rank != 0
        self._begin = StreamState()
        self._rewind()

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Make the batch of this process with a number, from 0; `collate_fn` of the loader is `first`."""
        [number] = numbers
        worker = get_worker_info()
        if worker is not None and worker.id:
            self.rows.text.bad.quiet = True
        try:
            return [self._batch(number * self.world_size + self.rank)]
        except ValueError as error:
            if worker is None:
                raise
            # The loader would put a traceback before its message.
            return [{NOTE: StreamNote(error=str(error))}]

    @staticmethod
    def first(batches: list[dict[str, Any]]) -> dict[str, Any]:
        """Be the `collate_fn` of the loader: a batch is collated already."""
        return batches[0]

    def start_from(self, state: StreamState):
        """Go on from a state."""
        self._begin = state
        self._rewind()

    def dump(self, state: StreamState) -> dict[str, Any]:
        """Turn a state into what JSON can hold."""
        return {**vars(state), "buffer": [self.rows.dump(row) for row in state.buffer]}

    def load(self, state: Mapping[str, Any]) -> StreamState:
        """Turn it back."""
        count, known, reports = state["bad"]
        buffer = tuple(self.rows.load(row) for row in state["buffer"])
        return StreamState(**{**state, "bad": (count, known, tuple(reports)), "buffer": buffer})

    def fingerprint(self) -> str:
        """Name the text, with what its first rows are: reading all of it would take too long.

        Raises:
            ValueError: there are no rows.
        """
        text = self.rows.text
        text.restart()
        digest, count = hashlib.sha256(), 0
        for row in text:
            digest.update("\0".join(row.texts).encode())
            count += 1
            if count == _FINGERPRINT_ROWS:
                break
        if not count:
            text.bad.close(0)
        text.restart()
        what = f"{self.rows.describe()} from {', '.join(text.describe())}"
        return f"a stream of {what}, whose first {count:,} rows have checksum {digest.hexdigest()[:16]}"

    def _rewind(self):
        self._state, self._noted = self._begin, False
        self._at, self._batches = self._begin.batch, []  # number of the first of the batches, and the batches
        self._fresh = True  # the reader is elsewhere

    def _batch(self, number: int) -> dict[str, Any]:
        if number < self._at:
            self._rewind()
        while number >= self._at + len(self._batches):
            self._refill()
        batch = self._batches[number - self._at]
        inputs = self.collate([features for _, features in batch])
        # The first process saves; it needs the state once.
        state = self._filled_from if self.rank == 0 and not self._noted else None
        self._noted = True
        inputs[NOTE] = StreamNote([row.origin for row, _ in batch], state)
        return inputs

    def _refill(self):
        """Fill the buffer, and make batches of half of it."""
        rows, bad = self.rows, self.rows.text.bad
        if self._fresh:
            self._buffer = list(self._state.buffer)
            rows.restart(self._state.epoch, self._state.place)
            bad.counted, bad.known, reports = self._state.bad
            bad.reports = list(reports)
            self._fresh = False
        self._at += len(self._batches)
        self._filled_from, self._noted = self._now(), False
        ended = False
        while len(self._buffer) < self.buffer_size and not ended:
            row = next(rows, None)
            ended = row is None
            if row is not None:
                self._buffer.append(row)
        draw = random.Random(f"{self.seed} {self._state.epoch} {self._state.fill}")
        draw.shuffle(self._buffer)
        left = 0 if ended else len(self._buffer) // 2
        encoded = rows.encode(self._buffer[left:])
        del self._buffer[left:]
        self._batches = self._cut(encoded, ended)
        draw.shuffle(self._batches)
        kept = self._state.kept + sum(map(len, self._batches))
        self._state = StreamState(epoch=self._state.epoch, fill=self._state.fill + 1, kept=kept)
        if ended:
            self._end_epoch(kept)

    def _now(self) -> StreamState:
        bad = self.rows.text.bad
        return StreamState(
            self._at,
            self._state.epoch,
            self._state.fill,
            self._state.kept,
            (bad.counted, bad.known, tuple(bad.reports)),
            copy.deepcopy(self.rows.place()),
            tuple(self._buffer),
        )

    def _end_epoch(self, kept: int):
        # Of running text, the first epochs may all go into one row.
        self.rows.text.bad.close(kept or (self.rows.sides == 1 and self.rows.text.good))
        self._state = StreamState(epoch=self._state.epoch + 1)
        self.rows.restart(self._state.epoch)

    def _cut(self, encoded: list[tuple[Any, Features]], ended: bool) -> list[list[tuple[Any, Features]]]:
        """Cut rows into batches; what does not fill one goes back into the buffer, unless the epoch ends."""
        # A model does not read the last label of running text.
        sides = ("input_ids", "labels")[: self.rows.sides]
        lengths = [[len(features[name]) for name in sides] for _, features in encoded]
        order = list(range(len(encoded)))
        if self.max_tokens or self.grouped:
            order.sort(key=lambda row: (-max(lengths[row]), lengths[row][-1] - lengths[row][0]))
        longer = [max(lengths[row]) for row in order]
        budget = self.max_tokens // self.rows.sides if self.max_tokens else 0
        if budget:
            sizes = cut_by_tokens(longer, budget)
        else:
            sizes = [min(self.batch_size, len(order) - start) for start in range(0, len(order), self.batch_size)]
        batches, start = [], 0
        for size in sizes:
            most = budget // longer[start] if budget else self.batch_size
            batch = [encoded[row] for row in order[start : start + size]]
            start += size
            if size == most or ended:
                batches.append(batch)
            else:
                self._buffer += [row for row, _ in batch]
        if encoded and not batches:
            raise ValueError(
                f"shuffle_buffer={self.buffer_size} rows are too few: half of them, {len(encoded)}, do not fill one batch of "
                f"{f'{self.max_tokens} tokens' if budget else f'{self.batch_size} rows'}. Give many times more."
            )
        return batches


class BatchNumbers(Sampler[list[int]]):
    """The numbers of the batches of a run, one by one: to skip those that were seen costs nothing.

    Args:
        count: updates of the run times batches of a process in an update.
    """

    def __init__(self, count: int):
        self.count = count
        # What accelerate asks of a batch sampler.
        self.sampler, self.batch_size, self.drop_last = None, 1, False

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[int]]:
        return ([number] for number in range(self.count))


class StreamKeeper(TrainerCallback):
    """Take the notes off a stream's batches, and save with every checkpoint what a run that goes on begins from.

    Args:
        batches: of the run.
        batches_in_update: of all processes.
    """

    def __init__(self, batches: StreamBatches, batches_in_update: int):
        self.batches, self.batches_in_update = batches, batches_in_update
        # Of the rows of each batch that nothing was learned from yet.
        self.origins: collections.deque[list[str]] = collections.deque()
        self._states: list[StreamState] = []

    def take(self, inputs: Any) -> Any:
        """Take the note off a batch.

        Raises:
            ValueError: the stream could not go on; the message says why.
        """
        note: StreamNote = inputs.pop(NOTE)
        if note.error:
            raise ValueError(note.error)
        if note.state is not None:
            self._states.append(note.state)
        self.origins.append(note.origins)
        return inputs

    def on_step_begin(self, args, state, control, **kwargs):
        """Forget what no checkpoint can need any more."""
        begun = [
            at for at, kept in enumerate(self._states) if kept.batch <= state.global_step * self.batches_in_update
        ]
        del self._states[: begun[-1] if begun else 0]

    def save(self, checkpoint: Path, step: int):
        """Write into a checkpoint that is being saved the state from which the batch after this update was made, or will be.

        Args:
            checkpoint: its folder.
            step: updates that were made.
        """
        following = step * self.batches_in_update
        chosen = max((kept for kept in self._states if kept.batch <= following), key=lambda kept: kept.batch)
        with gzip.open(checkpoint / STREAM_FILE, "wt", compresslevel=1, encoding="utf-8") as file:
            json.dump(self.batches.dump(chosen), file)

    def load(self, checkpoint: Path):
        """Go on from a checkpoint; call it before training begins.

        Raises:
            ValueError: its state is missing or damaged.
        """
        path = checkpoint / STREAM_FILE
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                state = self.batches.load(json.load(file))
        except (OSError, EOFError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"The state of the stream in {path} cannot be read: {error}") from error
        self._states = [state]
        self.batches.start_from(state)
