"""What may cut a run short: a signal, a second run in the same folder, other data than before, a loss that is no number."""

import errno
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import filelock
import pyarrow
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging

from .agreement import on_any_process
from .run_folder import read_json
from .signals import SIGNALS
from .stream_batches import StreamBatches


logger = logging.get_logger(__name__)
FINGERPRINT = "fingerprint.json"
# Its entries that may change: with a warning, or if the updates stay the same (`division`).
_APART = ("settings", "division")


class StopAtSignal(TrainerCallback):
    """At SIGTERM, as a cluster sends it before it takes a machine away, or Ctrl-C: finish the update, save it, and stop.

    All processes stop after the same update, whichever of them has received the signal. Where an epoch ends with that update,
    or training does, what the recipe does then is done first: the run that goes on would not come there again.

    Attributes:
        stopping: whether the run is to end.
        scheduled: whether the checkpoint that is being saved is one that the recipe asks for.
    """

    def __init__(self):
        self.stopping, self.scheduled = False, True
        self._epoch_ends = False
        self._saved: int | None = None

    def on_step_end(self, args, state, control, **kwargs):
        """Look for a signal after each update."""
        self._epoch_ends = control.should_training_stop or control.should_epoch_stop or state.epoch == int(state.epoch)
        self._look(args, state, control)

    def on_evaluate(self, args, state, control, **kwargs):
        """Look for a signal that came during a validation: the step before it is saved, and no other one made."""
        if not self.stopping:
            self._look(args, state, control)

    def on_epoch_end(self, args, state, control, **kwargs):
        """Look once more when all is known that the end of an epoch brings."""
        self._epoch_ends = False
        self._look(args, state, control)

    def _look(self, args, state, control):
        self.stopping = on_any_process(self.stopping or SIGNALS.received is not None, args)
        self.scheduled = control.should_save
        if self.stopping and not self._epoch_ends and self._saved != state.global_step:
            control.should_save = True

    def on_save(self, args, state, control, **kwargs):
        """Look for a signal that came while a checkpoint was saved: it need not be saved again."""
        self._saved = state.global_step
        self.stopping = on_any_process(self.stopping or SIGNALS.received is not None, args)

    def ends(self, state) -> bool:
        """Say whether the run ends here: it was asked to, and this step is saved."""
        return self.stopping and not self._epoch_ends and self._saved == state.global_step


# What a file system says that knows no locks, or whose lock server does not answer.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
# Of the folders that this process writes into.
_LOCKS: list[filelock.BaseFileLock] = []


def lock_folder(folder: Path):
    """Keep other runs out of a folder, until `release_folders` is called or this process ends, however it ends.

    Where the file system has no locks, a warning says so.

    Raises:
        ValueError: another run is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            f"Another run is writing into {folder}: wait for it, or choose another --output_dir."
        ) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        logger.warning(
            f"The file system of {folder} has no locks ({error}): see to it yourself that no other run writes into that folder."
        )
        return
    _LOCKS.append(lock)


def release_folders():
    """Let other runs into the folders of this one."""
    while _LOCKS:
        _LOCKS.pop().release()


def fingerprint(
    train: Dataset | StreamBatches,
    validation: Dataset | None,
    tokenizer: PreTrainedTokenizerBase,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Sum up what a run depends on besides its model, so that a change is noticed where the run goes on.

    Args:
        train: rows of token ids, with columns `input_ids` and `labels` (ids too, or classes or numbers); or a stream, of which
            only the first rows count.
        validation: such rows; they may change, as nothing is learnt from them.
        tokenizer: of the run.
        options: that decide which rows come when; `settings` among them may change.
    """
    measured = "none" if validation is None else _checksum(validation)
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return {
        "training data": train.fingerprint() if isinstance(train, StreamBatches) else _checksum(train),
        "tokenizer": f"{len(tokenizer):,} pieces with checksum {hashlib.sha256(vocabulary.encode()).hexdigest()[:16]}",
        **options,
        "settings": {**options.get("settings", {}), "validation data": measured},
    }


def _checksum(train: Dataset) -> str:
    table = train.select_columns(["input_ids", "labels"]).with_format("arrow")[:]
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        while pyarrow.types.is_list(column.type) or pyarrow.types.is_large_list(column.type):
            digest.update(column.value_lengths().to_numpy(zero_copy_only=False).tobytes())
            column = column.flatten()
        digest.update(column.to_numpy(zero_copy_only=False).tobytes())
    return f"{len(train):,} rows with checksum {digest.hexdigest()[:16]}"


def check_fingerprint(folder: Path, now: Mapping[str, Any]) -> dict[str, Any]:
    """Make sure that a run goes on with what it began with, and warn of what may change: the entry `settings`.

    Args:
        folder: of the run that is to go on.
        now: what it would go on with.

    Returns:
        What it began with; nothing, where a run of an older version did not write it down.

    Raises:
        ValueError: something else differs; the message names all of it, with the values before and now.
    """
    path = folder / FINGERPRINT
    if not path.is_file():
        return {}
    then = read_json(path)
    names = [name for name in now if name in then and name not in _APART and then[name] != now[name]]
    if names:
        changed = "; ".join(f"its {name} was {then[name]}, and is {now[name]} now" for name in names)
        raise ValueError(
            f"The run in {folder} cannot go on: {changed}. Give what it began with, or begin another run in another "
            "--output_dir."
        )
    before, after = then.get("settings", {}), now.get("settings", {})
    changed = ", ".join(
        f"{name} was {before[name]}, and is {after[name]} now"
        for name in after
        if before.get(name, after[name]) != after[name]
    )
    if changed:
        logger.warning(f"The run in {folder} goes on with other settings: {changed}.")
    return then


def name_of_row(train: Dataset, row: int) -> str:
    """Say where a row of a dataset comes from, for a message."""
    return train[row].get("origin", f"row {row + 1}")


def rows_of(batch: Mapping[str, torch.Tensor], input_ids: Iterable[list[Any]]) -> list[int]:
    """Find the rows of a column `input_ids` that a batch was made of."""
    masks = batch["attention_mask"].bool()
    wanted = {tuple(ids[mask].tolist()) for ids, mask in zip(batch["input_ids"], masks, strict=True)}
    return [row for row, ids in enumerate(input_ids) if tuple(_in_a_row(ids)) in wanted]


def _in_a_row(ids: list[Any]) -> list[int]:
    """Put the sequences of a row, such as the answers to a question, one after the other."""
    return [number for sequence in ids for number in sequence] if ids and isinstance(ids[0], list) else ids
