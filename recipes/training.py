"""What every training script does: start or resume, train, save, and measure."""

import contextlib
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
from transformers.utils import logging

from .arguments import Recipe
from .averaging import average_checkpoints, checkpoints_to_average
from .batch_fit import tokens_that_fit
from .best_metric import check_best_metric
from .bpe_dropout import BpeDropout
from .checkpoints import checkpoints_of, clear_leftovers, problem_of
from .division import division_of, why_not
from .early_checks import check_parts, check_source
from .environment import described
from .epoch_rows import EpochRows
from .interruption import FINGERPRINT, check_fingerprint, fingerprint, lock_folder
from .likelihood import TextSize
from .lora import adapter_options, merge_adapters
from .models import load
from .nearest import nearest
from .pretrained import SOURCES
from .publishing_trainer import wish_of
from .run_arguments import RunArguments
from .run_folder import begin_folder, check_folder, read_json, write_json
from .sharding import check_sharding, load_weights, shard, whole_copy
from .signals import SIGNALS
from .stream_batches import StreamBatches
from .tokenization import load_tokenizer
from .trainer import TheatreTrainer


logger = logging.get_logger(__name__)


def resumes(args: RunArguments) -> bool:
    """Say whether the run goes on with an earlier one."""
    return str(args.resume_from_checkpoint).lower() not in ("none", "false", "")


def goes_on_here(args: RunArguments) -> bool:
    """Say whether the run goes on in the folder of the earlier one."""
    wanted, folder = str(args.resume_from_checkpoint), Path(args.output_dir or "").resolve()
    return resumes(args) and (wanted.lower() == "true" or Path(wanted).resolve().parent == folder)


def last_checkpoint(args: RunArguments) -> str | None:
    """Find the checkpoint that a resumed run starts from; None for a run that starts anew.

    Raises:
        ValueError: the run should be resumed, and its folder holds no checkpoint.
    """
    if not resumes(args):
        return None
    wanted, folder = str(args.resume_from_checkpoint), Path(args.output_dir or "")
    if wanted.lower() != "true":
        if problem := why_not_from(Path(wanted)):
            raise ValueError(f"{wanted} is no whole checkpoint to resume from: {problem}.")
        return wanted
    for path in reversed(checkpoints_of(folder).values()):
        if (problem := why_not_from(path)) is None:
            return str(path)
        _warn_once(f"{path} is passed over: it is not whole, {problem}.")
    raise ValueError(f"There is no whole checkpoint to resume from in {folder}.")


@functools.lru_cache(maxsize=256)
def _warn_once(message: str):
    logger.warning(message)


def why_not_from(checkpoint: Path) -> str | None:
    """Say why a run cannot go on from a checkpoint; None if it can, as if it had never stopped."""
    if not checkpoint.is_dir():
        return "there is no such folder"
    needed = ["trainer_state.json", "config.json", "tokenizer.json", "scheduler.pt"]
    # Accelerate and DeepSpeed keep what processes share in folders of their own.
    shared = any(path.is_dir() for name in ("optimizer_*", "global_step*") for path in checkpoint.glob(name))
    needed += [] if shared or (checkpoint / "optimizer.bin").is_file() else ["optimizer.pt"]
    missing = [name for name in needed if not (checkpoint / name).is_file()]
    return problem_of(checkpoint) or (f"{missing[0]} is missing" if missing else None)


def check_output(args: RunArguments, measured: Sequence[str] | None = None):
    """Make sure, before anything long, that the run can write its output folder; see `check_folder`, `check_best_metric`."""
    check_best_metric(args, measured)
    check_sharding(args.fsdp_size, args.world_size)
    if args.process_index == 0:
        check_folder(args.output_dir or "", overwrite=args.overwrite, resume=goes_on_here(args))
        if args.push_to_hub:
            wish_of(args)
    last_checkpoint(args)


