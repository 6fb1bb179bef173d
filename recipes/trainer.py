"""The library's Trainer, with what training from scratch needs and it lacks; each part is one small class."""

import contextlib
import functools
import math
import shutil
import time
from pathlib import Path
from typing import Any

import pyarrow.compute
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader, Sampler
from transformers import ProgressCallback, Seq2SeqTrainer, TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, seed_worker
from transformers.utils import logging

from transformer_theatre.modeling.progress import progress_bar

from .averaging import ExponentialAverage
from .dropout_rows import BeginEpoch, DropoutRows
from .interruption import StopAtSignal, rows_of
from .length_grouping import LengthGroupedSampler
from .noam import noam_schedule
from .stream_batches import BatchNumbers, StreamBatches, StreamKeeper
from .token_batches import TokenBatchSampler


logger = logging.get_logger(__name__)


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


def lengths_of(dataset: Dataset, columns: list[str]) -> torch.Tensor:
    """Count the tokens of each row in each of the columns, (rows, columns), without reading them."""
    table = dataset.select_columns(columns).with_format("arrow")[:]
    counts = [pyarrow.compute.list_value_length(table.column(name)).to_numpy() for name in columns]
    return torch.stack([torch.from_numpy(count.copy()) for count in counts], dim=1).long()


class TheatreTrainer(Seq2SeqTrainer):
    """`Seq2SeqTrainer` whose numbers are right for models trained from scratch.

    - Label smoothing works for every head (the library's shifts labels only for its own classes), and never touches
      evaluation.
    - `eval_loss` is the negative log-likelihood per real token, in nats, over the whole validation set, whatever the batch
      size and the number of processes; `eval_perplexity` is its exponential.
    - Training tokens are counted, and shown while it runs.

    And what the library lacks: batches of a number of tokens (`max_tokens_per_batch`), the paper's schedule (`noam_factor`), and
    a moving average of the weights, which is what is evaluated (`ema_decay`).
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
        self.average = ExponentialAverage(model, args.ema_decay) if args.ema_decay else None
        if self.average is not None:
            self.add_callback(self.average)
        self.stream = None
        if isinstance(self.train_dataset, StreamBatches):
            self.stream = StreamKeeper(self.train_dataset, args.world_size * args.gradient_accumulation_steps)
            self.add_callback(self.stream)
        self.dropped = None
        if args.bpe_dropout and self.stream is None:
            self.dropped = self._rows_with_dropout()
            self.add_callback(BeginEpoch(self.dropped))
        self.signal = StopAtSignal()
        self.add_callback(self.signal)
        self.remove_callback(ProgressCallback)
        self.add_callback(TokenProgress(self.counter))

    def get_train_dataloader(self) -> DataLoader:
        """Make batches of a number of tokens, or of a number of rows."""
        args: Any = self.args
        if isinstance(self.train_dataset, StreamBatches):
            numbers = BatchNumbers(args.max_steps * args.gradient_accumulation_steps)
            return self._loader(self.train_dataset, numbers, StreamBatches.first)
        if not args.max_tokens_per_batch:
            if self.dropped is None:
                return super().get_train_dataloader()
            size = self._train_batch_size
            return self._get_dataloader(self.dropped, "training", size, self._get_train_sampler, is_training=True)
        pairs = self.model.config.is_encoder_decoder
        dataset: Any = self.train_dataset
        lengths = lengths_of(dataset, ["input_ids", "labels"] if pairs else ["input_ids"])
        sampler = TokenBatchSampler(
            lengths if self.dropped is None else self.dropped.expected_lengths(lengths),
            args.max_tokens_per_batch,
            seed=args.seed,
            world_size=args.world_size,
            rank=args.process_index,
            accumulation_steps=args.gradient_accumulation_steps,
        )
        rows = self.dropped or self._remove_unused_columns(dataset, description="training")
        return self._loader(rows, sampler, self.data_collator)

    def _rows_with_dropout(self) -> DropoutRows:
        args: Any = self.args
        tables: Any = self.train_dataset
        return DropoutRows(
            tables,
            self.processing_class,  # type: ignore[arg-type]
            args.bpe_dropout,
            seed=args.seed,
            sides=args.bpe_dropout_sides,
            most=getattr(self.model.config, "max_position_embeddings", None),
            max_tokens=args.max_tokens_per_batch,
        )

    def _loader(self, rows: Any, sampler: Sampler[list[int]], collate: Any) -> DataLoader:
        args: Any = self.args
        loader = DataLoader(
            rows,
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=functools.partial(
                seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index
            ),
        )
        # The sampler knows its process: accelerate must not share the batches out once more.
        return prepare_data_loader(loader, args.device, num_processes=1, process_index=0, put_on_device=True)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Make the paper's schedule where `noam_factor` asks for it, or the library's; warn if it never reaches its peak."""
        args: Any = self.args
        warmup = args.get_warmup_steps(num_training_steps)
        if warmup >= num_training_steps:
            logger.warning(
                f"The learning rate rises for {warmup} steps, and the run has {num_training_steps}: give fewer "
                "--warmup_steps, or more --num_train_epochs."
            )
        if args.noam_factor is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        chosen: Any = optimizer or self.optimizer
        config: Any = self.model.config
        self.lr_scheduler = noam_schedule(chosen, config.hidden_size, warmup, args.noam_factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, *args, **kwargs) -> dict[str, float]:
        """Evaluate the averaged weights where there are any."""
        with self.average.in_place() if self.average is not None else contextlib.nullcontext():
            return super().evaluate(*args, **kwargs)

    def _get_train_sampler(self, train_dataset=None):
        """Group by the length of the longer side; the library drops that column before it looks."""
        grouped = self.args.train_sampling_strategy == "group_by_length"
        if not grouped or self.args.length_column_name not in self.train_dataset.column_names:
            return super()._get_train_sampler(train_dataset)
        lengths: Any = self.train_dataset[self.args.length_column_name]  # type: ignore[index]
        return LengthGroupedSampler(lengths, self.args.train_batch_size, self.args.seed)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        """Take the batches of an update, and from those of a stream what only the `StreamKeeper` wants."""
        taken = epoch_iterator if self.stream is None else map(self.stream.take, epoch_iterator)
        return super().get_batch_samples(taken, num_batches, device)

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Count the batch, and learn from it.

        Raises:
            RuntimeError: the loss is no number; the message names the rows.
        """
        self.counter.add(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            names = self._names_of(inputs)
            raise RuntimeError(
                f"The loss became {loss.item()} in step {self.state.global_step + 1}, on {', '.join(names[:5])}"
                f"{f' and {len(names) - 5} more' if len(names) > 5 else ''}. The last checkpoint is as it was. Try a lower "
                f"learning_rate than {self.args.learning_rate}, or a longer warm-up."
            )
        return loss

    def _names_of(self, inputs) -> list[str]:
        """Name the rows of a batch, or, of a stream, those of the whole update."""
        if self.stream is not None:
            return self.stream.origins
        dataset: Any = self.train_dataset
        rows = rows_of(inputs, dataset) if self.dropped is None else self.dropped.rows_of(inputs)
        return [dataset[row].get("origin", f"row {row + 1}") for row in rows]

    def _save_checkpoint(self, model, trial):
        """Save a checkpoint, or leave nothing of it behind.

        Raises:
            RuntimeError: it could not be written, most likely because the disk is full.
        """
        output = Path(self.args.output_dir or "")
        folder = output / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except (OSError, RuntimeError, SafetensorError) as error:
            free = shutil.disk_usage(output).free / 2**20
            shutil.rmtree(folder, ignore_errors=True)
            raise RuntimeError(
                f"{folder} could not be written ({error}); {free:,.1f} MiB of space were left on its disk. Earlier checkpoints "
                "are as they were: make room, and go on by --resume_from_checkpoint true."
            ) from error

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
