import torch

from transformer_theatre.recipes.length_grouping import LengthGroupedSampler


LENGTHS = torch.randint(3, 60, (1003,), generator=torch.Generator().manual_seed(0)).tolist()


def _padding(order, size):
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    padded = sum(max(LENGTHS[i] for i in batch) * len(batch) for batch in batches)
    return 1 - sum(LENGTHS) / padded


def test_every_row_is_drawn_once_an_epoch():
    assert sorted(LengthGroupedSampler(LENGTHS, 16, seed=1)) == list(range(1003))


def test_the_order_follows_from_seed_and_epoch_alone():
    first, second = LengthGroupedSampler(LENGTHS, 16, seed=1), LengthGroupedSampler(LENGTHS, 16, seed=1)
    orders = []
    for epoch in range(3):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        orders.append(list(first))
        torch.rand(7)  # as dropout does
        assert list(second) == orders[-1]
    assert orders[0] != orders[1] != orders[2]
    second.set_epoch(0)
    assert list(second) == orders[0]


def test_batches_are_of_like_length_and_in_no_order_of_length():
    order = list(LengthGroupedSampler(LENGTHS, 16, seed=1))
    assert _padding(order, 16) < 0.05 < 0.3 < _padding(list(range(1003)), 16)
    means = torch.tensor([sum(LENGTHS[i] for i in order[s : s + 16]) / 16 for s in range(0, 992, 16)])
    assert torch.corrcoef(torch.stack([means, torch.arange(len(means)).float()]))[0, 1].abs() < 0.4
