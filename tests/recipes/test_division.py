from dataclasses import asdict

import pytest

from transformer_theatre.recipes.division import Division, why_not
from transformer_theatre.recipes.token_batches import TokenBatchSampler


def test_the_same_division_goes_on():
    assert why_not(asdict(Division(2, 4, 8)), Division(2, 4, 8), 100, "anything", epoch_ends=False) is None


@pytest.mark.parametrize(
    ("before", "now", "advice"),
    [
        (Division(2, 4, 8), Division(1, 4, 8), "--gradient_accumulation_steps 8 makes it the same"),
        (Division(1, 1, 8), Division(1, 1, 4), "--gradient_accumulation_steps 2 makes it the same"),
        (Division(1, 1, 8), Division(3, 1, 8), "give a division of the same 8"),
        (Division(2, 2, None, 4000), Division(1, 2, None, 4000), "--gradient_accumulation_steps 4 makes it the same"),
    ],
    ids=str,
)
def test_another_size_of_the_update_is_refused_with_what_would_work(before, now, advice):
    for epoch_ends in (False, True):
        reason = why_not(asdict(before), now, 100, "random", epoch_ends=epoch_ends)
        assert f"its update was {before}, and is {now} now: " in reason
        assert advice in reason


def test_batches_of_another_number_of_tokens_are_refused():
    reason = why_not(asdict(Division(1, 2, None, 4000)), Division(1, 2, None, 2000), 9, "tokens", epoch_ends=True)
    assert "1 process x 2 batches of 4000 tokens, and is 1 process x 2 batches of 2000 tokens now" in reason


def updates_of_rows(division, rows):
    """What the library deals out: batches in turns, and each process the same number of whole ones."""
    order = list(range(rows))
    if division.processes > 1:
        dealt = division.processes * division.rows
        order += order[: -rows % dealt]
    size = division.update
    return [sorted(order[start : start + size]) for start in range(0, len(order), size)]


@pytest.mark.parametrize("rows", [64, 60, 61], ids="rows={}".format)
@pytest.mark.parametrize("now", [Division(1, 1, 8), Division(1, 2, 4), Division(2, 2, 2), Division(4, 1, 2)], ids=str)
def test_rows_go_on_where_the_updates_are_the_same(rows, now):
    before = Division(2, 1, 4)
    same = updates_of_rows(before, rows) == updates_of_rows(now, rows)
    reason = why_not(asdict(before), now, rows, "random", epoch_ends=False)
    assert (reason is None) == same
    assert reason is None or "go on with 2 processes x 1 batch of 4 rows, or from a checkpoint at the end" in reason
    assert why_not(asdict(before), now, rows, "random", epoch_ends=True) is None


def test_rows_grouped_by_length_depend_on_the_batch():
    before = asdict(Division(1, 1, 8))
    assert "orders rows by batches" in why_not(before, Division(1, 2, 4), 64, "group_by_length", epoch_ends=False)
    assert why_not(before, Division(1, 2, 4), 64, "group_by_length", epoch_ends=True) is None
    assert why_not(asdict(Division(1, 2, 8)), Division(2, 1, 8), 64, "group_by_length", epoch_ends=False) is None


def test_batches_of_tokens_go_on_on_any_number_of_processes():
    def updates(processes, accumulation):
        samplers = [
            list(
                TokenBatchSampler(
                    list(range(3, 40)), 60, seed=1, world_size=processes, rank=rank, accumulation_steps=accumulation
                )
            )
            for rank in range(processes)
        ]
        return [
            sorted(batch for sampler in samplers for batch in sampler[start : start + accumulation])
            for start in range(0, len(samplers[0]), accumulation)
        ]

    assert updates(4, 1) == updates(2, 2) == updates(1, 4)
    before = asdict(Division(4, 1, None, 60))
    assert why_not(before, Division(1, 4, None, 60), 37, "tokens", epoch_ends=False) is None
