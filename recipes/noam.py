"""The paper's learning rate, equation 3: it rises for `warmup` steps, then falls with the root of the step."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR


def noam_rate(step: int, d_model: int, warmup: int, factor: float = 1.0) -> float:
    """Return factor * d_model^-0.5 * min(step^-0.5, step * warmup^-1.5), of the first update at step 1 (section 5.3)."""
    return factor * d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)


def noam_schedule(optimizer: torch.optim.Optimizer, d_model: int, warmup: int, factor: float) -> LambdaLR:
    """Make the schedule of an optimizer; the rate does not depend on the optimizer's own.

    But for groups that Muon learns: theirs has the same shape, and their own rate is its peak.
    """

    def shape(group: dict[str, Any]) -> Callable[[int], float]:
        base = group.get("initial_lr", group["lr"])
        if "ns_steps" in group:  # of Newton and Schulz: a group of Muon
            base = noam_rate(warmup, d_model, warmup, factor)
        # Schedules count updates from 0.
        return lambda done: noam_rate(done + 1, d_model, warmup, factor) / base

    return LambdaLR(optimizer, [shape(group) for group in optimizer.param_groups])
