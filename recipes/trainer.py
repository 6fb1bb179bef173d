"""The library's Trainer, with what training from scratch needs and it lacks; each part is one small class."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow.compute
import torch
from accelerate.data_loader import prepare_data_loader
from datasets import Dataset
from torch.utils.data import DataLoader, Sampler
from transformers import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, seed_worker
from transformers.utils import logging

from .averaging import ExponentialAverage
from .bootstrap import SIGNATURE
from .document_rows import documents_apart
from .dropout_rows import DropoutRows
from .early_stopping import EarlyStopping
from .epoch_rows import BeginEpoch, EpochRows
from .interruption import name_of_row, rows_of
from .length_grouping import LengthGroupedSampler
from .likelihood import TextSize, likelihood, likelihood_of_rows, size_of
from .metrics import score_texts
from .noam import noam_schedule
from .nonfinite import FiniteUpdates, noted_by
from .optimizers import OPTIMIZERS
from .publishing_trainer import PublishingTrainer
from .run_counters import RunCounters
from .sharding import is_sharded, load_weights
from .shared_translation import translate_together
from .smoothed_loss import SmoothedLoss
from .stream_batches import BatchNumbers, StreamBatches, StreamKeeper
from .token_batches import TokenBatchSampler
from .token_counter import TokenCounter
from .token_progress import TokenProgress
from .weights import read_weights


logger = logging.get_logger(__name__)


def lengths_of(dataset: Dataset, columns: list[str]) -> torch.Tensor:
    """Count the tokens of each row in each of the columns, (rows, columns), without reading them."""
    table = dataset.select_columns(columns).with_format("arrow")[:]
    counts = [pyarrow.compute.list_value_length(table.column(name)).to_numpy() for name in columns]
    return torch.stack([torch.from_numpy(count.copy()) for count in counts], dim=1).long()


class TheatreTrainer(PublishingTrainer):
    """`Seq2SeqTrainer` whose numbers are right for models trained from scratch.

    - Label smoothing works for every head (the library's shifts labels only for its own classes), and never touches
      evaluation.
    - `eval_loss` is the negative log-likelihood per real token, in nats, over the whole validation set, whatever the batch
      size and the number of processes; `eval_perplexity` is its exponential; `eval_bits_per_byte` and
      `eval_bits_per_character` are per byte and character of text.
    - `predict_with_generate` translates the validation set by the model's own `translate`, shared by all processes, each
      text once, and scores it: `eval_bleu`, `eval_chrf`, `eval_exact_match`.
    - Training tokens, time, operations and energy are counted over all parts of a run, and shown while it runs.

    And what the library lacks: batches of a number of tokens (`max_tokens_per_batch`), the paper's schedule (`noam_factor`), and
    a moving average of the weights, which is what is evaluated (`ema_decay`).

    Before each update it looks whether loss and gradient are numbers (`skip_nonfinite`); see `CheckpointingTrainer` for what
    interrupts a run.
    """

    def __init__(self, model, args, text_size: TextSize | None = None, target_language: str | None = None, **kwargs):
        """Take what the library's takes, and what the scores of the validation set need.

        Args:
            model: an encoder-decoder, or a causal model.
            args: of the run.
            text_size: of the validation text, for a causal model; pairs have theirs in the column `target`.
            target_language: code, see `score_texts`.
            **kwargs: the library's.

        Raises:
            ValueError: a causal model should translate.
        """
        if args.predict_with_generate and not model.config.is_encoder_decoder:
            raise ValueError("predict_with_generate translates the validation text, which a language model does not.")
        epsilon, args.label_smoothing_factor = args.label_smoothing_factor, 0.0
        loss = SmoothedLoss(epsilon, shifts=not model.config.is_encoder_decoder) if epsilon else None
        super().__init__(model=model, args=args, compute_loss_func=loss, **kwargs)
        args.label_smoothing_factor = epsilon
        # The loss is divided by all tokens of an update; older versions of the library let accelerate divide once more.
        self.accelerator.gradient_accumulation_steps = 1
        self.counter = TokenCounter()
        self.text_size, self.target_language = text_size, target_language
        self._rows: list[list[float]] = []
        self._measured_on: Any = None
        self.figures: dict[str, Any] = {}
        self._signatures: dict[str, str] = {}  # of an evaluation that is still to be logged
        self.average = ExponentialAverage(model, args.ema_decay) if args.ema_decay else None
        if self.average is not None:
            self.add_callback(self.average)
        self.finite = FiniteUpdates(args)
        self.counters = RunCounters(model, self.counter, self.finite)
        self.add_callback(self.counters)
        if args.early_stopping_patience:
            self.add_callback(EarlyStopping(args.early_stopping_patience))
        self.stream = None
        if isinstance(self.train_dataset, StreamBatches):
            self.stream = StreamKeeper(self.train_dataset, args.world_size * args.gradient_accumulation_steps)
            self.add_callback(self.stream)
        self.changing = self._changing_rows()
        if self.changing is not None:
            self.train_dataset = self.changing.table
            self.add_callback(BeginEpoch(self.changing))
        self.remove_callback(ProgressCallback)
        self.add_callback(TokenProgress())

    def get_train_dataloader(self) -> DataLoader:
        """Make batches of a number of tokens, or of a number of rows."""
        args: Any = self.args
        if isinstance(self.train_dataset, StreamBatches):
            numbers = BatchNumbers(args.max_steps * args.gradient_accumulation_steps)
            return self._loader(self.train_dataset, numbers, StreamBatches.first)
        if not args.max_tokens_per_batch:
            if self.changing is None:
                return super().get_train_dataloader()
            size = self._train_batch_size
            return self._get_dataloader(self.changing, "training", size, self._get_train_sampler, is_training=True)
        dataset: Any = self.train_dataset
        lengths = self.row_lengths(dataset)
        sampler = TokenBatchSampler(
            lengths if self.changing is None else self.changing.expected_lengths(lengths),
            args.max_tokens_per_batch,
            seed=args.seed,
            world_size=args.world_size,
            rank=args.process_index,
            accumulation_steps=args.gradient_accumulation_steps,
        )
        rows = self.changing or self._remove_unused_columns(dataset, description="training")
        return self._loader(rows, sampler, self.data_collator)

    def row_lengths(self, dataset: Any) -> torch.Tensor:
        """Count the tokens of each side of each row, (rows, sides)."""
        pairs = self.model.config.is_encoder_decoder
        return lengths_of(dataset, ["input_ids", "labels"] if pairs else ["input_ids"])

    def _changing_rows(self) -> EpochRows | None:
        args: Any = self.args
        rows: Any = self.train_dataset
        if isinstance(rows, EpochRows):
            return rows
        if not args.bpe_dropout or rows is None or self.stream is not None:
            return None
        return DropoutRows(
            rows,
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

    def create_optimizer(self, *model):
        """Make the optimizer that `optimizer` names, or the library's."""
        args: Any = self.args
        if args.optimizer is None or self.optimizer is not None:
            return super().create_optimizer(*model)
        chosen: Any = model[0] if model and model[0] is not None else self.model
        self.optimizer = OPTIMIZERS[args.optimizer](super().create_optimizer(*model), chosen, args)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None):
        """Make the paper's schedule where `noam_factor` asks for it, or the library's; warn if it never reaches its peak."""
        args: Any = self.args
        warmup = args.get_warmup_steps(num_training_steps)
        if warmup >= num_training_steps:
            logger.warning(
                f"The learning rate rises for {warmup} steps, and the run has {num_training_steps}: give fewer "
                f"--warmup_steps, or more {'--max_steps' if args.max_steps > 0 else '--num_train_epochs'}."
            )
        if args.noam_factor is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        chosen: Any = optimizer or self.optimizer
        config: Any = self.model.config
        self.lr_scheduler = noam_schedule(chosen, config.hidden_size, warmup, args.noam_factor)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def evaluate(self, eval_dataset=None, *args, **kwargs) -> dict[str, float]:
        """Evaluate the averaged weights where there are any."""
        self._measured_on = self.eval_dataset if eval_dataset is None else eval_dataset
        average = self.average.in_place() if self.average is not None else contextlib.nullcontext()
        with average, self.counters.evaluating():
            return super().evaluate(eval_dataset, *args, **kwargs)

    def predict(self, test_dataset, *args, **kwargs):
        """Measure a test set as the library does."""
        self._measured_on = test_dataset
        output = super().predict(test_dataset, *args, **kwargs)
        self._signatures = {}  # nothing is logged
        return output

    def log(self, logs, *args, **kwargs):
        """Log the mean loss of the updates that were made, and the speed beside it."""
        logs = self.finite.correct(logs)
        if "loss" in logs:
            logs.update(self.counters.speed(self.state))
        if "train_loss" in logs:  # the library's counts skipped updates, and of a run that went on its last part alone
            mean = self.counters.mean_loss()
            logs = {key: value for key, value in logs.items() if key != "train_loss"}
            logs |= {} if mean is None else {"train_loss": mean}
        super().log(logs, *args, **kwargs)
        # What draws the log takes numbers alone.
        entry: dict[str, Any] = self.state.log_history[-1]
        entry |= self._signatures
        self._signatures = {}

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

    @functools.cached_property
    def _layer_parameters(self) -> int:
        model: Any = self.model
        return model.num_parameters(exclude_embeddings=True)

    def floating_point_ops(self, inputs) -> int:
        """Estimate `total_flos` of a batch as the library does, which counts the model's parameters at every step; here once."""
        model: Any = self.model
        return 6 * inputs[model.main_input_name].numel() * self._layer_parameters

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Count the batch, and learn from it."""
        self.counter.add(inputs)
        taken = documents_apart(inputs, str(self.model.config._attn_implementation))
        names = self._names_of_rows({name: inputs[name] for name in ("input_ids", "attention_mask")})
        return self.finite.add(names, super().training_step(model, taken, num_items_in_batch))

    def _names_of_rows(self, inputs: dict[str, torch.Tensor]) -> Callable[[], list[str]]:
        """Make what names the rows of the batch that is learned from, should it have to."""
        if self.stream is not None:
            origins = self.stream.origins.popleft()
            return lambda: origins

        def names() -> list[str]:
            dataset: Any = self.train_dataset
            if self.changing is not None:
                return [self.changing.name_of(row) for row in self.changing.rows_of(inputs)]
            return [name_of_row(dataset, row) for row in rows_of(inputs, dataset["input_ids"])]

        return names

    def _get_grad_norm(self, model, grad_norm=None):
        """Look at loss and gradient; the library asks for the norm just before it makes the update.

        Raises:
            RuntimeError: they are no numbers, and no more updates may be skipped; the message names the rows.
        """
        norm = super()._get_grad_norm(model, grad_norm)
        args: Any = self.args
        scaler = self.accelerator.scaler
        problem = self.finite.problem(norm, self.state.global_step + 1, scaled=scaler is not None)
        if problem is None:
            return norm
        skipped = self.skipped_updates()
        if skipped >= args.skip_nonfinite:
            limit = f" after {skipped} that were skipped (skip_nonfinite={skipped})" if skipped else ""
            raise RuntimeError(
                f"{problem} The run ends before this update{limit}; the last checkpoint is as it was. Go on from it by "
                f"--resume_from_checkpoint true, with a lower learning_rate than {args.learning_rate}, or with --skip_nonfinite "
                "and a number of such updates to skip."
            )
        logger.warning(f"{problem} The update is skipped: {skipped + 1} of skip_nonfinite={args.skip_nonfinite}.")
        found_inf = noted_by(scaler, self.optimizer) if scaler is not None else []
        self.finite.skip(model, self._tr_loss, found_inf)
        if self.average is not None:
            self.average.skip()
        self.log({"skipped_update": self.state.global_step + 1})
        return norm

    def skipped_updates(self) -> int:
        """Updates that were skipped in the whole run, before it was resumed too."""
        return sum("skipped_update" in entry for entry in self.state.log_history)

    def save_own_state(self, folder: Path):
        """Write the moving average, the counts of the run and the place in its stream into a checkpoint."""
        self.counters.save(folder, writes=self.args.should_save)
        if self.stream is not None and self.args.should_save:
            self.stream.save(folder, self.state.global_step)
        if self.average is not None:
            self.average.save(folder, writes=self.args.should_save)

    def _load_best_model(self):
        """Load the best checkpoint: also where devices share the weights, and its own moving average with it."""
        best, model = Path(self.state.best_model_checkpoint or ""), cast(Any, self.model)
        if is_sharded(model):
            load_weights(model, read_weights(best))
        else:
            super()._load_best_model()
        if self.average is not None:
            self.average.load(best)
            self.average.lay_out()

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None, **kwargs):
        """Add the rows of one batch to the sums that `evaluation_loop` divides."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            taken = documents_apart(inputs, str(self.model.config._attn_implementation))
            logits = model(**taken, use_cache=False).logits
        rows = likelihood_of_rows(logits, inputs["labels"], shifts=not self.model.config.is_encoder_decoder)
        # Processes are given rows twice where there are too few for all; gathering leaves those out again.
        self._rows += self.accelerator.gather_for_metrics(rows).tolist()
        nll, tokens = rows.sum(0)
        loss = nll / tokens.clamp(min=1)
        if prediction_loss_only:
            return loss, None, None
        _, predictions, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **kwargs)
        return loss, predictions, labels

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ) -> EvalLoopOutput:
        """Measure the loss per token, and what the model writes, each row once, on any number of processes."""
        self._rows, self._signatures = [], {}
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        self.figures = self._figures()
        assert output.metrics is not None
        for name, value in self.figures.items():
            if isinstance(value, str):
                self._signatures[f"{metric_key_prefix}_{name}"] = value
            elif name != "tokens":
                output.metrics[f"{metric_key_prefix}_{name.replace('nll', 'loss')}"] = value
        return output

    def _figures(self) -> dict[str, Any]:
        """Score the validation set that the rows are of.

        Raises:
            ValueError: it should be translated, and has no text.
        """
        args: Any = self.args
        measured = self._measured_on
        text_size = self.text_size if measured is self.eval_dataset else None
        has_texts = isinstance(measured, Dataset) and {"source", "target"} <= set(measured.column_names)
        if has_texts:
            text_size = size_of(measured["target"])
        figures = likelihood(self._rows, text_size)
        if args.predict_with_generate:
            if not has_texts:
                raise ValueError("predict_with_generate needs a validation set with the columns source and target.")
            written = self.translate(measured, args.eval_num_beams)
            figures |= score_texts(written, measured["target"], self.target_language)
            figures["num_beams"] = args.eval_num_beams
        return {**figures, "interval_signature": SIGNATURE}

    def translate(self, texts: Dataset, num_beams: int) -> list[str]:
        """Translate texts, shared by all processes; see `translate_together`."""
        tokenizer: Any = self.processing_class
        return translate_together(
            self.accelerator.unwrap_model(self.model),
            tokenizer,
            texts,
            num_beams,
            rank=self.args.process_index,
            world_size=self.args.world_size,
            shown=not self.args.disable_tqdm,
        )
