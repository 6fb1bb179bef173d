"""Muon for the matrices of hidden layers, and another optimizer for everything else, in one.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) turns the momentum of a matrix into the nearest orthogonal
one before it is added, so that all directions are learned alike. It is torch's own, `torch.optim.Muon`. Its step is scaled as
Liu et al., 2025 (https://arxiv.org/abs/2502.16982, section 2.2) do, to the size that AdamW's has, so that the two may have rates
of like size.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel


def check_muon():
    """Make sure that this torch has Muon.

    Raises:
        ValueError: it has not.
    """
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"optimizer=muon needs torch 2.9 or newer; this is {torch.__version__}. --optimizer optim learns by the library's AdamW."
        )


def hidden_matrices(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Name the weights that Muon learns: those of linear layers between the embeddings and the output projection.

    Embeddings, an output projection (tied to them or not), the classifier of a fine-tuned model, biases and normalisations are
    none; nor are the weights of an LSTM's gates, of which torch keeps four in one matrix.
    """
    ends: list[Any] = [model.get_output_embeddings(), getattr(model, "classifier", None)]
    excluded = {id(weight) for end in ends if end is not None for weight in end.parameters()}
    excluded |= {
        id(weight) for module in model.modules() if isinstance(module, nn.Embedding) for weight in module.parameters()
    }
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in excluded
    }


def with_muon(
    optimizer: torch.optim.Optimizer, model: PreTrainedModel, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Take the hidden matrices of a model from an optimizer that has not begun yet, and give them to Muon.

    Args:
        optimizer: of all weights.
        model: whose weights.
        lr: of Muon.
        weight_decay: of Muon.

    Raises:
        ValueError: the model has no hidden matrices, or this torch has no Muon.
    """
    check_muon()
    matrices = hidden_matrices(model)
    if not matrices:
        raise ValueError(f"optimizer=muon has no use: {type(model).__name__} has no hidden matrices.")
    taken = {id(weight) for weight in matrices.values()}
    groups = optimizer.param_groups
    for group in groups:
        group["params"] = [weight for weight in group["params"] if id(weight) not in taken]
    groups[:] = [group for group in groups if group["params"]]
    return MuonBeside(optimizer, list(matrices.values()), lr, weight_decay)


class MuonBeside(torch.optim.Optimizer):
    """Muon and another optimizer, seen from outside as one whose groups are those of both.

    A schedule scales the rate of every group; a state dict holds the state of both.

    Args:
        other: optimizer of all other weights.
        matrices: what Muon learns.
        lr: of Muon.
        weight_decay: of Muon.
    """

    def __init__(self, other: torch.optim.Optimizer, matrices: list[torch.Tensor], lr: float, weight_decay: float):
        muon = torch.optim.Muon(matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self.parts: list[torch.optim.Optimizer] = [other, muon]
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def _share(self):
        """Let both work on the groups and the state that are seen here."""
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups, part.state, start = self.param_groups[start:end], self.state, end

    def step(self, closure=None):
        """Update all weights once."""
        loss = None
        for part in self.parts:
            loss = part.step(closure)
            closure = None  # the loss is computed once
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]):
        """Go on from the state of both."""
        super().load_state_dict(state_dict)
        self._share()
