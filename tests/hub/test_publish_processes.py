"""What is published is the same for everybody: fresh processes, fresh caches, one Hub for each test."""

import json
import os
import subprocess
import sys
import time
import zlib

import pytest
from held import git_of, held, is_pickle
from model_folders import make, process, theatre, write_recipe

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
elif "SequenceClassification" in auto_class:
    pipe = transformers.pipeline("text-classification", model=place, trust_remote_code=trust or True)
    found["pipeline"] = [pipe(text), pipe({"text": text, "text_pair": "zwei katze"})]
if model.can_generate():
    found["generate"] = model.generate(inputs["input_ids"][:1], max_new_tokens=9, do_sample=False).tolist()
print("FOUND", json.dumps(found))
"""


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


def test_a_recipe_pushes_whole_models_on_its_way_and_the_measured_one_in_the_end(hub, tmp_path):
    recipe, home, run = write_recipe(tmp_path), tmp_path / "home", tmp_path / "run"
    words = [
        "train",
        recipe,
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
            data = path.read_bytes()
            if "lfs" not in path.parts:
                data = zlib.decompress(data).partition(b"\0")[2]  # without git's own head
            assert not is_pickle(data)
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
