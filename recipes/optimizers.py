"""Optimizers that the library's `optim` does not have, made of the one that it has made."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from .muon import check_muon, with_muon


def radam(optimizer: torch.optim.Optimizer, model: PreTrainedModel, args: Any) -> torch.optim.Optimizer:
    """RAdam (Liu et al., 2020, https://arxiv.org/abs/1908.03265), torch's, with AdamW's decay of the weights."""
    groups = [{name: group[name] for name in ("params", "weight_decay")} for group in optimizer.param_groups]
    betas = (args.adam_beta1, args.adam_beta2)
    return torch.optim.RAdam(groups, args.learning_rate, betas, args.adam_epsilon, decoupled_weight_decay=True)


def muon(optimizer: torch.optim.Optimizer, model: PreTrainedModel, args: Any) -> torch.optim.Optimizer:
    """Muon for the hidden matrices; all else keeps its optimizer."""
    rate = args.learning_rate if args.muon_learning_rate is None else args.muon_learning_rate
    return with_muon(optimizer, model, rate, args.weight_decay)


# Each is given the library's optimizer, with its groups of weights, the model and the arguments of the run.
OPTIMIZERS: dict[str, Callable[[torch.optim.Optimizer, PreTrainedModel, Any], torch.optim.Optimizer]] = {
    "muon": muon,
    "radam": radam,
}


def check_optimizer(name: str | None, muon_learning_rate: float | None):
    """Make sure that an optimizer is there, and that what is said of Muon is said to Muon.

    Raises:
        ValueError: it is not.
    """
    if name is not None and name not in OPTIMIZERS:
        raise ValueError(
            f"optimizer={name} must be one of: {', '.join(OPTIMIZERS)}; or optim, for what --optim names."
        )
    if muon_learning_rate is not None and name != "muon":
        raise ValueError(f"muon_learning_rate={muon_learning_rate} has no use without --optimizer muon.")
    if name == "muon":
        check_muon()
