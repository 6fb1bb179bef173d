"""Rows of pairs whose words are in other pieces each epoch, for data sets that are in memory or on the disk."""

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset as Table
from transformers import PreTrainedTokenizerBase

from .bpe_dropout import BpeDropout, draw_for
from .epoch_rows import EpochRows
from .pair_dropout import drop_pair


# Rows from which it is learned how many more tokens dropout makes of a text.
_SAMPLE = 1000
# Standard deviations above the mean that a batch leaves room for; what needs more is read without dropout: one side in 100.
_MARGIN = 2.0


class DropoutRows(EpochRows):
    """The rows of a table, encoded when they are asked for, each epoch otherwise.

    Args:
        table: columns `source`, `target`, `input_ids`, `labels` (without dropout).
        tokenizer: that made them.
        p: probability of leaving out a merge.
        seed: of the dropout.
        sides: "source", "target" or "both".
        most: tokens that a side may have, or None: any number.
        max_tokens: of a batch, source and target together, padding counted, or None.
    """

    def __init__(
        self,
        table: Table,
        tokenizer: PreTrainedTokenizerBase,
        p: float,
        *,
        seed: int,
        sides: str = "both",
        most: int | None = None,
        max_tokens: int | None = None,
    ):
        super().__init__(table, seed)
        self._columns = table.select_columns(["source", "target", "input_ids", "labels"])
        self.tokenizer, self.dropout = tokenizer, BpeDropout(tokenizer, p)
        self.sides, self.most, self.max_tokens = sides, most, max_tokens

    def __getitems__(self, rows: Sequence[int]) -> list[dict[str, list[int]]]:
        """Encode the rows of a batch; those for which it has no room stay as they are."""
        limits = [10**9 if self.most is None else self.most]
        if self.max_tokens is not None:
            limits.append(self.max_tokens // 2 // len(rows))
        return [self._row(row, values, min(limits)) for row, values in zip(rows, self._values(rows), strict=True)]

    def expected_lengths(self, lengths: torch.Tensor) -> torch.Tensor:
        """Estimate how long rows will be: the mean of a sample for their length, and a margin for chance.

        Args:
            lengths: tokens of source and target without dropout, (rows, 2).

        Returns:
            Tokens, (rows, 2); no less than `lengths`, and no more than a batch has room for.
        """
        some = sorted({int(row) for row in torch.linspace(0, len(self) - 1, min(_SAMPLE, len(self)))})
        found = torch.tensor([[len(row[name]) for name in ("input_ids", "labels")] for row in self._sample(some)])
        plain = lengths[some].double()
        growth = found.sum(0) / plain.sum(0)
        # Words are split independently: the variance grows with the length.
        spread = ((found - growth * plain) / plain.sqrt()).std(0, correction=0)
        expected = (growth * lengths + _MARGIN * spread * lengths.double().sqrt()).ceil().long()
        limits = [limit for limit in (self.most, self.max_tokens and self.max_tokens // 2) if limit]
        return torch.maximum(lengths, expected.clamp(max=min(limits, default=int(expected.max()))))

    def rows_of(self, inputs: Any) -> list[int]:
        """Find the rows that a batch was made of."""
        wanted = set(self.tokenizer.batch_decode(inputs["input_ids"], skip_special_tokens=True))
        texts = (self.tokenizer.decode(ids, skip_special_tokens=True) for ids in self.table["input_ids"])
        return [row for row, text in enumerate(texts) if text in wanted]

    def _sample(self, rows: Sequence[int]) -> list[dict[str, list[int]]]:
        limit = 10**9
        return [self._row(row, values, limit) for row, values in zip(rows, self._values(rows), strict=True)]

    def _values(self, rows: Sequence[int]) -> list[tuple[Any, ...]]:
        columns = self._columns[list(rows)]
        return list(zip(*(columns[name] for name in ("source", "target", "input_ids", "labels")), strict=True))

    def _row(self, row: int, values: tuple[Any, ...], limit: int) -> dict[str, list[int]]:
        *texts, source, target = values
        draw = draw_for(self.seed, int(self._epoch), row)
        source, target = drop_pair(self.dropout, self.sides, texts, (source, target), draw, limit)
        return {"input_ids": source, "attention_mask": [1] * len(source), "labels": target}
