"""What a run has taken, all its parts together: tokens, time, operations, energy, memory."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging

from transformer_theatre.modeling.modeling_fine_tuning import TaskModel

from .energy import GpuEnergy, ProcessorEnergy
from .nonfinite import FiniteUpdates
from .run_folder import write_json
from .token_counter import TokenCounter
from .utilisation import flops_of_tokens, peak_of


COUNTERS_FILE = "counters.json"
logger = logging.get_logger(__name__)


@dataclass
class Totals:
    """What was taken; None where it is not known.

    Args:
        token_sums: as `TokenCounter` has them, of all processes.
        padded: tokens with padding, of all processes.
        loss_sum: of the losses of updates, each the mean over the processes.
        updates: that were made.
        seconds: of training, with saving and without evaluation.
        evaluation_seconds: of evaluation while training.
        possible_flops: operations that the devices could have done in the seconds of training.
        cpu_joules: of the processors of all machines.
        gpu_joules: of all GPUs.
        peak_memory_bytes: of the device, or on a CPU of the process, that took most.
    """

    token_sums: list[int] = field(default_factory=lambda: [0] * 5)
    padded: int = 0
    loss_sum: float = 0.0
    updates: int = 0
    seconds: float = 0.0
    evaluation_seconds: float = 0.0
    possible_flops: float | None = 0.0
    cpu_joules: float | None = 0.0
    gpu_joules: float | None = 0.0
    peak_memory_bytes: int | None = 0

    def beside(self, other: "Totals") -> "Totals":
        """Add what another process took at the same time."""
        return self._with(other, max)

    def then(self, other: "Totals") -> "Totals":
        """Add what was taken later."""
        return self._with(other, lambda first, second: first + second)

    def _with(self, other: "Totals", times: Any) -> "Totals":
        return Totals(
            [mine + theirs for mine, theirs in zip(self.token_sums, other.token_sums, strict=True)],
            self.padded + other.padded,
            self.loss_sum + other.loss_sum,
            times(self.updates, other.updates),
            times(self.seconds, other.seconds),
            times(self.evaluation_seconds, other.evaluation_seconds),
            _sum(self.possible_flops, other.possible_flops),
            _sum(self.cpu_joules, other.cpu_joules),
            _sum(self.gpu_joules, other.gpu_joules),
            None
            if self.peak_memory_bytes is None or other.peak_memory_bytes is None
            else max(self.peak_memory_bytes, other.peak_memory_bytes),
        )

    @property
    def tokens(self) -> int:
        """Real tokens."""
        return sum(self.token_sums[:2])


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second


class RunCounters(TrainerCallback):
    """Count what a run takes; `Trainer` calls it. The counts are saved with every checkpoint, and go on from there.

    What was done after the last checkpoint and is done again, because the run was cut short, is counted once.

    Args:
        model: that learns.
        tokens: the counter of this process.
        finite: what knows the losses of this process.
    """

    def __init__(self, model: PreTrainedModel, tokens: TokenCounter, finite: FiniteUpdates):
        self.config, self.dtype = model.config, model.dtype
        # A fine-tuned model without the auxiliary loss computes no logits of tokens.
        self.projects = not isinstance(model, TaskModel) or model.config.lm_loss_weight > 0
        self.tokens, self.finite = tokens, finite
        self.earlier = Totals()
        self.is_whole = True
        self._window = Totals()
        self._begun: float | None = None
        self._ended: float | None = None
        self._first_step = 0
        self._evaluation_seconds = 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        """Start the clock."""
        self._args, self._first_step = args, state.global_step
        self._peak = peak_of(args, self.dtype)
        # The processors of a machine are those of all its processes: one of them counts.
        self._cpu = ProcessorEnergy() if args.local_process_index == 0 else None
        self._gpu = GpuEnergy(args.device)
        if args.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(args.device)
        self._begun, self._ended = time.monotonic(), None

    def on_step_end(self, args, state, control, **kwargs):
        """Read what begins again at 0 when it is full."""
        if self._cpu is not None and self._cpu.is_known:
            self._cpu.read()

    def on_train_end(self, args, state, control, **kwargs):
        """Stop the clock."""
        self._ended = time.monotonic()

    def save(self, checkpoint: Path, *, writes: bool = True):
        """Write the counts into a checkpoint that is being saved; all processes sum them up together.

        Args:
            checkpoint: its folder.
            writes: whether this process is the one that writes.
        """
        totals = self.totals()
        if writes:
            write_json(checkpoint / COUNTERS_FILE, {**asdict(totals), "is_whole": self.is_whole})

    def load(self, checkpoint: Path):
        """Go on from a checkpoint; call it before training begins."""
        path = checkpoint / COUNTERS_FILE
        saved = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if saved.keys() != {"is_whole", *(field.name for field in fields(Totals))}:
            why = "is of another version" if saved else "is missing"
            logger.warning(f"{path} {why}: loss, tokens, time and energy are those since that checkpoint.")
            self.is_whole = False
            return
        self.is_whole = saved.pop("is_whole")
        self.earlier = Totals(**saved)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Keep the time of an evaluation apart; after training has ended, it is nobody's."""
        started = time.monotonic()
        try:
            yield
        finally:
            if self._begun is not None and self._ended is None:
                self._evaluation_seconds += time.monotonic() - started

    def totals(self) -> Totals:
        """Sum up the whole run until now; all processes must call it together."""
        begun = time.monotonic() if self._begun is None else self._begun
        seconds = (self._ended or time.monotonic()) - begun - self._evaluation_seconds
        own = Totals(
            self.tokens.sums,
            self.tokens.padded,
            self.finite.losses / self._args.world_size,
            self.finite.made,
            seconds,
            self._evaluation_seconds,
            None if self._peak is None else seconds * self._peak,
            0.0 if self._cpu is None else self._cpu.read() if self._cpu.is_known else None,
            self._gpu.read() if self._gpu.is_known else None,
            peak_memory(self._args.device),
        )
        processes = [Totals(**each) for each in gather_object([asdict(own)])]
        together = processes[0]
        for other in processes[1:]:
            together = together.beside(other)
        return self.earlier.then(together)

    def speed(self, state: Any) -> dict[str, float]:
        """Return the speed since it was last asked for, and the time left; all processes must call it together."""
        now, before = self.totals(), self._window
        before = self.earlier if before.tokens < self.earlier.tokens else before
        self._window = now
        seconds = max(1e-9, now.seconds - before.seconds)
        padded = max(1, now.padded - before.padded)
        tokens = now.tokens - before.tokens
        speed = {"tokens_per_second": round(tokens / seconds, 1), "padding_share": round(1 - tokens / padded, 4)}
        done = state.global_step - self._first_step
        if now.possible_flops is not None and before.possible_flops is not None:
            sums = [new - old for new, old in zip(now.token_sums, before.token_sums, strict=True)]
            speed["mfu"] = round(
                flops_of_tokens(self.config, sums, projects=self.projects)
                / max(1e-9, now.possible_flops - before.possible_flops),
                4,
            )
        for name in ("cpu_joules", "gpu_joules"):
            spent, earlier = getattr(now, name), getattr(before, name)
            if spent is not None and earlier is not None:
                speed[name.replace("_", "_energy_")] = round(spent - earlier, 1)
        if done:
            passed = time.monotonic() - (self._begun or 0.0)
            speed["seconds_left"] = round(passed / done * (state.max_steps - state.global_step), 1)
        return speed

    def mean_loss(self) -> float | None:
        """Return the mean loss of the updates of the whole run; None where a part of it was not counted, or there are none.

        All processes must call it together.
        """
        return self._mean_loss(self.totals())

    def _mean_loss(self, totals: Totals) -> float | None:
        return totals.loss_sum / totals.updates if self.is_whole and totals.updates else None

    def figures(self) -> dict[str, Any]:
        """Return what belongs into metrics.json: of the whole run; all processes must call it together.

        Where a part of it was not counted, what depends on the whole is left out.
        """
        totals = self.totals()
        flops = flops_of_tokens(self.config, totals.token_sums, projects=self.projects)
        figures: dict[str, Any] = {
            "train_tokens_per_second": round(totals.tokens / totals.seconds, 1),
            "train_padding_share": 1 - totals.tokens / max(1, totals.padded),
            "train_flops_per_second": flops / totals.seconds,
            "train_mfu": flops / totals.possible_flops if totals.possible_flops else None,
            "train_peak_memory_bytes": totals.peak_memory_bytes,
        }
        if self.is_whole:
            figures |= {
                "train_loss": self._mean_loss(totals),
                "train_tokens": totals.tokens,
                "train_seconds": round(totals.seconds, 2),
                "train_evaluation_seconds": round(totals.evaluation_seconds, 2),
                "train_cpu_energy_joules": totals.cpu_joules,
                "train_gpu_energy_joules": totals.gpu_joules,
            }
        return {key: value for key, value in figures.items() if value is not None}


def peak_memory(device: torch.device) -> int | None:
    """Bytes that tensors took at once on a GPU, or that the process took on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or find_spec("resource") is None:  # Windows has none
        return None
    import resource

    # Linux counts in kibibytes, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
