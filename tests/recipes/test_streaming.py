"""Runs on streams, and runs with BPE-dropout: stopped and gone on, they end where uninterrupted ones do."""

import gzip
import json
import math
import random
import re
import socket
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from transformer_theatre.recipes import training
from transformer_theatre.recipes.stream_batches import NOTE, STREAM_FILE, StreamKeeper
from transformer_theatre.recipes.text_streams import LineStream
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.trainer import TheatreTrainer


TEXT_RECIPE = """
task: language_modeling
train_text: train.txt
validation_text: val.txt
vocab_size: 280
preset: gpt-char
d_model: 16
num_hidden_layers: 1
num_attention_heads: 2
ffn_dim: 32
max_position_embeddings: 32
learning_rate: 1e-3
eval_strategy: "no"
use_cpu: true
"""
STATEFUL = ["dropout: 0.1", "ema_decay: 0.9", 'save_strategy: "steps"', "save_steps: 5", "save_total_limit: 10"]


@pytest.fixture
def text(tmp_path):
    rng = random.Random(0)
    folder = tmp_path / "text"
    folder.mkdir()
    for name, size in (("train", 900), ("val", 60)):
        words = rng.choices(["der", "hund", "rennt", "sieht", "garten", "katze", "blau", "22"], k=size)
        (folder / f"{name}.txt").write_text(" ".join(words), encoding="utf-8")
    return folder


@pytest.fixture
def run(recipe_file, corpus, text, tmp_path):
    """Run a tiny recipe of a task: `run("pairs", "streaming: true", folder="a", options=["--max_steps", "5"])`."""

    def start(task, *lines, folder="run", options=()):
        if task == "pairs":
            recipe, data = recipe_file(*lines), corpus
        else:
            keys = {line.partition(":")[0] for line in lines}
            kept = [line for line in TEXT_RECIPE.strip().splitlines() if line.partition(":")[0] not in keys]
            recipe, data = tmp_path / "text.yaml", text
            recipe.write_text("\n".join([*kept, *lines]) + "\n", encoding="utf-8")
        words = ["train", str(recipe), "--data_dir", str(data), "--output_dir", str(tmp_path / folder)]
        return main([*words, *options])

    return start


