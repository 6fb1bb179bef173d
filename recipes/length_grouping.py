"""Rows of like length side by side, so that batches need little padding."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


# Batches in a pool: within it rows are sorted by length. More pools are more random, and pad more.
_POOL = 100


class LengthGroupedSampler(Sampler[int]):
    """Draw every row once an epoch, such that each `batch_size` rows in a row are of like length.

    Rows are shuffled, sorted by length within pools of a hundred batches, and the batches shuffled. The order follows from
    the seed and the epoch alone, so that it is the same on every process and in a resumed run; the library's sampler draws
    from the global random state, which dropout moves on differently on every CPU process.

    Args:
        lengths: tokens of each row.
        batch_size: rows in a batch, over all processes and accumulation steps alike.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int):
        self.lengths = torch.as_tensor(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int):
        """Choose the order of an epoch; the Trainer calls it."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self), generator=generator)
        pools = [pool[self.lengths[pool].argsort(stable=True)] for pool in order.split(_POOL * self.batch_size)]
        batches = [batch for pool in pools for batch in pool.split(self.batch_size)]
        # The only short batch goes last: before others, it would shift their limits.
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]
        shuffled = [whole[index] for index in torch.randperm(len(whole), generator=generator)]
        yield from torch.cat([*shuffled, *rest]).tolist()
