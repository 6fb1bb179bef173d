import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import filelock
import pytest
import torch
from datasets import Dataset

from transformer_theatre import GPTConfig
from transformer_theatre.recipes import training
from transformer_theatre.recipes.interruption import (
    check_fingerprint,
    fingerprint,
    lock_folder,
    release_folders,
    rows_of,
)
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.tokenization import train_bpe_tokenizer


COMMAND = [sys.executable, "-m", "transformer_theatre.recipes.theatre"]


@pytest.fixture
def rows():
    return Dataset.from_dict(
        {"input_ids": [[1, 2], [3], [4, 5, 6]], "labels": [[7], [8, 9], [1]], "origin": list("abc")}
    )


@pytest.fixture
def tokenizer():
    return train_bpe_tokenizer(["ein hund"], 259)


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def wait_for(condition, process, seconds=240):
    """Wait until a condition holds; fail if the process ends before."""
    for _ in range(seconds * 20):
        if condition():
            return
        assert process.poll() is None, process.communicate()[1][-2000:]
        time.sleep(0.05)
    raise TimeoutError


@pytest.fixture
def train(recipe_file, corpus, tmp_path):
    """Start `theatre train` in a process of its own, for 30 steps, with all that has a state of its own switched on."""
    recipe = recipe_file(
        "max_steps: 30",
        "max_tokens_per_batch: 400",
        "dropout: 0.1",
        "ema_decay: 0.9",
        'save_strategy: "steps"',
        "save_steps: 4",
        "save_total_limit: 3",
    )

    def start(folder, *more):
        words = ["train", str(recipe), "--data_dir", str(corpus), "--output_dir", str(folder), *more]
        return subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    return start


def finish(process):
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


@pytest.mark.slow
def test_a_run_that_is_stopped_or_killed_goes_on_to_the_same_weights(train, tmp_path):
    code, _, err = finish(train(tmp_path / "whole"))
    assert code == 0, err
    expected = weights(tmp_path / "whole")

    folder = tmp_path / "stopped"
    process = train(folder)
    wait_for(lambda: any(folder.glob("checkpoint-*/trainer_state.json")), process)
    process.send_signal(signal.SIGTERM)
    code, _, err = finish(process)
    assert code == 143, err
    stopped = int(re.search(r"stopped by SIGTERM after step (\d+), and saved", err)[1])
    assert (folder / f"checkpoint-{stopped}" / "ema.safetensors").is_file()

    process = train(folder, "--resume_from_checkpoint", "true")
    later = {path.name for path in folder.glob("checkpoint-*")}
    wait_for(lambda: {path.name for path in folder.glob("checkpoint-*")} - later, process)
    process.kill()  # in the middle of a save: the folder of the checkpoint has just been made
    process.wait()

    code, _, err = finish(train(folder, "--resume_from_checkpoint", "true"))
    assert code == 0, err
    found = weights(folder)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(train, tmp_path):
    folder = tmp_path / "run"
    first = train(folder)
    wait_for(lambda: (folder / "fingerprint.json").is_file(), first)
    first.send_signal(signal.SIGSTOP)  # else it might end before the second run has started
    try:
        code, _, err = finish(train(folder, "--overwrite", "true"))
    finally:
        first.send_signal(signal.SIGCONT)
    assert code == 2
    assert "Another run is writing into" in err
    code, _, err = finish(first)
    assert code == 0, err


