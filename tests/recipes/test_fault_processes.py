"""Interruptions of a run on two processes, which talk by gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from transformer_theatre.recipes.checkpoints import checkpoints_of, problem_of
from transformer_theatre.recipes.theatre import main


pytestmark = pytest.mark.slow

# Runs `theatre train`; the process of one rank does something to itself when a function is called for the n-th time.
SCRIPT = """
import errno, json, os, signal, sys, time
from transformer_theatre.recipes import trainer as module
from transformer_theatre.recipes.theatre import main

what, rank, turn = json.loads(sys.argv[1])
trainer, calls = module.TheatreTrainer, []

def at(name, act):
    function = getattr(trainer, name)
    def changed(self, *args, **kwargs):
        calls.append(1)
        acts = len(calls) == turn and (rank is None or int(os.environ["RANK"]) == rank)
        return act(lambda: function(self, *args, **kwargs)) if acts else function(self, *args, **kwargs)
    setattr(trainer, name, changed)

def no_space():
    raise OSError(errno.ENOSPC, "No space left on device")

def wait():
    open(os.environ["WAITS"], "w").close()
    time.sleep(2)

if what == "signal":
    at("training_step", lambda go: (os.kill(os.getpid(), signal.SIGTERM), go())[1])
elif what == "wait":
    at("training_step", lambda go: (wait(), go())[1])
elif what == "nan":
    at("compute_loss", lambda go: go() * float("nan"))
elif what == "disk":
    at("_save_rng_state", lambda go: no_space())
sys.exit(main(["train", *sys.argv[2:]]))
"""
LINES = ["max_steps: 12", 'save_strategy: "steps"', "save_steps: 4", "max_tokens_per_batch: 300", "ema_decay: 0.9"]


@pytest.fixture
def launch(recipe_file, corpus, tmp_path):
    """Start a run on two processes."""
    script, recipe = tmp_path / "script.py", recipe_file(*LINES, "dropout: 0.1")
    script.write_text(SCRIPT, encoding="utf-8")

    def start(folder, act=("nothing", 0, 0), words=()):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port)]
        command += [str(script), json.dumps(act), str(recipe), "--data_dir", str(corpus)]
        command += ["--output_dir", str(tmp_path / folder), *words]
        environment = {**os.environ, "WAITS": str(tmp_path / "waits")}
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    return start


def end(process):
    _, err = process.communicate(timeout=300)
    return process.returncode, err


def weights(folder):
    return load_file(folder / "model.safetensors")


def test_two_processes_stop_together_whichever_is_told_and_go_on(launch, tmp_path):
    code, err = end(launch("whole"))
    assert code == 0, err[-3000:]
    code, err = end(launch("one", ("signal", 1, 6)))
    assert code != 0
    assert err.count("stopped by SIGTERM after step 6, and saved") == 2, err[-3000:]
    assert re.search(r"exitcode *: 143", err), err[-3000:]
    process = launch("all", ("wait", None, 6))
    while not (tmp_path / "waits").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # torchrun passes it on to both
    code, err = end(process)
    assert err.count("stopped by SIGTERM after step 6, and saved") == 2, err[-3000:]
    expected = weights(tmp_path / "whole")
    for folder in ("one", "all"):
        assert problem_of(tmp_path / folder / "checkpoint-6") is None
        code, err = end(launch(folder, words=["--resume_from_checkpoint", "true"]))
        assert code == 0, err[-3000:]
        found = weights(tmp_path / folder)
        assert all(found[name].equal(expected[name]) for name in expected)


def test_two_processes_stop_together_where_one_has_no_number_or_no_disk(launch, tmp_path):
    code, err = end(launch("nan", ("nan", 1, 6)))
    assert code != 0
    names = set(re.findall(r"The loss became nan in step 6, on (train\.de:\d+.*?)\. The run ends", err))
    assert len(names) == 1, err[-3000:]  # both name the rows of the one
    assert err.count("The loss became nan in step 6") == 2
    code, err = end(launch("disk", ("disk", 1, 2)))
    assert code != 0
    assert "could not be written ([Errno 28] No space left on device)" in err
    assert "could not be written (by another process of the run)" in err
    for folder in ("nan", "disk"):
        assert list(checkpoints_of(tmp_path / folder)) == [4]
        assert problem_of(tmp_path / folder / "checkpoint-4") is None


def test_a_run_of_two_processes_goes_on_in_one(launch, recipe_file, corpus, tmp_path, capsys):
    """Without dropout the weights are those of two processes.

    But for the biases of keys: the softmax takes away what all keys have in common, so that their gradient is rounding alone,
    and Adam makes whole steps of it.
    """
    words = ["--dropout", "0", "--activation_dropout", "0", "--attention_dropout", "0"]
    code, err = end(launch("whole", words=words))
    assert code == 0, err[-3000:]
    end(launch("run", ("signal", 0, 6), words=words))
    alone = ["train", str(recipe_file(*LINES)), "--data_dir", str(corpus), *words, "--resume_from_checkpoint", "true"]
    alone += ["--output_dir", str(tmp_path / "run")]
    assert main(alone) == 2
    assert "--gradient_accumulation_steps 2 makes it the same" in capsys.readouterr().err
    assert main([*alone, "--gradient_accumulation_steps", "2"]) == 0
    found, expected = weights(tmp_path / "run"), weights(tmp_path / "whole")
    for name in [name for name in expected if not name.endswith("k_proj.bias")]:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)
