"""What must not leave this machine: tokens, pickles, paths, and the names of the machine and its account."""

import getpass
import json
import mmap
import re
import socket
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import get_token


# Words that are names of machines and accounts, and of nothing in particular.
_COMMON = {"admin", "build", "default", "docker", "home", "host", "linux", "local", "localhost", "model", "node", "root"} | {
    "runner", "server", "test", "train", "ubuntu", "user", "users", "worker", "workspace"
}  # fmt: skip
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}\b")
# As text has them: not within an address, a longer path or a word.
_PATHS = re.compile(
    rb"(?<![\w.:/~*-])/(?:home|Users|root|tmp|var|mnt|media|srv|opt|usr|work|workspace|data|scratch|content|kaggle|private)"
    rb"/[\w.-]+[\w./-]*|\b[A-Za-z]:\\{1,2}[\w.-]+\\"
)
# Files in which any text may stand, since they hold the words of a language.
_VOCABULARIES = ("tokenizer.json", "vocab", "merges.txt", ".spm")


class PrivateNames:
    """Finds in files what must not be published.

    Args:
        places: folders of this machine that are to be found, besides those that are known.
        tokens: that are to be found, besides those of the Hub that are known.
        allowed: names and paths that may stand in the files.
    """

    def __init__(self, places: Iterable[Path] = (), tokens: Iterable[str | None] = (), allowed: Iterable[str] = ()):
        allowed = {word.lower() for word in allowed}
        names = {"the name of the machine": socket.gethostname(), "the name of the account": _account()}
        names["the name of the machine, in short"] = socket.gethostname().partition(".")[0]
        self.names = {
            what: re.compile(rb"(?<![A-Za-z0-9])" + re.escape(name.encode()) + rb"(?![A-Za-z0-9])", re.IGNORECASE)
            for what, name in names.items()
            if len(name) > 3 and name.lower() not in _COMMON | allowed
        }
        self.tokens = [token.encode() for token in {*tokens, get_token()} if token and len(token) >= 8]
        known = [
            Path.home(),
            Path.cwd(),
            Path(tempfile.gettempdir()),
            Path(sys.prefix),
            Path(__file__).parent,
            *places,
        ]
        roots = {part for place in known for part in (place.absolute(), place.resolve())}
        # A folder right below the root may be called as something else is.
        self.places = sorted({str(place).encode() for place in roots if len(place.parts) > 2}, reverse=True)
        self.allowed = allowed

    def problems(self, path: Path, name: str) -> list[str]:
        """Say what is wrong with a file, in words; nothing, if it may be published.

        Args:
            path: of the file.
            name: that it is to have.
        """
        if not path.stat().st_size:
            return []
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if _TOKEN.search(data) or any(data.find(token) >= 0 for token in self.tokens):
                return ["a token"]
            found = [("a path of this machine", place) for place in self.places if data.find(place) >= 0][:1]
            if name.endswith(".safetensors"):
                found += self._of_weights(data)
            elif data[:1] == b"\x80" or data[:4] == b"PK\x03\x04":
                return ["it is a pickle, which runs code when it is loaded"]
            elif not name.endswith((".png", ".svg")) and not any(part in name for part in _VOCABULARIES):
                found += self._of_text(data[:], name) if not found else []
        shown = [(what, text.decode(errors="replace")) for what, text in found]
        return [f"{what}, {text!r}" for what, text in shown if text.lower() not in self.allowed]

    def _of_text(self, data: bytes, name: str) -> list[tuple[str, bytes]]:
        found = [(what, match[0]) for what, word in self.names.items() if (match := word.search(data))]
        match = _PATHS.search(data)
        return found + ([("a path", match[0])] if match else _paths_of_json(data) if name.endswith(".json") else [])

    def _of_weights(self, data: Any) -> list[tuple[str, bytes]]:
        """Look at the header as at any text; in the numbers a short word may stand by chance."""
        size = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + size]
        return [(what, match[0]) for what, word in self.names.items() if (match := word.search(header))]


def refuse_private(folder: Path, names: Sequence[str], private: PrivateNames):
    """Make sure that files can be published.

    Args:
        folder: of the files.
        names: of the files.
        private: what must not be in them.

    Raises:
        ValueError: they cannot; the message says which, and why.
    """
    found = [f"{name}: {what}" for name in names for what in private.problems(folder / name, name)]
    if found:
        raise ValueError(
            f"Nothing is published, because of what these files hold: {'; '.join(found)}. Take it out, or let what is quoted pass by "
            "--allow TEXT."
        )


def _paths_of_json(data: bytes) -> list[tuple[str, bytes]]:
    """Look for strings that are absolute paths, wherever they lead."""
    try:
        waiting = [json.loads(data)]
    except ValueError:
        return [("something that is no JSON", data[:40])]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            waiting += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and re.fullmatch(r"(/|~/|[A-Za-z]:\\)[^\s/\\]+[/\\]\S+", value):
            return [("a path", value.encode())]
    return []


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return ""
