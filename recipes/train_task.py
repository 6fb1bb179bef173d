"""Tasks "classification", "entailment", "similarity" and "multiple_choice": fine-tune a GPT or an LSTM as GPT-1 was.

Radford et al., 2018, "Improving Language Understanding by Generative Pre-Training", sections 3.2 and 3.3. A run begins with a
pre-trained model (`model_name_or_path`), or with random weights.
"""

import functools
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from .arguments import Recipe, parse_recipe
from .card_metadata import name_of_text
from .card_text import escape
from .data_arguments import split_of_dataset
from .model_arguments import (
    model_arguments,
    model_config,
    preset_of,
    presets_for,
    settle_positions,
    vocabulary_size,
)
from .pretrained import (
    PretrainedArguments,
    check_sizes,
    load_pretrained,
    preset_like,
    random_weights,
    source_of,
)
from .run_arguments import RunArguments
from .run_card import write_run_card
from .run_folder import write_metrics, write_whole
from .task_arguments import TaskDataArguments, TaskRunArguments
from .task_inputs import TaskCollator, add_task_tokens
from .task_kinds import TASKS, longest_sequence
from .task_splits import TaskSplits, answers_with, encode_split, metrics_of, read_splits
from .task_trainer import TaskTrainer
from .tokenization import note_limit, train_bpe_tokenizer, train_character_tokenizer
from .training import (
    AS_SAVED,
    begin_output,
    check_output,
    load_saved,
    measure_saved,
    tokenizer_for,
    train_and_measure,
    trained_model,
)


DEFAULT_PRESET = "gpt-1"
PREDICTIONS = "predictions.jsonl"
# Options of text that is written, and what they would have to be.
_OF_TEXT = {
    "streaming": False,
    "bpe_dropout": 0.0,
    "label_smoothing_factor": 0.0,
}


@dataclass
class FineTuned:
    """What a run leaves behind: the model and what it measured."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]
    splits: TaskSplits


def argument_types(recipe: Recipe, overrides: Sequence[str]) -> tuple[Any, ...]:
    """Make the dataclasses of the task's arguments: those of the model come from the preset, or pre-trained model, that is chosen."""
    auto_class, source = TASKS[recipe.task].auto_class, source_of(recipe, overrides)
    if source is None:
        preset = preset_of(recipe, overrides, auto_class, DEFAULT_PRESET)
    else:
        preset = preset_like(source, auto_class)
    return model_arguments(auto_class, preset), PretrainedArguments, TaskDataArguments, TaskRunArguments


def run(recipe: Recipe, overrides: Sequence[str]) -> FineTuned:
    """Train by a recipe, measure the test rows, and write the model folder.

    Raises:
        ValueError: the recipe, an option or the data is wrong; the message says where, and what would be right.
    """
    (model_args, start, data, args), given = parse_recipe(recipe, overrides, *argument_types(recipe, overrides))
    metrics = settle_metrics(recipe.task, data, args, given)
    check_options(start, model_args, data, args, given)
    check_output(args, ["loss", *metrics])
    set_seed(args.seed)  # before the model: what is new in it is part of the recipe
    splits = read_splits(recipe.task, data)
    tokenizer = make_tokenizer(recipe.task, data, args, splits.rows["train"], model_args, start)
    model = make_model(recipe.task, data, model_args, start, tokenizer, splits)
    tokenizer = add_task_tokens(tokenizer, model)
    length = max_length(data, model)
    note_limit(tokenizer, model, data.max_length)
    encoded = {
        split: encode_split(rows, recipe.task, tokenizer, length, sort=split != "train")
        for split, rows in splits.rows.items()
    }
    folder = begin_output(args, recipe, given, model, tokenizer, encoded["train"], encoded.get("validation"))

    if splits.names and args.process_index == 0:
        counts = Counter(splits.rows["train"]["label"])
        listed = [f"{name} ({counts[number]:,} rows)" for number, name in enumerate(splits.names)]
        more = [f"and {len(listed) - 20:,} more"] if len(listed) > 20 else []
        print(f"Classes of the training rows: {', '.join([*listed[:20], *more])}")
    trainer, measured = train_and_measure(
        model,
        args,
        tokenizer,
        TaskCollator(tokenizer),
        encoded["train"],
        encoded.get("validation"),
        trainer_class=functools.partial(TaskTrainer, metrics=metrics),
    )
    done = FineTuned(folder, trained_model(trainer), tokenizer, measured, splits)
    if trainer.is_world_process_zero():
        write_metrics(folder, measured)  # now, lest a failure below lose them
    if "test" in encoded:
        done.metrics |= measured_test(trainer, encoded["test"])
    if trainer.is_world_process_zero():
        write_predictions(folder / PREDICTIONS, trainer, encoded.get("test"), splits.names)
        finish(done, recipe, given, data)
    trainer.accelerator.wait_for_everyone()
    return done


