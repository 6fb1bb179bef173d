"""`theatre publish` and what strangers load afterwards: fresh processes, fresh caches, one Hub for each test."""

import json
import os
import re
import subprocess
import sys
import time
import zlib

import pytest
import torch
from hubgit import LFS_POINTER, Git
from model_folders import TEXT, make, process, theatre, write

from transformer_theatre.recipes.golden import GOLDEN


pytestmark = pytest.mark.slow

# Answers of every kind, from a folder or a repository, with the package or without.
LOAD = """
import json, sys
place, without, auto_class = sys.argv[1:]
if without == "without":
    sys.modules["transformer_theatre"] = None
else:
    import transformer_theatre
import torch, transformers
trust = without == "without" or None
loader = getattr(transformers, auto_class)
model = loader.from_pretrained(place, trust_remote_code=trust).eval()
assert type(model).__module__.startswith("transformers_modules." if trust else "transformer_theatre."), type(model)
tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
text = "ein hund sieht die frau im garten"
batch = tokenizer([text, "zwei katze"], return_tensors="pt", padding=True)
inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
if "MultipleChoice" in auto_class:
    inputs = {name: value[None] for name, value in inputs.items()}
if model.config.is_encoder_decoder:
    inputs["decoder_input_ids"] = batch["input_ids"][:, :3]
found = {"logits": model(**inputs).logits.detach().view(torch.int32).flatten().tolist()}
if hasattr(model, "translate"):
    found["translate"] = model.translate([text, "zwei katze"], tokenizer=tokenizer)
    pipe = transformers.pipeline("translation", model=place, trust_remote_code=trust or True)
    found["pipeline"] = pipe(text)
elif hasattr(model, "continue_text"):
    found["continue"] = model.continue_text([text], temperature=0, max_new_tokens=9)
    pipe = transformers.pipeline("text-generation", model=place, trust_remote_code=trust or True)
    found["pipeline"] = pipe(text, do_sample=False, max_new_tokens=9)
if model.can_generate():
    found["generate"] = model.generate(inputs["input_ids"][:1], max_new_tokens=9, do_sample=False).tolist()
print("FOUND", json.dumps(found))
"""


def git_of(hub, name="user/model"):
    return Git(hub.hub.root / "models" / name)


def held(hub, name="user/model", ref="refs/heads/main"):
    """Every file of a branch, with its content, whether git or LFS holds it."""
    git = git_of(hub, name)
    files = {}
    for path, blob in git.read_tree(git.commit_info(git.refs()[ref])["tree"]).items():
        data = git.get(blob)[1]
        pointer = LFS_POINTER.match(data) if len(data) < 300 else None
        files[path] = hub.hub.lfs_path(pointer[1].decode()).read_bytes() if pointer else data
    return files


def found_by(hub, home, *words):
    result = process(hub, home, "-c", LOAD, *words)
    assert result.returncode == 0, result.stderr[-3000:]
    line = next(line for line in result.stdout.splitlines() if line.startswith("FOUND "))
    return json.loads(line.removeprefix("FOUND "))


MODELS = {
    "transformer": ("AutoModelForSeq2SeqLM", 0),
    "lstm": ("AutoModelForSeq2SeqLM", 1),
    "gpt": ("AutoModelForCausalLM", 0),
    "classifier": ("AutoModelForSequenceClassification", 0),
    "chooser": ("AutoModelForMultipleChoice", 0),
}


@pytest.mark.parametrize(("auto_class", "kind"), MODELS.values(), ids=MODELS)
def test_what_is_published_is_the_same_for_everybody_to_the_bit(hub, tmp_path, auto_class, kind):
    make(tmp_path / "model", auto_class, kind)
    result = theatre(hub, tmp_path / "home", "publish", tmp_path / "model", "user/model")
    assert result.returncode == 0, result.stderr
    assert f"{hub.url}/user/model" in result.stdout
    here = found_by(hub, tmp_path / "home", tmp_path / "model", "with", auto_class)
    assert found_by(hub, tmp_path / "stranger", "user/model", "without", auto_class) == here
    assert found_by(hub, tmp_path / "owner", "user/model", "with", auto_class) == here


