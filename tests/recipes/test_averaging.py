import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from transformer_theatre.recipes.averaging import (
    EMA_FILE,
    ExponentialAverage,
    average_checkpoints,
    checkpoints_to_average,
)
from transformer_theatre.recipes.checkpoints import checkpoints_of, write_manifest


@pytest.fixture
def run(tmp_path):
    """A folder with checkpoints of steps 10 to 50, whose weights are the step, and whose loss is lowest at 30 and 40."""
    losses = {10: 5.0, 20: 4.0, 30: 2.0, 40: 1.0, 50: 3.0}
    for step in losses:
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file(
            {"a": torch.full((2, 3), float(step)), "b": torch.tensor([0.5 * step])}, folder / "model.safetensors"
        )
        history = [{"step": s, "eval_loss": losses[s], "eval_bleu": (7 * s) % 40} for s in losses if s <= step]
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}), encoding="utf-8")
        write_manifest(folder, scheduled=True)
    return tmp_path


def test_the_last_and_the_best_are_chosen(run):
    assert [path.name for path in checkpoints_to_average(run, last=2)] == ["checkpoint-40", "checkpoint-50"]
    assert [path.name for path in checkpoints_to_average(run, best=2)] == ["checkpoint-30", "checkpoint-40"]


def test_the_best_are_those_of_the_metric_that_is_named(run):
    # 7 * step modulo 40: 30, 20, 10, 0, 30.
    for metric in ("bleu", "eval_bleu"):
        chosen = checkpoints_to_average(run, best=2, metric=metric, greater_is_better=True)
        assert [path.name for path in chosen] == ["checkpoint-10", "checkpoint-50"]
    chosen = checkpoints_to_average(run, best=2, metric="bleu", greater_is_better=False)
    assert [path.name for path in chosen] == ["checkpoint-30", "checkpoint-40"]


def test_the_average_is_the_mean(run):
    mean = average_checkpoints(checkpoints_to_average(run, last=3))
    torch.testing.assert_close(mean, {"a": torch.full((2, 3), 40.0), "b": torch.tensor([20.0])})


def test_half_precision_is_summed_in_full(tmp_path):
    for step in range(1, 101):
        (tmp_path / f"checkpoint-{step}").mkdir()
        save_file(
            {"a": torch.tensor([1000.0], dtype=torch.bfloat16)}, tmp_path / f"checkpoint-{step}/model.safetensors"
        )
    mean = average_checkpoints(sorted(tmp_path.iterdir()))
    assert mean["a"] == 1000.0
    assert mean["a"].dtype == torch.bfloat16


def test_fewer_checkpoints_than_wanted_are_averaged_with_a_warning(run, tmp_path, caplog):
    for wanted in ({"last": 6}, {"best": 6}):
        assert checkpoints_to_average(run, **wanted) == list(checkpoints_of(run).values())
    assert caplog.text.count("holds 5 whole checkpoints: the average is of these, not of 6") == 2
    with pytest.raises(ValueError, match="holds no whole checkpoint to average"):
        checkpoints_to_average(tmp_path / "none", last=6)


def test_a_checkpoint_without_measurement_is_named(run):
    (run / "checkpoint-20" / "trainer_state.json").write_text('{"log_history": [{"step": 20, "loss": 1}]}', "utf-8")
    write_manifest(run / "checkpoint-20")
    with pytest.raises(ValueError, match="checkpoint-20 was saved without a measurement of eval_loss"):
        checkpoints_to_average(run, best=2)


def test_weights_of_another_model_are_refused(run):
    save_file({"a": torch.zeros(3, 3)}, run / "checkpoint-50" / "model.safetensors")
    write_manifest(run / "checkpoint-50")
    with pytest.raises(ValueError, match="checkpoint-50 are not of the same model"):
        average_checkpoints(checkpoints_to_average(run, last=2))


def test_what_is_not_whole_or_came_out_of_turn_is_no_part_of_the_average(run, caplog):
    path = run / "checkpoint-50" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    write_manifest(run / "checkpoint-40", scheduled=False)
    assert [path.name for path in checkpoints_to_average(run, last=2)] == ["checkpoint-20", "checkpoint-30"]
    assert "checkpoint-50 is left out of the average: it is not whole, model.safetensors has" in caplog.text


def train(average: ExponentialAverage, model: nn.Linear, values):
    average.on_train_begin(None, None, None)
    for value in values:
        with torch.no_grad():
            model.weight.fill_(value)
        average.on_optimizer_step(None, None, None)


def test_the_moving_average_is_the_sum_of_its_definition():
    model = nn.Linear(2, 1, bias=False)
    start = model.weight.detach().clone()
    average = ExponentialAverage(model, decay=0.8)
    values = [float(value) for value in range(1, 60)]
    train(average, model, values)
    expected = start
    for update, value in enumerate(values, 1):
        d = min(0.8, (1 + update) / (10 + update))
        expected = d * expected + (1 - d) * value
    torch.testing.assert_close(average.average["weight"], expected)
    with average.in_place():
        torch.testing.assert_close(model.weight.detach(), expected)
    assert (model.weight == values[-1]).all()


def test_a_skipped_update_does_not_move_the_average():
    model, again = nn.Linear(2, 1), nn.Linear(2, 1)
    again.load_state_dict(model.state_dict())
    average, other = ExponentialAverage(model, 0.9), ExponentialAverage(again, 0.9)
    train(average, model, [1.0])
    train(other, again, [1.0])
    average.skip()
    average.on_optimizer_step(None, None, None)
    average.on_optimizer_step(None, None, None, optimizer=SimpleNamespace(step_was_skipped=True))
    assert average.updates == other.updates
    torch.testing.assert_close(average.average, other.average, rtol=0, atol=0)


def test_a_moving_average_that_goes_on_is_where_it_was(tmp_path):
    model, again = nn.Linear(2, 1), nn.Linear(2, 1)
    whole = ExponentialAverage(model, 0.9)
    train(whole, model, [1.0, 2.0])
    (tmp_path / "checkpoint-2").mkdir()
    whole.save(tmp_path / "checkpoint-2")
    assert [path.name for path in (tmp_path / "checkpoint-2").iterdir()] == [EMA_FILE]

    again.load_state_dict(model.state_dict())
    resumed = ExponentialAverage(again, 0.9)
    resumed.load(tmp_path / "checkpoint-2")
    train(whole, model, [3.0, 4.0])
    train(resumed, again, [3.0, 4.0])
    torch.testing.assert_close(resumed.average, whole.average, rtol=0, atol=0)


def test_a_moving_average_of_another_model_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3, 3)}, tmp_path / EMA_FILE)
    with pytest.raises(ValueError, match="is not of this model"):
        ExponentialAverage(nn.Linear(2, 1), 0.9).load(tmp_path)
    (tmp_path / EMA_FILE).unlink()
    with pytest.raises(ValueError, match="cannot be read"):
        ExponentialAverage(nn.Linear(2, 1), 0.9).load(tmp_path)
