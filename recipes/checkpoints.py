"""Checkpoints on disk: each is whole, or recognisably not.

A checkpoint is written aside, in `.saving`. When all processes are done, `manifest.json` lists its files with their sizes and
checksums, everything is forced onto the disk, and only then the folder gets its name. So a name stands for a finished save; and
a file that is lost or cut short later does not go unnoticed.
"""

import contextlib
import functools
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


MANIFEST = "manifest.json"
SAVING = ".saving"
_PREFIX = "checkpoint-"


def problem_of(checkpoint: Path) -> str | None:
    """Say why a checkpoint is not whole, naming the file; None if it is."""
    try:
        listed = read_manifest(checkpoint)["files"]
        found = {name: (checkpoint / name).stat() for name in listed if (checkpoint / name).is_file()}
    except (OSError, ValueError, KeyError, TypeError):
        reason = "cannot be read" if (checkpoint / MANIFEST).is_file() else "is missing: its save was not finished"
        return f"{MANIFEST} {reason}"
    for name, expected in listed.items():
        if name not in found:
            return f"{name} is missing"
        if found[name].st_size != expected["bytes"]:
            return f"{name} has {found[name].st_size:,} bytes of {expected['bytes']:,}"
        if _checksum(checkpoint / name, found[name].st_size, found[name].st_mtime_ns) != expected["crc32"]:
            return f"{name} is damaged: its checksum is not that of {MANIFEST}"
    return None


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Read what was noted when a checkpoint was saved.

    Raises:
        OSError: there is no manifest.
        ValueError: it is damaged.
    """
    return json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))


def write_manifest(folder: Path, **about: Any):
    """Note the files of a folder, with their sizes and checksums; and what else is to be known of it.

    Args:
        folder: to which nothing is added any more.
        **about: further entries.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        status = path.stat()
        checksum = _checksum(path, status.st_size, status.st_mtime_ns)
        files[path.relative_to(folder).as_posix()] = {"bytes": status.st_size, "crc32": checksum}
    (folder / MANIFEST).write_text(json.dumps({**about, "files": files}, indent=1) + "\n", encoding="utf-8")


# A run asks several times for the same checkpoint; it may be large.
@functools.lru_cache(maxsize=1024)
def _checksum(path: Path, size: int, modified: int) -> str:
    total = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            total = zlib.crc32(block, total)
    return f"{total:08x}"


def checkpoints_of(folder: Path) -> dict[int, Path]:
    """Map the step of each checkpoint in a run's folder, whole or not, to its path; the steps ascend."""
    found = {path.name.removeprefix(_PREFIX): path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()}
    return {int(step): found[step] for step in sorted(filter(str.isdecimal, found), key=int)}


def is_scheduled(checkpoint: Path) -> bool:
    """Say whether a whole checkpoint was saved when the recipe says so, and not because the run was stopped."""
    return read_manifest(checkpoint).get("scheduled", True)


@contextlib.contextmanager
def aside(folder: Path, *, leads: bool) -> Iterator[Path]:
    """Give a folder to write into, beside what is finished; nothing is left of it.

    Args:
        folder: of the run.
        leads: whether this process tidies up, for all that write there.
    """
    try:
        yield folder / SAVING
    finally:
        if leads:
            shutil.rmtree(folder / SAVING, ignore_errors=True)


def publish(part: Path, checkpoint: Path):
    """Give a folder that is complete, manifest included, its name; before that, force it onto the disk."""
    for path in [*part.rglob("*"), part]:
        _sync(path)
    if checkpoint.exists():  # of an earlier save, which was not whole, or the run would have gone on from it
        _remove(checkpoint)
    part.rename(checkpoint)
    _sync(checkpoint.parent)


def move_files(part: Path, folder: Path):
    """Let the files of one folder take the place of those in another, each whole or not at all."""
    files = [path for path in part.rglob("*") if path.is_file()]
    for path in files:
        _sync(path)
    for path in files:
        target = folder / path.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    _sync(folder)


def rotate(folder: Path, limit: int | None, best: str | None):
    """Delete what is not to be kept, when a newer checkpoint is whole.

    Kept are the newest, the best, and of those on schedule the newest `limit`. What is older than the newest and not
    finished goes too.

    Args:
        folder: of the run.
        limit: how many; None: all.
        best: path of the best, or None.
    """
    steps = checkpoints_of(folder)
    finished = {step: path for step, path in steps.items() if (path / MANIFEST).is_file()}
    if not finished:
        return
    newest = max(finished)
    scheduled = [step for step, path in finished.items() if is_scheduled(path)]
    kept = {newest, *scheduled[-limit if limit else 0 :]}
    for step, path in steps.items():
        if step < newest and step not in kept and path.name != Path(best or "").name:
            _remove(path)


def clear_leftovers(folder: Path):
    """Delete what an interrupted save has left behind; only the run that holds the folder may."""
    shutil.rmtree(folder / SAVING, ignore_errors=True)


def _remove(checkpoint: Path):
    # Renamed first: what is half deleted must not bear the name of a checkpoint.
    doomed = checkpoint.parent / SAVING / f"deleted-{checkpoint.name}"
    doomed.parent.mkdir(exist_ok=True)
    shutil.rmtree(doomed, ignore_errors=True)
    checkpoint.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _sync(path: Path):
    if path.is_dir() and os.name != "posix":
        return  # elsewhere a folder cannot be opened
    handle = os.open(path, os.O_RDONLY if path.is_dir() or os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
