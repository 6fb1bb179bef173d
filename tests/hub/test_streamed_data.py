"""Pairs that the Hub serves, read while they are used: they go on from where they were, in another process too."""

import json
import os
import subprocess
import sys

import pytest


PUBLISH = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("user/pairs", repo_type="dataset")
api.upload_folder(repo_id="user/pairs", folder_path=sys.argv[1], repo_type="dataset")
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
    run(PUBLISH, env, str(folder))
    found = []
    for count in (7, 6, 17):
        out = run(READ, env, str(tmp_path), str(count))
        found += json.loads(next(line for line in out.splitlines() if line.startswith("ROWS")).removeprefix("ROWS"))
    assert found == pairs