def same_weights(first, second):
    one, other = (load_file(folder / "model.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


RUNS = {
    "pairs": ("pairs", ["streaming: true", "shuffle_buffer: 30", "max_tokens_per_batch: 400", "bpe_dropout: 0.1"]),
    "pairs, accumulated rows": (
        "pairs",
        ["streaming: true", "shuffle_buffer: 30", "per_device_train_batch_size: 4", "gradient_accumulation_steps: 2"],
    ),
    "text": ("text", ["streaming: true", "shuffle_buffer: 10", "max_tokens_per_batch: 64", "bpe_dropout: 0.1"]),
    "documents apart": (
        "text",
        ["streaming: true", "shuffle_buffer: 40", "separator: hund", "attend_across_documents: false"],
    ),
    "map-style pairs, tokens": (
        "pairs",
        ["max_tokens_per_batch: 400", "bpe_dropout: 0.1", "gradient_accumulation_steps: 2"],
    ),
    "map-style pairs, grouped": (
        "pairs",
        ["train_sampling_strategy: group_by_length", "bpe_dropout: 0.1", "bpe_dropout_sides: source"],
    ),
    "map-style pairs, random": ("pairs", ["bpe_dropout: 0.3"]),
    "map-style text": ("text", ["per_device_train_batch_size: 2", "bpe_dropout: 0.2"]),
}


@pytest.mark.parametrize(
    ("task", "lines"),
    [pytest.param(*run, marks=[] if name == "pairs" else pytest.mark.slow) for name, run in RUNS.items()],
    ids=RUNS,
)
def test_a_run_that_goes_on_ends_where_an_uninterrupted_one_does(run, task, lines, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch and of a buffer, and again; with all that has a state of its own switched on."""
    lines = [*lines, *STATEFUL, "max_steps: 33"]
    assert run(task, *lines, folder="whole") == 0
    step = TheatreTrainer.training_step

    def stop_at(number):
        def spy(self, *rest):
            if self.state.global_step == number:
                raise RuntimeError("the power is gone")
            return step(self, *rest)

        monkeypatch.setattr(TheatreTrainer, "training_step", spy)

    stop_at(8)
    assert run(task, *lines, folder="parts") == 1
    stop_at(29)
    resume = ["--resume_from_checkpoint", "true"]
    assert run(task, *lines, folder="parts", options=resume) == 1
    monkeypatch.setattr(TheatreTrainer, "training_step", step)
    assert run(task, *lines, folder="parts", options=resume) == 0
    assert same_weights(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_stream_trains_no_further(run, tmp_path):
    lines = [*RUNS["pairs"][1], *STATEFUL, "max_steps: 10"]
    assert run("pairs", *lines) == 0
    before = load_file(tmp_path / "run" / "checkpoint-10" / "model.safetensors")
    assert run("pairs", *lines, options=["--resume_from_checkpoint", "true"]) == 0
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 10
    after = load_file(tmp_path / "run" / "checkpoint-10" / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_going_on_does_not_read_what_was_seen(run, corpus, monkeypatch, tmp_path):
    for side in ("de", "en"):
        path = corpus / f"train.{side}"
        path.write_text(path.read_text(encoding="utf-8") * 40, encoding="utf-8")
    lines = [
        "streaming: true",
        "shuffle_buffer: 40",
        "tokenizer_samples: 64",
        'save_strategy: "steps"',
        "save_steps: 60",
    ]
    assert run("pairs", *lines, "max_steps: 60") == 0
    state = json.loads(gzip.decompress((tmp_path / "run" / "checkpoint-60" / STREAM_FILE).read_bytes()))
    assert state["place"]["number"] > 400
    assert len(state["buffer"]) <= 40
    read = []
    monkeypatch.setattr(LineStream, "_read", lambda self, old=LineStream._read: read.append(self.number) or old(self))
    assert run("pairs", *lines, "max_steps: 61", options=["--resume_from_checkpoint", "true"]) == 0
    # The rows after the place, and the first 1,000, for the fingerprint.
    assert len(read) <= 40 + 1000 + 64 + 2


def test_other_text_is_noticed_where_a_stream_goes_on(run, corpus, capsys):
    lines = ["streaming: true", "shuffle_buffer: 30", *STATEFUL, "max_steps: 5"]
    assert run("pairs", *lines) == 0
    path = corpus / "train.en"
    path.write_text(path.read_text(encoding="utf-8").replace("HUND", "HUNT"), encoding="utf-8")
    assert run("pairs", *lines, options=["--resume_from_checkpoint", "true"]) == 2
    assert re.search(
        "its training data was a stream of pairs of at most 256 tokens on a side from train.de of .* whose first 64 rows",
        capsys.readouterr().err,
    )
    path.write_text(path.read_text(encoding="utf-8").replace("HUNT", "HUND"), encoding="utf-8")
    assert run("pairs", *lines, options=["--resume_from_checkpoint", "true", "--shuffle_buffer", "20"]) == 2
    assert "its shuffle_buffer was 30, and is 20 now" in capsys.readouterr().err


MISTAKES = {
    "no steps": ("pairs", ["streaming: true", "max_steps: -1"], [], "streaming needs max_steps"),
    "workers": ("pairs", ["streaming: true", "dataloader_num_workers: 2"], [], "must be 0 or 1 for a stream"),
    "skipping": ("pairs", ["streaming: true", "ignore_data_skip: true"], [], "ignore_data_skip is not for a stream"),
    "order": (
        "pairs",
        ["streaming: true", "train_sampling_strategy: sequential"],
        [],
        "train_sampling_strategy=sequential is not for a stream",
    ),
    "epochs": (
        "pairs",
        ["streaming: true", "eval_strategy: epoch"],
        [],
        "eval_strategy=epoch is not for a stream, whose epochs have no known length: give steps, and eval_steps",
    ),
    "no validation": (
        "text",
        ["streaming: true", "max_steps: 3", "validation_text:"],
        [],
        "streaming needs validation_text",
    ),
    "characters": ("pairs", ["tokenizer: character", "bpe_dropout: 0.1"], [], "bpe_dropout needs a byte-level BPE"),
    "sides": ("pairs", ["bpe_dropout_sides: left"], [], "bpe_dropout_sides=left must be one of both, source, target"),
    "probability": ("pairs", ["bpe_dropout: 1.5"], [], "bpe_dropout=1.5 must be between 0 and 1"),
    "word": (
        "pairs",
        ["max_tokens_per_batch: many"],
        [],
        "max_tokens_per_batch='many' must be a whole number, or \"auto\"",
    ),
    "row": (
        "text",
        ["streaming: true", "max_steps: 3", "max_tokens_per_batch: 20"],
        [],
        "must be at least row_length=32",
    ),
}


@pytest.mark.parametrize(("task", "lines", "options", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_named_before_anything_is_written(run, task, lines, options, message, capsys, tmp_path):
    assert run(task, *lines, options=options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_number_that_fits_is_found_logged_and_kept(run, tmp_path, monkeypatch):
    from transformer_theatre.recipes import batch_fit

    lines = ['max_tokens_per_batch: "auto"', *STATEFUL, "max_steps: 10"]
    free = 3_000_000
    monkeypatch.setattr(batch_fit, "free_memory", lambda: free)
    assert run("pairs", *lines, folder="auto") == 0
    recipe = yaml.safe_load((tmp_path / "auto" / "recipe.yaml").read_text(encoding="utf-8"))
    tokens = recipe["max_tokens_per_batch"]
    assert isinstance(tokens, int)
    assert 40 <= tokens < 5000
    assert run("pairs", f"max_tokens_per_batch: {tokens}", *lines[1:], folder="given") == 0
    assert same_weights(tmp_path / "auto", tmp_path / "given")
    # A run that goes on asks nobody.
    monkeypatch.setattr(training, "tokens_that_fit", lambda *_: pytest.fail("tried again"))
    assert run("pairs", *lines, folder="auto", options=["--resume_from_checkpoint", "true"]) == 0
    checkpoint = str(tmp_path / "auto" / "checkpoint-5")
    assert run("pairs", *lines, folder="elsewhere", options=["--resume_from_checkpoint", checkpoint]) == 0
    assert same_weights(tmp_path / "auto", tmp_path / "elsewhere")


@pytest.mark.slow
def test_workers_make_the_same_run(run, tmp_path):
    lines = ["max_steps: 6", "bpe_dropout: 0.2"]
    for task, more in (("pairs", ["max_tokens_per_batch: 400"]), ("pairs", ["streaming: true", "shuffle_buffer: 30"])):
        for workers in (0, 1):
            options = ["--dataloader_num_workers", str(workers), "--overwrite", "true"]
            assert run(task, *lines, *more, folder=f"workers{workers}", options=options) == 0
        assert same_weights(tmp_path / "workers0", tmp_path / "workers1")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["streaming: true", "bpe_dropout_sides: both"], ids=["stream", "map-style"])
def test_two_processes_train_like_one_that_accumulates_and_go_on_like_it(recipe_file, corpus, tmp_path, run, how):
    lines = [how, "bpe_dropout: 0.2", "shuffle_buffer: 30", "max_tokens_per_batch: 300", "optim: sgd", "max_steps: 12"]
    lines += ['save_strategy: "steps"', "save_steps: 5", "save_total_limit: 9", "logging_steps: 1"]
    assert run("pairs", *lines, "gradient_accumulation_steps: 2", folder="one") == 0
    expected = [entry["loss"] for entry in _log(tmp_path / "one") if "loss" in entry]

    def start(folder, *options):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        launch = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
        words = [str(recipe_file(*lines)), "--data_dir", str(corpus), "--output_dir", str(tmp_path / folder), *options]
        command = [*launch, "--master_port", str(port), "-m", "transformer_theatre.recipes.train", *words]
        result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, timeout=400)
        assert result.returncode == 0, result.stderr[-3000:]

    start("two")
    assert [entry["loss"] for entry in _log(tmp_path / "two") if "loss" in entry] == pytest.approx(expected, rel=1e-5)
    whole = load_file(tmp_path / "two" / "model.safetensors")
    start("again", "--resume_from_checkpoint", str(tmp_path / "two" / "checkpoint-5"))
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def _log(folder):
    return json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


def test_text_with_dropout_has_about_as_many_steps_as_epochs_of_it(run, tmp_path):
    lines = ["per_device_train_batch_size: 2", "num_train_epochs: 2", "save_strategy: epoch", "eval_strategy: epoch"]
    assert run("text", *lines, folder="plain") == 0
    assert run("text", *lines, "bpe_dropout: 1.0", folder="bytes") == 0
    steps = [_log(tmp_path / name)[-1]["step"] for name in ("plain", "bytes")]
    measured = [entry["step"] for entry in _log(tmp_path / "bytes") if "eval_loss" in entry]
    assert measured[0] == pytest.approx(steps[1] / 2, abs=1)
    text = (tmp_path / "text" / "train.txt").read_text(encoding="utf-8")
    assert steps[1] == pytest.approx(2 * len(text) / 31 / 2, rel=0.05)
    assert steps[1] > 1.5 * steps[0]
    assert math.isfinite(json.loads((tmp_path / "bytes" / "metrics.json").read_text(encoding="utf-8"))["eval_nll"])


def spoil(monkeypatch, batch):
    """Make the loss of a batch, from 1, infinite."""
    compute, count = TheatreTrainer.compute_loss, []

    def spoiled(self, *args, **kwargs):
        count.append(1)
        return compute(self, *args, **kwargs) / (0 if len(count) == batch else 1)

    monkeypatch.setattr(TheatreTrainer, "compute_loss", spoiled)


def test_a_stream_names_the_lines_of_the_batch_whose_loss_is_no_number(run, monkeypatch, capsys):
    """Not those of the whole update, of which it is the first, nor those that were read ahead."""
    taken, take = [], StreamKeeper.take

    def spy(self, inputs):
        taken.append(inputs[NOTE].origins)
        return take(self, inputs)

    monkeypatch.setattr(StreamKeeper, "take", spy)
    spoil(monkeypatch, 3)
    lines = ["streaming: true", "shuffle_buffer: 30", "per_device_train_batch_size: 4", "max_steps: 4"]
    assert run("pairs", *lines, "gradient_accumulation_steps: 2") == 1
    assert f"The loss became inf in step 2, on {', '.join(taken[2])}. The run ends" in capsys.readouterr().err


def test_a_row_of_running_text_is_named_by_where_it_begins(run, monkeypatch, capsys):
    spoil(monkeypatch, 2)
    lines = ["per_device_train_batch_size: 2", 'train_sampling_strategy: "sequential"', "max_steps: 4"]
    assert run("text", *lines) == 1
    places = "train.txt:1 from token 65 on, train.txt:1 from token 97 on"
    assert f"The loss became inf in step 2, on {places}. The run ends" in capsys.readouterr().err


def test_a_stream_without_a_row_leaves_nothing_behind(run, text, tmp_path, capsys):
    assert run("text", "max_steps: 1", folder="known") == 0
    (text / "empty.jsonl").write_text('{"text": ""}\n' * 3, encoding="utf-8")
    lines = [
        "streaming: true",
        "bad_lines: skip",
        f"tokenizer: {tmp_path / 'known'}",
        "train_text: empty.jsonl",
        "max_steps: 1",
    ]
    assert run("text", *lines) == 2
    assert "None of the 3 documents of the stream can be used. The first: " in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_text_of_one_token_is_named(run, text, tmp_path, capsys):
    (text / "val.txt").write_text("a", encoding="utf-8")
    assert run("text", "tokenizer: character", "max_steps: 1") == 2
    assert "The text val.txt:1 has 1 tokens" in capsys.readouterr().err
    (text / "train.txt").write_text("der", encoding="utf-8")
    assert run("text", "validation_text:", "max_steps: 1") == 2
    assert "validation_share=0.1 of 3 characters leaves 3 of them to train on" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
