"""Rows that are others each epoch, for data sets that are in memory or on the disk."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from torch.utils.data import Dataset
from transformers import TrainerCallback

from .interruption import name_of_row


class EpochRows(Dataset, ABC):
    """The rows of a table as they are in an epoch; `begin_epoch` says which it is.

    They follow from the seed, the epoch and the number of the row alone: not from the order, the processes, the workers of a
    loader, or where a run was stopped.

    Args:
        table: as many rows, of the same `input_ids` and `labels` or others.
        seed: of what is drawn.
    """

    def __init__(self, table: Table, seed: int):
        self.table, self.seed = table, seed
        # Shared with a loader's workers, also with those that live longer than an epoch.
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if not 0 <= row < len(self):  # what ends a loop over the rows
            raise IndexError(f"There is no row {row}: there are {len(self)}.")
        return self.__getitems__([row])[0]

    @abstractmethod
    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Make the rows of a batch."""

    def begin_epoch(self, epoch: int):
        """Choose the epoch, from 0 on."""
        self._epoch.fill_(epoch)

    def expected_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Say how long rows will be, (rows, sides), given how many tokens those of the table have."""
        return lengths

    @abstractmethod
    def rows_of(self, inputs: Any) -> list[int]:
        """Find the rows that a batch was made of."""

    def name_of(self, row: int) -> str:
        """Say where a row comes from, for a message."""
        return name_of_row(self.table, row)


class BeginEpoch(TrainerCallback):
    """Tell rows which epoch begins; `Trainer` calls it before its loader begins.

    Args:
        rows: to tell.
    """

    def __init__(self, rows: EpochRows):
        self.rows = rows

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Take the epoch from the share of it that is done."""
        self.rows.begin_epoch(math.floor((state.epoch or 0) + 1e-6))
