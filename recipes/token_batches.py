"""Batches filled by a number of tokens, of rows of like length, so that little of them is padding.

Section 5.1 of the paper: "Sentence pairs were batched together by approximate sequence length. Each training batch contained
a set of sentence pairs containing approximately 25000 source tokens and 25000 target tokens."
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Tokens by which rows with the same longer side may differ on the other and still change places: more of them are more random,
# and pad more (Multi30k at 4,096 tokens: 2.7 % padding without, 4.4 % with 3, 6.5 % if all may).
_BLUR = 3.0


class TokenBatchSampler(Sampler[list[int]]):
    """Draw each row once an epoch, in batches of at most `max_tokens` tokens, padding counted.

    Rows are sorted by the length of their longer side, and cut into batches. Each epoch exchanges rows of the same length at
    random, so that a row meets others, but rather with rows whose other side is of like length too; then it shuffles the
    batches. How many rows each batch has does not change, so that every epoch has as many steps. All follows from the seed and
    the epoch alone: it is the same on every process, and in a run that goes on.

    Processes and accumulation steps take the batches of an update side by side, so that the update is the same however many of
    each there are; the number of batches is a multiple of theirs, for which the largest are halved. Where rows are too few for
    that, as where each batch has a single one, some batches are left out, others in each epoch; a warning says how many.

    Args:
        lengths: tokens of each row, (rows,); or of each row's source and target, (rows, 2).
        max_tokens: that a batch may have, of all sides together; each is counted as the longer.
        seed: of the order.
        world_size: processes.
        rank: number of this process.
        accumulation_steps: batches of a process in an update.

    Raises:
        ValueError: a row has more tokens than a batch, or there are fewer rows than an update has batches.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Sequence[Sequence[int]] | torch.Tensor,
        max_tokens: int,
        *,
        seed: int,
        world_size: int = 1,
        rank: int = 0,
        accumulation_steps: int = 1,
    ):
        sides_RS = torch.as_tensor(lengths).view(len(lengths), -1)
        self.longer = sides_RS.max(1).values
        self.difference = sides_RS[:, 0] - sides_RS[:, -1]
        self.seed, self.world_size, self.rank = seed, world_size, rank
        self.epoch = 0
        # What accelerate asks of a batch sampler: where to set the epoch, and rows in a batch, which vary here.
        self.sampler, self.batch_size, self.drop_last = _Epoch(self), 1, False
        budget = max_tokens // sides_RS.shape[1]
        if (longest := int(self.longer.max())) > budget:
            row = int(self.longer.argmax())
            raise ValueError(
                f"max_tokens_per_batch={max_tokens} leaves {budget} tokens to a side; row {row + 1} of the training data has "
                f"{longest}."
            )
        update = world_size * accumulation_steps
        if len(self.longer) < update:
            raise ValueError(
                f"{len(self.longer)} rows of training data are too few for {update} batches in an update."
            )
        self.sizes = cut_by_tokens(self.longer.sort(descending=True).values.tolist(), budget)
        if -(-len(self.sizes) // update) * update <= len(self.longer):
            _split_to_multiple(self.sizes, update)
        self.used = len(self.sizes) // update * update
        if left_out := len(self.sizes) - self.used:
            logger.warning(
                f"{len(self.sizes)} batches are no multiple of the {update} in an update, and {len(self.longer)} rows are too few "
                f"for more: each epoch leaves out {left_out} of them, others each time."
            )

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        return self.used // self.world_size

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        mixed = torch.rand(len(self.longer), generator=generator, dtype=torch.float64)
        # The longer side decides; below it the other side does, blurred by a few tokens.
        order = (self.longer.double() * 1e6 + self.difference + _BLUR * mixed).argsort(descending=True)
        batches = [batch.tolist() for batch in order.split(self.sizes)]
        turns = torch.randperm(len(batches), generator=generator).tolist()[: self.used]
        for turn in turns[self.rank :: self.world_size]:
            yield batches[turn]


class _Epoch:
    """Where accelerate looks for `set_epoch`, also in a sampler that it wraps to skip batches."""

    def __init__(self, batches: TokenBatchSampler):
        self.batches = batches

    def set_epoch(self, epoch: int):
        """Choose the order of an epoch."""
        self.batches.epoch = epoch


def cut_by_tokens(lengths: Sequence[int], budget: int) -> list[int]:
    """Cut rows, the longest first, into batches of at most `budget` padded tokens; return how many rows each has."""
    sizes, start = [], 0
    while start < len(lengths):
        sizes.append(min(budget // lengths[start], len(lengths) - start))
        start += sizes[-1]
    return sizes


def _split_to_multiple(sizes: list[int], multiple: int):
    """Halve the batches with the most rows, in place, until their number is a multiple."""
    while len(sizes) % multiple:
        place = max(range(len(sizes)), key=sizes.__getitem__)
        half = sizes[place] // 2
        sizes[place : place + 1] = [sizes[place] - half, half]
