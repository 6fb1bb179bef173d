"""The Trainer of models that classify, compare or choose: it measures what they answer."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler

from .task_metrics import score_answers
from .trainer import TheatreTrainer


class TaskTrainer(TheatreTrainer):
    """`TheatreTrainer` for fine-tuned models.

    - `eval_loss` is the mean over the rows of the loss of their labels, without that of the language model, whatever the batch
      size and the number of processes; `eval_accuracy` and the like come with the bounds of their 95 % intervals.
    - `max_tokens_per_batch` counts all sequences of a row: both orders of a pair, all answers.
    """

    def __init__(self, model, args, metrics: Sequence[str], **kwargs):
        """Take what `TheatreTrainer` takes, and `metrics`, names of `task_metrics.TASK_METRICS`."""
        super().__init__(model=model, args=args, **kwargs)
        self.metrics = list(metrics)
        self.answers: list[list[float]] = []

    def row_lengths(self, dataset: Any) -> torch.Tensor:
        """Count the tokens that a row takes in a batch: for each of its sequences those of the longest, (rows, sequences)."""
        longest = torch.tensor(dataset["length"][:])
        first = dataset[0]["input_ids"]
        most = max(map(len, dataset["input_ids"])) if isinstance(first[0], list) else 1
        return longest[:, None].expand(-1, most)

    def _get_eval_sampler(self, eval_dataset):
        """Measure rows in their order, which is that of their length: answers are told from each other by their place."""
        return SequentialSampler(eval_dataset)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **kwargs):
        """Note of each row what is answered, what is right, the loss, and the probability of the answer."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits = model(**inputs).logits.float()
        labels = inputs["labels"]
        if labels.is_floating_point():
            answer, probability = logits[:, 0], torch.full_like(labels, math.nan)
            loss = (answer - labels).square()
        else:
            probability, answer = logits.softmax(-1).max(-1)
            loss = nn.functional.cross_entropy(logits, labels, reduction="none")
        rows = torch.stack([answer.float(), labels.float(), loss, probability], dim=1)
        # Processes are given rows twice where there are too few for all; gathering leaves those out again.
        self._rows += self.accelerator.gather_for_metrics(rows).tolist()
        return loss.mean(), None, None

    def _figures(self) -> dict[str, Any]:
        """Score what was answered."""
        self.answers = self._rows
        answers, right, losses, _ = zip(*self._rows, strict=True)
        scores = score_answers(answers, right, self.metrics)
        return {"loss": math.fsum(losses) / len(losses), **scores}
