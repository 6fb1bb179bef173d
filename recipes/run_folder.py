"""The output folder of a run: a model folder that also holds how the model was made and what it scored."""

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import yaml

from transformer_theatre import configuration, modeling


# The code that travels with a model: all of two folders, but for what sends it.
_SOURCES = [
    path for folder in (configuration, modeling) for path in Path(str(folder.__file__)).parent.glob("[!_]*.py")
]
_TRAVELS = [path.name for path in _SOURCES if path.stem != "remote_code"]
# What a run writes into its folder, and `overwrite` deletes.
_WRITTEN = [
    "checkpoint-*",
    ".saving",
    "figures",
    "config.json",
    "generation_config.json",
    "model*.safetensors*",
    "tokenizer*.json",
    "golden.safetensors",
    "recipe.yaml",
    "nonfinite-step-*.txt",
    "special_tokens_map.json",
    *_TRAVELS,
    "fingerprint.json",
    "README.md",
    "card.json",
    "metrics.json",
    "evaluation.json",
    "outputs",
    "predictions.jsonl",
    "trainer_state.json",
    "training_args.bin",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
]
# The first line of recipe.yaml in a folder that a run has made.
_MARK = "# Written by `theatre train` from the recipe "


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
    # A run that was killed before it began may have left its lock.
    if resume or not folder.exists() or all(path.name == ".lock" for path in folder.iterdir()):
        return
    if not overwrite:
        raise ValueError(
            f"The output folder {folder} is not empty. Choose another --output_dir, or go on with its run by "
            "--resume_from_checkpoint true, or delete it by --overwrite true."
        )
    if recipe_of(folder) is None:
        raise ValueError(
            f"The output folder {folder} holds no recipe.yaml that a run has written: delete it yourself."
        )


def recipe_of(folder: Path) -> str | None:
    """Name the recipe of the run that made a folder; None if no run has made it."""
    path = folder / "recipe.yaml"
    first = path.read_text(encoding="utf-8").partition("\n")[0] if path.is_file() else ""
    return first.removeprefix(_MARK) if first.startswith(_MARK) else None


def read_recipe_of(folder: Path) -> dict[str, Any]:
    """Read the recipe that a run has written into its folder.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / "recipe.yaml"
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {' '.join(str(error).split())}.") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} is damaged: it holds {str(recipe)[:40]!r}, and no keys with values.")
    return recipe


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that a run has written.

    Raises:
        ValueError: it is damaged.
    """
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
    if not isinstance(contents, dict):
        raise ValueError(f"{path} is damaged: it holds {str(contents)[:40]!r}, and no names with values.")
    return contents


def begin_folder(path: str | Path, recipe: dict[str, Any], *, name: str, resume: bool = False) -> Path:
    """Delete what an earlier run wrote, unless that run goes on, and write recipe.yaml: the recipe as it is run.

    Call `check_folder` long before, and this only when nothing can be wrong with the input any more.

    Args:
        path: the output folder.
        recipe: keys and values.
        name: of the recipe that they came from.
        resume: keep what is there.
    """
    folder = Path(path)
    text = f"{_MARK}{name}\n{yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False)}"
    folder.mkdir(parents=True, exist_ok=True)
    for child in () if resume else list(folder.iterdir()):
        if not any(child.match(pattern) for pattern in _WRITTEN):
            continue  # somebody else's: a note, or the data
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    write_whole(folder / "recipe.yaml", text)
    return folder


def write_whole(path: Path, text: str):
    """Write a file, whole or not at all.

    Raises:
        OSError: it could not be written; the message names the file.
    """
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, contents: dict[str, Any]):
    """Write a file, whole or not at all."""
    write_whole(path, json.dumps(contents, indent=2) + "\n")


def write_metrics(folder: Path, metrics: dict[str, Any]):
    """Write metrics.json, whole or not at all."""
    write_json(folder / "metrics.json", metrics)
