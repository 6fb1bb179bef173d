"""Updates whose loss or gradient is no number: the run stops before such an update is made, or skips it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from transformers.utils import logging

from .agreement import on_any_process
from .run_folder import write_whole
from .sharding import whole


logger = logging.get_logger(__name__)
# Rows that a message names; a file names all of them.
_SHOWN = 5


class FiniteUpdates:
    """Looks at every update before it is made: at the loss of each of its batches, and at the norm of its gradient.

    All processes come to the same decision. Mean losses are corrected for what was skipped.

    Args:
        args: the run's.

    Attributes:
        made: updates since training began or went on, without those that were skipped.
    """

    def __init__(self, args: Any):
        self.args = args
        self.made = 0
        self._made_since_log = self._skipped_since_log = 0
        self._added = self._unread = torch.zeros(())
        self._losses = 0.0
        self._batches: list[tuple[Callable[[], list[str]], torch.Tensor]] = []

    def add(self, names: Callable[[], list[str]], loss: torch.Tensor) -> torch.Tensor:
        """Take in the loss of a batch of the update, and what names the batch's rows; return the loss, or 0 where it is no number."""
        self._batches.append((names, loss))
        return loss.nan_to_num(0.0, 0.0, 0.0)

    def problem(self, norm: torch.Tensor | float, step: int, *, scaled: bool) -> str | None:
        """Say what is wrong with the update whose batches were taken in; None if nothing is. Then the next one begins.

        Args:
            norm: of the gradient, over all processes.
            step: number of the update, from 1.
            scaled: whether fp16 scales the loss: infinite gradients are then part of the search for the scale.
        """
        batches, self._batches = self._batches, []
        losses = torch.stack([loss for _, loss in batches])
        self._added = losses.nan_to_num(0.0, 0.0, 0.0).sum()
        wrong_losses = bool(~losses.isfinite().all())
        value = whole(torch.as_tensor(norm))
        wrong_norm = not scaled and not bool(value.isfinite())
        if not on_any_process(wrong_losses or wrong_norm, self.args):
            self.made += 1
            self._made_since_log += 1
            self._unread = self._unread.to(self._added.device) + self._added
            return None
        guilty = [pair for pair in batches if not pair[1].isfinite()] if wrong_losses else batches
        # The gradient is everybody's; a loss belongs to the processes where it went wrong.
        rows = list(dict.fromkeys(name for names_of, _ in guilty for name in names_of()))
        told = gather_object([(losses[~losses.isfinite()].tolist(), rows)])
        values = [loss for found, _ in told for loss in found]
        names = [name for found, rows in told if found or not values for name in rows]
        what = f"The loss became {values[0]}" if values else f"The gradient's norm became {value.item()}"
        return f"{what} in step {step}, on {', '.join(names[:_SHOWN])}{self._more(names, step)}."

    def _more(self, names: list[str], step: int) -> str:
        """Say how many rows more there are, and in which file all of them stand."""
        if len(names) <= _SHOWN:
            return ""
        more, path = f" and {len(names) - _SHOWN} more", Path(self.args.output_dir) / f"nonfinite-step-{step}.txt"
        try:
            if self.args.process_index == 0:
                write_whole(path, "\n".join(names) + "\n")
        except OSError as error:  # what is wrong with the loss is to be said all the same
            return f"{more}, which {error.filename} could not take: {error.strerror}"
        return f"{more}, all of them in {path}"

    def skip(self, model: nn.Module, total: torch.Tensor, found_inf: Sequence[torch.Tensor] = ()):
        """See to it that the optimizer does nothing, and take the losses of the update out of their sum.

        Without a gradient it does nothing. fp16's scaler wants gradients to look at, and has looked at them when they were
        clipped: only what it noted then keeps the optimizer from its update.

        Args:
            model: whose gradients are to go.
            total: of the losses that the next line of the log is about; changed in place.
            found_inf: where fp16's scaler notes, for each device, that a gradient was no number.
        """
        self._skipped_since_log += 1
        total -= self._added
        for found in found_inf:
            found.fill_(1.0)
        if not found_inf:
            for weight in model.parameters():
                weight.grad = None

    def correct(self, logs: dict[str, float]) -> dict[str, float]:
        """Make the mean loss in a line of the log one over the updates that were made; without any there is none."""
        if "loss" not in logs:
            return logs
        made, skipped = self._made_since_log, self._skipped_since_log
        self._made_since_log = self._skipped_since_log = 0
        if not made:
            return {name: value for name, value in logs.items() if name != "loss"}
        return {**logs, "loss": logs["loss"] * (made + skipped) / made}

    @property
    def losses(self) -> float:
        """Sum of the losses of the updates that were `made`, on this process."""
        # Added up on the device meanwhile: reading a number off an accelerator at every step would make it wait.
        self._losses += float(self._unread)
        self._unread = torch.zeros(())
        return self._losses


def noted_by(scaler: Any, optimizer: Any) -> list[torch.Tensor]:
    """Return what fp16's scaler has noted of the gradients of an optimizer, a number for each device: above 0 if one is none."""
    plain = getattr(optimizer, "optimizer", optimizer)  # within accelerate's
    return list(scaler._found_inf_per_device(plain).values())
