"""The output folder of a run: a model folder that also holds how the model was made and what it scored."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml


def check_folder(path: str | Path, *, overwrite: bool = False, resume: bool = False):
    """Make sure that a run can write into `path`, and that no other run's work is lost; change nothing.

    Args:
        path: the output folder, which may be missing.
        overwrite: what an earlier run left in it may be deleted.
        resume: go on with what an earlier run left in it.

    Raises:
        ValueError: it cannot be written, or holds something already and neither `overwrite` nor `resume` is given, or
            `overwrite` would delete something that no run has made.
    """
    folder = Path(path)
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"The output folder {folder} cannot be written: {error.strerror}. Choose another --output_dir."
        ) from None
    finally:
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
    if resume or not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"The output folder {folder} is not empty. Choose another --output_dir, or go on with its run by "
            "--resume_from_checkpoint true, or delete it by --overwrite true."
        )
    if not (folder / "recipe.yaml").is_file():
        raise ValueError(
            f"The output folder {folder} holds no recipe.yaml, so no run has made it: delete it yourself."
        )


def begin_folder(path: str | Path, recipe: dict[str, Any], *, resume: bool = False) -> Path:
    """Empty the output folder, unless a run goes on in it, and write recipe.yaml: the recipe as it is run.

    Call `check_folder` long before, and this only when nothing can be wrong with the input any more.
    """
    folder = Path(path)
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False)
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder


def write_metrics(folder: Path, metrics: dict[str, Any]):
    """Write metrics.json, whole or not at all."""
    partial = folder / f".metrics-{os.getpid()}.json"
    partial.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / "metrics.json")
