import random

import pytest

from transformer_theatre.recipes.token_batches import TokenBatchSampler


@pytest.fixture
def pairs():
    rng = random.Random(0)
    sources = [max(1, int(rng.gauss(14, 5))) for _ in range(2000)]
    return [(source, max(1, source + rng.randint(-4, 4))) for source in sources]


def padded_tokens(pairs, batch):
    return len(batch) * sum(max(pairs[row][side] for row in batch) for side in range(len(pairs[0])))


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_every_row_comes_once_an_epoch_in_batches_within_the_budget(pairs, processes):
    options = {"seed": 1, "world_size": processes, "accumulation_steps": 2}
    samplers = [TokenBatchSampler(pairs, 600, rank=rank, **options) for rank in range(processes)]
    for epoch in range(2):
        for sampler in samplers:
            sampler.sampler.set_epoch(epoch)
        batches = [batch for sampler in samplers for batch in sampler]
        assert sorted(row for batch in batches for row in batch) == list(range(len(pairs)))
        assert all(padded_tokens(pairs, batch) <= 600 for batch in batches)
        assert len({len(list(sampler)) for sampler in samplers}) == 1
        assert len(batches) % (2 * processes) == 0
        assert [len(sampler) for sampler in samplers] == [len(batches) // processes] * processes


def test_little_of_a_batch_is_padding(pairs):
    batches = list(TokenBatchSampler(pairs, 1000, seed=1))
    real = sum(map(sum, pairs))
    assert 1 - real / sum(padded_tokens(pairs, batch) for batch in batches) < 0.12
    full = sorted(padded_tokens(pairs, batch) for batch in batches)
    assert full[len(full) // 2] > 900


def test_an_update_has_the_same_rows_on_any_number_of_processes(pairs):
    """8 batches of one process = 4 batches of two = 2 of four."""

    def updates(world_size, accumulation_steps):
        options = {"seed": 1, "world_size": world_size, "accumulation_steps": accumulation_steps}
        ranks = [list(TokenBatchSampler(pairs, 300, rank=rank, **options)) for rank in range(world_size)]
        return [
            sorted(row for batches in ranks for batch in batches[first : first + accumulation_steps] for row in batch)
            for first in range(0, len(ranks[0]), accumulation_steps)
        ]

    assert updates(1, 8) == updates(2, 4) == updates(4, 2) == updates(8, 1)


@pytest.mark.parametrize(("rows", "update"), [(28, 8), (9, 4), (8, 8)])
def test_batches_that_cannot_be_halved_are_left_out_and_none_is_empty(caplog, rows, update):
    sampler = TokenBatchSampler([64] * rows, 64, seed=1, accumulation_steps=update)
    came = []
    for epoch in range(20):
        sampler.sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler) == rows // update * update
        assert all(len(batch) == 1 for batch in batches)
        came += [row for batch in batches for row in batch]
    assert set(came) == set(range(rows))
    assert (f"leaves out {rows % update} of them" in caplog.text) == bool(rows % update)


def test_epochs_differ_and_the_same_epoch_does_not(pairs):
    sampler = TokenBatchSampler(pairs, 600, seed=1)
    first = list(sampler)
    assert list(sampler) == first
    sampler.sampler.set_epoch(1)
    second = list(sampler)
    assert second != first
    assert len(second) == len(first)
    together = {frozenset(batch) for batch in first}
    assert sum(frozenset(batch) in together for batch in second) < len(second) / 4


def test_text_of_one_side_fills_the_whole_budget():
    batches = list(TokenBatchSampler([10] * 100, 50, seed=1))
    assert {len(batch) for batch in batches} == {5}


def test_a_row_longer_than_a_batch_is_named():
    with pytest.raises(ValueError, match=r"max_tokens_per_batch=40 leaves 20 tokens to a side; row 2 .* has 21"):
        TokenBatchSampler([(5, 5), (3, 21)], 40, seed=1)


def test_too_few_rows_for_an_update_are_refused():
    with pytest.raises(ValueError, match="3 rows of training data are too few for 4 batches in an update"):
        TokenBatchSampler([5, 5, 5], 40, seed=1, world_size=2, accumulation_steps=2)
