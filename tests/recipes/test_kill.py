"""SIGKILL at random moments: a run that goes on ends with the weights of one that was never interrupted, to the last bit."""

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from transformer_theatre.recipes.checkpoints import SAVING, checkpoints_of, problem_of


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

# Imports once, and runs each command in a process of its own. Saves are slowed down, so that one can be hit.
DRIVER = """
import json, os, sys, time
from transformer_theatre.recipes import checkpointing, theatre, train_translation

write_manifest = checkpointing.write_manifest

def slowly(*args, **kwargs):
    time.sleep(0.1)
    write_manifest(*args, **kwargs)
    time.sleep(0.1)

checkpointing.write_manifest = slowly
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)  # this output is for the test alone
        os._exit(theatre.main(json.loads(line)))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
RECIPE = ["max_steps: 40", "dropout: 0.1", 'save_strategy: "steps"', "save_steps: 5", "save_total_limit: 2"]
# What keeps a state of its own, and must be found where it was.
VARIANTS = {
    "rows, average of the last": ["average_last: 2", "gradient_accumulation_steps: 2"],
    "tokens, moving average": ["ema_decay: 0.9", "max_tokens_per_batch: 400", "noam_factor: 1", "warmup_steps: 10"],
    "lengths, best": [
        'train_sampling_strategy: "group_by_length"',
        'eval_strategy: "steps"',
        "eval_steps: 5",
        "load_best_model_at_end: true",
    ],
    "BPE-dropout": ["bpe_dropout: 0.2", "max_tokens_per_batch: 800", "ema_decay: 0.9"],
    "a stream, BPE-dropout": [
        "streaming: true",
        "shuffle_buffer: 30",
        "max_tokens_per_batch: 400",
        "gradient_accumulation_steps: 2",
        "bpe_dropout: 0.2",
        "average_last: 2",
    ],
}


class Runs:
    """Starts `theatre train` as a process, and tells how it ended."""

    def __init__(self, words, log):
        self.words, self.log = words, log
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )

    def start(self, folder, *more):
        print(json.dumps([*self.words, "--output_dir", str(folder), *more]), file=self.driver.stdin, flush=True)
        return self._read()

    def end(self):
        return self._read()

    def _read(self):
        line = self.driver.stdout.readline()
        assert line, "the driver has ended"
        return int(line)


@pytest.fixture
def runs(request, recipe_file, corpus, tmp_path):
    recipe = recipe_file(*RECIPE, *request.param)
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        runs = Runs(["train", str(recipe), "--data_dir", str(corpus)], log)
        yield runs
        runs.driver.stdin.close()
        runs.driver.wait()
        runs.driver.stdout.close()


def checksum(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def whole(folder):
    return [path for path in checkpoints_of(folder).values() if problem_of(path) is None]


def go_on(folder):
    return ["--resume_from_checkpoint", "true"] if whole(folder) else ["--overwrite", "true"]


@pytest.mark.parametrize("runs", VARIANTS.values(), ids=VARIANTS, indirect=True)
def test_a_run_that_is_killed_five_times_ends_with_the_same_weights(runs, tmp_path):
    began = time.monotonic()
    runs.start(tmp_path / "whole")
    assert runs.end() == 0, (tmp_path / "log").read_text(encoding="utf-8")
    seconds = time.monotonic() - began

    folder, rng = tmp_path / "killed", random.Random(time.time_ns())
    moments = [rng.uniform(0.1, 0.9) * seconds for _ in range(3)]
    inside, before = 0, 0
    for moment in [None, *moments, None]:
        child = runs.start(folder, *go_on(folder))
        if moment is None:  # inside a save; the second time one that is under way with others finished
            wait_for_save(folder, after=len(whole(folder)) if inside else 0)
            time.sleep(rng.uniform(0, 0.2))
        else:
            time.sleep(moment)
        with contextlib.suppress(ProcessLookupError):  # it may have ended just before
            os.kill(child, signal.SIGKILL)
        code = runs.end()
        inside += (folder / SAVING).exists() and code == -signal.SIGKILL
        # What was finished stays: a kill loses the steps since the last checkpoint, and no more.
        newest = max((step for step, path in checkpoints_of(folder).items() if path in whole(folder)), default=0)
        assert newest >= before, moments
        before = newest
    assert inside, "no kill hit a save"
    runs.start(folder, *go_on(folder))
    assert runs.end() == 0, (tmp_path / "log").read_text(encoding="utf-8")
    assert not (folder / SAVING).exists()
    assert checksum(folder) == checksum(tmp_path / "whole"), moments


def wait_for_save(folder, after):
    for _ in range(60_000):
        if (folder / SAVING).exists() and len(whole(folder)) >= after:
            return
        time.sleep(0.001)
    raise TimeoutError
