"""What fine-tuned models read, minimise and return: the labels' loss beside that of the language model.

Equation numbers are those of Radford et al., 2018, "Improving Language Understanding by Generative Pre-Training".

The loss of an update with M labels is

    1/M * sum over rows of n * (task loss of the row + lambda * language-modelling loss of the row),

where n is the row's number of labels (1, unless each row has several numbers), and the language-modelling loss of a row is
the mean over its sequences of the mean over a sequence's predicted tokens, as in the code of the paper
(https://github.com/openai/finetune-transformer-lm). Classes of -100 do not count, and neither does their row; a number may be -100.

Local tensors carry their shape: B batch, N sequences of a row, R sequences of the batch, T positions, D width, L labels,
V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput, can_return_tuple


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


class TaskModel(nn.Module):
    """What makes a language model a fine-tuned one: a linear layer W_y that reads the last real token (equation 3).

    A row of the batch is one sequence, (batch, positions), or several, (batch, sequences, positions). A model that derives from
    this one has `model`, the language model's body, and calls `add_heads`.
    """

    config: Any
    model: nn.Module

    def add_heads(self, config: PreTrainedConfig, outputs: int):
        """Add the language model's output projection, and a classifier with so many outputs."""
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(config.hidden_size, outputs, bias=False)

    def _read(self, input_ids, attention_mask, position_ids, inputs_embeds, **kwargs):
        """Run all sequences through the model.

        Returns:
            What the model returns; the state at the last real token of each sequence, (batch, width) or (batch,
            sequences, width); and True at real tokens, shaped as the input. Without `attention_mask` those are real
            that are not `pad_token_id`, as in the library.
        """
        shape = shape_of(input_ids, inputs_embeds)
        if attention_mask is not None:
            real_tokens = attention_mask != 0
        elif input_ids is not None and self.config.pad_token_id is not None:
            real_tokens = input_ids != self.config.pad_token_id
        else:
            real_tokens = torch.ones(shape, dtype=torch.bool, device=self.classifier.weight.device)
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids}
        outputs = self.model(
            **{name: x if x is None else x.flatten(0, -2) for name, x in inputs.items()},
            inputs_embeds=inputs_embeds if inputs_embeds is None else inputs_embeds.flatten(0, -3),
            **{"use_cache": False, **kwargs},
            return_dict=True,
        )
        x_RTD = outputs.last_hidden_state
        real_tokens = real_tokens.to(x_RTD.device)
        last_R = (real_tokens * torch.arange(shape[-1], device=x_RTD.device)).amax(-1).flatten()
        extract_RD = x_RTD[torch.arange(len(x_RTD), device=x_RTD.device), last_R]
        return outputs, extract_RD.view(*shape[:-1], -1), real_tokens

    def _output(self, outputs, logits, task_loss, labels, input_ids, real_tokens, num_items_in_batch=None, **_):
        """Return the logits and, where there is a `task_loss` (mean over the labels), the losses."""
        losses: dict[str, Any] = {}
        if task_loss is not None:
            lm_loss_B = None
            if self.training and self.config.lm_loss_weight:
                if input_ids is None:
                    raise ValueError(
                        "inputs_embeds name no tokens to predict: give input_ids, or set lm_loss_weight=0."
                    )
                lm_logits_RTV = self.lm_head(outputs.last_hidden_state[:, :-1])
                lm_loss_B = language_model_loss_of_rows(lm_logits_RTV, input_ids, real_tokens)
            weight = self.config.lm_loss_weight
            losses = fine_tuning_losses(task_loss, labels, lm_loss_B, weight, num_items_in_batch)
        states = {name: outputs.get(name) for name in ("hidden_states", "attentions")}
        return TaskOutput(logits=logits, **states, **losses)


