"""What of a model folder goes to the Hub: files on a list, each whole, and nothing else."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from .arguments import NOT_RECIPE
from .first_line import first_line
from .golden import GOLDEN, auto_class


INDEX = "model.safetensors.index.json"
_MODEL = ["config.json", "generation_config.json"]
_TOKENIZER = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "merges.txt",
    "source.spm",
    "target.spm",
]
_RESULTS = ["metrics.json", "evaluation.json", "parity.json", "recipe.yaml"]
_ABOUT = ["README.md", *_RESULTS, "LICENSE", "LICENSE.txt"]
_FIGURES = ["figures/*.png", "figures/*.svg"]
# What another way of saving a model leaves in a repository: it would be loaded in place of ours, or can run code.
_SUPERSEDED = [
    "model*.safetensors",
    "*.index.json",
    "pytorch_model*.bin",
    "training_args.bin",
    "trainer_state.json",
    "optimizer.*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
]
# What loads our models: pyproject.toml has the same.
RANGES = {"torch": "torch>=2.6", "transformers": "transformers>=5.4,<6"}
_SIBLING = re.compile(r"^from \.(\w+) import ", re.MULTILINE)
# What a card says of a model that is in a folder: `name = "."  # this folder`, and `theatre translate . < source.txt`.
_UNPLACED = re.compile(r'^(\w+ = )"\."(?:  #.*)?$', re.MULTILINE)
_UNPLACED_COMMAND = re.compile(r"^(theatre \w+) \.(?= |$)", re.MULTILINE)


@dataclass(frozen=True)
class Published:
    """One file of a publication."""

    path: Path
    size: int  # bytes
    sha256: str
    blob_id: str  # its name in git: SHA-1 of "blob", the size and the content

    @classmethod
    def of(cls, path: Path) -> "Published":
        """Read a file."""
        size = path.stat().st_size
        sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(2**20):
                sha256.update(block)
                blob.update(block)
        return cls(path, size, sha256.hexdigest(), blob.hexdigest())


def names_in(folder: Path) -> list[str]:
    """List the files of a model folder that are published.

    Raises:
        ValueError: what loads a model is not all there.
    """
    auto_class(folder)
    wanted = [*_MODEL, *_weights(folder), *_code(folder), *_TOKENIZER, *_ABOUT]
    names = [name for name in wanted if (folder / name).is_file()]
    names += [path.relative_to(folder).as_posix() for pattern in _FIGURES for path in sorted(folder.glob(pattern))]
    return list(dict.fromkeys(names))


def _weights(folder: Path) -> list[str]:
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    if not (folder / INDEX).is_file():
        raise ValueError(f"{folder} holds no weights: model.safetensors is missing.")
    try:
        shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{folder / INDEX} cannot be read: {first_line(error)}") from None
    _check_there(folder, shards, INDEX)
    return [INDEX, *shards]


def _code(folder: Path) -> list[str]:
    """List the files of code that config.json names, and those that these import."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    pipelines = [entry.get("impl", "") for entry in (config.get("custom_pipelines") or {}).values()]
    waiting = []
    for reference in [*config["auto_map"].values(), *pipelines]:
        if "--" in str(reference):
            raise ValueError(
                f"{folder / 'config.json'}: {reference} is code of another repository: save the model by this package first."
            )
        waiting.append(f"{str(reference).partition('.')[0]}.py")
    found: list[str] = []
    while waiting:
        name = waiting.pop(0)
        if name not in found:
            _check_there(folder, [name], "config.json, or the code that it names,")
            found.append(name)
            waiting += [f"{stem}.py" for stem in _SIBLING.findall((folder / name).read_text(encoding="utf-8"))]
    return found


def _check_there(folder: Path, names: Iterable[str], who: str):
    for name in names:
        # A name may lead out of the folder.
        if Path(name).name != name or not (folder / name).is_file():
            raise ValueError(f"{folder} is not whole: {who} needs {name}, which is not there.")


def stage(folder: Path, target: Path, *, repository: str | None = None, lasting: bool = False):
    """Lay out what is published of a model folder in a folder of its own, without its golden file.

    What is published as it is is not copied where the disk has links. recipe.yaml loses what says where
    it ran, the card gets the name of the repository, and requirements.txt is written.

    Args:
        folder: of the model; it stays as it is.
        target: new or empty.
        repository: "user/repository", for the card.
        lasting: the model folder may go before the other one does.

    Raises:
        ValueError: the folder is not whole.
    """
    for name in names_in(folder):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "recipe.yaml":
            path.write_text(_recipe(folder / name), encoding="utf-8")
        elif name == "README.md" and repository is not None:
            card = _UNPLACED.sub(rf'\1"{repository}"', (folder / name).read_text(encoding="utf-8"))
            path.write_text(_UNPLACED_COMMAND.sub(rf"\1 {repository}", card), encoding="utf-8")
        else:
            link(folder / name, path, lasting=lasting)
    (target / "requirements.txt").write_text(requirements(folder), encoding="utf-8")


def link(source: Path, target: Path, *, lasting: bool = False):
    """Give a file a second name; a symbolic link, or a copy, where the disk gives none.

    Args:
        source: the file.
        target: its second name.
        lasting: the file is to stay under it when the first name goes.
    """
    for make in (os.link, *(() if lasting else (os.symlink,))):
        try:
            make(source.resolve(), target)
            return
        except OSError:
            continue
    shutil.copyfile(source, target)


def _recipe(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    first = text.partition("\n")[0]
    try:
        recipe: Any = yaml.safe_load(text)
        kept = {key: value for key, value in recipe.items() if key not in NOT_RECIPE}
    except (yaml.YAMLError, AttributeError) as error:
        raise ValueError(f"{path} is no recipe: {first_line(error)}") from None
    head = f"{first}\n" if first.startswith("#") else ""
    return head + yaml.safe_dump(kept, allow_unicode=True, sort_keys=False)


def requirements(folder: Path) -> str:
    """Write requirements.txt: what loads the model, and with what it was tested."""
    needed = {"source.spm": "sentencepiece", "vocab-src.json": "sacremoses"}
    lines = [*RANGES.values(), *(package for name, package in needed.items() if (folder / name).is_file())]
    tested = f"transformers {transformers.__version__} and torch {torch.__version__}"
    return f"# What loads the model, by trust_remote_code=True; tested with {tested}.\n" + "\n".join(lines) + "\n"


def contents(folder: Path) -> dict[str, Published]:
    """Read every file of a staged folder, by its name in the repository."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): Published.of(path) for path in paths}


def outdated(there: Iterable[str], files: Iterable[str]) -> list[str]:
    """Name the files of a repository that a publication takes the place of, and that it does not have itself.

    Args:
        there: names in the repository.
        files: names of the publication.
    """
    owned = [*_MODEL, *_TOKENIZER, *_RESULTS, *_SUPERSEDED, GOLDEN]
    published = set(files)
    folders = {".", "figures", *(Path(name).parent.as_posix() for name in published)}
    return sorted(
        name
        for name in set(there) - published
        if Path(name).parent.as_posix() in folders
        and (name.startswith("figures/") or any(Path(name).match(pattern) for pattern in owned))
    )
