"""How the rows of an update are divided among processes, batches and rows; and whether another division makes the same update."""

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Division:
    """Of an update: processes, batches of each in an update, and rows, or at most so many tokens, in a batch."""

    processes: int
    accumulation: int
    rows: int | None
    tokens: int | None = None

    def __str__(self) -> str:
        processes = f"{self.processes} process{'es' if self.processes > 1 else ''}"
        batches = f"{self.accumulation} batch{'es' if self.accumulation > 1 else ''}"
        size = f"{self.rows} rows" if self.tokens is None else f"{self.tokens} tokens"
        return f"{processes} x {batches} of {size}"

    @property
    def update(self) -> int:
        """Rows in an update, or batches where those are of a number of tokens."""
        return self.processes * self.accumulation * (self.rows or 1)


def division_of(args: Any) -> Division:
    """Read the division off the arguments of a run."""
    rows, tokens = args.train_batch_size, args.max_tokens_per_batch
    return Division(args.world_size, args.gradient_accumulation_steps, None if tokens else rows, tokens)


def why_not(then: dict[str, Any], now: Division, rows: int | None, sampling: str, *, epoch_ends: bool) -> str | None:
    """Say why a run cannot go on with another division than it had, and what would work; None if it can.

    It can where each update is of the same rows. That holds for as many rows (or batches of tokens) in an update, but for the
    last update of an epoch, which several processes fill up with rows from its beginning; and but for the order of rows
    grouped by length, which depends on the rows in a batch. Neither matters where an epoch ends.

    Args:
        then: the division as `dataclasses.asdict` gives it.
        now: the division to go on with.
        rows: of the training data; None: it is a stream, which is cut into batches one after the other, and has no last one.
        sampling: the order of rows.
        epoch_ends: whether the checkpoint is at the end of an epoch.
    """
    before = Division(**then)
    if before == now:
        return None
    if before.tokens != now.tokens:
        return f"its update was {before}, and is {now} now, which are other rows"
    if before.update != now.update:
        return f"its update was {before}, and is {now} now: {_remedy(before, now)}"
    if rows is None and before.rows != now.rows:
        return f"a stream was cut into batches of {before.rows} rows, and would be into such of {now.rows}, which are other rows"
    if now.tokens or epoch_ends or rows is None:
        return None
    if sampling not in ("random", "sequential") and before.rows != now.rows:
        return (
            f"{sampling} orders rows by batches, of {before.rows} rows before and {now.rows} now: {_elsewhere(before)}"
        )
    if _padded(rows, before) != _padded(rows, now):
        return (
            f"the last update of an epoch of {rows:,} rows was {before}, filled up to {_padded(rows, before):,} rows, and would "
            f"be filled up to {_padded(rows, now):,} by {now}: {_elsewhere(before)}"
        )
    return None


def _padded(rows: int, division: Division) -> int:
    if division.processes == 1:
        return rows
    dealt = division.processes * (division.rows or 1)
    return math.ceil(rows / dealt) * dealt


def _remedy(before: Division, now: Division) -> str:
    batches = before.update / (now.processes * (now.rows or 1))
    if batches >= 1 and batches.is_integer():
        return f"--gradient_accumulation_steps {batches:.0f} makes it the same"
    return f"give a division of the same {before.update}"


def _elsewhere(before: Division) -> str:
    return f"go on with {before}, or from a checkpoint at the end of an epoch (save_strategy: epoch)"
