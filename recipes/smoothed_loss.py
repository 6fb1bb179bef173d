"""The training loss: cross-entropy with label smoothing (section 5.4 of the paper), and its gradient, in few passes over memory."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from transformer_theatre.modeling.modeling_layers import next_tokens


# Numbers of a block of logits: on a CPU 1 MiB of float32, which stays in the cache while it is worked on.
_BLOCK, _BLOCK_OF_AN_ACCELERATOR = 2**18, 2**26


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Sum over rows of (1 - epsilon) * -log p(label) + epsilon * mean over the vocabulary of -log p.

    With z the logits of a row and V their number, a row's loss is log sum exp z - (1 - epsilon) * z[label] - epsilon * mean z,
    and its gradient softmax(z) - (1 - epsilon) * [label] - epsilon / V. Both are made in one go, block by block: what autograd
    makes of the formula reads and writes the logits, the largest tensor of a step, some fifteen times.
    """

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, labels_N: torch.Tensor, epsilon: float) -> torch.Tensor:
        full = torch.promote_types(logits_NV.dtype, torch.float32)
        # A gradient that is not scaled yet would underflow in float16.
        kept_as = full if logits_NV.dtype == torch.float16 else logits_NV.dtype
        gradient_NV = torch.empty_like(logits_NV, dtype=kept_as) if ctx.needs_input_grad[0] else None
        total = logits_NV.new_zeros((), dtype=full)
        block = _BLOCK if logits_NV.device.type == "cpu" else _BLOCK_OF_AN_ACCELERATOR
        rows = max(1, block // logits_NV.shape[1])
        for start in range(0, len(labels_N), rows):
            part = slice(start, start + rows)
            loss, gradient = _loss_and_gradient(logits_NV[part].to(full), labels_N[part, None], epsilon)
            total += loss
            if gradient_NV is not None:
                gradient_NV[part] = gradient
        ctx.save_for_backward(gradient_NV)
        ctx.logits_dtype = logits_NV.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor):
        (gradient_NV,) = ctx.saved_tensors
        return (gradient_NV * scale.to(gradient_NV.dtype)).to(ctx.logits_dtype), None, None


def _loss_and_gradient(
    z_NV: torch.Tensor, label_N1: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    counted_N1, label_N1 = label_N1 != -100, label_N1.clamp(min=0)
    p_NV = z_NV.softmax(-1)
    # The likeliest logit is the only one whose probability cannot vanish.
    log_sum_N1 = z_NV.amax(-1, keepdim=True) - p_NV.amax(-1, keepdim=True).log()
    loss_N1 = log_sum_N1 - (1 - epsilon) * z_NV.gather(1, label_N1) - epsilon * z_NV.mean(-1, keepdim=True)
    p_NV -= epsilon / z_NV.shape[1]
    p_NV.scatter_add_(1, label_N1, torch.full_like(log_sum_N1, epsilon - 1))
    return loss_N1.masked_fill(~counted_N1, 0).sum(), p_NV.masked_fill_(~counted_N1, 0)


class SmoothedLoss:
    """Cross-entropy with label smoothing (section 5.4), per real token of the whole accumulated batch.

    (1 - epsilon) * -log p(label) + epsilon * mean over the vocabulary of -log p.

    Args:
        epsilon: share of the probability spread over the vocabulary; 0: none, the plain negative log-likelihood.
        shifts: True where the model predicts the token after each position (a causal head, see `next_tokens`), False where
            labels are aligned with the logits.
    """

    def __init__(self, epsilon: float, shifts: bool):
        self.epsilon = epsilon
        self.shifts = shifts

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None):
        """Return the loss of logits (batch, positions, vocabulary) against `labels` (batch, positions), -100 ignored.

        Without `num_items_in_batch` it is divided by this batch's own real tokens.
        """
        logits_BTV = outputs["logits"]
        if self.shifts:
            # Labels are moved, not logits cut: a copy of those would be large.
            labels = next_tokens(labels, logits_BTV.shape[1])
        total = _SmoothedCrossEntropy.apply(
            logits_BTV.flatten(0, 1), labels.flatten().to(logits_BTV.device), self.epsilon
        )
        return total / (num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum())