def test_a_repository_holds_what_is_on_the_list_and_no_byte_that_is_private(hub, tmp_path):
    account, machine = "zaphodbeeblebrox", tmp_path / "model"
    make(machine)
    home = tmp_path / "home"
    names = {"USER": account, "LOGNAME": account, "HOME": str(tmp_path / account)}
    result = theatre(hub, home, "publish", machine, "user/model", **names)
    assert result.returncode == 0, result.stderr
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
        assert data[:1] != b"\x80", f"{name} is a pickle"
        assert data[:2] != b"PK", f"{name} is a zip file, as torch.save makes"
        for secret in ("hf_user_write", str(tmp_path), account, os.getcwd(), str(home)):
            assert secret.encode() not in data, f"{name} holds {secret}"
        assert not re.search(rb"(?<![\w.:/])/(home|root|tmp|Users)/\w", data), f"{name} holds a path"
    assert b'name = "user/model"' in files["README.md"]
    assert b"output_dir" not in files["recipe.yaml"]
    for name, data in files.items():
        if name not in (".gitattributes", "README.md", "recipe.yaml", "requirements.txt"):
            assert (machine / name).read_bytes() == data  # the golden answer is kept here too
    # One commit, behind the one that makes a repository; no token in its message either.
    history = git_of(hub).history(git_of(hub).refs()["refs/heads/main"])
    assert [commit["message"] for commit in history] == ["Publish the model", "initial commit"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("metrics.json", '{"where": "/scratch/somebody/run"}', "a path, '/scratch/somebody/run'"),
        ("evaluation.json", '{"note": "by hf_user_write"}', "a token"),
        ("README.md", "---\nlicense: mit\n---\nmade by zaphodbeeblebrox", "the name of the account"),
        ("figures/attention.png", "\x80\x04pickle", None),
    ],
)
def test_what_must_not_leave_the_machine_stops_everything(hub, tmp_path, name, text, reason):
    make(tmp_path / "model")
    (tmp_path / "model" / name).write_bytes(text.encode("latin-1"))
    names = {"USER": "zaphodbeeblebrox", "LOGNAME": "zaphodbeeblebrox"}
    result = theatre(hub, tmp_path / "home", "publish", tmp_path / "model", "user/model", **names)
    assert result.returncode == 2
    assert f"{name}: {reason or 'it is a pickle'}" in result.stderr
    assert {entry["method"] for entry in hub.log} <= {"GET"}


def test_a_dry_run_says_what_would_happen_and_touches_nothing(hub, tmp_path):
    make(tmp_path / "model")
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "model").rglob("*"))}
    result = theatre(hub, tmp_path / "home", "publish", tmp_path / "model", "user/model", "--private", "--dry-run")
    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "model").rglob("*"))} == before
    assert {entry["method"] for entry in hub.log} == {"GET"}
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert f"{size:>14,}  model.safetensors  (new)" in result.stdout
    assert "training_args.bin" not in result.stdout
    assert "is not there, and would be made" in result.stdout
    assert "It would be private." in result.stdout
    assert not (hub.hub.root / "models" / "user" / "model").exists()

    # Without a token, without a Hub: the files are listed all the same.
    result = theatre(
        hub,
        tmp_path / "home",
        "publish",
        tmp_path / "model",
        "user/model",
        "--dry-run",
        token=None,
        HF_HUB_OFFLINE="1",
    )
    assert result.returncode == 0, result.stderr
    assert "model.safetensors" in result.stdout
    assert "HF_HUB_OFFLINE is set" in result.stdout
    assert "a token is needed" in result.stdout


