"""`theatre publish` from its words to what the repository then holds; strangers are asked in test_publish_processes.py."""

import os
import re
from pathlib import Path

import filelock
import pytest
from held import commits_of, held, is_pickle
from huggingface_hub import constants
from model_folders import make, write, write_recipe

from transformer_theatre.recipes import publish
from transformer_theatre.recipes.golden import GOLDEN, Answer
from transformer_theatre.recipes.scoring.texts import said_by_run
from transformer_theatre.recipes.theatre import main


@pytest.fixture
def command(client, strangers, capsys):
    """Run `theatre` in this process; the code that it ends with, and what it prints on both streams."""

    def run(*words):
        code = main([str(word) for word in words])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return run


def test_a_repository_holds_what_is_on_the_list_and_no_byte_that_is_private(command, hub, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    make(folder)
    monkeypatch.setattr("getpass.getuser", lambda: "zaphodbeeblebrox")
    monkeypatch.setattr("socket.gethostname", lambda: "marvin.example.org")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "zaphods")
    code, said = command("publish", folder, "user/model")
    assert code == 0, said
    assert f"{hub.url}/user/model\ncommit " in said
    files = held(hub)
    code = {name for name in files if name.endswith(".py")}
    assert set(files) - code == {
        ".gitattributes",
        "README.md",
        "config.json",
        "evaluation.json",
        "figures/attention.png",
        "generation_config.json",
        GOLDEN,
        "metrics.json",
        "model.safetensors",
        "recipe.yaml",
        "requirements.txt",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "notes.py" not in code
    assert {"modeling_transformer.py", "text_to_text.py", "cache_names.py", "configuration_transformer.py"} <= code
    for name, data in files.items():
        assert not is_pickle(data), f"{name} is a pickle"
        assert data[:2] != b"PK", f"{name} is a zip file, as torch.save makes"
        for secret in ("hf_user_write", str(tmp_path), "zaphodbeeblebrox", "marvin", os.getcwd()):
            assert secret.encode() not in data, f"{name} holds {secret}"
        assert not re.search(rb"(?<![\w.:/])/(home|root|tmp|Users)/\w", data), f"{name} holds a path"
    assert b'name = "user/model"' in files["README.md"]
    assert b"output_dir" not in files["recipe.yaml"]
    for name, data in files.items():
        if name not in (".gitattributes", "README.md", "recipe.yaml", "requirements.txt"):
            assert (folder / name).read_bytes() == data  # the golden answer is kept here too
    assert commits_of(hub) == ["Publish the model", "initial commit"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metrics.json", b'{"where": "/scratch/somebody/run"}', "a path, '/scratch/somebody/run'"),
        ("evaluation.json", b'{"note": "by hf_user_write"}', "a token"),
        ("README.md", b"---\nlicense: mit\n---\nmade by zaphodbeeblebrox", "the name of the account"),
        ("figures/attention.png", b"\x80\x04pickle", "it is a pickle"),
    ],
)
def test_what_must_not_leave_the_machine_stops_everything(command, hub, tmp_path, monkeypatch, name, text, reason):
    monkeypatch.setattr("getpass.getuser", lambda: "zaphodbeeblebrox")
    make(tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(text)
    code, said = command("publish", tmp_path / "model", "user/model")
    assert code == 2
    assert f"{name}: {reason}" in said
    assert "hf_user_write" not in said
    assert {entry["method"] for entry in hub.log} == {"GET"}


def test_a_card_that_the_hub_does_not_take_changes_nothing(command, hub, tmp_path):
    make(tmp_path / "model")
    write(tmp_path / "model", "README.md", "---\nlicense: my own\n---\n")
    code, said = command("publish", tmp_path / "model", "user/model")
    assert code == 2
    assert "license" in said
    assert commits_of(hub) == ["initial commit"]


def test_a_dry_run_says_what_would_happen_and_touches_nothing(command, hub, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    make(folder)
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    code, said = command("publish", folder, "user/model", "--private", "--dry-run")
    assert code == 0, said
    assert {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))} == before
    assert {entry["method"] for entry in hub.log} == {"GET"}
    assert f"{(folder / 'model.safetensors').stat().st_size:>14,}  model.safetensors  (new)" in said
    assert "training_args.bin" not in said
    assert "is not there, and would be made" in said
    assert "It would be private." in said
    assert not (hub.hub.root / "models" / "user" / "model").exists()

    # Without a token and without a Hub the files are listed all the same.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_TOKEN")
    code, said = command("publish", folder, "user/model", "--dry-run")
    assert code == 0, said
    assert "model.safetensors" in said
    assert "HF_HUB_OFFLINE is set" in said
    assert "a token is needed" in said


