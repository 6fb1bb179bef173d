"""The library's Trainer, whose checkpoints and models are written whole or not at all."""

import contextlib
import shutil
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from .agreement import on_any_process
from .changed_options import give_options, options_of
from .checkpoints import aside, move_files, publish, rotate, write_manifest
from .first_line import first_line
from .golden import GOLDEN
from .interruption import StopAtSignal
from .sharded_checkpoints import ShardedCheckpointTrainer
from .signals import SIGNALS


class CheckpointingTrainer(ShardedCheckpointTrainer):
    """`Seq2SeqTrainer` that saves as `checkpoints` describes: aside, then under its name; old checkpoints go last.

    Where one process fails to write, all of them end with the same error, and none waits for it. Where one receives SIGTERM
    or SIGINT, all of them finish the update, save it, and end.
    """

    _aside: Path | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.signal = StopAtSignal()
        self.add_callback(self.signal)

    def train(self, *args, **kwargs):
        """Train as the library does, until the end or a signal.

        Raises:
            StoppedBySignalError: the run was asked to end; what it had done is saved.
        """
        with SIGNALS, SIGNALS.held():
            try:
                result = super().train(*args, **kwargs)
                SIGNALS.place = "after training."
                return result
            except BaseException:
                # Progress bars and trackers are closed there.
                self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)
                raise

    def _load_optimizer_and_scheduler(self, checkpoint: str | None):
        """Load what the checkpoint holds, and keep the options that were given for this part of the run."""
        if checkpoint is None:
            return
        optimizer: Any = self.optimizer
        options = options_of(optimizer)
        super()._load_optimizer_and_scheduler(checkpoint)
        give_options(optimizer, self.lr_scheduler, options)

    def _issue_warnings_after_load(self, load_result):
        # The library misses weights that are tied to one that it has loaded.
        model: Any = self.model
        missing = [name for name in load_result.missing_keys if name not in model.all_tied_weights_keys]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _run_epoch(self, *args, **kwargs):
        # The library would make one more update where a run goes on from its last, in the midst of an epoch.
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args, **kwargs):
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if self.signal.ends(self.state):
            SIGNALS.stop(
                f"after step {self.state.global_step}, and saved; the same command with --resume_from_checkpoint true goes on."
            )

    def save_own_state(self, folder: Path):
        """Add to a checkpoint what the library does not know of; every process calls it."""

    def _get_output_dir(self, trial):
        return super()._get_output_dir(trial) if self._aside is None else str(self._aside)

    def _save_checkpoint(self, model, trial):
        """Save a checkpoint, or leave nothing of it behind.

        Raises:
            RuntimeError: it could not be written, most likely because the disk is full; or a weight is no number.
        """
        self.check_weights()
        folder = Path(super()._get_output_dir(trial))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        with self._writing(folder, checkpoint) as (writes, part):
            with writes:
                self._write_files(model, trial, part)
            self._fail_together(writes, checkpoint)
            with writes:
                self.save_own_state(part / checkpoint.name)
                self._save_state(part / checkpoint.name, checkpoint)
            self._fail_together(writes, checkpoint)
            with writes:
                if self.args.should_save:
                    write_manifest(part / checkpoint.name, scheduled=self.signal.scheduled)
                    publish(part / checkpoint.name, checkpoint)
                    rotate(folder, self.args.save_total_limit, self.state.best_model_checkpoint)
            self._fail_together(writes, checkpoint)
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(checkpoint))

    def _write_files(self, model, trial, part: Path):
        """Let the library write its files elsewhere than it would."""
        # With a best step the library would make processes wait for each other, and look for it beside what is written.
        best, self.state.best_global_step = self.state.best_global_step, None
        only_model, self._aside = self.args.save_only_model, part
        if self.signal.stopping:
            self.args.save_only_model = False  # the run is to go on from here
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._aside, self.state.best_global_step, self.args.save_only_model = None, best, only_model

    def _save_state(self, folder: Path, checkpoint: Path):
        """Save the state of training once more, with the best checkpoint, which the library has not seen."""
        if self.state.best_global_step == self.state.global_step:
            self.state.best_model_checkpoint = str(checkpoint)
        if self.state.best_global_step and self.args.should_save:
            self.state.save_to_json(str(folder / "trainer_state.json"))

    def save_whole_model(self):
        """Save the model, the tokenizer and the state of training into the output folder, each file whole.

        Raises:
            RuntimeError: it could not be written; the folder is then as it was.
        """
        self.check_weights()
        folder = Path(self.args.output_dir or "")
        with self._writing(folder, folder) as (writes, part):
            with writes:
                self.save_model(str(part), _internal_call=True)
                if self.args.should_save:
                    self.state.save_to_json(str(part / "trainer_state.json"))
            self._fail_together(writes, folder)
            with writes:
                if self.args.should_save:
                    (folder / GOLDEN).unlink(missing_ok=True)  # it is of the weights that go
                    move_files(part, folder)
            self._fail_together(writes, folder)

    def check_weights(self):
        """Make sure that all weights are numbers.

        Raises:
            RuntimeError: one is not.
        """
        weights = [w.to_local() if isinstance(w, DTensor) else w for w in self.model.parameters()]
        finite = torch.stack([weight.detach().isfinite().all() for weight in weights]).all()
        if on_any_process(not bool(finite), self.args):
            raise RuntimeError(
                f"Weights are no numbers any more after step {self.state.global_step}, and are not saved; earlier checkpoints "
                f"are as they were. Try a lower learning_rate than {self.args.learning_rate}, or a longer warm-up."
            )

    @contextlib.contextmanager
    def _writing(self, folder: Path, target: Path):
        """Give what collects the errors of writing, and a folder to write into, which is empty for all processes."""
        with aside(folder, leads=self.args.should_save) as part:
            if self.args.should_save:
                shutil.rmtree(part, ignore_errors=True)
            self.accelerator.wait_for_everyone()
            yield _Errors(), part

    def _fail_together(self, writes: "_Errors", target: Path):
        """End all processes if one could not write.

        Raises:
            RuntimeError: it is so.
        """
        if not on_any_process(writes.error is not None, self.args):
            return
        reason = first_line(writes.error) if writes.error is not None else "by another process of the run"
        free = shutil.disk_usage(target if target.is_dir() else target.parent).free / 2**20
        raise RuntimeError(
            f"{target} could not be written ({reason}); {free:,.1f} MiB of space were left on its disk. Earlier checkpoints are "
            "as they were: make room, and go on by --resume_from_checkpoint true."
        ) from writes.error


class _Errors:
    """Keeps what goes wrong inside, until all processes can be told."""

    def __init__(self):
        self.error: Any = None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        # Tokenizers raise a bare Exception where the disk is full, torch a RuntimeError, safetensors its own.
        if isinstance(error, Exception):
            self.error = error
            return True
        return False