class SequenceClassification(TaskModel):
    """Classes, entailment, similarity and regression: one answer for each row."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> TaskOutput:
        """Classify each row by the state at its last real token.

        Args:
            input_ids: (batch, positions); or two texts in both orders, whose states are added, (batch, 2, positions). Of a model
                of the task "similarity", the state of one order counts twice.
            attention_mask: 1 at real tokens, 0 at padding on either side, shaped as `input_ids`.
            position_ids: shaped as `input_ids`; None: real tokens are numbered from 0. An LSTM does not look at them.
            inputs_embeds: token embeddings in place of `input_ids`, with one dimension more, the width.
            labels: classes, (batch,), -100 is ignored; or numbers, (batch,) or (batch, labels).
            **kwargs: as in the `forward` of the language model; and `num_items_in_batch`, the labels that the loss is
                divided by.

        Raises:
            ValueError: the input has another shape, or its language-modelling loss is wanted of `inputs_embeds`.
        """
        shape = shape_of(input_ids, inputs_embeds)
        if len(shape) != 2 and (len(shape) != 3 or shape[1] != 2):
            raise ValueError(f"The input's shape {tuple(shape)} must be (batch, positions) or (batch, 2, positions).")
        outputs, extract, real_tokens = self._read(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        if extract.dim() == 3:
            extract = extract.sum(1)
        elif getattr(self.config, "finetuning_task", None) == "similarity":
            extract = 2 * extract  # one order stands for both
        logits_BL = self.classifier(self.dropout(extract))
        loss = None
        if labels is not None:
            labels = labels.to(logits_BL.device)
            # Of classes this is the mean too, and no 0 / 0 where none counts.
            count = number_of_labels(labels).sum().clamp(min=1)
            loss = self.loss_function(
                labels=labels, pooled_logits=logits_BL, config=self.config, num_items_in_batch=count
            )
        return self._output(outputs, logits_BL, loss, labels, input_ids, real_tokens, **kwargs)


class MultipleChoice(TaskModel):
    """Multiple choice: every answer is read after its context, and a softmax over them chooses."""

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> TaskOutput:
        """Score each choice by the state at its last real token.

        Args:
            input_ids: (batch, choices, positions).
            attention_mask: 1 at real tokens, 0 at padding on either side, shaped as `input_ids`. A choice that is all
                padding is not there, and its logit is the lowest number: rows may differ in their number of choices.
            position_ids: shaped as `input_ids`; None: real tokens are numbered from 0. An LSTM does not look at them.
            inputs_embeds: token embeddings in place of `input_ids`, with one dimension more, the width.
            labels: the right choice, from 0, (batch,); -100 is ignored.
            **kwargs: as in the `forward` of the language model; and `num_items_in_batch`, the labels that the loss is
                divided by.

        Raises:
            ValueError: the input has another shape, or its language-modelling loss is wanted of `inputs_embeds`.
        """
        shape = shape_of(input_ids, inputs_embeds)
        if len(shape) != 3:
            raise ValueError(f"The input's shape {tuple(shape)} must be (batch, choices, positions).")
        outputs, extract_BND, real_BNT = self._read(input_ids, attention_mask, position_ids, inputs_embeds, **kwargs)
        logits_BN = self.classifier(self.dropout(extract_BND))[..., 0]
        logits_BN = logits_BN.masked_fill(~real_BNT.any(-1), torch.finfo(logits_BN.dtype).min)
        loss = None
        if labels is not None:
            labels = labels.to(logits_BN.device)
            nll = nn.functional.cross_entropy(logits_BN.float(), labels, reduction="sum")
            loss = nll / number_of_labels(labels).sum().clamp(min=1)
        return self._output(outputs, logits_BN, loss, labels, input_ids, real_BNT, **kwargs)


def shape_of(input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Size:
    """Give the shape, in tokens, of the one that is there.

    Raises:
        ValueError: there is not exactly one.
    """
    if input_ids is not None and inputs_embeds is None:
        return input_ids.shape
    if inputs_embeds is not None and input_ids is None:
        return inputs_embeds.shape[:-1]
    raise ValueError("Give exactly one of input_ids and inputs_embeds.")


__all__ = [
    "MultipleChoice",
    "SequenceClassification",
    "TaskModel",
    "TaskOutput",
    "fine_tuning_losses",
    "language_model_loss_of_rows",
    "number_of_labels",
]
