"""Batches of rows that are all as long: of running text, which needs no padding."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch


def stack_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Make a batch, (rows, tokens) of each column; also where the tokenizer has nothing to pad with, as GPT-2's."""
    columns = ("input_ids", "attention_mask", "labels", "position_ids")
    # By way of numpy: torch takes twice as long to read lists of lists.
    return {name: torch.from_numpy(np.array([row[name] for row in rows])) for name in columns if name in rows[0]}
