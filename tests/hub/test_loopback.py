"""The stand-in for the Hub serves what huggingface_hub publishes: a stranger loads our model from it."""

import os
import subprocess
import sys

import torch

from transformer_theatre import TransformerConfig, TransformerForConditionalGeneration


PUBLISH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("user/tiny")
api.upload_folder(repo_id="user/tiny", folder_path=sys.argv[1])
"""

STRANGER = """
import sys
sys.modules["transformer_theatre"] = None  # `import transformer_theatre` fails, as where it is not installed
import torch
from transformers import AutoModelForSeq2SeqLM
model = AutoModelForSeq2SeqLM.from_pretrained("user/tiny", trust_remote_code=True).eval()
assert type(model).__module__.startswith("transformers_modules."), type(model)
inputs = torch.load(sys.argv[1] + "/inputs.pt")
torch.save(model(**inputs).logits.detach(), sys.argv[1] + "/logits.pt")
"""


def run(code, argument, env):
    result = subprocess.run([sys.executable, "-c", code, argument], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_stranger_loads_a_published_model(hub, tmp_path):
    config = TransformerConfig.from_preset("transformer-tiny", vocab_size=99, encoder_layers=1, decoder_layers=1)
    model = TransformerForConditionalGeneration(config).eval()
    model.save_pretrained(tmp_path / "model")
    inputs = {"input_ids": torch.randint(3, 99, (2, 7)), "decoder_input_ids": torch.randint(3, 99, (2, 5))}
    torch.save(inputs, tmp_path / "inputs.pt")

    env = {**os.environ, **hub.env(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run(PUBLISH, str(tmp_path / "model"), env)
    run(STRANGER, str(tmp_path), env)

    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), model(**inputs).logits)
    assert {(entry["method"], entry["status"]) for entry in hub.log} >= {("POST", 200), ("GET", 200)}