def test_a_second_publication_takes_the_place_of_the_first_whole(command, client, hub, tmp_path):
    """Of a model in several files nothing is left beside the one file of the next: that would be loaded in its place."""
    make(tmp_path / "first", max_shard_size="10KB")
    make(tmp_path / "second", seed=1)
    (tmp_path / "second" / "metrics.json").unlink()
    code, said = command("publish", tmp_path / "first", "user/model", "--private")
    assert code == 0, said
    assert "model.safetensors.index.json" in held(hub)
    assert hub.hub.meta("models", "user/model")["private"]
    api = publish.Repository("user/model").api
    for name in ("pytorch_model.bin", "examples.md"):
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="user/model")

    _, said = command("publish", tmp_path / "second", "user/model", "--dry-run")
    assert "       deleted  model.safetensors.index.json" in said
    code, said = command("publish", tmp_path / "second", "user/model")
    assert code == 0, said
    files = held(hub)
    assert not {name for name in files if "-of-" in name or "index" in name} | {
        "metrics.json",
        "pytorch_model.bin",
    } & set(files)
    assert files["examples.md"] == b"mine"  # what is nobody's stays
    assert files["model.safetensors"] == (tmp_path / "second" / "model.safetensors").read_bytes()

    # Once more: nothing has changed, and no commit is made.
    before = commits_of(hub)
    assert command("publish", tmp_path / "second", "user/model")[0] == 0
    assert commits_of(hub) == before


def test_a_branch_and_a_pull_request_leave_main_as_it_was(command, hub, tmp_path):
    make(tmp_path / "model")
    code, said = command("publish", tmp_path / "model", "user/model", "--revision", "draft")
    assert code == 0, said
    assert list(held(hub)) == [".gitattributes"]
    assert "model.safetensors" in held(hub, ref="refs/heads/draft")
    code, said = command("publish", tmp_path / "model", "user/model", "--create-pr")
    assert code == 0, said
    assert "user/model/discussions/1" in said
    assert "model.safetensors" in held(hub, ref="refs/pr/1")
    assert list(held(hub)) == [".gitattributes"]
    code, said = command("publish", tmp_path / "model", "user/model", "--create-pr", "--revision", "draft")
    assert (code, "give one of them" in said) == (2, True)


def test_every_refusal_to_publish_says_what_it_is(command, hub, tmp_path, monkeypatch):
    make(tmp_path / "model")
    for name, token, message in [
        ("user/model", None, "There is no token for the Hub"),
        ("user/model", "hf_wrong_token", "does not accept the token"),
        ("user/model", "hf_user_read", "may not write to 'user/model'"),
        ("other/model", "hf_user_write", "may not write to 'other/model'"),
        ("model", "hf_user_write", "must be USER/model"),
        ("user/a b", "hf_user_write", "is no name of a repository"),
    ]:
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        code, said = command("publish", tmp_path / "model", name)
        assert (code, message in said) == (2, True), said
        assert token is None or token not in said
    assert not (hub.hub.root / "models" / "user" / "model").exists()
    assert command("publish", tmp_path / "model", "user/model")[0] == 0
    code, said = command("publish", tmp_path / "model", "user/model", "--private")
    assert (code, "is there, and public" in said) == (2, True), said


def test_every_refusal_to_load_says_what_it_is(command, hub, tmp_path, monkeypatch):
    make(tmp_path / "model")
    assert command("publish", tmp_path / "model", "user/model")[0] == 0

    def set_up(token, **meta):
        hub.hub.save_meta("models", "user/model", {**hub.hub.meta("models", "user/model"), **meta})
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / f"cache-{len(hub.log)}"))
        monkeypatch.delenv("HF_TOKEN", raising=False)
        if token:
            monkeypatch.setenv("HF_TOKEN", token)

    for token, meta, words, message in [
        ("hf_user_write", {}, ["--revision", "v9"], "has no revision 'v9'"),
        (None, {"gated": "manual"}, [], "is gated: log in"),
        ("hf_other_write", {"gated": "manual"}, [], "is gated: ask for access"),
        (None, {"gated": False, "private": True}, [], "if it is private, log in"),
        ("hf_other_write", {"private": True}, [], "or it is private and the token in use may not see it"),
        ("hf_wrong_token", {"private": True}, [], "does not accept the token"),
    ]:
        set_up(token, **meta)
        code, said = command("verify-load", "user/model", *words)
        assert (code, message in said) == (2, True), said
        if not words:
            code, said = command("translate", "user/model")
            assert (code, message in said) == (2, True), said
    set_up("hf_user_read", private=True)
    for words in (["verify-load"], ["translate"]):
        code, said = command(*words, "user/none")
        assert (code, "There is no model 'user/none'" in said) == (2, True), said


