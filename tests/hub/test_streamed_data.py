"""Pairs that the Hub serves: read while they are used, they go on from where they were; and a dry run of the paper's recipe."""

import json
import os
import random
import subprocess
import sys

import pytest


PUBLISH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[2], repo_type="dataset")
api.upload_folder(repo_id=sys.argv[2], folder_path=sys.argv[1], repo_type="dataset")
"""

READ = """
import json, sys
from pathlib import Path
from transformer_theatre.recipes.data_arguments import PairDataArguments
from transformer_theatre.recipes.streamed_text import stream_pairs
text = stream_pairs(PairDataArguments(dataset="user/pairs", source_field="translation.de", target_field="translation.en"))
place = Path(sys.argv[1]) / "place.json"
if place.exists():
    text.restart(json.loads(place.read_text()))
rows = [next(text).texts for _ in range(int(sys.argv[2]))]
place.write_text(json.dumps(text.place()))
print("ROWS", json.dumps(rows))
"""


def run(code, env, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.slow
def test_a_data_set_of_the_hub_is_streamed_and_goes_on(hub, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    pairs = [[f"quelle {number}", f"target {number}"] for number in range(30)]
    for part in range(3):
        lines = [json.dumps({"translation": {"de": de, "en": en}}) for de, en in pairs[10 * part : 10 * part + 10]]
        (folder / f"train-{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    env = {**os.environ, **hub.env(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    run(PUBLISH, env, str(folder), "user/pairs")
    found = []
    for count in (7, 6, 17):
        out = run(READ, env, str(tmp_path), str(count))
        found += json.loads(next(line for line in out.splitlines() if line.startswith("ROWS")).removeprefix("ROWS"))
    assert found == pairs


# As the data set describes itself on the Hub, but for its files, which are Parquet.
WMT14 = """---
configs:
- config_name: de-en
  data_files:
  - {split: train, path: de-en/train.jsonl}
  - {split: validation, path: de-en/validation.jsonl}
  - {split: test, path: de-en/test.jsonl}
---
"""
# The recipe to the paper's letter, but for the sizes.
SHRUNKEN = ["--d_model", "16", "--encoder_layers", "1", "--decoder_layers", "1", "--encoder_attention_heads", "2"]
SHRUNKEN += ["--decoder_attention_heads", "2", "--encoder_ffn_dim", "32", "--decoder_ffn_dim", "32"]
SHRUNKEN += ["--vocab_size", "300", "--max_steps", "2", "--use_cpu", "true", "--average_last", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["base", "big"])
def test_the_papers_recipe_runs_on_a_data_set_of_the_form_of_wmt14(hub, tmp_path, size):
    folder, rng = tmp_path / "data" / "de-en", random.Random(0)
    folder.mkdir(parents=True)
    (folder.parent / "README.md").write_text(WMT14, encoding="utf-8")
    for split, count in (("train", 400), ("validation", 20), ("test", 20)):
        words = [rng.choices(["haus", "hund", "geht", "nach"], k=rng.randint(3, 30)) for _ in range(count)]
        pairs = [{"de": " ".join(line), "en": " ".join(reversed(line)).upper()} for line in words]
        if split == "train":
            pairs += [{"de": "", "en": "NOTHING"}, {"de": "wort " * 1000, "en": "WORD " * 1000}]
        lines = [json.dumps({"translation": pair}) for pair in pairs]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    env = {**os.environ, **hub.env(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    hub.hub.users["hf_wmt"] = {"name": "wmt", "role": "write", "orgs": []}
    run(PUBLISH, {**env, "HF_TOKEN": "hf_wmt"}, str(folder.parent), "wmt/wmt14")
    train = "import sys; from transformer_theatre.recipes.theatre import main; sys.exit(main(sys.argv[1:]))"
    output = tmp_path / "run"
    run(train, env, "train", f"wmt14-en-de/{size}", "--output_dir", str(output), *SHRUNKEN)
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["train_steps"] == 2
    assert metrics["train_rows_bad"] + metrics["train_rows_too_long"] == 2
    assert metrics["test_bleu_signature"].startswith("nrefs:1|case:mixed")
    assert metrics["test_num_beams"] == 4
