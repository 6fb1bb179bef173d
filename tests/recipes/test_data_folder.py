import pytest

from transformer_theatre.recipes.arguments import read_recipe
from transformer_theatre.recipes.data_folder import data_folder


@pytest.fixture
def recipe(tmp_path):
    def write(*lines):
        path = tmp_path / "recipe.yaml"
        path.write_text("\n".join(["task: language_modeling", *lines]) + "\n", encoding="utf-8")
        return read_recipe(path, ["language_modeling"])

    return write


def test_the_files_of_a_recipe_are_found_in_the_folder_or_below(recipe, tmp_path):
    both = recipe("train_text: [a.txt, books]", "validation_text: b.txt.gz")
    root = tmp_path / "data"
    (root / "far" / "away" / "books").mkdir(parents=True)
    (root / "near").mkdir()
    for name in ("far/away/a.txt", "far/away/b.txt", "near/a.txt"):  # b.txt stands for b.txt.gz
        (root / name).touch()
    assert data_folder(both, root) == data_folder(both, root / "far" / "away") == root / "far" / "away"
    assert data_folder(recipe("dataset: user/name"), root) == root
    (root / "near" / "old").mkdir()
    (root / "near" / "old" / "a.txt").touch()
    assert data_folder(recipe("train_text: a.txt"), root / "near") == root / "near"
    with pytest.raises(ValueError, match=r"in 3 folders of .*: a.txt\."):
        data_folder(recipe("train_text: a.txt"), root)
    with pytest.raises(ValueError, match=r"in no folder of .*: c.txt\."):
        data_folder(recipe("train_text: c.txt"), root)
