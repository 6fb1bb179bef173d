"""What every training script does: start or resume, train, save, and measure."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .arguments import Recipe, RunArguments
from .averaging import EMA_FILE, average_checkpoints, checkpoints_to_average
from .batch_fit import tokens_that_fit
from .bpe_dropout import BpeDropout
from .interruption import FINGERPRINT, StoppedBySignalError, check_fingerprint, fingerprint, lock_folder
from .run_folder import begin_folder, check_folder, write_json
from .stream_batches import STREAM_FILE
from .tokenization import load_tokenizer
from .trainer import TheatreTrainer


logger = logging.get_logger(__name__)


def resumes(args: RunArguments) -> bool:
    """Say whether the run goes on with an earlier one."""
    return str(args.resume_from_checkpoint).lower() not in ("none", "false", "")


def last_checkpoint(args: RunArguments) -> str | None:
    """Find the checkpoint that a resumed run starts from; None for a run that starts anew.

    Raises:
        ValueError: the run should be resumed, and its folder holds no checkpoint.
    """
    if not resumes(args):
        return None
    wanted, folder = str(args.resume_from_checkpoint), Path(args.output_dir or "")
    if wanted.lower() != "true":
        if missing := missing_files(Path(wanted), args):
            raise ValueError(f"{wanted} is no whole checkpoint to resume from: {missing[0]} is missing.")
        return wanted
    steps = {path: path.name.removeprefix("checkpoint-") for path in folder.glob("checkpoint-*")}
    for path in sorted((path for path in steps if steps[path].isdecimal()), key=lambda path: -int(steps[path])):
        if not (missing := missing_files(path, args)):
            return str(path)
        logger.warning(f"{path} is passed over: it is not whole, {missing[0]} is missing.")
    raise ValueError(f"There is no whole checkpoint to resume from in {folder}.")


def missing_files(checkpoint: Path, args: RunArguments) -> list[str]:
    """Name the files without which a run cannot go on as if it had never stopped."""
    needed = ["trainer_state.json", "config.json", "tokenizer.json", "optimizer.pt", "scheduler.pt"]
    needed += [EMA_FILE] if args.ema_decay else []
    needed += [STREAM_FILE] if args.streaming else []
    return [name for name in needed if not (checkpoint / name).is_file()]


def check_output(args: RunArguments):
    """Make sure, before anything long, that the run can write its output folder; see `check_folder`."""
    if args.process_index == 0:
        check_folder(args.output_dir or "", overwrite=args.overwrite, resume=resumes(args))
    last_checkpoint(args)


def begin_output(
    args: RunArguments,
    recipe: Recipe,
    given: dict[str, Any],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
) -> Path:
    """Begin the output folder, once for all processes; call it when nothing else can be wrong with the input any more.

    Raises:
        ValueError: another run is in the folder, or the run should go on from a checkpoint of another model, or with other
            data, another tokenizer or other batches; the folder is then as it was.
    """
    same_model(model, last_checkpoint(args))
    folder = Path(args.output_dir or "")
    begun = fingerprint(train, tokenizer, batching(args))
    if resumes(args):
        check_fingerprint(folder, begun)
    with args.main_process_first(local=False, desc="beginning the output folder"):
        if args.process_index == 0:
            lock_folder(folder)
            contents = {"task": recipe.task, **given}
            begin_folder(folder, contents, name=recipe.name, resume=resumes(args))
            write_json(folder / FINGERPRINT, begun)
    return folder


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
    begun = Path(args.output_dir or "") / FINGERPRINT
    if resumes(args) and begun.is_file():
        args.max_tokens_per_batch = json.loads(begun.read_text(encoding="utf-8")).get("max_tokens_per_batch")
    if not isinstance(args.max_tokens_per_batch, int):
        args.max_tokens_per_batch = tokens_that_fit(model, args, longest)
    given["max_tokens_per_batch"] = args.max_tokens_per_batch


def batching(args: RunArguments) -> dict[str, Any]:
    """What decides which rows are in which update."""
    batches = args.gradient_accumulation_steps * args.world_size
    more: dict[str, Any] = {"shuffle_buffer": args.shuffle_buffer} if args.streaming else {}
    if args.bpe_dropout:
        more |= {"bpe_dropout": args.bpe_dropout, "bpe_dropout_sides": args.bpe_dropout_sides}
    if args.max_tokens_per_batch:
        sizes = {"max_tokens_per_batch": args.max_tokens_per_batch, "batches in an update": batches}
    else:
        sizes = {"rows in an update": args.train_batch_size * batches}
    return {"seed": args.seed, **sizes, **more}


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
    else:
        tokenizer = make[name]() if name in make else load_tokenizer(name)
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
    for name in type(now).__annotations__:
        if name != "use_cache" and getattr(then, name, None) != getattr(now, name, None):
            raise ValueError(
                f"{name}={getattr(now, name)} cannot go on from {checkpoint}, which has {name}={getattr(then, name)}."
            )


def train_and_measure(
    model: PreTrainedModel,
    args: RunArguments,
    tokenizer: PreTrainedTokenizerBase,
    collate: Any,
    train: Dataset,
    validation: Dataset | None,
) -> tuple[TheatreTrainer, dict[str, Any]]:
    """Train, save the model folder, and measure the validation loss.

    Args:
        model: with random weights, or those of a checkpoint.
        args: of the run; evaluation while training is turned off where there is no `validation`.
        tokenizer: saved beside the model.
        collate: makes a batch of rows.
        train: rows of token ids.
        validation: as `train`.

    Returns:
        The trainer, and what it measured: `train_steps`, `train_seconds` (without evaluation; of a run in one piece only),
        `train_loss`, `train_tokens_per_second` (real tokens, all processes), `train_padding_share`, and, given `validation`,
        `eval_nll` (nats per token) and `eval_perplexity`.
    """
    if validation is None:
        args.eval_strategy, args.load_best_model_at_end = "no", False
    trainer = TheatreTrainer(
        model=model,
        args=args,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=validation,
        processing_class=tokenizer,
    )
    started = time.monotonic()
    checkpoint = last_checkpoint(args)
    if trainer.average is not None and checkpoint is not None:
        trainer.average.load(Path(checkpoint))
    if trainer.stream is not None and checkpoint is not None:
        trainer.stream.load(Path(checkpoint))
    result = trainer.train(resume_from_checkpoint=checkpoint)
    if trainer.signal.received:
        raise StoppedBySignalError(
            f"stopped by SIGTERM after step {trainer.state.global_step}, and saved; the same command with "
            "--resume_from_checkpoint true goes on."
        )
    seconds = time.monotonic() - started - trainer.evaluation_seconds
    real, padded = trainer.counted_tokens()
    metrics = {
        "train_steps": trainer.state.global_step,
        "train_loss": result.training_loss,
        "train_tokens_per_second": round(real / seconds, 1),
        "train_padding_share": 1 - real / max(1, padded),
    }
    if not resumes(args):  # else it would be the time of the last part only
        metrics["train_seconds"] = round(seconds, 2)
    metrics |= take_average(trainer)
    # Mixed precision ends here: what is measured is what is saved, and what `theatre evaluate` finds.
    trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    if validation is not None:
        measured = trainer.evaluate()
        metrics |= {"eval_nll": measured["eval_loss"], "eval_perplexity": measured["eval_perplexity"]}
    # Generation wants the cache that the Trainer turned off in the configuration.
    model.config.use_cache = True
    trainer.save_model()
    trainer.save_state()
    return trainer, metrics


def take_average(trainer: TheatreTrainer) -> dict[str, Any]:
    """Give the model the averaged weights that the arguments ask for; say of what they are the average.

    Raises:
        ValueError: there are too few checkpoints, or one cannot be read.
    """
    args: Any = trainer.args
    if trainer.average is not None:
        trainer.average.swap()
        trainer.average = None
        return {"averaged": f"exponential, decay {args.ema_decay}"}
    if not (args.average_last or args.average_best):
        return {}
    trainer.accelerator.wait_for_everyone()  # the checkpoints are written by one process
    chosen = checkpoints_to_average(Path(args.output_dir), args.average_last, args.average_best)
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    # A tied weight is stored under one of its names.
    missing, unexpected = model.load_state_dict(average_checkpoints(chosen), strict=False)
    assert not unexpected
    assert set(missing) <= set(model.all_tied_weights_keys)
    return {"averaged": f"checkpoints of steps {', '.join(path.name.removeprefix('checkpoint-') for path in chosen)}"}
