"""One commit to the Hub: all of it or nothing, whatever happens on the way; and the proof that it is there."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile
from transformers.utils import logging

from .first_line import first_line
from .golden import GOLDEN, Answer, ask_stranger
from .hub_errors import WAITS, explain, is_transient, patiently, status_of, wait_before
from .publication import Published, outdated


logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Changes:
    """What a commit would change in a repository."""

    head: str | None  # the commit that the branch is at; None: the repository or the branch is not there yet
    added: list[str]
    changed: list[str]
    deleted: list[str]  # what the publication takes the place of

    @property
    def nothing(self) -> bool:
        """Whether the repository holds the publication already."""
        return not (self.added or self.changed or self.deleted)


@dataclass(frozen=True)
class Commit:
    """Where a publication is."""

    id: str
    url: str
    pull_request: str | None = None


class Repository:
    """A repository on the Hub, or one that is to be.

    Args:
        name: "user/repository".
        token: None: that of the environment or of `hf auth login`.
        revision: branch; None: main.
    """

    def __init__(self, name: str, token: str | None = None, revision: str | None = None):
        self.name, self.token, self.revision = name, token, revision
        self.api = HfApi(token=token)
        self.url = f"{self.api.endpoint}/{name}"

    def is_private(self) -> bool | None:
        """Say whether it is private; None: it is not there."""
        try:
            return bool(patiently(lambda: self.api.repo_info(self.name), f"looking at {self.name}").private)
        except RepositoryNotFoundError:
            return None

    def create(self, *, private: bool, branch: bool):
        """Make the repository and the branch, where they are not there.

        Args:
            private: of a new repository.
            branch: make the branch too.

        Raises:
            ValueError: a repository that should be private is public.
        """
        if private and self.is_private() is False:
            raise ValueError(
                f"{self.url} is there, and public: make it private in its settings, or leave --private out."
            )
        make: dict[str, Any] = {"private": True} if private else {}
        patiently(lambda: self.api.create_repo(self.name, exist_ok=True, **make), f"making {self.name}")
        if branch and self.revision and self.revision != "main" and self.head() is None:
            name = self.revision
            patiently(lambda: self.api.create_branch(self.name, branch=name, exist_ok=True), f"making {name}")

    def head(self) -> str | None:
        """Name the commit that the branch is at; None: the repository or the branch is not there."""
        try:
            info = patiently(lambda: self.api.repo_info(self.name, revision=self.revision), f"looking at {self.name}")
        except (RepositoryNotFoundError, RevisionNotFoundError):
            return None
        return info.sha

    def files(self, commit: str) -> dict[str, RepoFile]:
        """List what a commit holds."""
        tree = patiently(
            lambda: list(self.api.list_repo_tree(self.name, recursive=True, revision=commit)), f"listing {self.name}"
        )
        return {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}

    def changes(self, files: Mapping[str, Published]) -> Changes:
        """Say what publishing these files would change."""
        head = self.head()
        there = self.files(head) if head else {}
        changed = [name for name in files if name in there and not _same(files[name], there[name])]
        return Changes(head, [name for name in files if name not in there], changed, outdated(there, files))

    def publish(self, files: Mapping[str, Published], message: str, *, create_pr: bool = False) -> Commit:
        """Make one commit of a publication; what is sent twice makes no second one.

        Args:
            files: what the repository is to hold, by name; other files of it stay, but for those that these take the place of.
            message: of the commit.
            create_pr: propose it as a pull request.

        Raises:
            RuntimeError: the repository is as it was; the message says why, and how to go on.
        """
        changes = self.changes(files)
        if changes.head is None:
            raise RuntimeError(f"{self.url} has no branch {self.revision or 'main'}, or is gone.")
        if changes.nothing:
            return Commit(changes.head, self.url)
        known = set(self._pull_requests()) if create_pr else set()
        again = "Run the same command again: what was sent is not sent twice."
        for number in range(2, len(WAITS) + 3):
            try:
                return self._commit(files, changes, message, create_pr=create_pr)
            except Exception as error:
                if status_of(error) in (409, 412):
                    raise RuntimeError(
                        f"Somebody else has committed to {self.url} meanwhile; nothing of this is in it. {again}"
                    ) from None
                if not is_transient(error):
                    raise
                # The answer may be lost, and the commit made: ask before it is made once more.
                if made := self._made(files, changes, known, create_pr=create_pr):
                    return made
                if number > len(WAITS) + 1:
                    why = explain(error, self.name, self.revision, self.token)
                    raise RuntimeError(
                        f"{why} {self.url} is as it was, at commit {changes.head[:7]}. {again}"
                    ) from error
                wait_before(number, error, f"publishing {self.name}")
        raise AssertionError

    def _commit(self, files: Mapping[str, Published], changes: Changes, message: str, *, create_pr: bool) -> Commit:
        wanted = {*changes.added, *changes.changed}
        operations: list[Any] = [CommitOperationAdd(name, files[name].path) for name in files if name in wanted]
        operations += [CommitOperationDelete(name) for name in changes.deleted]
        made = self.api.create_commit(
            self.name,
            operations,
            commit_message=message,
            revision=self.revision,
            parent_commit=changes.head,
            create_pr=create_pr,
        )
        return Commit(made.oid, self.url, made.pr_url)

    def _made(
        self, files: Mapping[str, Published], changes: Changes, known: set[str], *, create_pr: bool
    ) -> Commit | None:
        """Find a commit that was made although its answer was lost."""
        if not create_pr:
            head = self.head()
            return Commit(head, self.url) if head and head != changes.head and not self.lacks(head, files) else None
        for name, commit in self._pull_requests().items():
            if name not in known and not self.lacks(commit, files):
                return Commit(commit, self.url, f"{self.url}/discussions/{name.rpartition('/')[2]}")
        return None

    def _pull_requests(self) -> dict[str, str]:
        refs = patiently(
            lambda: self.api.list_repo_refs(self.name, include_pull_requests=True), f"looking at {self.name}"
        )
        return {ref.ref: ref.target_commit for ref in refs.pull_requests or []}

    def lacks(self, commit: str, files: Mapping[str, Published]) -> list[str]:
        """Name the files of which a commit holds none or another, and those that should be gone."""
        there = self.files(commit)
        return [name for name in files if name not in there or not _same(files[name], there[name])] + outdated(
            there, files
        )

    def prove(self, commit: str, files: Mapping[str, Published]) -> Answer:
        """Make sure that the Hub holds what was published, that it comes back as it is, and that a stranger can load it.

        Args:
            commit: that holds it.
            files: what was published, the golden file among them.

        Raises:
            RuntimeError: it is not so; the message says what is.
        """
        if lacks := self.lacks(commit, files):
            raise RuntimeError(
                f"{self.url} holds something else than was published, in commit {commit}: {', '.join(lacks)}. Were files changed "
                "meanwhile? Run the same command again."
            )
        with tempfile.TemporaryDirectory(prefix="theatre-") as cache:
            folder = self._fetch(commit, files, Path(cache))
            # All that is needed lies there: what is loaded is what was compared.
            seen = {"HF_HUB_CACHE": cache, "HF_HUB_OFFLINE": "1"}
            answer = ask_stranger(self.name, folder / GOLDEN, revision=commit, environment=seen)
        if not answer.passes:
            raise RuntimeError(f"What {self.url} holds in commit {commit} is not the same model: {answer}")
        return answer

    def _fetch(self, commit: str, files: Mapping[str, Published], cache: Path) -> Path:
        """Download a commit, and compare checksums; what arrives damaged is asked for again."""
        damaged: list[str] = []
        for _ in range(3):
            try:
                folder = Path(patiently(lambda: self._snapshot(commit, files, cache), f"loading {self.name}"))
                damaged = [name for name in files if _sha256(folder / name) != files[name].sha256]
            except OSError as error:
                if explain(error, self.name) is not None:
                    raise
                damaged = [f"a file ({first_line(error)})"]  # of another size than the Hub says
            if not damaged:
                return folder
            logger.warning(f"{', '.join(damaged)} of {self.name} came back damaged, and is asked for again.")
            shutil.rmtree(cache, ignore_errors=True)
        raise RuntimeError(
            f"{self.url} holds what was published, by its own checksums (commit {commit}), but {', '.join(damaged)} comes back "
            "damaged: something on the way is broken. Run the same command again."
        )

    def _snapshot(self, commit: str, files: Mapping[str, Published], cache: Path) -> str:
        return snapshot_download(
            self.name,
            revision=commit,
            cache_dir=cache,
            allow_patterns=list(files),
            token=self.token,
            endpoint=self.api.endpoint,
        )


def _sha256(path: Path) -> str | None:
    return Published.of(path).sha256 if path.is_file() else None


def _same(ours: Published, theirs: RepoFile) -> bool:
    if theirs.lfs is not None:
        return theirs.lfs.sha256 == ours.sha256
    return theirs.blob_id == ours.blob_id
