"""What fine-tuned models minimise and return: the labels' loss beside that of the language model.

Equation numbers are those of Radford et al., 2018, "Improving Language Understanding by Generative Pre-Training".

The loss of an update with M labels is

    1/M * sum over rows of n * (task loss of the row + lambda * language-modelling loss of the row),

where n is the row's number of labels (1, unless each row has several numbers), and the language-modelling loss of a row is
the mean over its sequences of the mean over a sequence's predicted tokens, as in the code of the paper
(https://github.com/openai/finetune-transformer-lm). Classes of -100 do not count, and neither does their row; a number may be -100.

Local tensors carry their shape: B batch, N sequences of a row, R sequences of the batch, T positions, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput


@dataclass
class TaskOutput(ModelOutput):
    """What a fine-tuned model returns.

    Args:
        loss: in training `task_loss` + lambda * `lm_loss` (equation 5). In evaluation `task_loss` alone: what is compared
            there does not depend on lambda.
        logits: (batch, labels) or (batch, choices).
        task_loss: of the labels (equation 4).
        lm_loss: of predicting the input (equation 1); None in evaluation, and where lambda is 0.
        hidden_states: of all layers, each (sequences of the batch, positions, d_model).
        attentions: of all layers, each (sequences of the batch, heads, positions, positions).
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    task_loss: torch.Tensor | None = None
    lm_loss: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def language_model_loss_of_rows(
    logits_RTV: torch.Tensor, input_ids: torch.Tensor, real_tokens: torch.Tensor
) -> torch.Tensor:
    """Equation 1 for each row: the mean over its sequences of the mean over a sequence's predicted tokens.

    Nothing predicts a sequence's first real token. A sequence without predicted tokens is left out of the mean.

    Args:
        logits_RTV: of the tokens after each position but the last, (sequences of the batch, positions - 1, vocabulary).
        input_ids: (batch, positions) or (batch, sequences, positions).
        real_tokens: True at real tokens, False at padding, as `input_ids`.

    Returns:
        (batch,), float32; 0 for a row where nothing is predicted.
    """
    ids_RT, real_RT = input_ids.flatten(0, -2), real_tokens.flatten(0, -2)
    predicted_RT = real_RT[:, 1:] & real_RT[:, :-1]
    targets_RT = ids_RT[:, 1:].masked_fill(~predicted_RT, -100)
    nll = nn.functional.cross_entropy(logits_RTV.flatten(0, 1).float(), targets_RT.flatten(), reduction="none")
    count_R = predicted_RT.sum(1)
    mean_R = nll.view_as(targets_RT).sum(1) / count_R.clamp(min=1)
    mean_BN, there_BN = mean_R.view(len(input_ids), -1), (count_R > 0).view(len(input_ids), -1)
    return mean_BN.sum(1) / there_BN.sum(1).clamp(min=1)


def number_of_labels(labels: torch.Tensor) -> torch.Tensor:
    """Count the labels of each row, (batch,): all numbers, and the classes that are not -100; (batch,) or (batch, labels)."""
    counts = torch.ones_like(labels) if labels.is_floating_point() else labels != -100
    return counts.reshape(len(labels), -1).sum(1)


def fine_tuning_losses(
    task_loss: torch.Tensor,
    labels: torch.Tensor,
    lm_loss_B: torch.Tensor | None,
    lm_loss_weight: float,
    num_items_in_batch: torch.Tensor | int | None,
) -> dict[str, torch.Tensor]:
    """Put both losses together, as this batch's part of an update (the formula at the top of this file).

    Args:
        task_loss: mean over the labels of this batch; 0 if there is none.
        labels: (batch,) or (batch, labels).
        lm_loss_B: of each row, (batch,); None: `task_loss` is all there is.
        lm_loss_weight: lambda.
        num_items_in_batch: M of an update that has several batches, on one device or many; None: this batch is all.

    Returns:
        `loss`, `task_loss` and `lm_loss` of `TaskOutput`.
    """
    count_B = number_of_labels(labels)
    # The library's losses divide by this number for classes only, not for regression and several labels.
    share = 1.0 if num_items_in_batch is None else count_B.sum() / num_items_in_batch
    task_loss = task_loss * share
    if lm_loss_B is None:
        return {"loss": task_loss, "task_loss": task_loss}
    lm_loss = (lm_loss_B * count_B).sum() / count_B.sum().clamp(min=1) * share
    return {"loss": task_loss + lm_loss_weight * lm_loss, "task_loss": task_loss, "lm_loss": lm_loss}


__all__ = ["TaskOutput", "fine_tuning_losses", "language_model_loss_of_rows", "number_of_labels"]
