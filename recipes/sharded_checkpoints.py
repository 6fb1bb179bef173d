"""Checkpoints of models whose weights processes share: the library saves their weights only, and cannot go on from them."""

from pathlib import Path
from typing import Any

import torch
from transformers import Seq2SeqTrainer

from .sharding import is_sharded, load_weights, shared_optimizer_state, whole_copy, whole_optimizer_state
from .weights import load_pickled_tensors, read_weights


class ShardedCheckpointTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer`, with whole checkpoints of a model from `sharding.shard`, from which a run goes on exactly."""

    def __init__(self, model, args, **kwargs):
        # The library refuses to save more of such a model; what it lacks is below.
        only_model, args.save_only_model = args.save_only_model, args.save_only_model or is_sharded(model)
        super().__init__(model=model, args=args, **kwargs)
        args.save_only_model = only_model

    @property
    def _shares_weights(self) -> bool:
        return bool(getattr(self, "is_distributed_loading_by_transformers", False))

    def _save(self, output_dir: str | None = None, state_dict=None):
        """Put the model together, and save it as a whole one: the library writes tied weights of a shared one twice."""
        if not self._shares_weights:
            return super()._save(output_dir, state_dict)
        shared: Any = self.model
        self.model = whole_copy(shared)
        try:
            if self.args.should_save:
                super()._save(output_dir)
        finally:
            self.model = shared
            # Also where the disk was full: the others wait here already.
            self.accelerator.wait_for_everyone()

    def _save_optimizer_and_scheduler(self, output_dir: str):
        """Put the optimizer's state together, and save it as that of a whole model."""
        if not self._shares_weights:
            return super()._save_optimizer_and_scheduler(output_dir)
        optimizer: Any = self.optimizer
        state = whole_optimizer_state(optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / "optimizer.pt")
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / "scheduler.pt")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None):
        """Share out the optimizer's state."""
        if not self._shares_weights or checkpoint is None:
            return super()._load_optimizer_and_scheduler(checkpoint)
        optimizer: Any = self.optimizer
        state = load_pickled_tensors(Path(checkpoint) / "optimizer.pt")
        optimizer.load_state_dict(shared_optimizer_state(optimizer, state))
        self.lr_scheduler.load_state_dict(load_pickled_tensors(Path(checkpoint) / "scheduler.pt"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None):
        """Share out the weights."""
        if not self._shares_weights:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_weights(self.model, read_weights(Path(resume_from_checkpoint)))  # type: ignore[arg-type]
