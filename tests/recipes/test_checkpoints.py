import json
import os

import pytest

from transformer_theatre.recipes.checkpoints import (
    MANIFEST,
    SAVING,
    checkpoints_of,
    is_scheduled,
    move_files,
    problem_of,
    publish,
    rotate,
    write_manifest,
)


def save(folder, step, **about):
    part = folder / SAVING / f"checkpoint-{step}"
    (part / "deep").mkdir(parents=True)
    (part / "weights").write_bytes(bytes(range(256)) * 8)
    (part / "deep" / "state").write_text(f"step {step}", encoding="utf-8")
    write_manifest(part, **about)
    publish(part, folder / part.name)
    return folder / part.name


def names(folder):
    return [path.name for path in checkpoints_of(folder).values()]


DAMAGES = {
    "nothing": (lambda folder: None, None),
    "an added file": (lambda folder: (folder / "note").touch(), None),
    "a lost file": (lambda folder: (folder / "deep/state").unlink(), "deep/state is missing"),
    "a file cut short": (lambda folder: os.truncate(folder / "weights", 2000), "weights has 2,000 bytes of 2,048"),
    "a changed byte": (
        lambda folder: (folder / "weights").write_bytes(b"!" + bytes(range(1, 256)) + bytes(range(256)) * 7),
        "weights is damaged",
    ),
    "no manifest": (
        lambda folder: (folder / MANIFEST).unlink(),
        "manifest.json is missing: its save was not finished",
    ),
    "half a manifest": (lambda folder: os.truncate(folder / MANIFEST, 30), "manifest.json cannot be read"),
    "no folder": (lambda folder: folder.rename(folder.with_name("elsewhere")), "manifest.json is missing"),
}


@pytest.mark.parametrize(("damage", "problem"), DAMAGES.values(), ids=DAMAGES)
def test_any_damage_of_a_checkpoint_is_found_and_named(damage, problem, tmp_path):
    checkpoint = save(tmp_path, 5)
    assert problem_of(checkpoint) is None
    damage(checkpoint)
    found = problem_of(checkpoint)
    assert found is None if problem is None else found.startswith(problem)


def test_a_checkpoint_gets_its_name_when_it_is_finished(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "checkpoint-5" / MANIFEST).unlink()
    save(tmp_path, 5)  # takes the place of what is not whole
    assert problem_of(tmp_path / "checkpoint-5") is None
    assert not any((tmp_path / SAVING).iterdir())


def test_what_was_saved_out_of_turn_is_marked(tmp_path):
    assert not is_scheduled(save(tmp_path, 5, scheduled=False))
    assert is_scheduled(save(tmp_path, 6, scheduled=True))


def test_checkpoints_are_listed_by_number(tmp_path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-best", "checkpoint-"):
        (tmp_path / name).mkdir()
    assert list(checkpoints_of(tmp_path)) == [9, 10]


def test_rotation_keeps_the_newest_the_best_and_those_on_schedule(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    save(tmp_path, 5, scheduled=False)
    (tmp_path / "checkpoint-6").mkdir()  # newer, and not finished: it says nothing yet
    rotate(tmp_path, 2, str(tmp_path / "checkpoint-1"))
    assert names(tmp_path) == [f"checkpoint-{step}" for step in (1, 3, 4, 5, 6)]
    save(tmp_path, 7)
    rotate(tmp_path, 2, None)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-7"]
    rotate(tmp_path, None, None)
    assert names(tmp_path) == ["checkpoint-4", "checkpoint-7"]


def test_rotation_deletes_nothing_before_something_newer_is_finished(tmp_path):
    save(tmp_path, 1)
    (tmp_path / "checkpoint-2").mkdir()
    rotate(tmp_path, 1, None)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2"]
    assert problem_of(tmp_path / "checkpoint-1") is None


def test_files_take_the_place_of_others_one_by_one(tmp_path):
    part, folder = tmp_path / "part", tmp_path / "run"
    (part / "figures").mkdir(parents=True)
    folder.mkdir()
    (folder / "config.json").write_text("old", encoding="utf-8")
    (folder / "note").write_text("mine", encoding="utf-8")
    (part / "config.json").write_text(json.dumps("new"), encoding="utf-8")
    (part / "figures" / "a.png").write_bytes(b"png")
    move_files(part, folder)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "config.json",
        "note",
        "figures/a.png",
    }
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == "new"
