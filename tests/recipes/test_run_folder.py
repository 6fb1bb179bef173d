import json

import pytest
import yaml

from transformer_theatre.recipes.run_folder import begin_folder, check_folder, recipe_of, write_metrics


def test_a_check_changes_nothing(tmp_path):
    check_folder(tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()
    (tmp_path / "there").mkdir()
    check_folder(tmp_path / "there")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="cannot be written"):
        check_folder(tmp_path / name)


def test_an_earlier_run_is_deleted_only_on_demand_and_only_when_the_new_one_begins(tmp_path):
    begin_folder(tmp_path / "run", {"task": "translation"}, name="a/b")
    (tmp_path / "run" / "model.safetensors").touch()
    with pytest.raises(ValueError, match="is not empty"):
        check_folder(tmp_path / "run")
    check_folder(tmp_path / "run", resume=True)
    check_folder(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").exists()
    begin_folder(tmp_path / "run", {"task": "translation", "seed": 1}, name="a/b", resume=True)
    assert (tmp_path / "run" / "model.safetensors").exists()
    (tmp_path / "run" / "checkpoint-2").mkdir()
    (tmp_path / "run" / "data").mkdir()
    (tmp_path / "run" / "data" / "mine.txt").touch()
    begin_folder(tmp_path / "run", {"task": "translation", "seed": 2}, name="a/b")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["data", "recipe.yaml"]
    assert (tmp_path / "run" / "data" / "mine.txt").is_file()
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text()) == {"task": "translation", "seed": 2}


def test_a_folder_that_no_run_has_made_is_never_deleted(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match="delete it yourself"):
        check_folder(tmp_path, overwrite=True)
    (tmp_path / "recipe.yaml").write_text("task: translation  # mine\n", encoding="utf-8")
    with pytest.raises(ValueError, match="delete it yourself"):
        check_folder(tmp_path, overwrite=True)


def test_a_lock_that_a_killed_run_has_left_is_no_work_of_its(tmp_path):
    (tmp_path / ".lock").touch()
    check_folder(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="is not empty"):
        check_folder(tmp_path)


def test_a_folder_names_the_recipe_of_its_run(tmp_path):
    assert recipe_of(tmp_path) is None
    begin_folder(tmp_path, {"task": "translation"}, name="dates/demo")
    assert recipe_of(tmp_path) == "dates/demo"


def test_metrics_are_written_whole(tmp_path):
    write_metrics(tmp_path, {"test_bleu": 1.5})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"test_bleu": 1.5}
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]