def begin_output(
    args: RunArguments,
    recipe: Recipe,
    given: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset | StreamBatches,
    validation: Dataset | None,
) -> Path:
    """Begin the output folder, once for all processes; call it when nothing else can be wrong with the input any more.

    Raises:
        ValueError: another run is in the folder, or the run should go on from a checkpoint of another model, or with other
            data, another tokenizer or other batches; the folder is then as it was.
    """
    folder, checkpoint = Path(args.output_dir or ""), last_checkpoint(args)
    same_model(model, checkpoint)
    if not goes_on_here(args):
        check_source(model, folder)
    check_parts(args, model)
    # A folder by its last name, which is the same by whatever path it is given.
    source = {name: Path(given[name]).name if given.get(name) else "none" for name in SOURCES}
    # No row of token ids shows this.
    source |= {name: given.get(name, usual) for name, usual in _READINGS.items()}
    options = batching(args, **adapter_options(model)) | source | _asked_of_tokenizer(given, model)
    begun = fingerprint(train, validation, tokenizer, options)
    if checkpoint is not None:
        then = check_fingerprint(Path(checkpoint).parent, begun)
        rows = None if isinstance(train, StreamBatches) else len(train)
        same_updates(then, args, rows, Path(checkpoint))
        nothing_newer(folder, Path(checkpoint))
    with args.main_process_first(local=False, desc="beginning the output folder"):
        if args.process_index == 0:
            lock_folder(folder)
            clear_leftovers(folder)
            contents = {"task": recipe.task, **given}
            begin_folder(folder, contents, name=recipe.name, resume=goes_on_here(args))
            write_json(folder / FINGERPRINT, begun)
    return folder


# How rows are read, with what is usual.
_READINGS = {"attend_across_documents": True, "shift_rows": False}


def _asked_of_tokenizer(given: dict[str, Any], model: PreTrainedModel) -> dict[str, Any]:
    """Take from a recipe what decides its tokenizer: a run that goes on loads the one of its checkpoint, whatever is asked for."""
    kind = Path(given.get("tokenizer") or "bpe").name
    asked = {"tokenizer asked for": kind, "lowercase": bool(given.get("lowercase"))}
    if kind != "bpe" or any(given.get(name) for name in SOURCES):
        return asked  # of a number of pieces nobody asks
    return asked | {"vocab_size": given.get("vocab_size") or _preset_vocabulary(given, model)}


def _preset_vocabulary(given: dict[str, Any], model: PreTrainedModel) -> int | str:
    kind: Any = type(model.config)
    return kind.from_preset(given["preset"]).vocab_size if given.get("preset") else "the preset's"


def settle_tokens(args: RunArguments, given: dict[str, Any], model: PreTrainedModel, longest: int):
    """Put a number in the place of `max_tokens_per_batch: auto`, also in the recipe as it is run.

    A run that goes on takes the number that it began with.

    Args:
        args: of the run.
        given: the recipe as run.
        model: of the run.
        longest: tokens of the longest side of a row.

    Raises:
        ValueError: not even one row fits the device.
    """
    if args.max_tokens_per_batch != "auto":
        return
    checkpoint = last_checkpoint(args)
    begun = None if checkpoint is None else Path(checkpoint).parent / FINGERPRINT
    if begun is not None and begun.is_file():
        args.max_tokens_per_batch = read_json(begun).get("division", {}).get("tokens")
    if not isinstance(args.max_tokens_per_batch, int):
        args.max_tokens_per_batch = tokens_that_fit(model, args, longest)
    given["max_tokens_per_batch"] = args.max_tokens_per_batch


