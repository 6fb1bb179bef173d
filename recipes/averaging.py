"""Averaged weights: of the last or the best checkpoints (section 6.1 of the paper), or of every step, exponentially."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import TrainerCallback
from transformers.utils import logging

from .checkpoints import checkpoints_of, is_scheduled, problem_of
from .sharding import like, reshard, whole
from .weights import read_weights


logger = logging.get_logger(__name__)
EMA_FILE = "ema.safetensors"


def checkpoints_to_average(
    folder: Path,
    last: int | None = None,
    best: int | None = None,
    metric: str = "loss",
    greater_is_better: bool = False,
) -> list[Path]:
    """Choose checkpoints of a run; where there are fewer than wanted, as in a run of few steps, all, with a warning.

    Args:
        folder: of the run.
        last: how many, the newest.
        best: how many, those with the best metric, as it was measured when they were saved.
        metric: name in the log, with or without "eval_".
        greater_is_better: which of two is better.

    Raises:
        ValueError: there is none, or the metric of one was not measured.
    """
    found = checkpoints_of(folder)
    problems = {step: problem for step, path in found.items() if (problem := problem_of(path)) is not None}
    # What a stopped run saved out of turn would make the average another one than that of a run that was not stopped.
    steps = {step: path for step, path in found.items() if step not in problems and is_scheduled(path)}
    for step, problem in problems.items():
        logger.warning(f"{found[step]} is left out of the average: it is not whole, {problem}.")
    wanted = last or best or 0
    if not steps:
        raise ValueError(f"{folder} holds no whole checkpoint to average.")
    if len(steps) < wanted:
        logger.warning(
            f"{folder} holds {len(steps)} whole checkpoints: the average is of these, not of {wanted}, and may be the "
            "worse for the first of them; without --average_last or --average_best the last weights are the model's."
        )
    if last:
        return [steps[step] for step in sorted(steps)[-last:]]
    name = f"eval_{metric.removeprefix('eval_')}"
    values = {step: _measured(path, step, name) for step, path in steps.items()}
    best_first = sorted(values, key=lambda step: -values[step] if greater_is_better else values[step])
    return [steps[step] for step in sorted(best_first[:wanted])]


def average_checkpoints(checkpoints: Sequence[Path]) -> dict[str, torch.Tensor]:
    """Return the mean of the weights of checkpoints, summed in float64, in the type that they have.

    Raises:
        ValueError: one cannot be read, or they are not of the same model.
    """
    total: dict[str, torch.Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for checkpoint in checkpoints:
        tensors = _weights(checkpoint)
        kinds = kinds or {name: tensor.dtype for name, tensor in tensors.items()}
        total = total or {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in tensors.items()}
        if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in total.items()}:
            raise ValueError(f"The weights of {checkpoint} are not of the same model as those of {checkpoints[0]}.")
        for name, tensor in tensors.items():
            total[name] += tensor
    return {name: (tensor / len(checkpoints)).to(kinds[name]) for name, tensor in total.items()}


def _measured(checkpoint: Path, step: int, name: str) -> float:
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    for entry in history:
        if entry["step"] == step and name in entry:
            return entry[name]
    raise ValueError(
        f"{checkpoint} was saved without a measurement of {name}: give the same eval_strategy and save_strategy (and steps)."
    )


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        return read_weights(checkpoint)
    except ValueError as error:
        raise ValueError(f"The weights of {checkpoint} cannot be read: {error}") from None


class ExponentialAverage(TrainerCallback):
    """Keep the exponential moving average of a model's weights while it trains; `Trainer` calls it.

    After every update: average = d * average + (1 - d) * weights, with d = min(decay, (1 + updates) / (10 + updates)), so that
    the random weights of the start are soon forgotten. It is saved, whole, with every checkpoint. Where devices share the
    weights (FSDP2), each keeps the average of its share.

    Args:
        model: whose weights.
        decay: below 1; the average reaches back some 1 / (1 - decay) updates.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._skips = False
        self.model = model
        self.weights: dict[str, nn.Parameter] = {}
        self.average: dict[str, torch.Tensor] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Begin with the loaded average, or with the weights as they are: only now they are where they stay."""
        self.lay_out()

    def lay_out(self):
        """Put the average where the weights are, shared by the same devices."""
        self.weights = dict(self.model.named_parameters())
        begun = self.average or {name: weight.detach() for name, weight in self.weights.items()}
        self.average = {name: like(begun[name], weight) for name, weight in self.weights.items()}

    @torch.no_grad()
    def on_optimizer_step(self, args, state, control, **kwargs):
        """Move towards the new weights, unless the update was skipped: by `skip`, or by the loss scaler of fp16."""
        skipped = self._skips or getattr(kwargs.get("optimizer"), "step_was_skipped", False)
        self._skips = False
        if skipped:
            return
        self.updates += 1
        share = 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.average.values()), list(self.weights.values()), share)

    def skip(self):
        """Stay where it is at the next update, which changes nothing."""
        self._skips = True

    def save(self, checkpoint: Path, *, writes: bool = True):
        """Write the average into a checkpoint that is being saved; all processes together put it together.

        Args:
            checkpoint: its folder.
            writes: whether this process is the one that writes.
        """
        average = {name: whole(value) for name, value in self.average.items()}
        if writes:
            save_file(average, checkpoint / EMA_FILE, metadata={"updates": str(self.updates)})

    def load(self, checkpoint: Path):
        """Go on from a checkpoint; call it before training begins.

        Raises:
            ValueError: its average is missing, or is not of this model.
        """
        path = checkpoint / EMA_FILE
        try:
            with safe_open(path, "pt") as file:
                saved = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                updates = int((file.metadata() or {}).get("updates", 0))
        except (OSError, SafetensorError) as error:
            raise ValueError(f"The moving average of {checkpoint} cannot be read: {error}") from None
        if {name: t.shape for name, t in saved.items()} != {
            name: w.shape for name, w in self.model.named_parameters()
        }:
            raise ValueError(f"{path} is not of this model.")
        self.updates, self.average = updates, saved

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the model have the average for its weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self):
        """Exchange the weights and the average."""
        reshard(self.model)
        for name, weight in self.weights.items():
            before = weight.detach().clone()
            weight.copy_(self.average[name])
            self.average[name].copy_(before)
