"""The output folder of a run: a model folder that also holds how the model was made and what it scored."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml


def claim_folder(path: str | Path, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Make sure that a run can write into `path`, and that no other run's work is lost; leave nothing behind otherwise.

    Args:
        path: the output folder; made if it is missing.
        overwrite: delete what an earlier run left in it.
        resume: go on with what an earlier run left in it.

    Raises:
        ValueError: it cannot be written, or holds something already and neither `overwrite` nor `resume` is given, or
            `overwrite` would delete something that no run has made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"The output folder {folder} cannot be written: {error.strerror}. Choose another --output_dir.") from None
    if resume or not any(folder.iterdir()):
        return folder
    if not overwrite:
        raise ValueError(
            f"The output folder {folder} is not empty. Choose another --output_dir, or go on with its run by "
            "--resume_from_checkpoint true, or delete it by --overwrite true."
        )
    if not (folder / "recipe.yaml").is_file():
        raise ValueError(f"The output folder {folder} holds no recipe.yaml, so no run has made it: delete it yourself.")
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def write_recipe(folder: Path, task: str, given: dict[str, Any]):
    """Write recipe.yaml: the recipe as it was run."""
    text = yaml.safe_dump(plain({"task": task, **given}), allow_unicode=True, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")


def write_metrics(folder: Path, metrics: dict[str, Any]):
    """Write metrics.json, whole or not at all."""
    partial = folder / f".metrics-{os.getpid()}.json"
    partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / "metrics.json")


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Turn enumerations into the words that a recipe has for them."""
    return {key: getattr(value, "value", value) for key, value in values.items()}