def batching(args: RunArguments, lora_alpha: float | None = None, lora_dropout: float = 0.0) -> dict[str, Any]:
    """What decides which rows are in which update, and what else decides how a run goes on: `settings` may change."""
    values = {name: getattr(args, name) for name in _SETTINGS}
    settings = {name: str(getattr(value, "value", value)) for name, value in values.items()}
    settings["lora_dropout"] = str(lora_dropout)
    order = "by tokens" if args.max_tokens_per_batch else str(getattr(args, "train_sampling_strategy", "random"))
    more: dict[str, Any] = {"shuffle_buffer": args.shuffle_buffer} if args.streaming else {}
    if args.bpe_dropout:
        more["bpe_dropout_sides"] = args.bpe_dropout_sides
    return {
        "seed": args.seed,
        "order of rows": order,
        "optimizer": args.optimizer or str(getattr(args.optim, "value", args.optim)),
        "moving average": "kept" if args.ema_decay else "none",
        "bpe_dropout": args.bpe_dropout,
        "lora_alpha": "none" if lora_alpha is None else lora_alpha,
        **more,
        "division": asdict(division_of(args)),
        "settings": settings,
    }


# What may change when a run goes on.
_SETTINGS = [
    "learning_rate",
    "muon_learning_rate",
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "noam_factor",
    "max_steps",
    "num_train_epochs",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "label_smoothing_factor",
    "ema_decay",
    "bf16",
    "fp16",
]


def same_updates(then: Mapping[str, Any], args: RunArguments, rows: int | None, checkpoint: Path):
    """Make sure that updates are of the same rows as they were, on whatever number of processes.

    Args:
        then: fingerprint of the run that is to go on.
        args: to go on with.
        rows: of the training data; None: it is a stream.
        checkpoint: to go on from.

    Raises:
        ValueError: they would not be; the message says why, and what would work.
    """
    now = division_of(args)
    if then.get("division", asdict(now)) == asdict(now):
        return
    epoch = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["epoch"]
    reason = why_not(then["division"], now, rows, then["order of rows"], epoch_ends=float(epoch).is_integer())
    if reason is not None:
        raise ValueError(f"{checkpoint} cannot go on so: {reason}.")
    if then["division"]["processes"] != now.processes and args.process_index == 0:
        logger.warning(
            f"The run goes on by {now}: its updates are of the same rows as before, but dropout draws other numbers."
        )


def nothing_newer(folder: Path, checkpoint: Path):
    """Make sure that a run does not go on in the midst of its own later checkpoints.

    Raises:
        ValueError: one is whole, and would be taken for a later one of the run that goes on.
    """
    if checkpoint.parent.resolve() != folder.resolve():
        return
    steps = {path.name: step for step, path in checkpoints_of(folder).items()}
    newer = [path for step, path in checkpoints_of(folder).items() if step > steps.get(checkpoint.name, step)]
    if whole := [path.name for path in newer if problem_of(path) is None]:
        raise ValueError(
            f"{folder} holds later checkpoints than {checkpoint.name}: {', '.join(whole)}. Delete them, or go on in another "
            "--output_dir."
        )


def tokenizer_for(
    name: str, args: RunArguments, make: Mapping[str, Callable[[], PreTrainedTokenizerBase]]
) -> PreTrainedTokenizerBase:
    """Train the tokenizer of a run, or load it: from a folder, or for a resumed run from its checkpoint.

    Args:
        name: a key of `make`, or a folder or Hub repository that holds a tokenizer.
        args: of the run.
        make: what trains each kind of tokenizer.

    Raises:
        ValueError: it cannot be loaded, or is none that `bpe_dropout` can be used with.
    """
    checkpoint = last_checkpoint(args)
    if checkpoint is not None:
        tokenizer = load_tokenizer(checkpoint)
    elif name in make:
        tokenizer = make[name]()
    else:
        if not Path(name).exists() and (near := nearest(name, make)):
            raise ValueError(f"tokenizer={name} is neither {' nor '.join(make)}, and no folder{near}.")
        tokenizer = load_tokenizer(name)
    if args.bpe_dropout:
        BpeDropout(tokenizer, args.bpe_dropout)  # now, before anything is written
    return tokenizer


