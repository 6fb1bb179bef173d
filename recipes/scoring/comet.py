"""COMET (Rei et al., 2020, https://aclanthology.org/2020.emnlp-main.213/), by a model that lies on this machine.

The package `unbabel-comet` runs in a process of its own, with its own Python: up to version 2.2.7 it needs a transformers below 5.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from transformer_theatre.recipes.first_line import first_line
from transformer_theatre.recipes.sentence_statistics import Statistics, mean_statistics


# Runs in the other process: reads samples from stdin, and writes their scores into a file, as stdout is full of other words.
_SCORE = """
import importlib.metadata, json, sys

import torch
from comet import load_from_checkpoint

checkpoint, answer = sys.argv[1:]
model = load_from_checkpoint(checkpoint, local_files_only=True)
samples = json.load(sys.stdin)
found = model.predict(samples, batch_size=16, gpus=int(torch.cuda.is_available()), num_workers=1, progress_bar=False)
version = importlib.metadata.version("unbabel-comet")
with open(answer, "w", encoding="utf-8") as file:
    json.dump({"scores": [float(score) for score in found["scores"]], "version": version}, file)
"""


class Comet:
    """A COMET model.

    Args:
        checkpoint: its file, such as ".../checkpoints/model.ckpt".
        python: interpreter of an environment with unbabel-comet; None: this one.
        folder: for a file in between.

    Raises:
        ValueError: the file is not there, or unbabel-comet is not.
    """

    def __init__(self, checkpoint: Path, python: str | None, folder: Path):
        if not checkpoint.is_file() or not (checkpoint.resolve().parents[1] / "hparams.yaml").is_file():
            raise ValueError(
                f"--comet {checkpoint} must be the file of a COMET model on this machine, with hparams.yaml in the folder above its "
                "own, such as wmt22-comet-da/checkpoints/model.ckpt."
            )
        if python is None and find_spec("comet") is None:
            raise ValueError(
                "--comet needs the package unbabel-comet. Its versions up to 2.2.7 want another transformers than this one: install it "
                "into an environment of its own, and name its interpreter by --comet_python."
            )
        self.checkpoint, self.python, self.folder = checkpoint.resolve(), python or sys.executable, folder

    def __call__(self, samples: Sequence[dict[str, str]]) -> Statistics:
        """Score texts.

        Args:
            samples: `src`, `mt` and `ref` of each.

        Raises:
            RuntimeError: the other process failed; the message is its own.
        """
        answer = self.folder / "scores.json"
        try:
            done = subprocess.run(
                [self.python, "-c", _SCORE, str(self.checkpoint), str(answer)],
                input=json.dumps(list(samples)),
                capture_output=True,
                encoding="utf-8",
                env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONUTF8": "1"},
                check=False,
            )
        except OSError as error:
            raise ValueError(f"--comet_python {self.python} cannot be run: {error.strerror}.") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"COMET failed: {first_line(Exception(last))}")
        found = json.loads(answer.read_text(encoding="utf-8"))
        name = self.checkpoint.parents[1].name
        return mean_statistics(found["scores"], signature=f"model:{name}|version:{found['version']}")
