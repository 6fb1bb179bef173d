"""Rows of running text that begin at other tokens each epoch, so that a token is not always learnt after the same ones."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset as Table

from .document_rows import positions_in_documents
from .epoch_rows import EpochRows
from .interruption import rows_of
from .tokenization import IGNORED


class ShiftedRows(EpochRows):
    """The blocks of a text, all of them later by a number of tokens that is drawn for each epoch.

    The same blocks in each epoch are learnt by heart; what that costs on Tiny Shakespeare is in docs/gpt.md. nanoGPT
    (https://github.com/karpathy/nanoGPT, `get_batch` of train.py) draws where each row begins, so that chance decides how often a
    token is predicted. Here each one is predicted once in each epoch, as in the blocks themselves: after the last token of the
    text comes its first, which nothing predicts.

    Args:
        table: of `encode_blocks`, with its stride of a whole block.
        seed: of the shifts.
        eos_token_id: that ends documents; needed where the table has `position_ids`.
    """

    def __init__(self, table: Table, seed: int, eos_token_id: int | None = None):
        super().__init__(table, seed)
        self.eos_token_id, self.apart = eos_token_id, "position_ids" in table.column_names
        column = table.select_columns(["labels"]).with_format("arrow")[:].column("labels")
        flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
        labels = flat.reshape(len(table), -1)[:, 1:]
        self.tokens = np.append(table[0]["input_ids"][:1], labels[labels != IGNORED])
        self.block_size = labels.shape[1]

    @property
    def shift(self) -> int:
        """Tokens by which the rows of the epoch are later than those of the table."""
        return random.Random(f"shift {self.seed} {int(self._epoch)}").randrange(self.block_size)

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Cut the rows of a batch out of the text."""
        pairs = len(self.tokens) - 1  # of a token and the one that it predicts
        places = np.asarray(rows)[:, None] * self.block_size + np.arange(self.block_size)
        read = (places + self.shift) % pairs
        ids, labels = self.tokens[read], np.full((len(rows), self.block_size + 1), IGNORED)
        # The last row goes on with what another has predicted.
        labels[:, 1:] = np.where(places < pairs, self.tokens[read + 1], IGNORED)
        found = [
            {"input_ids": row, "attention_mask": np.ones_like(row), "labels": targets}
            for row, targets in zip(ids, labels, strict=True)
        ]
        if self.apart:
            for row in found:
                row["position_ids"] = positions_in_documents(row["input_ids"], self.eos_token_id)
        return found

    def rows_of(self, inputs: Any) -> list[int]:
        """Find the rows that a batch was made of."""
        return rows_of(inputs, (self[row]["input_ids"].tolist() for row in range(len(self))))

    def name_of(self, row: int) -> str:
        """Say where a row comes from, for a message."""
        # The last row of the table reaches back.
        begins = min(row * self.block_size, len(self.tokens) - 1 - self.block_size)
        return f"{super().name_of(row)}, {row * self.block_size - begins + self.shift} tokens later"
