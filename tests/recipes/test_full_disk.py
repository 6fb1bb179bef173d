"""A disk that is full at any moment of a run: one line says so, and what was finished before is intact."""

import os
import re
import subprocess

import pytest

from transformer_theatre.recipes import checkpointing, run_card, train_translation
from transformer_theatre.recipes.checkpoints import SAVING, checkpoints_of, problem_of
from transformer_theatre.recipes.theatre import main


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="mounting a small file system needs root"),
]


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=False)


@pytest.fixture
def run(recipe_file, corpus, disk):
    """Train in this process, into the small disk; return the exit code."""
    lines = ["max_steps: 4", "ema_decay: 0.9", 'save_strategy: "steps"', "save_steps: 2", "save_total_limit: 1"]
    words = ["train", str(recipe_file(*lines)), "--data_dir", str(corpus), "--output_dir", str(disk / "run")]
    return lambda *more: main([*words, *more])


def fill(disk, left):
    """Let so many bytes be free."""
    with (disk / "hog").open("ab") as hog:
        os.posix_fallocate(hog.fileno(), 0, max(1, os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - left))


def fill_before(monkeypatch, disk, owner, name, turn, left):
    """Fill the disk when a function is called for the n-th time."""
    function, calls = getattr(owner, name), []

    def filled(*args, **kwargs):
        calls.append(1)
        if len(calls) == turn:
            fill(disk, left)
        return function(*args, **kwargs)

    monkeypatch.setattr(owner, name, filled)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_disk_that_is_full_at_any_file_of_a_save_costs_no_checkpoint(run, disk, monkeypatch, capsys):
    assert run() == 0
    saved = disk / "run" / "checkpoint-4"
    page = os.statvfs(disk).f_frsize
    # Files in the order in which they were written; each is hit in its middle, and the last of the free space before it.
    files = sorted((path for path in saved.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    sizes = [-(-path.stat().st_size // page) * page for path in files]
    names = {path.name for path in files}
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "ema.safetensors", "manifest.json"} <= names
    for place in range(len(files)):
        left = sum(sizes[:place]) + sizes[place] // 2 // page * page
        with monkeypatch.context() as patch:
            fill_before(patch, disk, checkpointing.CheckpointingTrainer, "_write_files", 2, left)
            assert run("--overwrite", "true") == 1, files[place]
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert re.search(r"checkpoint-4 could not be written \(.*\); 0\.\d MiB of space were left", said), said
        assert checkpoints_of(disk / "run").keys() == {2}
        assert problem_of(disk / "run" / "checkpoint-2") is None
        assert not (disk / "run" / SAVING).exists()
        (disk / "hog").unlink()
    assert run("--resume_from_checkpoint", "true") == 0
    assert checkpoints_of(disk / "run").keys() == {4}


# What is written when training has ended: each file is the old one or the new one.
ENDS = {
    "model": (checkpointing.CheckpointingTrainer, "save_whole_model", r"run could not be written \(.*\); 0\.0 MiB"),
    "metrics": (train_translation, "write_metrics", "No space left on device.*metrics.json"),
    "picture": (train_translation, "draw_attention", "No space left on device"),
    "card": (run_card, "write_model_card", "No space left on device.*README.md"),
}


@pytest.mark.parametrize(("owner", "name", "message"), ENDS.values(), ids=ENDS)
def test_a_disk_that_is_full_at_the_end_leaves_nothing_half_written(
    run, disk, monkeypatch, capsys, owner, name, message
):
    assert run() == 0
    finished = contents(disk / "run")
    with monkeypatch.context() as patch:
        fill_before(patch, disk, owner, name, 1, 0)
        assert run("--resume_from_checkpoint", "true") == 1
    assert re.search(message, capsys.readouterr().err.strip().splitlines()[-1])
    left = contents(disk / "run")
    assert left.keys() == finished.keys()
    assert problem_of(disk / "run" / "checkpoint-4") is None
    assert all(left[path] == finished[path] for path in left if path.suffix in (".safetensors", ".png"))
    assert all(left[path].strip() for path in left if path.name != ".lock")
    (disk / "hog").unlink()
    assert run("--resume_from_checkpoint", "true") == 0
