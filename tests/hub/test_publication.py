"""What is published: files on a list, each whole, none of them private; without a Hub, and without other processes."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from model_folders import make, write
from safetensors.torch import save_file

from transformer_theatre.recipes import hub_errors
from transformer_theatre.recipes.hub_errors import explain, patiently
from transformer_theatre.recipes.private_names import PrivateNames, refuse_private
from transformer_theatre.recipes.publication import RANGES, Published, names_in, outdated, stage


@pytest.fixture
def folder(tmp_path):
    make(tmp_path / "model")
    return tmp_path / "model"


def test_only_what_is_on_the_list_is_published(folder):
    names = set(names_in(folder))
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - names
    assert left == {
        "training_args.bin",
        "trainer_state.json",
        "fingerprint.json",
        "run.log",
        "notes.py",
        "checkpoint-1/optimizer.pt",
    }


def test_the_code_that_is_published_is_all_that_the_code_imports(folder):
    code = {name for name in names_in(folder) if name.endswith(".py")}
    for name in code:
        text = (folder / name).read_text(encoding="utf-8")
        assert {f"{stem}.py" for stem in re.findall(r"^from \.(\w+) import", text, re.MULTILINE)} <= code


@pytest.mark.parametrize("name", ["model.safetensors", "modeling_transformer.py", "cache_names.py", "config.json"])
def test_a_folder_that_is_not_whole_is_not_published(folder, name):
    (folder / name).unlink()
    with pytest.raises(ValueError, match=re.escape(name)):
        names_in(folder)


def test_a_shard_that_is_missing_or_elsewhere_is_named(tmp_path):
    make(tmp_path / "model", max_shard_size="10KB")
    shards = [name for name in names_in(tmp_path / "model") if "-of-" in name]
    assert len(shards) > 1
    (tmp_path / "model" / shards[0]).rename(tmp_path / shards[0])
    with pytest.raises(ValueError, match=shards[0]):
        names_in(tmp_path / "model")
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text(index.read_text(encoding="utf-8").replace(shards[0], f"../{shards[0]}"), encoding="utf-8")
    with pytest.raises(ValueError, match=shards[0]):
        names_in(tmp_path / "model")


def test_a_staged_folder_says_where_it_will_be_and_not_where_it_was(folder, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    stage(folder, tmp_path / "staged", repository="user/model")
    card = (tmp_path / "staged" / "README.md").read_text(encoding="utf-8")
    assert 'name = "user/model"\n' in card
    assert "theatre translate user/model < source.txt\n" in card
    recipe = (tmp_path / "staged" / "recipe.yaml").read_text(encoding="utf-8")
    assert recipe.startswith("# Written by `theatre train` from the recipe x/y\n")
    assert yaml.safe_load(recipe) == {"task": "translation"}
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_requirements_are_those_of_the_package(folder, repository, tmp_path):
    stage(folder, tmp_path / "staged")
    lines = (tmp_path / "staged" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert re.match(r"# .*transformers \d+\.\d+.* and torch \d+\.\d+", lines[0])
    text = (repository / "pyproject.toml").read_text(encoding="utf-8")
    for name, line in RANGES.items():
        assert line in lines
        assert f'"{line}"' in text, f"pyproject.toml has another range of {name}"


def test_checksums_are_those_of_the_hub(tmp_path):
    (tmp_path / "file").write_bytes(b"text\n" * 400_000)
    found = Published.of(tmp_path / "file")
    command = ["git", "hash-object", "--no-filters", str(tmp_path / "file")]
    assert found.blob_id == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert found.sha256 == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert found.size == 2_000_000


def test_what_would_be_loaded_in_place_of_the_model_goes_and_what_is_not_ours_stays():
    files = ["config.json", "model.safetensors", "tokenizer.json", "figures/a.png"]
    stays = [
        "LICENSE",
        "notes.md",
        "app.py",
        "data/vocab.json",
        "checkpoint-2/model.safetensors",
        ".gitattributes",
        *files,
    ]
    goes = ["model.safetensors.index.json", "model-00001-of-00002.safetensors", "pytorch_model.bin", "vocab.json"]
    goes += ["metrics.json", "training_args.bin", "figures/old.png", "golden.safetensors", "rng_state_0.pth"]
    assert outdated([*stays, *goes], files) == sorted(goes)
    # A folder that is published too is one model as well.
    there = ["last-checkpoint/model.safetensors", "last-checkpoint/pytorch_model.bin"]
    assert outdated(there, [*files, "last-checkpoint/model.safetensors"]) == ["last-checkpoint/pytorch_model.bin"]


PRIVATE = {
    "a token": ("metrics.json", '{"note": "hf_' + "a" * 34 + '"}', "a token"),
    "the token in use": ("README.md", "by hf_user_write", "a token"),
    "home": ("README.md", "in {home}/runs", "a path of this machine"),
    "somebody's home": ("recipe.yaml", "data: /home/anna/data", "a path, '/home/anna/data'"),
    "a drive": ("README.md", r"in C:\Users\anna\runs", r"a path, 'C:\\Users\\'"),
    "an absolute path": ("config.json", '{"a": [{"b": "/elsewhere/run"}]}', "a path, '/elsewhere/run'"),
    "the machine": ("README.md", "made on Marvin.", "the name of the machine, in short, 'Marvin'"),
    "the account": ("modeling_x.py", "# zaphod: look here", "the name of the account, 'zaphod'"),
    "a pickle": ("vocab.json", "\x80\x04\x95", "it is a pickle"),
    "a zip file": ("source.spm", "PK\x03\x04", "it is a pickle"),
    "a path in a picture": ("figures/a.png", "\x89PNG {home}/x", "a path of this machine"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "text", "problem"), PRIVATE.values(), ids=PRIVATE)
def test_what_is_private_is_found(tmp_path, monkeypatch, name, text, problem):
    monkeypatch.setattr("socket.gethostname", lambda: "marvin.example.org")
    monkeypatch.setattr("getpass.getuser", lambda: "zaphod")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    (tmp_path / "file").write_bytes(text.replace("{home}", str(tmp_path / "home")).encode("latin-1"))
    private = PrivateNames([], ["hf_user_write"])
    [found] = private.problems(tmp_path / "file", name)
    assert found.startswith(problem)
    write(tmp_path, name, "nothing")
    (tmp_path / name).write_bytes((tmp_path / "file").read_bytes())
    with pytest.raises(ValueError, match="Nothing is published"):
        refuse_private(tmp_path, [name], private)


HARMLESS = {
    "an address": ("README.md", "https://example.org/home/anna and user@host:/x"),
    "a relative path": ("README.md", "path/home/anna, ./tmp/x, data_dir/data/x, and/or"),
    "a fraction of the code": ("modeling_x.py", "x = a/b  # root mean square, 1/tmp/2"),
    "a path in the words of a language": ("tokenizer.json", '{"model": {"vocab": {"/usr/bin": 1}}}'),
    "a common name": ("README.md", "the root of the user's tree on localhost"),
    "the name in a word": ("README.md", "zaphodian marvinlike"),
    "nothing": ("README.md", ""),
}


@pytest.mark.parametrize(("name", "text"), HARMLESS.values(), ids=HARMLESS)
def test_what_is_harmless_passes(tmp_path, monkeypatch, name, text):
    monkeypatch.setattr("socket.gethostname", lambda: "marvin")
    monkeypatch.setattr("getpass.getuser", lambda: "zaphod")
    (tmp_path / "file").write_text(text, encoding="utf-8")
    assert PrivateNames().problems(tmp_path / "file", name) == []


def test_an_owners_name_and_what_is_allowed_may_stand_there(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "zaphod")
    write(tmp_path, "README.md", "by zaphod, in /data/shown")
    assert len(PrivateNames().problems(tmp_path / "README.md", "README.md")) == 2
    allowed = PrivateNames(allowed=["zaphod", "/data/shown"])
    assert allowed.problems(tmp_path / "README.md", "README.md") == []
    write(tmp_path, "README.md", "hf_" + "a" * 34)
    assert PrivateNames(allowed=["hf_" + "a" * 34]).problems(tmp_path / "README.md", "README.md") == ["a token"]


def test_the_header_of_weights_is_read_too(tmp_path, monkeypatch):
    monkeypatch.setattr("getpass.getuser", lambda: "zaphod")
    weights = {"a": torch.zeros(3)}
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    assert PrivateNames().problems(tmp_path / "model.safetensors", "model.safetensors") == []
    save_file(weights, tmp_path / "model.safetensors", {"made by": "zaphod"})
    [found] = PrivateNames().problems(tmp_path / "model.safetensors", "model.safetensors")
    assert found == "the name of the account, 'zaphod'"


class _Answer:
    def __init__(self, status, **headers):
        self.status_code, self.headers, self.request = status, headers, None


def refusal(kind, status, **headers):
    return kind("no", response=_Answer(status, **headers))


@pytest.mark.parametrize(
    ("error", "token", "said"),
    [
        (refusal(GatedRepoError, 403), "hf_x", "is gated: ask for access at"),
        (refusal(GatedRepoError, 401), None, "is gated: log in"),
        (refusal(RepositoryNotFoundError, 404), "hf_x", "There is no model 'user/model'"),
        (refusal(RepositoryNotFoundError, 401), None, "that anybody may see; if it is private, log in"),
        (refusal(RepositoryNotFoundError, 401), "hf_x", "does not accept the token"),
        (refusal(RevisionNotFoundError, 404), "hf_x", "has no revision 'v1'"),
        (refusal(HfHubHTTPError, 403), "hf_x", "may not write to 'user/model'"),
        (refusal(HfHubHTTPError, 503), "hf_x", "answered 503"),
        (LocalTokenNotFoundError("no"), None, "There is no token for the Hub"),
        (OfflineModeIsEnabled("no"), None, "HF_HUB_OFFLINE is set"),
        (KeyError("x"), None, None),
    ],
)
def test_a_refusal_is_explained_also_where_the_library_has_wrapped_it(monkeypatch, error, token, said):
    monkeypatch.setattr(hub_errors, "get_token", lambda: token)
    wrapped = OSError("You are trying to access ...")
    wrapped.__cause__ = error
    for seen in (error, wrapped):
        found = explain(seen, "user/model", "v1")
        assert found is None if said is None else said in found


def test_waiting_is_as_long_as_the_hub_asks_for_and_has_an_end(monkeypatch):
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    answers = iter([refusal(HfHubHTTPError, 429, **{"Retry-After": "7"}), refusal(HfHubHTTPError, 503), None])

    def ask():
        if (answer := next(answers)) is not None:
            raise answer
        return "done"

    assert patiently(ask, "asking") == "done"
    assert waited == [7, hub_errors.WAITS[1]]

    def never():
        raise refusal(HfHubHTTPError, 503)

    waited.clear()
    with pytest.raises(HfHubHTTPError):
        patiently(never, "asking")
    assert waited == list(hub_errors.WAITS)

    def forbidden():
        raise refusal(HfHubHTTPError, 403)

    waited.clear()
    with pytest.raises(HfHubHTTPError):
        patiently(forbidden, "asking")
    assert waited == []
