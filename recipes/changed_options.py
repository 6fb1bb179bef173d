"""Options of optimizer and schedule in a run that goes on: as they are given now, not as its checkpoint has them."""

from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the options of each group of an optimizer's weights; call it before a checkpoint is loaded."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def give_options(optimizer: torch.optim.Optimizer, schedule: Any, options: list[dict[str, Any]]):
    """Give options to an optimizer and its schedule after a checkpoint was loaded into them.

    The learning rate of the next update becomes what the schedule says of that step; unchanged options change nothing.

    Args:
        optimizer: with the state of the checkpoint.
        schedule: of its learning rate. One that watches the loss keeps the rate that it has come to.
        options: from `options_of`.
    """
    for group, given in zip(optimizer.param_groups, options, strict=True):
        group.update({name: value for name, value in given.items() if name != "lr"})
    if not isinstance(schedule, LambdaLR):
        return
    schedule.base_lrs = [given.get("initial_lr", given["lr"]) for given in options]
    rates = [
        base * factor(schedule.last_epoch) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates
