"""`theatre convert` downloads what it needs of a model on the Hub, and nothing more."""

import os
import subprocess
import sys

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel


PUBLISH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("user/old")
api.upload_folder(repo_id="user/old", folder_path=sys.argv[1])
"""


def run(env, *words):
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_model_on_the_hub_is_converted(hub, tmp_path):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=24, n_layer=1, n_head=3, n_positions=32))
    model.config.save_pretrained(tmp_path / "old")
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    (tmp_path / "old" / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    (tmp_path / "old" / "rust_model.ot").write_bytes(b"not needed")

    env = {**os.environ, **hub.env(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    assert run(env, "-c", PUBLISH, str(tmp_path / "old")).returncode == 0
    convert = ["-m", "transformer_theatre.recipes.theatre", "convert"]
    result = run(env, *convert, "user/old", str(tmp_path / "ours"))
    assert result.returncode == 0, result.stderr
    assert "license: mit" in (tmp_path / "ours" / "README.md").read_text(encoding="utf-8")
    assert not any("rust_model" in entry["path"] for entry in hub.log if entry["method"] == "GET")

    result = run(env, *convert, "user/none", str(tmp_path / "none"))
    assert result.returncode == 2
    assert "There is no model 'user/none'" in result.stderr
    assert not (tmp_path / "none").exists()
