import json
import re

import pytest
import torch
from safetensors.torch import load_file

from transformer_theatre.recipes.checkpoints import problem_of
from transformer_theatre.recipes.nonfinite import FiniteUpdates, noted_by
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.trainer import TheatreTrainer


RECIPE = ["max_steps: 4", "per_device_train_batch_size: 4", "gradient_accumulation_steps: 2", "logging_steps: 1"]
RECIPE += ['train_sampling_strategy: "sequential"', 'optim: "sgd"', "max_grad_norm: 0", "learning_rate: 0.05"]


@pytest.fixture
def run(recipe_file, corpus, tmp_path):
    """Train in this process; return the exit code."""

    def start(folder, *lines, words=()):
        recipe = recipe_file(*RECIPE, *lines)
        where = ["--data_dir", str(corpus), "--output_dir", str(tmp_path / folder)]
        return main(["train", str(recipe), *where, *words])

    return start


def infinite_loss(model, loss):
    return loss / 0


def undefined_gradient(model, loss):
    """The loss stays as it is; its gradient is 0 times infinity."""
    return loss + (0 * next(model.parameters())).sqrt().sum()


def poison(monkeypatch, spoil, batches):
    """Spoil the losses of the batches with these numbers, from 1."""
    compute, count = TheatreTrainer.compute_loss, []

    def spoiled(self, model, *args, **kwargs):
        loss = compute(self, model, *args, **kwargs)
        count.append(1)
        return spoil(model, loss) if len(count) in batches else loss

    monkeypatch.setattr(TheatreTrainer, "compute_loss", spoiled)


def history(folder, name):
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [entry[name] for entry in state["log_history"] if name in entry]


# Batch 4 is the second of update 2: lines 13 to 16. A gradient is everybody's who is in the update: lines 9 to 16.
SPOILS = {
    "loss": (
        infinite_loss,
        r"The loss became inf in step 2, on train\.de:13, train\.de:14, train\.de:15, train\.de:16\.",
    ),
    "gradient": (
        undefined_gradient,
        r"The gradient's norm became nan in step 2, on train\.de:9, .* train\.de:13 and 3 more, all of them in .*nonfinite-step-2\.txt\.",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), SPOILS.values(), ids=SPOILS)
def test_a_run_stops_before_an_update_that_is_no_number_and_can_go_on(
    run, tmp_path, monkeypatch, capsys, spoil, message
):
    saves = ['save_strategy: "steps"', "save_steps: 1"]
    with monkeypatch.context() as patch:
        poison(patch, spoil, {4})
        assert run("run", *saves) == 1
    said = capsys.readouterr().err
    assert re.search(message, said), said
    assert "--skip_nonfinite" in said
    assert problem_of(tmp_path / "run" / "checkpoint-1") is None
    assert not (tmp_path / "run" / "checkpoint-2").exists()
    assert run("run", *saves, words=["--resume_from_checkpoint", "true"]) == 0
    assert run("whole", *saves) == 0
    gone_on, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(gone_on[name].equal(whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("spoil", "lines"),
    [
        pytest.param(infinite_loss, [], id="loss", marks=pytest.mark.slow),
        pytest.param(undefined_gradient, ["ema_decay: 0.5"], id="gradient"),
        pytest.param(infinite_loss, ["bf16: true"], id="bf16", marks=pytest.mark.slow),
    ],
)
def test_a_skipped_update_is_one_that_the_optimizer_does_not_make(run, tmp_path, monkeypatch, capsys, spoil, lines):
    with monkeypatch.context() as patch:
        poison(patch, spoil, {4})
        assert run("skipped", *lines, "skip_nonfinite: 1") == 0
    with monkeypatch.context() as patch:
        step, calls = torch.optim.SGD.step, []

        def three_steps(self, *args, **kwargs):
            calls.append(1)
            return None if len(calls) == 2 else step(self, *args, **kwargs)

        patch.setattr(torch.optim.SGD, "step", three_steps)
        assert run("expected") == 0
    metrics = json.loads((tmp_path / "skipped" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["train_skipped_updates"] == 1
    assert history(tmp_path / "skipped", "skipped_update") == [2]
    if lines != []:
        return  # those weights are an average, or in another precision
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("skipped", "expected"))
    assert all(found[name].equal(expected[name]) for name in expected)
    # The losses that are logged, and their mean, are those of the updates that were made.
    losses = history(tmp_path / "expected", "loss")
    assert history(tmp_path / "skipped", "loss") == [losses[0], *losses[2:]]
    assert metrics["train_loss"] == pytest.approx(sum(losses[:1] + losses[2:]) / 3)
    assert history(tmp_path / "skipped", "train_loss") == [pytest.approx(metrics["train_loss"])]


def test_fp16s_scaler_makes_no_update_that_is_skipped_when_gradients_were_looked_at_already():
    model, scaler = torch.nn.Linear(2, 1), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    scaler.unscale_(optimizer)
    scale = scaler.get_scale()
    FiniteUpdates(None).skip(model, torch.zeros(()), noted_by(scaler, optimizer))
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(model.weight, before)
    assert scaler.get_scale() == scale / 2


def test_a_logged_mean_leaves_skipped_updates_out(run, tmp_path, monkeypatch):
    for name, every in (("each", 1), ("mean", 4)):
        with monkeypatch.context() as patch:
            poison(patch, infinite_loss, {3, 6})  # the first batch of update 2, the second of update 3
            assert run(name, "skip_nonfinite: 2", words=["--logging_steps", str(every)]) == 0
    losses = history(tmp_path / "each", "loss")
    assert len(losses) == 2
    assert history(tmp_path / "mean", "loss") == [pytest.approx(sum(losses) / 2)]


def test_more_updates_than_allowed_stop_the_run_also_when_it_goes_on(run, tmp_path, monkeypatch, capsys, caplog):
    lines = ["skip_nonfinite: 1", 'save_strategy: "steps"', "save_steps: 1"]
    for words, batches in ([], {1, 5}), (["--resume_from_checkpoint", "true"], {2}):
        with monkeypatch.context() as patch:
            poison(patch, infinite_loss, batches)
            assert run("run", *lines, words=words) == 1
        said = capsys.readouterr().err
        assert "in step 3, on train.de:" in said
        assert "after 1 that were skipped (skip_nonfinite=1)" in said
    skip = r"in step 1, on train\.de:1, .* train\.de:4\. The update is skipped: 1 of skip_nonfinite=1"
    assert len(re.findall(skip, caplog.text)) == 1
    more = ["--resume_from_checkpoint", "true", "--skip_nonfinite", "2"]
    with monkeypatch.context() as patch:
        poison(patch, infinite_loss, {2})
        assert run("run", *lines, words=more) == 0
    assert history(tmp_path / "run", "skipped_update") == [1, 3]


def test_weights_that_are_no_numbers_are_not_saved(run, tmp_path, monkeypatch, capsys):
    """The loss and the gradient of the update were numbers; what it made of the weights is not."""
    step, calls = torch.optim.SGD.step, []

    def overflow(self, *args, **kwargs):
        step(self, *args, **kwargs)
        calls.append(1)
        if len(calls) == 2:
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(torch.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", overflow)
    assert run("run", 'save_strategy: "steps"', "save_steps: 1") == 1
    assert "Weights are no numbers any more after step 2" in capsys.readouterr().err
    assert problem_of(tmp_path / "run" / "checkpoint-1") is None
    assert not (tmp_path / "run" / "checkpoint-2").exists()
    calls.clear()
    assert run("last", words=["--max_steps", "2"]) == 1
    assert not (tmp_path / "last" / "model.safetensors").exists()
