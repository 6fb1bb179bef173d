"""`theatre publish`: check a model folder, put it on the Hub in one commit, and prove that it can be loaded from there."""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import filelock
from huggingface_hub import get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import logging

from .golden import GOLDEN, Answer, ask_stranger, write_golden
from .hub_errors import explain, is_transient, patiently
from .hub_upload import Commit, Repository
from .private_names import PrivateNames, refuse_private
from .publication import Published, contents, link, stage


logger = logging.get_logger(__name__)


@dataclass
class Wish:
    """What is to be published, and how."""

    folder: Path
    name: str  # "user/repository"
    private: bool = False
    revision: str | None = None
    create_pr: bool = False
    token: str | None = None
    allowed: list[str] = field(default_factory=list)
    message: str = "Publish the model"
    card: str | None = None  # README.md, where the folder has none


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0.

    Raises:
        ValueError: the folder, the repository or an option is wrong, or the token is.
        RuntimeError: it failed.
    """
    wish = Wish(
        arguments.folder.expanduser(),
        arguments.name,
        arguments.private,
        arguments.revision,
        arguments.create_pr,
        allowed=arguments.allow,
        message=arguments.message,
    )
    if wish.create_pr and wish.revision not in (None, "main"):
        raise ValueError(f"--create-pr is for the branch main, not for --revision {wish.revision}: give one of them.")
    check_name(wish.name)
    if not wish.folder.is_dir():
        raise ValueError(f"There is no model folder {wish.folder}.")
    with alone_in(wish.folder):
        if arguments.dry_run:
            rehearse(wish)
        else:
            publish(wish)
    return 0


def check_name(name: str):
    """Make sure that a repository can have this name.

    Raises:
        ValueError: it cannot.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name of a repository: {error}") from None
    if "/" not in name:
        raise ValueError(f"{name!r} must be USER/{name}: the name of a repository begins with that of its owner.")


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make sure that no run is writing into a folder; where that cannot be seen, a warning says so.

    Raises:
        ValueError: one is.
    """
    path = folder / ".lock"
    lock = filelock.FileLock(path)
    if path.is_file():
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ValueError(f"A run is writing into {folder}: wait for it.") from None
        except (NotImplementedError, OSError) as error:
            # A file system without locks, or a folder that may only be read.
            logger.warning(
                f"Whether a run is writing into {folder} cannot be seen ({error}): see to it yourself that none is."
            )
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def staged(wish: Wish) -> Iterator[tuple[Path, Answer]]:
    """Lay out what is to be published in a folder of its own, and check it.

    Yields:
        The folder, and how a process without this package answered from it.

    Raises:
        ValueError: the folder is not whole, holds what must not be published, or is not the model that it was.
    """
    golden = wish.folder / GOLDEN
    with tempfile.TemporaryDirectory(prefix="theatre-") as temporary:
        folder = Path(temporary)
        if not (wish.folder / "README.md").is_file() and wish.card is None:
            raise ValueError(
                f"{wish.folder} has no README.md, the model card: `theatre train` and `theatre convert` write it."
            )
        stage(wish.folder, folder, repository=wish.name)
        if not (folder / "README.md").is_file():
            (folder / "README.md").write_text(wish.card or "", encoding="utf-8")
        names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        owner, _, title = wish.name.partition("/")
        private = PrivateNames([wish.folder, folder], [wish.token], [owner, title, *wish.allowed])
        refuse_private(folder, names, private)
        if golden.is_file():
            link(golden, folder / GOLDEN)
        else:
            write_golden(wish.folder, folder / GOLDEN)
        try:
            answer = ask_stranger(folder, folder / GOLDEN)
        except RuntimeError as error:
            raise ValueError(f"A process without this package cannot load what {wish.folder} holds: {error}") from None
        if not answer.passes:
            raise ValueError(
                f"{wish.folder} is not the model that {GOLDEN} is of: {answer}. Was something changed in it? If so, delete {golden}, and "
                "a new one is made."
            )
        yield folder, answer


def rehearse(wish: Wish):
    """Do all of `publish` that touches nothing, and print what would happen."""
    with staged(wish) as (folder, answer):
        files = contents(folder)
        repository = Repository(wish.name, wish.token, wish.revision)
        print(f"Without this package, it loads and answers as it should. {answer}\n")
        try:
            private, changes = repository.is_private(), repository.changes(files)
        except Exception as error:  # the listing is of use without the Hub
            print(_listing(files))
            print(f"\nWhat the repository holds is not known: {explain(error, wish.name) or error}")
        else:
            status = dict.fromkeys(changes.added, "new") | dict.fromkeys(changes.changed, "changed")
            print(_listing(files, status))
            for name in changes.deleted:
                print(f"{'deleted':>14}  {name}  (it belongs to another model)")
            state = {
                None: "is not there, and would be made",
                True: "is there, and private",
                False: "is there, and public",
            }
            print(f"\n{repository.url} {state[private]}. Branch: {wish.revision or 'main'}.")
            if private is None:
                print(f"It would be {'private' if wish.private else 'public'}.")
            if private is False and wish.private:
                print("It would not be published: --private, and the repository is public.")
            what = "Nothing would change" if changes.nothing else f"One commit would be made: {wish.message!r}"
            print(f"{what}{', as a pull request' if wish.create_pr and not changes.nothing else ''}.")
        if not (wish.token or get_token()):
            print("To publish, a token is needed: `hf auth login`, or HF_TOKEN.")
        print("Nothing was touched (--dry-run).")


def _listing(files: dict[str, Published], status: dict[str, str] | None = None) -> str:
    lines = [
        f"{file.size:>14,}  {name}" + (f"  ({status.get(name, 'as it is there')})" if status is not None else "")
        for name, file in files.items()
    ]
    total = sum(file.size for file in files.values())
    return "\n".join([f"{'bytes':>14}  file", *lines, f"{total:>14,}  in {len(files)} files"])


def publish(wish: Wish, say: Callable[[str], Any] = print) -> Commit:
    """Check, upload, prove, and say where it is.

    Raises:
        ValueError: the folder, the name or the token is wrong; nothing has been changed.
        RuntimeError: it failed; the message says what the repository holds, and how to go on.
    """
    repository = Repository(wish.name, wish.token, wish.revision)
    check_token(repository)
    with staged(wish) as (folder, answer):
        files = contents(folder)
        say(f"Without this package, it loads and answers as it should. {answer}\n{_listing(files)}")
        with explained(wish):
            repository.create(private=wish.private, branch=not wish.create_pr)
            commit = repository.publish(files, wish.message, create_pr=wish.create_pr)
            proof = repository.prove(commit.id, files)
        say(f"The Hub holds it, by checksums of all {len(files)} files. Loaded from there: {proof}")
        if not (wish.folder / GOLDEN).exists():
            with contextlib.suppress(OSError):  # a folder that may only be read
                link(folder / GOLDEN, wish.folder / GOLDEN, lasting=True)
    say(f"\n{commit.pull_request or commit.url}\ncommit {commit.id}")
    say(f'For ever the same: from_pretrained("{wish.name}", revision="{commit.id}", trust_remote_code=True)')
    return commit


@contextlib.contextmanager
def explained(wish: Wish) -> Iterator[None]:
    """Put the Hub's errors into words.

    Raises:
        ValueError: the Hub refused.
        RuntimeError: it did not answer.
    """
    try:
        yield
    except Exception as error:
        why = explain(error, wish.name, wish.revision, wish.token)
        if why is None or type(error) in (ValueError, RuntimeError):  # they say it themselves
            raise
        if is_transient(error):
            raise RuntimeError(f"{why} Run the same command again: what was sent is not sent twice.") from error
        raise ValueError(why) from error


def check_token(repository: Repository):
    """Make sure that there is a token, and that the Hub knows it.

    Raises:
        ValueError: there is none, or the Hub does not accept it.
        RuntimeError: the Hub does not answer.
    """
    if not (repository.token or get_token()):
        raise ValueError(
            "There is no token for the Hub: log in by `hf auth login`, or set HF_TOKEN to one with the role write."
        )
    try:
        patiently(lambda: repository.api.whoami(), "asking the Hub whose token it is")
    except Exception as error:
        why = explain(error, repository.name, token=repository.token)
        if why is None:
            raise
        raise (RuntimeError if is_transient(error) else ValueError)(why) from error
