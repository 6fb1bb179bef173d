"""The golden answer of a model: what it said of a fixed input, kept beside it, so that anybody can see that it still does."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .first_line import first_line
from .stranger import GOLDEN, auto_class_of, load, read_golden, save_golden


# It runs where this package is not, from its text.
_SCRIPT = Path(__file__).with_name("stranger.py")


@dataclass(frozen=True)
class Answer:
    """How a process without this package answered a golden input."""

    difference: float  # the largest of a logit
    tolerance: float  # up to which it is the same model
    differs: list[str]  # what else is not as it was, in words
    transformers: str  # versions
    torch: str
    python: str

    @property
    def passes(self) -> bool:
        """Whether it is the same model."""
        return self.difference <= self.tolerance and not self.differs

    def __str__(self):
        verdict = "PASS" if self.passes else "FAIL"
        more = "".join(f"; not as they were: {what}" for what in (", ".join(self.differs),) if what)
        return f"{verdict}: logits differ by {self.difference:.3g} at most (tolerance {self.tolerance:.3g}){more}"


def auto_class(folder: Path) -> str:
    """Name the Auto class that loads a model folder.

    Raises:
        ValueError: it is no folder of a model that travels with its code.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no model folder: it has no config.json. Give the output folder of a run.")
    try:
        found = auto_class_of(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from None
    if found is None:
        raise ValueError(
            f"{path} does not say which code loads the model (auto_map): save it by this package's save_pretrained. A model of "
            "the library's own needs no more than `hf upload`."
        )
    return found


def write_golden(folder: Path, path: Path):
    """Let the model in a folder, loaded by this package in float32 on the CPU, answer its golden input, and write that.

    Args:
        folder: of the model; it stays as it is.
        path: of the file.

    Raises:
        ValueError: the folder's model cannot be loaded, or makes no numbers.
    """
    kind = auto_class(folder)
    has_tokenizer = (folder / "tokenizer_config.json").is_file()
    try:
        model, tokenizer = load(str(folder), kind, has_tokenizer)
    except Exception as error:  # safetensors, OSError, RuntimeError: all mean that it cannot be read
        raise ValueError(f"The model in {folder} cannot be loaded: {first_line(error)}") from None
    save_golden(path, model, tokenizer, kind)
    if not bool(read_golden(path)[0]["logits"].isfinite().all()):
        path.unlink()
        raise ValueError(f"The model in {folder} makes no numbers of its golden input: its weights are no model's.")


def ask_stranger(
    place: str | Path,
    golden: Path,
    *,
    revision: str | None = None,
    python: str = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Let a process without this package load a model with its own code, and hold its answer against the golden one.

    Args:
        place: a folder, or a repository on the Hub.
        golden: the file to compare with.
        revision: of the repository.
        python: that runs the process.
        environment: variables for it, beside those of this process.

    Raises:
        RuntimeError: the model could not be loaded there; the message says why.
    """
    where = str(Path(place).resolve()) if Path(place).is_dir() else str(place)
    job = {"place": where, "golden": str(golden.resolve()), "options": {"revision": revision} if revision else {}}
    return Answer(**run_stranger(job, python=python, environment=environment))


def run_stranger(
    job: dict[str, Any], *, python: str = sys.executable, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run `stranger.main` in a process of its own, in an empty folder.

    Raises:
        RuntimeError: it failed; the message is the last line of what it said.
    """
    offline = {"HF_HUB_OFFLINE": "1"} if Path(job["place"]).is_dir() else {}
    encoding = {"PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
    source = _SCRIPT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="theatre-") as empty:
        modules = {"HF_MODULES_CACHE": str(Path(empty) / "modules")}
        done = subprocess.run(
            [python, "-c", source, json.dumps(job)],
            cwd=empty,
            env={**os.environ, **offline, **encoding, **modules, **(environment or {})},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or not answers:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        # The library's own errors end in hints; what is wrong stands in the line that names the error.
        named = [line for line in said if line.partition(":")[0].endswith(("Error", "Exception"))]
        raise RuntimeError((named or said)[-1])
    return json.loads(answers[-1].removeprefix("ANSWER "))


__all__ = ["GOLDEN", "Answer", "ask_stranger", "auto_class", "run_stranger", "write_golden"]