def test_a_second_publication_takes_the_place_of_the_first_whole(hub, tmp_path):
    """Of a model in several files nothing is left beside the one file of the next: that would be loaded in its place."""
    make(tmp_path / "first", max_shard_size="10KB")
    make(tmp_path / "second", seed=1)
    (tmp_path / "second" / "metrics.json").unlink()
    home = tmp_path / "home"
    assert theatre(hub, home, "publish", tmp_path / "first", "user/model", "--private").returncode == 0
    assert "model.safetensors.index.json" in held(hub)
    assert hub.hub.meta("models", "user/model")["private"]
    write(tmp_path, "LICENSE", "mine")
    add = "from huggingface_hub import upload_file; upload_file(path_or_fileobj=sys.argv[1], path_in_repo=sys.argv[2], repo_id='user/model')"
    for name in ("pytorch_model.bin", "examples.md"):
        assert process(hub, home, "-c", f"import sys; {add}", tmp_path / "LICENSE", name).returncode == 0

    dry = theatre(hub, home, "publish", tmp_path / "second", "user/model", "--dry-run")
    assert re.search(r"deleted  model\.safetensors\.index\.json", dry.stdout)
    result = theatre(hub, home, "publish", tmp_path / "second", "user/model")
    assert result.returncode == 0, result.stderr
    files = held(hub)
    assert not [
        name for name in files if "-of-" in name or "index" in name or name in ("metrics.json", "pytorch_model.bin")
    ]
    assert files["examples.md"] == b"mine"  # what is nobody's stays
    assert files["model.safetensors"] == (tmp_path / "second" / "model.safetensors").read_bytes()
    here = found_by(hub, home, tmp_path / "second", "with", "AutoModelForSeq2SeqLM")
    assert found_by(hub, tmp_path / "stranger", "user/model", "without", "AutoModelForSeq2SeqLM") == here

    # Once more: nothing has changed, and no commit is made.
    count = len(git_of(hub).history(git_of(hub).refs()["refs/heads/main"]))
    assert theatre(hub, home, "publish", tmp_path / "second", "user/model").returncode == 0
    assert len(git_of(hub).history(git_of(hub).refs()["refs/heads/main"])) == count


def test_a_branch_and_a_pull_request_leave_main_as_it_was(hub, tmp_path):
    make(tmp_path / "model")
    home = tmp_path / "home"
    result = theatre(hub, home, "publish", tmp_path / "model", "user/model", "--revision", "draft")
    assert result.returncode == 0, result.stderr
    assert list(held(hub)) == [".gitattributes"]
    assert "model.safetensors" in held(hub, ref="refs/heads/draft")
    result = theatre(hub, home, "publish", tmp_path / "model", "user/model", "--create-pr")
    assert result.returncode == 0, result.stderr
    assert "discussions/1" in result.stdout
    assert "model.safetensors" in held(hub, ref="refs/pr/1")
    assert list(held(hub)) == [".gitattributes"]


