"""`theatre verify-load`: does a model still load, and answer as it did, with this version of the library and with others?"""

import argparse
import contextlib
import re
import shlex
import site
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from .first_line import first_line
from .golden import GOLDEN, Answer, ask_stranger, auto_class, write_golden
from .hub_errors import explain, patiently
from .publication import RANGES
from .text_data import is_local, near_names


_VERSION = re.compile(r"latest|\d+(\.\d+){0,2}")


@dataclass(frozen=True)
class Row:
    """What was found with one version."""

    version: str  # as it was asked for
    answer: Answer | None = None
    problem: str = ""  # why there is no answer


@dataclass(frozen=True)
class Installing:
    """How environments are made."""

    folder: Path  # to make them in
    torch: str = RANGES["torch"]
    options: str = ""  # of pip
    share_torch: bool = False

    def python(self, version: str) -> str:
        """Make an environment with a version of transformers, or find the one that was made, and name its Python.

        Raises:
            RuntimeError: it could not be made.
        """
        place = self.folder / f"transformers-{version}"
        python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        done = place / "installed"
        if done.is_file():
            return str(python)
        _command([sys.executable, "-m", "venv", "--clear", str(place)])
        if self.share_torch:
            self._share(python)
        wanted = [requirement(version), "safetensors", *([] if self.share_torch else [self.torch])]
        _command([str(python), "-m", "pip", "install", "--quiet", *wanted, *shlex.split(self.options)])
        done.touch()
        return str(python)

    def _share(self, python: Path):
        """Let an environment see what is installed here, after its own."""
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        packages = Path(_command([str(python), "-c", where]).strip())
        (packages / "shared.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")


def _command(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if line.startswith("ERROR")]
        raise RuntimeError(f"no environment: {(errors or said or ['no message'])[-1]}")
    return done.stdout


def requirement(version: str) -> str:
    """Say to pip which transformers is meant.

    Raises:
        ValueError: it is no version.
    """
    if not _VERSION.fullmatch(version):
        raise ValueError(
            f'--transformers {version!r} must be versions such as 5.4, 5.10.2 or "latest", with commas between.'
        )
    if version == "latest":
        return "transformers"
    return f"transformers=={version}" + (".*" if version.count(".") < 2 else "")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0 where all is PASS, else 1.

    Raises:
        ValueError: there is no such model, or it has no golden answer, or an option is wrong.
    """
    versions = [word.strip() for word in (arguments.transformers or "").split(",") if word.strip()]
    for version in versions:
        requirement(version)
    if not versions and (arguments.torch or arguments.pip or arguments.share_torch or arguments.environments):
        raise ValueError(
            "--torch, --pip, --share-torch and --environments are of environments: give --transformers VERSIONS."
        )
    with golden_of(arguments.model, arguments.revision) as (place, golden, revision), _folder(arguments) as folder:
        torch = arguments.torch or RANGES["torch"]
        installing = Installing(folder, torch, arguments.pip, arguments.share_torch)
        rows = [check(place, golden, revision, version, installing) for version in versions or ["installed"]]
    print(table(rows))
    return 0 if all(row.answer is not None and row.answer.passes for row in rows) else 1


@contextlib.contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[Path]:
    if arguments.environments is not None:
        yield arguments.environments.expanduser().absolute()
        return
    with tempfile.TemporaryDirectory(prefix="theatre-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def golden_of(model: str, revision: str | None) -> Iterator[tuple[str | Path, Path, str | None]]:
    """Find a model's golden answer.

    Yields:
        What the model is loaded from, the golden file, and the commit.

    Raises:
        ValueError: there is no such model, or a repository holds no golden answer.
    """
    if not is_local(model):
        path = _download(model, revision)
        yield model, path, path.parent.name  # its folder in the cache is named after the commit
        return
    folder = Path(model).expanduser()
    if not folder.is_dir():
        raise ValueError(f"There is no model folder {folder}. {near_names(folder)}")
    if revision is not None:
        raise ValueError(f"--revision {revision} is of a repository on the Hub, and {folder} is a folder.")
    auto_class(folder)
    if (folder / GOLDEN).is_file():
        yield folder, folder / GOLDEN, None
        return
    with tempfile.TemporaryDirectory(prefix="theatre-") as temporary:
        print(f"{folder} holds no {GOLDEN}: it is made now, by the installed package.")
        write_golden(folder, Path(temporary) / GOLDEN)
        yield folder, Path(temporary) / GOLDEN, None


def _download(model: str, revision: str | None) -> Path:
    try:
        return Path(patiently(lambda: hf_hub_download(model, GOLDEN, revision=revision), f"loading {model}"))
    except EntryNotFoundError as error:
        why = explain(error, model, revision) or ""
        raise ValueError(
            why if "OFFLINE" in why else f"{model} holds no {GOLDEN}: it was not published by `theatre publish`."
        ) from None
    except Exception as error:
        raise ValueError(explain(error, model, revision) or f"{model}: {first_line(error)}") from None


def check(place: str | Path, golden: Path, revision: str | None, version: str, installing: Installing) -> Row:
    """Let a process without this package answer, in the environment of a version.

    Args:
        place: a folder, or a repository.
        golden: its golden file.
        revision: of the repository.
        version: of transformers, or "installed".
        installing: how environments are made.
    """
    if version != "installed":
        print(f"transformers {version}: making an environment, and asking a process in it ...", file=sys.stderr)
    try:
        if version == "installed":
            return Row(version, ask_stranger(place, golden, revision=revision))
        python, alone = installing.python(version), {"PYTHONPATH": ""}
        return Row(version, ask_stranger(place, golden, revision=revision, python=python, environment=alone))
    except RuntimeError as error:
        return Row(version, problem=str(error))


def table(rows: list[Row]) -> str:
    """Write a table: one line for each version."""
    lines = [
        f"{'asked for':<10}  {'transformers':<13}  {'torch':<13}  {'python':<8}  {'difference':>10}  {'tolerance':>9}  result"
    ]
    for row in rows:
        if row.answer is None:
            lines.append(f"{row.version:<10}  {'':<13}  {'':<13}  {'':<8}  {'':>10}  {'':>9}  FAIL: {row.problem}")
            continue
        a = row.answer
        result = "PASS" if a.passes else f"FAIL{''.join(f': not as they were: {what}' for what in a.differs)}"
        shown = f"{a.transformers:<13}  {a.torch:<13}  {a.python:<8}  {a.difference:>10.2g}  {a.tolerance:>9.2g}"
        lines.append(f"{row.version:<10}  {shown}  {result}")
    return "\n".join(lines)