def test_a_model_that_was_not_published_so_has_no_golden_answer(command, client, tmp_path):
    api = publish.Repository("user/model").api
    api.create_repo("user/model")
    code, said = command("verify-load", "user/model")
    assert (code, "it was not published by `theatre publish`" in said) == (2, True), said


def test_a_folder_that_is_not_the_model_it_was_is_not_published(command, hub, tmp_path, monkeypatch):
    make(tmp_path / "model")
    assert command("publish", tmp_path / "model", "user/model")[0] == 0
    before = held(hub)
    other = Answer(0.5, 1e-4, ["the text that it writes"], "", "", "")
    monkeypatch.setattr(publish, "ask_stranger", lambda place, golden: other)
    code, said = command("publish", tmp_path / "model", "user/model")
    assert code == 2
    assert "is not the model that golden.safetensors is of: FAIL" in said
    assert "the text that it writes" in said

    def cannot(place, golden):
        raise RuntimeError("ModuleNotFoundError: No module named 'x'")

    monkeypatch.setattr(publish, "ask_stranger", cannot)
    code, said = command("publish", tmp_path / "model", "user/model")
    assert code == 2
    assert "A process without this package cannot load" in said
    (tmp_path / "model" / "README.md").unlink()
    code, said = command("publish", tmp_path / "model", "user/model")
    assert (code, "has no README.md" in said) == (2, True)
    assert held(hub) == before


def test_a_folder_that_a_run_writes_into_is_not_published(command, tmp_path):
    make(tmp_path / "model")
    with filelock.FileLock(tmp_path / "model" / ".lock"):
        code, said = command("publish", tmp_path / "model", "user/model")
    assert (code, "A run is writing into" in said) == (2, True)


@pytest.mark.parametrize(
    "error", [NotImplementedError("no locks"), PermissionError(13, "Permission denied")], ids=repr
)
def test_where_it_cannot_be_seen_whether_a_run_writes_a_warning_says_so(tmp_path, monkeypatch, caplog, error):
    def refuse(self, *args, **kwargs):
        raise error

    (tmp_path / ".lock").touch()
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with publish.alone_in(tmp_path):
        assert f"Whether a run is writing into {tmp_path} cannot be seen ({error})" in caplog.text


def test_a_recipe_pushes_whole_models_on_its_way_and_the_measured_one_in_the_end(command, hub, tmp_path, strangers):
    run = tmp_path / "run"
    code, said = command("train", write_recipe(tmp_path), "--data_dir", tmp_path, "--output_dir", run)
    assert code == 0, said
    steps = [f"Training in progress, step {step}" for step in (4, 2)]
    assert commits_of(hub) == ["Publish the model", *steps, "initial commit"]
    assert len(strangers) == 2
    files = held(hub)
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert {"metrics.json", "recipe.yaml", "README.md", "checkpoint-2/model.safetensors", GOLDEN} <= set(files)
    assert b"in progress" not in files["README.md"]
    assert b'name = "user/model"' in files["README.md"]
    assert b"hub_" not in files["recipe.yaml"]
    assert said_by_run("user/model")["d_model"] == 16
    assert f"{hub.url}/user/model" in said


def test_a_run_whose_publication_fails_says_how_to_make_up_for_it(command, hub, tmp_path):
    run = tmp_path / "run"
    hub.inject(action="status", status=503, path="/commit/", times=99)
    code, said = command(
        "train", write_recipe(tmp_path), "--data_dir", tmp_path, "--output_dir", run, "--hub_strategy", "end"
    )
    assert code == 1
    assert f"The model is whole in {run}: `theatre publish {run} user/model` publishes it." in said
    assert (run / "metrics.json").is_file()
    hub.hub.faults.clear()
    assert command("publish", run, "user/model")[0] == 0
    assert held(hub)["metrics.json"] == (run / "metrics.json").read_bytes()


def test_a_run_that_may_not_publish_does_not_begin(command, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong_token")
    code, said = command("train", write_recipe(tmp_path), "--data_dir", tmp_path, "--output_dir", tmp_path / "run")
    assert (code, "does not accept the token" in said) == (2, True), said
    assert not (tmp_path / "run").exists()
