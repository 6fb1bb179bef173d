"""What may cut a run short: a signal, a second run in the same folder, other data than before, a loss that is no number."""

import hashlib
import json
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, TrainerCallback

from .stream_batches import StreamBatches


FINGERPRINT = "fingerprint.json"


class StoppedBySignalError(Exception):
    """A run was asked to end, and saved what it had done."""


class StopAtSignal(TrainerCallback):
    """At SIGTERM, as a cluster sends it before it takes a machine away: finish the update, save a checkpoint, and stop."""

    def __init__(self):
        self.received = False
        self._before: Any = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Wait for the signal; only a program's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)

    def _receive(self, number, frame):
        self.received = True

    def on_step_end(self, args, state, control, **kwargs):
        """Stop all processes after the same update, whichever of them has received the signal."""
        if args.world_size > 1:
            flag = torch.tensor(float(self.received), device=args.device)
            torch.distributed.all_reduce(flag)
            self.received = bool(flag)
        if self.received:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args, state, control, **kwargs):
        """Leave the signal to whoever had it before."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


# Of the folders that this process writes into.
_LOCKS: list[filelock.BaseFileLock] = []


def lock_folder(folder: Path):
    """Keep other runs out of a folder, until `release_folders` is called or this process ends.

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
    _LOCKS.append(lock)


def release_folders():
    """Let other runs into the folders of this one."""
    while _LOCKS:
        _LOCKS.pop().release()


def fingerprint(
    train: Dataset | StreamBatches, tokenizer: PreTrainedTokenizerBase, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Sum up what a run depends on besides its model, so that a change is noticed where the run goes on.

    Args:
        train: rows of token ids, with columns `input_ids` and `labels`; or a stream, of which only the first rows count.
        tokenizer: of the run.
        options: that decide which rows come when.
    """
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items()), ensure_ascii=False)
    return {
        "training data": train.fingerprint() if isinstance(train, StreamBatches) else _checksum(train),
        "tokenizer": f"{len(tokenizer):,} pieces with checksum {hashlib.sha256(vocabulary.encode()).hexdigest()[:16]}",
        **options,
    }


def _checksum(train: Dataset) -> str:
    table = train.select_columns(["input_ids", "labels"]).with_format("arrow")[:]
    digest = hashlib.sha256()
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        digest.update(column.value_lengths().to_numpy(zero_copy_only=False).tobytes())
        digest.update(column.flatten().to_numpy(zero_copy_only=False).tobytes())
    return f"{len(train):,} rows with checksum {digest.hexdigest()[:16]}"


def check_fingerprint(folder: Path, now: Mapping[str, Any]):
    """Make sure that a run goes on with what it began with.

    Raises:
        ValueError: something differs; the message names it.
    """
    path = folder / FINGERPRINT
    if not path.is_file():
        return  # of a run of an older version
    then = json.loads(path.read_text(encoding="utf-8"))
    for name, value in now.items():
        if name in then and then[name] != value:
            raise ValueError(
                f"The run in {folder} cannot go on: its {name} was {then[name]}, and is {value} now. Give what it began with, "
                "or begin another run in another --output_dir."
            )


def rows_of(batch: Mapping[str, torch.Tensor], train: Dataset) -> list[int]:
    """Find the rows of a dataset that a batch was made of."""
    masks = batch["attention_mask"].bool()
    wanted = {tuple(ids[mask].tolist()) for ids, mask in zip(batch["input_ids"], masks, strict=True)}
    return [row for row, ids in enumerate(train["input_ids"]) if tuple(ids) in wanted]
