import contextlib
import os
import signal
import time

import pytest
from safetensors.torch import load_file

from transformer_theatre.recipes import signals, train_translation
from transformer_theatre.recipes.checkpointing import CheckpointingTrainer
from transformer_theatre.recipes.checkpoints import SAVING, checkpoints_of, is_scheduled, problem_of
from transformer_theatre.recipes.signals import StoppedBySignalError, StopSignals
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.trainer import TheatreTrainer


def send(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


def held(stop, *what):
    """Do things one after another, where signals are held."""
    with stop, stop.held():
        for act in what:
            act()


def test_a_signal_ends_the_program_where_nothing_is_held():
    stop, before = StopSignals(), signal.getsignal(signal.SIGTERM)
    with stop, pytest.raises(StoppedBySignalError, match="stopped by SIGTERM before training began") as raised:
        send()
    assert raised.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_waits_until_what_is_held_is_done():
    stop, done = StopSignals(), []
    # The second is how a launcher passes on what the cluster has sent to all.
    acts = [lambda: held(stop, send, send), lambda: setattr(stop, "place", "in the end"), lambda: done.append(1)]
    with pytest.raises(StoppedBySignalError, match="stopped by SIGTERM in the end"):
        held(stop, *acts)
    assert done == [1]


def test_an_error_is_not_hidden_by_a_signal():
    with pytest.raises(ZeroDivisionError):
        held(StopSignals(), send, lambda: 1 / 0)


def test_no_library_takes_the_end_for_an_error():
    def library():
        with contextlib.suppress(Exception):
            send()

    with StopSignals(), pytest.raises(StoppedBySignalError):
        library()


def test_a_second_ctrl_c_ends_at_once_but_not_its_echo(monkeypatch, capfd):
    heard = []
    first = [lambda: send(signal.SIGINT), lambda: send(signal.SIGINT), lambda: heard.append(capfd.readouterr().err)]
    later = [lambda: monkeypatch.setattr(signals, "_ECHO", 0.0), lambda: time.sleep(0.01), lambda: send(signal.SIGINT)]
    with pytest.raises(KeyboardInterrupt):
        held(StopSignals(), *first, *later, lambda: heard.append("too late"))
    assert len(heard) == 1
    assert "Ctrl-C again ends it at once" in heard[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_worker_ends_by_sigterm_and_leaves_ctrl_c_to_its_parent():
    with StopSignals() as stop, stop.held():
        child = os.fork()
        if child == 0:
            send(signal.SIGINT)
            send(signal.SIGTERM)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        assert stop.received is None


# Where the signal comes: in which function, at which of its calls, and the step whose checkpoint the run leaves.
PLACES = {
    "preparation": (train_translation, "make_model", 1, None),
    "step": (TheatreTrainer, "training_step", 13, 13),
    "save": (CheckpointingTrainer, "_write_files", 1, 4),
    "validation": (TheatreTrainer, "prediction_step", 1, 6),
    "last step": (TheatreTrainer, "training_step", 14, 14),
    "last save": (CheckpointingTrainer, "_write_files", 4, 14),
    "average": (CheckpointingTrainer, "save_whole_model", 1, 14),
    "test set": (train_translation, "score_texts", 1, 14),
}
RECIPE = ["dropout: 0.1", "max_steps: 14", "average_last: 2", 'save_strategy: "steps"', "save_steps: 4"]


@pytest.fixture
def run(recipe_file, corpus, tmp_path):
    """Train in this process; return the exit code."""
    recipe = recipe_file(*RECIPE, 'eval_strategy: "steps"', "eval_steps: 6")

    def start(folder, *words):
        return main(["train", str(recipe), "--data_dir", str(corpus), "--output_dir", str(tmp_path / folder), *words])

    return start


def signal_at(monkeypatch, place, number):
    """Send a signal to this process when a function is called for the n-th time."""
    owner, name, turn, _ = place
    function, calls = getattr(owner, name), []

    def signalled(*args, **kwargs):
        calls.append(1)
        if len(calls) == turn:
            send(number)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, signalled)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "place",
    [pytest.param(place, id=name, marks=[] if name == "step" else pytest.mark.slow) for name, place in PLACES.items()],
)
def test_a_run_that_is_stopped_anywhere_goes_on_to_the_same_weights(run, tmp_path, monkeypatch, capsys, place, number):
    folder, step = tmp_path / "run", place[-1]
    with monkeypatch.context() as patch:
        signal_at(patch, place, number)
        assert run("run") == 128 + number
    said = capsys.readouterr().err
    assert f"theatre: stopped by {number.name}" in said
    if step is None:
        assert "there was nothing to save" in said
        assert not folder.exists()
        return
    assert max(checkpoints_of(folder)) == step
    assert all(problem_of(path) is None for path in checkpoints_of(folder).values())
    assert is_scheduled(folder / f"checkpoint-{step}") == (step in (4, 14))
    assert not (folder / SAVING).exists()
    assert "--resume_from_checkpoint true" in said or "the model is saved" in said

    assert run("run", "--resume_from_checkpoint", "true") == 0
    assert run("whole") == 0
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert stopped.keys() == whole.keys()
    assert all(stopped[name].equal(whole[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("turn", [11, 16, 20], ids="update={}".format)
def test_what_an_epoch_brings_at_its_end_is_done_before_a_run_stops(recipe_file, corpus, tmp_path, monkeypatch, turn):
    """Eight updates an epoch: the stop comes in one, at its end, and in the last."""
    lines = ['save_strategy: "epoch"', 'eval_strategy: "epoch"', "average_best: 2", "max_steps: 20", "dropout: 0.1"]
    words = ["train", str(recipe_file(*lines)), "--data_dir", str(corpus), "--output_dir"]
    with monkeypatch.context() as patch:
        signal_at(patch, (TheatreTrainer, "training_step", turn, None), signal.SIGTERM)
        assert main([*words, str(tmp_path / "run")]) == 143
    scheduled = [step for step, path in checkpoints_of(tmp_path / "run").items() if is_scheduled(path)]
    assert scheduled == {11: [8], 16: [8, 16], 20: [8, 16, 20]}[turn]
    assert main([*words, str(tmp_path / "run"), "--resume_from_checkpoint", "true"]) == 0
    assert main([*words, str(tmp_path / "whole")]) == 0
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(stopped[name].equal(whole[name]) for name in whole)


def test_a_run_without_checkpoints_saves_one_when_it_is_stopped(recipe_file, corpus, tmp_path, monkeypatch):
    """Even if it saves weights only: it could not go on from those."""
    recipe = recipe_file("max_steps: 6", "save_only_model: true")
    words = ["train", str(recipe), "--data_dir", str(corpus), "--output_dir", str(tmp_path / "run")]
    with monkeypatch.context() as patch:
        signal_at(patch, (TheatreTrainer, "training_step", 2, None), signal.SIGTERM)
        assert main(words) == 143
    assert (tmp_path / "run" / "checkpoint-2" / "optimizer.pt").is_file()
    assert main([*words, "--resume_from_checkpoint", "true"]) == 0


@pytest.mark.slow
def test_a_run_that_ended_early_does_not_train_on_when_its_measurement_is_cut(
    recipe_file, corpus, tmp_path, monkeypatch
):
    lines = ['eval_strategy: "steps"', 'save_strategy: "steps"', "eval_steps: 2", "save_steps: 2", "max_steps: 20"]
    lines += ["early_stopping_patience: 1", "learning_rate: 0.5"]  # with which it gets no better for long
    words = ["train", str(recipe_file(*lines)), "--data_dir", str(corpus), "--output_dir"]
    with monkeypatch.context() as patch:
        signal_at(patch, PLACES["test set"], signal.SIGTERM)
        assert main([*words, str(tmp_path / "run")]) == 143
    assert main([*words, str(tmp_path / "run"), "--resume_from_checkpoint", "true"]) == 0
    assert main([*words, str(tmp_path / "whole")]) == 0
    steps = [max(checkpoints_of(tmp_path / name)) for name in ("run", "whole")]
    assert steps[0] == steps[1] < 20
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    assert all(stopped[name].equal(whole[name]) for name in whole)