def test_every_refusal_says_what_it_is(hub, tmp_path):
    make(tmp_path / "model")
    home = tmp_path / "home"
    publish = ["publish", tmp_path / "model"]
    refused = {
        ("user/model", None): "There is no token for the Hub",
        ("user/model", "hf_wrong_token"): "does not accept the token",
        ("user/model", "hf_user_read"): "may not write to 'user/model'",
        ("other/model", "hf_user_write"): "may not write to 'other/model'",
        ("model", "hf_user_write"): "must be USER/model",
        ("user/a b", "hf_user_write"): "is no name of a repository",
    }
    for (name, token), message in refused.items():
        result = theatre(hub, home, *publish, name, token=token)
        assert (result.returncode, message in result.stderr) == (2, True), (name, token, result.stderr)
    result = theatre(hub, home, *publish, "user/model")
    assert result.returncode == 0, result.stderr
    result = theatre(hub, home, *publish, "user/model", "--private")
    assert result.returncode == 2
    assert "is there, and public" in result.stderr

    def verify(name, *words, token):
        result = theatre(hub, tmp_path / f"home-{token}", "verify-load", name, *words, token=token)
        return result.returncode, result.stderr

    assert verify("user/model", token=None)[0] == 0
    code, said = verify("user/model", "--revision", "v9", token="hf_user_write")
    assert (code, "has no revision 'v9'" in said) == (2, True), said
    code, said = verify("user/none", token="hf_user_write")
    assert (code, "There is no model 'user/none'" in said) == (2, True), said
    hub.hub.save_meta("models", "user/model", {**hub.hub.meta("models", "user/model"), "gated": "manual"})
    for token, message in ((None, "is gated: log in"), ("hf_other_write", "is gated: ask for access")):
        code, said = verify("user/model", token=token)
        assert (code, message in said) == (2, True), said
    hub.hub.save_meta(
        "models", "user/model", {**hub.hub.meta("models", "user/model"), "gated": False, "private": True}
    )
    for token, message in {
        None: "if it is private, log in",
        "hf_other_write": "or it is private and the token in use may not see it",
        "hf_wrong_token": "does not accept the token",
    }.items():
        code, said = verify("user/model", token=token)
        assert (code, message in said) == (2, True), said
        result = theatre(hub, tmp_path / f"home-{token}", "translate", "user/model", token=token)
        assert (result.returncode, message in result.stderr) == (2, True), result.stderr
    assert verify("user/model", token="hf_user_read")[0] == 0