def measure(recipe: Recipe, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Measure the model in a folder as `run` measures what it has trained; write nothing.

    Raises:
        ValueError: the folder holds no such model, or the recipe, an option or the data is wrong.
    """
    words = [*overrides, *AS_SAVED]
    (model_args, _, data, args), given = parse_recipe(recipe, words, *argument_types(recipe, words))
    metrics = settle_metrics(recipe.task, data, args, given)
    model, tokenizer = load_saved(folder, TASKS[recipe.task].auto_class, model_args)
    names = class_names_of(model) if answers_with(recipe.task, data) == "classes" else []
    splits = read_splits(recipe.task, data, names)
    length = max_length(data, model)
    encoded = {
        split: encode_split(rows, recipe.task, tokenizer, length, sort=True)
        for split, rows in splits.rows.items()
        if split != "train"
    }
    collate, make = TaskCollator(tokenizer), functools.partial(TaskTrainer, metrics=metrics)
    trainer, measured = measure_saved(model, args, tokenizer, collate, encoded.get("validation"), trainer_class=make)
    return measured | (measured_test(trainer, encoded["test"]) if "test" in encoded else {})


def class_names_of(model: PreTrainedModel) -> list[str]:
    """List the names of a model's classes, in order."""
    return [name for _, name in sorted((model.config.id2label or {}).items())]


def settle_metrics(task: str, data: TaskDataArguments, args: RunArguments, given: dict[str, Any]) -> list[str]:
    """Name what is measured, and choose checkpoints by the first of it where the recipe names nothing else."""
    metrics = metrics_of(task, data)
    if not given.get("metric_for_best_model"):
        args.metric_for_best_model, args.greater_is_better = metrics[0], True
    return metrics


def check_options(
    start: PretrainedArguments, model_args: Any, data: TaskDataArguments, args: RunArguments, given: dict[str, Any]
):
    """Make sure that the options go with the task, and with the model that the run begins with.

    Raises:
        ValueError: one does not.
    """
    for name, right in _OF_TEXT.items():
        if getattr(args, name) != right:
            raise ValueError(f"{name}={getattr(args, name)} is for models that write text, which these do not.")
    if args.max_tokens_per_batch == "auto":
        raise ValueError("max_tokens_per_batch=auto is for models that write text: give a number, or leave it out.")
    if start.source is None:
        return
    for name in ("preset", "tokenizer"):
        if given.get(name) is not None:
            raise ValueError(f"{name}={given[name]} has no use beside {start.source}, which has its own.")
    check_sizes(start.source, chosen_of(model_args))


def chosen_of(model_args: Any) -> dict[str, Any]:
    """Map the fields of the model's configuration that were given to their values."""
    values = {part.name: getattr(model_args, part.name) for part in fields(model_args)}
    return {name: value for name, value in values.items() if name != "preset" and value is not None}


def make_tokenizer(
    task: str,
    data: TaskDataArguments,
    args: RunArguments,
    rows: Dataset,
    model_args: Any,
    start: PretrainedArguments,
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of the pre-trained model, or train one on the texts of the training rows, or load that one."""
    if start.source is not None:
        return tokenizer_for(start.source, args, {})
    vocab_size = vocabulary_size(presets_for(TASKS[task].auto_class)[model_args.preset], model_args)
    kinds = {
        "bpe": lambda: train_bpe_tokenizer(texts_of(rows), vocab_size, appends_eos=False),
        "character": lambda: train_character_tokenizer(texts_of(rows)),
    }
    return tokenizer_for(data.tokenizer or "bpe", args, kinds)


def texts_of(rows: Dataset) -> list[str]:
    """List all texts of rows."""
    columns: Any = rows.select_columns([name for name in rows.column_names if name not in ("label", "origin")])
    texts: list[str] = []
    for cell in chain.from_iterable(row.values() for row in columns):
        texts += cell if isinstance(cell, list) else [cell]
    return texts


def make_model(
    task: str,
    data: TaskDataArguments,
    model_args: Any,
    start: PretrainedArguments,
    tokenizer: PreTrainedTokenizerBase,
    splits: TaskSplits,
) -> PreTrainedModel:
    """Build the model, with the weights that the run begins with; it says what its labels are and which task it was made for."""
    auto_class, names = TASKS[task].auto_class, splits.names
    labels: dict[str, Any] = {}
    if auto_class == "AutoModelForSequenceClassification":
        labels |= {"problem_type": "single_label_classification" if names else "regression"}
        labels |= {"id2label": dict(enumerate(names or ["score"]))}
        labels |= {"label2id": {name: number for number, name in labels["id2label"].items()}}
    if start.source is not None:
        make = load_pretrained if start.model_name_or_path else random_weights
        model = make(start.source, auto_class, **chosen_of(model_args), **labels)
    else:
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        model_args.vocab_size = len(tokenizer)
        model_class = presets_for(auto_class)[model_args.preset]
        settle_positions(model_class, model_args, data.max_length)
        model = model_class(model_config(model_class, model_args, **ids, **labels))
    model.config.finetuning_task = task  # the library's word; `theatre classify` frames its input by it
    inherited = getattr(model.config, "question_words", None)  # of the pre-trained model
    if splits.question_words or inherited:
        model.config.question_words = splits.question_words or None
    return model


def max_length(data: TaskDataArguments, model: PreTrainedModel) -> int:
    """Tokens of a sequence: what the arguments say, or as many as the model takes.

    Raises:
        ValueError: the model does not take so many.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is not None and (data.max_length or 0) > limit:
        raise ValueError(f"max_length={data.max_length} must not exceed max_position_embeddings={limit}.")
    return data.max_length or longest_sequence(model)


def measured_test(trainer: Any, test: Dataset) -> dict[str, Any]:
    """Measure the test rows: `test_loss`, `test_accuracy`, ..."""
    trainer.predict(test)
    figures = dict(trainer.figures)
    signature = {"interval_signature": figures.pop("interval_signature")}
    return {f"test_{name}": value for name, value in figures.items()} | {"test_rows": len(test)} | signature


def write_predictions(path: Path, trainer: Any, test: Dataset | None, names: Sequence[str]):
    """Write what is answered on each test row: JSON lines of origin, label, prediction, and probability where there is one."""
    if test is None:
        return
    lines = []
    for origin, (answer, label, _, probability) in zip(test["origin"], trainer.answers, strict=True):
        row: dict[str, Any] = {"origin": origin, "label": label, "prediction": answer}
        if not math.isnan(probability):
            row |= {name: int(row[name]) for name in ("label", "prediction")}
            row |= {"probability": round(probability, 6)}
        if names:
            row |= {name: names[row[name]] for name in ("label", "prediction")}
        lines.append(json.dumps(row, ensure_ascii=False))
    write_whole(path, "\n".join(lines) + "\n")


def finish(done: FineTuned, recipe: Recipe, given: dict, data: TaskDataArguments):
    """Write metrics.json and the card."""
    write_metrics(done.folder, done.metrics)
    name = name_of_text(data.dataset if split_of_dataset(data, "train") else data.train_file)
    first = done.splits.rows["train"][0]
    write_run_card(
        done,
        recipe,
        given,
        data=f"Labelled rows, task {escape(recipe.task)}, from {escape(name)}",
        licence=data.data_licence,
        languages=[data.language] if data.language else [],
        example=first[TASKS[recipe.task].texts[0]],
    )