HOLDER = """
import sys, time
from pathlib import Path
from transformer_theatre.recipes.interruption import lock_folder
lock_folder(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_a_lock_is_free_again_when_its_holder_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="Another run is writing into"):
        lock_folder(tmp_path)
    holder.kill()
    holder.communicate()
    lock_folder(tmp_path)
    release_folders()


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, caplog, error):
    def refuse(self, *args, **kwargs):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    lock_folder(tmp_path)
    assert f"The file system of {tmp_path} has no locks ({error})" in caplog.text
    release_folders()


def test_a_lock_is_free_again_when_its_holder_is_gone(tmp_path):
    lock_folder(tmp_path)
    with pytest.raises(ValueError, match="Another run is writing into"):
        lock_folder(tmp_path)
    release_folders()
    lock_folder(tmp_path)
    release_folders()


CHANGES = {
    "line": (lambda corpus: _append(corpus), [], "its training data was 64 rows .* and is 65 rows"),
    "seed": (lambda corpus: None, ["--seed", "7"], "its seed was 42, and is 7 now"),
    "batch": (
        lambda corpus: None,
        ["--per_device_train_batch_size", "4"],
        r"its update was 1 process x 1 batch of 8 rows, .* --gradient_accumulation_steps 2 makes it the same",
    ),
}


def _another_tokenizer(corpus):
    """Other text makes other pieces; a run that goes on loads those of its checkpoint, so only the rows differ."""
    for side in ("de", "en"):
        path = corpus / f"train.{side}"
        path.write_text(path.read_text(encoding="utf-8").replace("hund", "wolf"), encoding="utf-8")


CHANGES |= {
    "tokenizer": (
        lambda corpus: None,
        ["--tokenizer", "character"],
        "its tokenizer asked for was bpe, and is character now",
    ),
    "pieces": (lambda corpus: None, ["--vocab_size", "280"], "its vocab_size was 300, and is 280 now"),
    "case": (lambda corpus: None, ["--lowercase", "true"], "its lowercase was False, and is True now"),
    "dropped merges": (lambda corpus: None, ["--bpe_dropout", "0.5"], r"its bpe_dropout was 0\.0, and is 0\.5 now"),
    "text": (_another_tokenizer, [], "its training data was 64 rows .* and is 64 rows"),
    "optimizer": (lambda corpus: None, ["--optim", "sgd"], "its optimizer was adamw_torch.*, and is sgd now"),
    "average": (lambda corpus: None, ["--ema_decay", "0.9"], "its moving average was none, and is kept now"),
    "two things": (
        lambda corpus: None,
        ["--seed", "7", "--train_sampling_strategy", "sequential"],
        "its seed was 42, and is 7 now; its order of rows was random, and is sequential now",
    ),
    "model": (
        lambda corpus: None,
        ["--d_model", "32", "--dropout", "0.5"],
        r"d_model=32, .*dropout=0.5 cannot go on from .*checkpoint-3, which has d_model=16, .*dropout=0.0",
    ),
}


def _append(corpus):
    for side in ("de", "en"):
        with (corpus / f"train.{side}").open("a", encoding="utf-8") as file:
            file.write("hund\n")


@pytest.mark.parametrize(("change", "options", "message"), CHANGES.values(), ids=CHANGES)
def test_a_run_goes_on_only_with_what_it_began_with(recipe_file, corpus, tmp_path, capsys, change, options, message):
    words = ["train", str(recipe_file('save_strategy: "steps"', "save_steps: 2")), "--data_dir", str(corpus)]
    words += ["--output_dir", str(tmp_path / "run")]
    assert main(words) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    change(corpus)
    assert main([*words, "--resume_from_checkpoint", "true", *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


SETTINGS = {"learning_rate": ("0.001", "1e-4"), "weight_decay": ("0.0", "0.1"), "adam_beta2": ("0.999", "0.98")}


@pytest.mark.slow
def test_settings_that_are_given_anew_count_and_are_named(recipe_file, corpus, tmp_path, monkeypatch, caplog):
    words = ["train", str(recipe_file('save_strategy: "steps"', "save_steps: 2")), "--data_dir", str(corpus)]
    words += ["--output_dir", str(tmp_path / "run"), "--lr_scheduler_type", "constant"]
    assert main([*words, "--max_steps", "2"]) == 0
    groups, step = [], torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        groups.append(dict(self.param_groups[0]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    words += ["--resume_from_checkpoint", "true"]
    assert main([*words, "--max_steps", "4"]) == 0
    assert "max_steps was 2, and is 4 now" in caplog.text
    assert "learning_rate was" not in caplog.text
    assert "validation data was" not in caplog.text
    with (
        open(corpus / "val.de", "a", encoding="utf-8") as source,
        open(corpus / "val.en", "a", encoding="utf-8") as target,
    ):
        source.write("ein hund\n")
        target.write("EIN HUND\n")
    changed = [word for name, (_, value) in SETTINGS.items() for word in (f"--{name}", value)]
    assert main([*words, "--max_steps", "6", *changed]) == 0
    for name, (before, now) in SETTINGS.items():
        assert f"{name} was {before}, and is {float(now)} now" in caplog.text
    assert re.search(r"validation data was (\d+) rows with checksum \w+, and is (?!\1)\d+ rows", caplog.text)
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert [group["betas"] for group in groups[1:3]] == [(0.9, 0.999), (0.9, 0.98)]
    assert [group["weight_decay"] for group in groups[1:3]] == [0.0, 0.1]


def test_a_damaged_checkpoint_is_passed_over_or_refused_by_name(recipe_file, corpus, tmp_path, capsys, caplog):
    words = ["train", str(recipe_file('save_strategy: "steps"', "save_steps: 1")), "--data_dir", str(corpus)]
    words += ["--output_dir", str(tmp_path / "run")]
    assert main(words) == 0
    expected = weights(tmp_path / "run")
    broken = tmp_path / "run" / "checkpoint-3"
    os.truncate(broken / "optimizer.pt", 100)
    (tmp_path / "run" / ".saving" / "checkpoint-4").mkdir(parents=True)
    assert main([*words, "--resume_from_checkpoint", str(broken)]) == 2
    assert (
        "checkpoint-3 is no whole checkpoint to resume from: optimizer.pt has 100 bytes of" in capsys.readouterr().err
    )
    assert main([*words, "--resume_from_checkpoint", "true"]) == 0
    assert "checkpoint-3 is passed over: it is not whole, optimizer.pt has 100 bytes of" in caplog.text
    assert not (tmp_path / "run" / ".saving").exists()
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    older = tmp_path / "run" / "checkpoint-2"
    assert main([*words, "--resume_from_checkpoint", str(older)]) == 2
    assert "holds later checkpoints than checkpoint-2: checkpoint-3. Delete them" in capsys.readouterr().err


def test_fingerprints_tell_any_change_of_rows_or_tokenizer(rows, tokenizer, tmp_path):
    first = fingerprint(rows, None, tokenizer, {"seed": 1})
    assert fingerprint(rows.select([0, 1, 2]), None, tokenizer, {"seed": 1}) == first
    changed = {
        "order": (rows.select([1, 0, 2]), tokenizer),
        "boundary": (
            rows.map(lambda row, i: {"input_ids": [[1], [2, 3], [4, 5, 6]][i]}, with_indices=True),
            tokenizer,
        ),
        "tokenizer": (rows, train_bpe_tokenizer(["eine katze"] * 3, 261)),
    }
    for name, (data, other) in changed.items():
        assert fingerprint(data, None, other, {"seed": 1}) != first, name
    (tmp_path / "fingerprint.json").write_text(json.dumps(first), encoding="utf-8")
    check_fingerprint(tmp_path, first)
    with pytest.raises(ValueError, match=r"its tokenizer was 259 pieces .* and is"):
        check_fingerprint(tmp_path, fingerprint(rows, None, changed["tokenizer"][1], {"seed": 1}))


def test_rows_of_a_batch_are_found_whatever_its_padding(rows):
    batch = {
        "input_ids": torch.tensor([[4, 5, 6], [0, 0, 3]]),
        "attention_mask": torch.tensor([[1, 1, 1], [0, 0, 1]]),
    }
    assert rows_of(batch, rows["input_ids"]) == [1, 2]


def test_a_loss_that_is_no_number_stops_the_run_and_names_lines(recipe_file, corpus, tmp_path, capsys):
    words = ["--learning_rate", "99", "--max_grad_norm", "0", "--optim", "sgd", "--max_steps", "200"]
    recipe = recipe_file('save_strategy: "no"', "norm_first: true")
    assert main(["train", str(recipe), "--data_dir", str(corpus), "--output_dir", str(tmp_path / "r"), *words]) == 1
    message = capsys.readouterr().err
    assert re.search(
        r"The (loss|gradient's norm) became (nan|inf) in step \d+, on train\.de:\d+, .* and 3 more", message
    ), message
    assert "learning_rate than 99.0" in message


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint(recipe_file, corpus, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        recipe = recipe_file('save_strategy: "steps"', "save_steps: 1", "save_total_limit: 20", "max_steps: 20")
        words = ["train", str(recipe), "--data_dir", str(corpus), "--output_dir", str(disk / "run")]
        result = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 1, result.stderr[-2000:]
        assert re.search(r"checkpoint-\d+ could not be written \(.*\); 0\.\d MiB of space were left", result.stderr)
        whole = [path for path in (disk / "run").glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
        assert whole
        newest = max(whole, key=lambda path: int(path.name.removeprefix("checkpoint-")))
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        resumed = [*COMMAND, *words, "--resume_from_checkpoint", "true", "--max_steps", "20"]
        result = subprocess.run(resumed, capture_output=True, text=True, check=False, timeout=300)
        assert result.returncode == 0, result.stderr[-2000:]
        assert newest.is_dir()
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_what_asks_for_the_same_tokenizer_may_be_spelled_otherwise(recipe_file, corpus, tmp_path):
    words = [
        "train",
        str(recipe_file('save_strategy: "steps"', "save_steps: 2", "tokenizer: bpe")),
        "--data_dir",
        str(corpus),
    ]
    words += ["--output_dir", str(tmp_path / "run"), "--resume_from_checkpoint", "true"]
    assert main([*words[:-2]]) == 0
    again = recipe_file('save_strategy: "steps"', "save_steps: 2", "tokenizer:", "lowercase: false")
    assert main([words[0], str(again), *words[2:]]) == 0


@pytest.mark.parametrize(
    ("given", "size"),
    [
        ({}, 40_478),
        ({"vocab_size": 40_478}, 40_478),
        ({"vocab_size": None}, 40_478),
        ({"tokenizer": "character"}, None),
    ],
)
def test_the_number_of_pieces_that_is_asked_for_is_the_presets_or_the_recipes(given, size):
    asked = training._asked_of_tokenizer({"preset": "gpt-1", **given}, SimpleNamespace(config=GPTConfig()))
    assert asked.get("vocab_size") == size