def test_a_folder_that_is_not_the_model_it_was_is_not_published(hub, tmp_path):
    make(tmp_path / "model")
    home = tmp_path / "home"
    assert theatre(hub, home, "publish", tmp_path / "model", "user/model").returncode == 0
    make(tmp_path / "other", seed=1)
    (tmp_path / "model" / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    before = held(hub)
    result = theatre(hub, home, "publish", tmp_path / "model", "user/model")
    assert result.returncode == 2
    assert "is not the model that golden.safetensors is of: FAIL" in result.stderr
    (tmp_path / "model" / "decoding.py").unlink()
    result = theatre(hub, home, "publish", tmp_path / "model", "user/model")
    assert result.returncode == 2
    assert "needs decoding.py, which is not there" in result.stderr
    assert held(hub) == before
    torch.save({}, tmp_path / "model" / "model.safetensors")


FAULTS = {
    "busy": {"action": "status", "status": 503, "path": "/commit/"},
    "too many requests": {"action": "status", "status": 429, "headers": {"Retry-After": "2"}, "path": "/preupload/"},
    "broken": {"action": "reset", "method": "POST", "path": "/commit/"},
    "the answer is lost": {"action": "lost_response", "path": "/commit/"},
    "damaged on the way back": {"action": "corrupt", "method": "GET", "path": "/lfs/"},
    "cut off on the way back": {"action": "truncate", "method": "GET", "path": "/lfs/"},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_command_ends_complete_whatever_happens_on_the_way(hub, tmp_path, fault):
    make(tmp_path / "model")
    hub.inject(**fault)
    result = theatre(hub, tmp_path / "home", "publish", tmp_path / "model", "user/model")
    assert result.returncode == 0, result.stderr
    assert hub.hub.faults[0]["hits"] == 1
    assert len(git_of(hub).history(git_of(hub).refs()["refs/heads/main"])) == 2
    assert held(hub)["model.safetensors"] == (tmp_path / "model" / "model.safetensors").read_bytes()
    assert "hf_user_write" not in result.stdout + result.stderr


@pytest.mark.parametrize("path", ["^/upload/", "/commit/"], ids=["while files are sent", "while it commits"])
def test_a_process_killed_on_the_way_leaves_the_model_that_was_there(hub, tmp_path, path):
    home = tmp_path / "home"
    make(tmp_path / "first")
    assert theatre(hub, home, "publish", tmp_path / "first", "user/model").returncode == 0
    before = held(hub)
    make(tmp_path / "second", seed=1)
    fault = hub.inject(action="delay", seconds=3, method="PUT,POST", path=path)
    env = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | hub.env(home)
    words = ["-m", "transformer_theatre.recipes.theatre", "publish", str(tmp_path / "second"), "user/model"]
    with subprocess.Popen(
        [sys.executable, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        while fault["times"] > 0 and child.poll() is None:
            time.sleep(0.05)
        child.kill()
    assert child.returncode == -9
    time.sleep(4)  # what had arrived is done with
    after = held(hub)
    # A commit that had arrived is made, and whole; else nothing has changed.
    weights = (tmp_path / "second" / "model.safetensors").read_bytes()
    assert after == before or (path == "/commit/" and after["model.safetensors"] == weights)
    where = tmp_path / ("first" if after == before else "second")
    here = found_by(hub, home, where, "with", "AutoModelForSeq2SeqLM")
    assert found_by(hub, tmp_path / "stranger", "user/model", "without", "AutoModelForSeq2SeqLM") == here

    result = theatre(hub, home, "publish", tmp_path / "second", "user/model")
    assert result.returncode == 0, result.stderr
    assert held(hub)["model.safetensors"] == weights
    assert len(git_of(hub).history(git_of(hub).refs()["refs/heads/main"])) == 3


RECIPE = """
task: translation
train_source: text.de
train_target: text.en
validation_source: text.de
validation_target: text.en
vocab_size: 290
preset: transformer-tiny
d_model: 16
encoder_layers: 1
decoder_layers: 1
encoder_ffn_dim: 32
decoder_ffn_dim: 32
max_steps: 4
save_steps: 2
save_strategy: steps
eval_strategy: "no"
use_cpu: true
push_to_hub: true
hub_model_id: model
hub_strategy: all_checkpoints
hub_always_push: true
"""


def test_a_recipe_pushes_whole_models_on_its_way_and_the_measured_one_in_the_end(hub, tmp_path):
    write(tmp_path, "text.de", "\n".join(TEXT) + "\n")
    write(tmp_path, "text.en", "\n".join(line.upper() for line in TEXT) + "\n")
    write(tmp_path, "toy/tiny.yaml", RECIPE)
    home, run = tmp_path / "home", tmp_path / "run"
    words = [
        "train",
        tmp_path / "toy" / "tiny.yaml",
        "--data_dir",
        tmp_path,
        "--output_dir",
        run,
        "--hub_token",
        "hf_user_write",
    ]
    result = theatre(hub, home, *words, token=None)
    assert result.returncode == 0, result.stderr
    assert "hf_user_write" not in result.stdout + result.stderr
    git = git_of(hub)
    history = git.history(git.refs()["refs/heads/main"])
    steps = [f"Training in progress, step {step}" for step in (4, 2)]
    assert [commit["message"] for commit in history] == ["Publish the model", *steps, "initial commit"]
    for commit in history[:-1]:
        load = process(hub, tmp_path / commit["id"], "-c", REVISION, "user/model", commit["id"])
        assert load.returncode == 0, load.stderr
    files = held(hub)
    assert files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert {"metrics.json", "recipe.yaml", "README.md", "checkpoint-2/model.safetensors", GOLDEN} <= set(files)
    assert b"in progress" not in files["README.md"]
    # Of everything that was ever sent, to the last byte.
    for path in [*(hub.hub.root / "lfs").rglob("*"), *(git.path / "objects").rglob("*")]:
        if path.is_file():
            data = path.read_bytes() if "lfs" in path.parts else zlib.decompress(path.read_bytes())
            assert data[:1] != b"\x80"
            assert data[:2] != b"PK"
            for secret in ("hf_user_write", str(tmp_path), os.getcwd()):
                assert secret.encode() not in data


REVISION = """
import sys
sys.modules["transformer_theatre"] = None
from transformers import AutoModelForSeq2SeqLM
model = AutoModelForSeq2SeqLM.from_pretrained(sys.argv[1], revision=sys.argv[2], trust_remote_code=True)
print(model.translate(["ein hund"]))
"""
