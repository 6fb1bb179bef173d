"""Checkpoints on their way to the Hub while training goes on: each complete, in one commit, and loaded by a stranger before."""

import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils import logging

from .first_line import first_line
from .golden import GOLDEN, auto_class, run_stranger
from .hub_errors import explain
from .hub_upload import Commit, Repository
from .private_names import PrivateNames, refuse_private
from .publication import contents, link, stage


logger = logging.get_logger(__name__)
_PREFIX = ".pushing-"
_CARD = """---
library_name: transformers
tags:
- transformer-theatre
- from-scratch
---

# {title}

{state}

```python
from transformers import {auto_class}

model = {auto_class}.from_pretrained("{name}", trust_remote_code=True)
```
"""


def interim_card(folder: Path, name: str, state: str) -> str:
    """Write the card of a model whose own is not written yet.

    Args:
        folder: of the model.
        name: "user/repository".
        state: what there is to say of it.
    """
    return _CARD.format(title=name.rpartition("/")[2], name=name, state=state, auto_class=auto_class(folder))


@dataclass
class BackgroundPushes:
    """Pushes one checkpoint after the other, in a thread of its own."""

    repository: Repository
    folder: Path  # of the run
    failed: list[str] = field(default_factory=list)  # what could not be pushed, and why

    def __post_init__(self):
        self._thread = ThreadPoolExecutor(1, "push")
        self._jobs: dict[str, Future[Commit]] = {}
        for left in self.folder.glob(f"{_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def busy(self) -> bool:
        """Whether a push is going on."""
        return any(not job.done() for job in self._jobs.values())

    def push(self, checkpoint: Path, what: str, card: str, also_as: str | None = None):
        """Push a checkpoint, as it is now: it may be deleted as soon as this returns.

        Args:
            checkpoint: whole.
            what: of the commit's message, such as "step 100".
            card: README.md of the repository.
            also_as: a folder of the repository that is to hold it too.
        """
        self.report()
        staged = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self.folder))
        try:
            for target in [staged, *([staged / also_as] if also_as else [])]:
                target.mkdir(exist_ok=True)
                stage(checkpoint, target, lasting=True)
                (target / "README.md").unlink(missing_ok=True)  # or what it is a link to would be written
                (target / "README.md").write_text(card, encoding="utf-8")
            self._jobs[what] = self._thread.submit(self._push, staged, what, also_as)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise

    def _push(self, staged: Path, what: str, also_as: str | None) -> Commit:
        try:
            # Whoever cannot load it here could not load it from there.
            run_stranger({"place": str(staged.resolve()), "write": str((staged / GOLDEN).resolve())})
            if also_as:
                link(staged / GOLDEN, staged / also_as / GOLDEN, lasting=True)
            files = contents(staged)
            name, token = self.repository.name, self.repository.token
            refuse_private(staged, list(files), PrivateNames([self.folder], [token], name.split("/")))
            commit = self.repository.publish(files, f"Training in progress, {what}")
            if lacks := self.repository.lacks(commit.id, files):
                raise RuntimeError(f"{self.repository.url} lacks {', '.join(lacks)} in commit {commit.id}.")
            return commit
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def report(self):
        """Say which pushes have failed, and why; each once."""
        for what in [what for what, job in self._jobs.items() if job.done()]:
            error = self._jobs.pop(what).exception()
            if error is None:
                logger.info(f"{what} is on the Hub: {self.repository.url}")
                continue
            why = str(error) if type(error) in (RuntimeError, ValueError) else None
            why = why or explain(error, self.repository.name) or first_line(error)  # type: ignore[arg-type]
            self.failed.append(f"{what}: {why}")
            logger.warning(f"{what} was not pushed to {self.repository.url}, which is as it was: {why}")

    def finish(self):
        """Wait for what is going on, and report."""
        for job in list(self._jobs.values()):
            job.exception()
        self.report()
