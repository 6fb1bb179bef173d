"""The library's Trainer, with what training from scratch needs and it lacks; each part is one small class."""

import math
import time
from typing import Any

import torch
from torch import nn
from transformers import ProgressCallback, Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from .length_grouping import LengthGroupedSampler
from .progress import progress_bar


class SmoothedLoss:
    """Cross-entropy with label smoothing (section 5.4), per real token of the whole accumulated batch.

    (1 - epsilon) * -log p(label) + epsilon * mean over the vocabulary of -log p.

    Args:
        epsilon: share of the probability spread over the vocabulary.
        shifts: True where the model predicts the token after each position (a causal head), False where labels are aligned
            with the logits.
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
            logits_BTV, labels = logits_BTV[:, :-1], labels[:, 1:]
        total = nn.functional.cross_entropy(
            logits_BTV.flatten(0, 1).float(), labels.flatten(), label_smoothing=self.epsilon, reduction="sum"
        )
        return total / (num_items_in_batch if num_items_in_batch is not None else (labels != -100).sum())


class TokenCounter:
    """Counts the tokens that training has seen: real ones, and those that were only padding."""

    def __init__(self):
        self._real = torch.zeros((), dtype=torch.long)
        self.padded = 0

    def add(self, inputs: dict[str, torch.Tensor]):
        """Count one batch: its source by `attention_mask`, its target by `labels` where that is another sequence."""
        parts = [inputs["attention_mask"] != 0]
        if "decoder_input_ids" in inputs:
            parts.append(inputs["labels"] != -100)
        for part in parts:
            # Summed where the batch is: reading a number off an accelerator at every step would make it wait.
            self._real = self._real.to(part.device) + part.sum()
            self.padded += part.numel()

    @property
    def real(self) -> int:
        """Tokens that were no padding."""
        return int(self._real)


class TokenProgress(TrainerCallback):
    """A progress bar with loss, tokens per second of this process, and the time left."""

    def __init__(self, counter: TokenCounter):
        self.counter = counter
        self.bar = None

    def on_train_begin(self, args, state, control, **kwargs):
        """Open the bar, at the step where a resumed run goes on."""
        self.started, self.counted = time.monotonic(), self.counter.real
        if state.is_world_process_zero:
            self.bar = progress_bar(
                state.max_steps, "training", "step", shown=not args.disable_tqdm, initial=state.global_step
            )

    def on_step_end(self, args, state, control, **kwargs):
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Show the newest loss, and the tokens per second since the start."""
        if self.bar is None or not logs:
            return
        speed = (self.counter.real - self.counted) / (time.monotonic() - self.started)
        if "loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}, {speed:,.0f} tokens/s", refresh=False)
        elif "eval_loss" in logs:
            self.bar.write(
                f"step {state.global_step}: validation loss {logs['eval_loss']:.4f}, "
                f"perplexity {logs['eval_perplexity']:.2f} per token"
            )

    def on_train_end(self, args, state, control, **kwargs):
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class TheatreTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` whose numbers are right for models trained from scratch.

    - Label smoothing works for every head (the library's shifts labels only for its own classes), and never touches
      evaluation.
    - `eval_loss` is the negative log-likelihood per real token, in nats, over the whole validation set, whatever the batch
      size and the number of processes; `eval_perplexity` is its exponential.
    - Training tokens are counted, and shown while it runs.
    """

    def __init__(self, model, args, **kwargs):
        epsilon, args.label_smoothing_factor = args.label_smoothing_factor, 0.0
        loss = SmoothedLoss(epsilon, shifts=not model.config.is_encoder_decoder) if epsilon else None
        super().__init__(model=model, args=args, compute_loss_func=loss, **kwargs)
        args.label_smoothing_factor = epsilon
        # The loss is divided by all tokens of an update; older versions of the library let accelerate divide once more.
        self.accelerator.gradient_accumulation_steps = 1
        self.counter = TokenCounter()
        self._nll, self._tokens, self.evaluation_seconds = 0.0, 0, 0.0
        self.remove_callback(ProgressCallback)
        self.add_callback(TokenProgress(self.counter))

    def _get_train_sampler(self, train_dataset=None):
        """Group by the length of the longer side; the library drops that column before it looks."""
        grouped = self.args.train_sampling_strategy == "group_by_length"
        if not grouped or self.args.length_column_name not in self.train_dataset.column_names:
            return super()._get_train_sampler(train_dataset)
        lengths: Any = self.train_dataset[self.args.length_column_name]  # type: ignore[index]
        return LengthGroupedSampler(lengths, self.args.train_batch_size, self.args.seed)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Count the batch, and learn from it."""
        self.counter.add(inputs)
        return super().training_step(model, inputs, num_items_in_batch)

    def counted_tokens(self) -> tuple[int, int]:
        """Tokens that training has seen on all processes: real ones, and with padding."""
        counts = torch.tensor([self.counter.real, self.counter.padded], device=self.args.device)
        real, padded = self.accelerator.reduce(counts).tolist()
        return int(real), int(padded)

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **kwargs):
        """Add the rows of one batch to the sums that `evaluation_loop` divides."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            logits_BTV = model(**inputs, use_cache=False).logits
        labels = inputs["labels"]
        if not self.model.config.is_encoder_decoder:
            logits_BTV, labels = logits_BTV[:, :-1], labels[:, 1:]
        nll_BT = nn.functional.cross_entropy(logits_BTV.float().mT, labels, reduction="none")
        rows = torch.stack([nll_BT.sum(1), (labels != -100).sum(1)], dim=1)
        # Processes are given rows twice where there are too few for all; gathering leaves those out again.
        for nll, tokens in self.accelerator.gather_for_metrics(rows).tolist():
            self._nll, self._tokens = self._nll + nll, self._tokens + int(tokens)
        loss = nll_BT.sum() / (labels != -100).sum().clamp(min=1)
        if prediction_loss_only:
            return loss, None, None
        _, predictions, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **kwargs)
        return loss, predictions, labels

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Measure the loss per token, each row once, on any number of processes."""
        self._nll, self._tokens = 0.0, 0
        started = time.monotonic()
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self.evaluation_seconds += time.monotonic() - started
        assert output.metrics is not None
        nll = self._nll / max(1, self._tokens)
        output.metrics[f"{metric_key_prefix}_loss"] = nll
        # Beyond the largest double it is not worth the name.
        output.metrics[f"{metric_key_prefix}_perplexity"] = math.exp(nll) if nll < 700 else math.inf
        return output