def same_model(model: PreTrainedModel, checkpoint: str | None):
    """Make sure that a checkpoint is of the model that is to go on from it.

    Raises:
        ValueError: a field of the configuration differs.
    """
    if checkpoint is None:
        return
    then, now = type(model.config).from_pretrained(checkpoint), model.config
    names = [name for name in type(now).__annotations__ if name != "use_cache"]
    if changed := [name for name in names if getattr(then, name, None) != getattr(now, name, None)]:
        has, given = (", ".join(f"{name}={getattr(c, name, None)}" for name in changed) for c in (then, now))
        raise ValueError(f"{given} cannot go on from {checkpoint}, which has {has}.")


def train_and_measure(
    model: PreTrainedModel,
    args: RunArguments,
    tokenizer: PreTrainedTokenizerBase,
    collate: Any,
    train: Dataset | StreamBatches | EpochRows,
    validation: Dataset | None,
    *,
    text_size: TextSize | None = None,
    target_language: str | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    trainer_class: Callable[..., TheatreTrainer] = TheatreTrainer,
) -> tuple[TheatreTrainer, dict[str, Any]]:
    """Train, save the model folder, and measure the validation loss.

    Args:
        model: with random weights, or those of a checkpoint.
        args: of the run; evaluation while training is turned off where there is no `validation`.
        tokenizer: saved beside the model.
        collate: makes a batch of rows.
        train: rows of token ids, or such as change each epoch, or a stream of them.
        validation: rows of token ids; pairs with their text.
        text_size: of the validation text, where it is no pairs.
        target_language: code, see `score_texts`.
        callbacks: the task's own.
        trainer_class: what makes the trainer, from the arguments of `TheatreTrainer`.

    Returns:
        The trainer, and what it measured: `train_steps`, the figures of `RunCounters`, and, given `validation`,
        those of the validation set, `eval_nll` (nats per token), `eval_perplexity`, ...

    Raises:
        ValueError: something is to be chosen by a validation set that is not there.
    """
    if validation is None:
        for name in ("average_best", "early_stopping_patience", "predict_with_generate"):
            if getattr(args, name):
                raise ValueError(f"{name}={getattr(args, name)} needs validation text.")
        if args.load_best_model_at_end:
            logger.warning(
                "Without validation text there is no best checkpoint to load: the model is that of the last step."
            )
        args.eval_strategy, args.load_best_model_at_end = "no", False
    if args.fsdp_size > 1:
        model = shard(model, args.fsdp_size, args.world_size)
    trainer = trainer_class(
        model=model,
        args=args,
        text_size=text_size,
        target_language=target_language,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    checkpoint = last_checkpoint(args)
    if checkpoint is not None:
        trainer.counters.load(Path(checkpoint))
        if trainer.average is not None:
            trainer.average.load(Path(checkpoint))
        if trainer.stream is not None:
            trainer.stream.load(Path(checkpoint))
    folder = Path(args.output_dir or "")
    with contextlib.ExitStack() as uncut:
        uncut.enter_context(SIGNALS.held())
        trainer.train(resume_from_checkpoint=checkpoint)
        last = f"checkpoint-{trainer.state.global_step}"
        if problem_of(folder / last) is None:  # then nothing is lost: what follows can be done again
            SIGNALS.place = f"after training; the same command with --resume_from_checkpoint true goes on from {last}."
            uncut.close()
        metrics = {
            "train_steps": trainer.state.global_step,
            **({} if isinstance(train, StreamBatches) else {"train_rows": len(train)}),
            **trainer.counters.figures(),
            **described(args.device, args.world_size),
        }
        if args.skip_nonfinite:
            metrics["train_skipped_updates"] = trainer.skipped_updates()
        metrics |= take_average(trainer)
        end_mixed_precision(trainer)  # what is measured is what is saved, and what `theatre evaluate` finds
        merge_adapters(model)
        if validation is not None:
            metrics |= measured_validation(trainer)
        # Generation wants the cache that the Trainer turned off in the configuration.
        model.config.use_cache = True
        trainer.save_whole_model()
        SIGNALS.place = f"after training; the model is saved in {folder}, and was not measured to the end."
    return trainer, metrics


def load_saved(folder: Path, auto_class: str, model_args: Any) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model of a finished run, with the attention kernel that its recipe names, and its tokenizer; see `load`."""
    model, tokenizer = load(str(folder), auto_class)
    use_attention(model, model_args)
    return model, tokenizer


def use_attention(model: PreTrainedModel, model_args: Any):
    """Let a model attend by the kernel that a recipe names; one without attention, as an LSTM, is left as it is."""
    attention = getattr(model_args, "attn_implementation", None)
    if attention and type(model)._supports_sdpa:
        model.set_attn_implementation(attention)


def measure_saved(
    model: PreTrainedModel,
    args: RunArguments,
    tokenizer: PreTrainedTokenizerBase,
    collate: Any,
    validation: Dataset | None,
    *,
    text_size: TextSize | None = None,
    target_language: str | None = None,
    trainer_class: Callable[..., TheatreTrainer] = TheatreTrainer,
) -> tuple[TheatreTrainer, dict[str, Any]]:
    """Measure a model that was trained and saved, as `train_and_measure` does when it has trained.

    The arguments are those of `train_and_measure`, parsed with `AS_SAVED`.

    Returns:
        The trainer, with which the model can translate, and the figures of the validation set, if there is one.
    """
    if validation is None:
        args.eval_strategy, args.load_best_model_at_end = "no", False
    trainer = trainer_class(
        model=model,
        args=args,
        text_size=text_size,
        target_language=target_language,
        data_collator=collate,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    metrics = measured_validation(trainer) if validation is not None else {}
    model.config.use_cache = True
    return trainer, metrics


# What is saved is measured in full precision, whatever it was trained in.
AS_SAVED = ["--bf16", "false", "--fp16", "false"]


def measured_validation(trainer: TheatreTrainer) -> dict[str, Any]:
    """Measure the validation set: `eval_nll`, ... and `interval_signature`."""
    trainer.evaluate()
    metrics = {f"eval_{name}": value for name, value in trainer.figures.items()}
    metrics["interval_signature"] = metrics.pop("eval_interval_signature")
    return metrics


def take_average(trainer: TheatreTrainer) -> dict[str, Any]:
    """Give the model the averaged weights that the arguments ask for; say of what they are the average.

    Raises:
        ValueError: there is no checkpoint, or one cannot be read.
    """
    args: Any = trainer.args
    if trainer.average is not None:
        trainer.average.swap()
        trainer.average = None
        return {"averaged": f"exponential, decay {args.ema_decay}"}
    if not (args.average_last or args.average_best):
        return {}
    trainer.accelerator.wait_for_everyone()  # the checkpoints are written by one process
    metric = args.metric_for_best_model or "loss"
    chosen = checkpoints_to_average(
        Path(args.output_dir), args.average_last, args.average_best, metric, bool(args.greater_is_better)
    )
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    load_weights(model, average_checkpoints(chosen))
    steps = ", ".join(path.name.removeprefix("checkpoint-") for path in chosen)
    best = f" (the best by {metric.removeprefix('eval_')})" if args.average_best else ""
    return {"averaged": f"checkpoints of steps {steps}{best}"}


def end_mixed_precision(trainer: TheatreTrainer):
    """Give the model its own `forward` back, in full precision.

    accelerate's `unwrap_model(keep_fp32_wrapper=False)` takes the decorators of the model's `forward` off along with its own.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    if vars(model).pop("_original_forward", None) is not None:
        del model.forward


def trained_model(trainer: TheatreTrainer) -> PreTrainedModel:
    """Return the model that one process alone can use; all processes call it."""
    model: Any = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    alone: Any = whole_copy(model)
    return alone.to(trainer.args.device)
