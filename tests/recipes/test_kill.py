"""SIGKILL at random moments: a run that goes on ends with the weights of one that was never interrupted, to the last bit."""

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
import json, os, signal, sys, time
from transformer_theatre.recipes import checkpointing, theatre, train_language_model, train_translation

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
    if sys.stdin.readline() == "kill\\n":
        os.kill(child, signal.SIGKILL)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
STEPS = 40
RECIPE = [f"max_steps: {STEPS}", "dropout: 0.1", 'save_strategy: "steps"', "save_steps: 5", "save_total_limit: 2"]
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
# The recipe of conftest.py, of the target side as text in place of its pairs.
TEXT = """
task: language_modeling
train_text: train.en
validation_text: val.en
separator: "\\n"
attend_across_documents: false
preset: gpt-char
num_hidden_layers: 1
num_attention_heads: 2
ffn_dim: 32
max_position_embeddings: 16
per_device_train_batch_size: 4
sample_tokens: 5
"""
OF_PAIRS = ["label_smoothing_factor", "generation_num_beams"]
OF_PAIRS += [f"{split}_{side}" for split in ("train", "validation", "test") for side in ("source", "target")]
OF_PAIRS += [f"{side}_{name}" for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")]
TEXT_VARIANTS = {
    "text, documents apart": ["average_last: 2", "gradient_accumulation_steps: 2"],
    "text, shifted rows": ["shift_rows: true", "gradient_accumulation_steps: 2", "ema_decay: 0.9"],
    "text, shifted rows, tokens": ["shift_rows: true", "max_tokens_per_batch: 80"],
    "a stream of text, documents apart": [
        "streaming: true",
        "shuffle_buffer: 10",
        "gradient_accumulation_steps: 2",
        "ema_decay: 0.9",
    ],
    "a stream of text, tokens, BPE-dropout": ["streaming: true", "max_tokens_per_batch: 80", "bpe_dropout: 0.2"],
}
ALL = {name: [*RECIPE, *lines] for name, lines in VARIANTS.items()}
ALL |= {name: [*TEXT.strip().splitlines(), *RECIPE, *lines] for name, lines in TEXT_VARIANTS.items()}


class Runs:
    """Starts `theatre train` as a process, and tells how it ended."""

    def __init__(self, words, log):
        self.words, self.log = words, log
        self.driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )

    def start(self, folder, *more):
        self._tell(json.dumps([*self.words, "--output_dir", str(folder), *more]))

    def kill(self):
        """Kill the process, if it has not ended yet; return its exit code."""
        return self._end("kill")

    def wait(self):
        return self._end("wait")

    def _end(self, how):
        self._tell(how)
        line = self.driver.stdout.readline()
        assert line, "the driver has ended"
        return int(line)

    def _tell(self, line):
        print(line, file=self.driver.stdin, flush=True)


@pytest.fixture
def runs(request, recipe_file, corpus, tmp_path):
    recipe = recipe_file(*request.param, without=OF_PAIRS if "task: language_modeling" in request.param else ())
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


@pytest.mark.parametrize("runs", ALL.values(), ids=ALL, indirect=True)
def test_a_run_that_is_killed_five_times_ends_with_the_same_weights(runs, tmp_path):
    began = time.monotonic()
    runs.start(tmp_path / "whole")
    assert runs.wait() == 0, (tmp_path / "log").read_text(encoding="utf-8")
    seconds = time.monotonic() - began

    folder, rng = tmp_path / "killed", random.Random(time.time_ns())
    told, newest, kills, inside = [], 0, 0, 0
    while kills < 5:
        assert len(told) < 20, told
        runs.start(folder, *go_on(folder))
        if kills in (0, 3) and newest < STEPS:
            wait_for_save(folder)
            moment = rng.uniform(0, 0.15)
        else:
            moment = rng.uniform(0.05, 0.9) * seconds * (1 - 0.8 * newest / STEPS)
        time.sleep(moment)
        killed = runs.kill() == -signal.SIGKILL
        kills, inside = kills + killed, inside + (killed and (folder / SAVING).exists())
        steps = [step for step, path in checkpoints_of(folder).items() if path in whole(folder)]
        told.append(f"{moment:.3f} s: {'killed' if killed else 'done'} with checkpoints {steps}")
        # What was finished stays: a kill loses the steps since the last checkpoint, and no more.
        assert max(steps, default=0) >= newest, told
        newest = max(steps, default=0)
    assert inside, f"no kill hit a save: {told}"
    runs.start(folder, *go_on(folder))
    assert runs.wait() == 0, (tmp_path / "log").read_text(encoding="utf-8")
    assert not (folder / SAVING).exists()
    assert checksum(folder) == checksum(tmp_path / "whole"), told


def wait_for_save(folder):
    """Wait until a save is under way; what an earlier one has left goes before."""
    left = (folder / SAVING).exists()
    for _ in range(60_000):
        there = (folder / SAVING).exists()
        left = left and there
        if there and not left:
            return
        time.sleep(0.001)
    raise TimeoutError
