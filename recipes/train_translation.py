"""Task "translation": train an encoder-decoder, the original Transformer or an LSTM, from scratch on pairs of texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase, set_seed

from transformer_theatre.modeling.text_to_text import EXTRA_LENGTH

from .arguments import Recipe, parse_recipe
from .attention_picture import draw_attention, readable_tokens
from .card_metadata import name_of_text
from .card_text import escape
from .data_arguments import SPLITS, PairDataArguments, split_of_dataset
from .metrics import score_texts
from .model_arguments import model_arguments, model_config, preset_of, presets_for, vocabulary_size
from .references import group_references, references_of
from .run_arguments import RunArguments
from .run_card import write_run_card
from .run_folder import write_metrics
from .streamed_text import batches_of_pairs, sample_texts, stream_pairs
from .symbol_tokenizer import train_symbol_tokenizer
from .text_data import left_out, load_pairs, read_pairs
from .text_streams import TextStream
from .tokenization import encode_pairs, note_limit, train_bpe_tokenizer, train_character_tokenizer
from .training import (
    AS_SAVED,
    begin_output,
    check_output,
    load_saved,
    measure_saved,
    settle_tokens,
    tokenizer_for,
    train_and_measure,
    trained_model,
)


AUTO_CLASS = "AutoModelForSeq2SeqLM"
DEFAULT_PRESET = "transformer-base"


@dataclass
class Translation:
    """What a run leaves behind: the model, what it measured, and the test set with the model's answers."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    given: dict[str, Any]
    data: PairDataArguments
    metrics: dict[str, Any]
    test: Dataset | None
    predictions: list[str]
    example: str = "..."


def argument_types(recipe: Recipe, overrides: Sequence[str]) -> tuple[Any, ...]:
    """Make the dataclasses of the task's arguments: those of the model come from the preset that is chosen."""
    preset = preset_of(recipe, overrides, AUTO_CLASS, DEFAULT_PRESET)
    return model_arguments(AUTO_CLASS, preset), PairDataArguments, RunArguments


def run(recipe: Recipe, overrides: Sequence[str]) -> Translation:
    """Train by a recipe, score the test set, and write the model folder.

    Raises:
        ValueError: the recipe, an option or the data is wrong; the message says where, and what would be right.
    """
    (model_args, data, args), given = parse_recipe(recipe, overrides, *argument_types(recipe, overrides))
    check_output(args)
    set_seed(args.seed)  # before the model: initialisation is part of the recipe
    stream = stream_pairs(data) if args.streaming else None
    splits = {split: read_split(data, split) for split in SPLITS[args.streaming :]}
    pairs = splits.get("train")
    if pairs is None and stream is None:
        raise ValueError("There is nothing to train on: give train_source (and train_target), or dataset.")
    if pairs is not None and data.max_train_samples:
        splits["train"] = pairs = pairs.select(range(min(data.max_train_samples, len(pairs))))

    tokenizer = make_tokenizer(data, args, stream or pairs, model_args)
    encoded: dict[str, Any] = {
        split: encode_pairs(rows, tokenizer, data.max_length, data.bad_lines)
        for split, rows in splits.items()
        if rows is not None
    }
    model = make_model(model_args, tokenizer, args, data.max_length)
    note_limit(tokenizer, model)
    settle_tokens(args, given, model, data.max_length if stream is not None else max(encoded["train"]["length"][:]))
    collate = DataCollatorForSeq2Seq(tokenizer, model)
    if stream is not None:
        encoded["train"] = batches_of_pairs(stream, tokenizer, data, args, collate)
    folder = begin_output(args, recipe, given, model, tokenizer, encoded["train"], encoded.get("validation"))

    trainer, metrics = train_and_measure(
        model,
        args,
        tokenizer,
        collate,
        encoded["train"],
        encoded.get("validation"),
        target_language=data.target_language,
    )
    if pairs is not None:
        metrics["train_rows_too_long"] = len(pairs) - len(encoded["train"])
        metrics["train_rows_bad"] = left_out(pairs)
    test = as_test_set(encoded.get("test"), data)
    done = Translation(folder, trained_model(trainer), tokenizer, given, data, metrics, test, [])
    if trainer.is_world_process_zero():
        write_metrics(folder, metrics)  # now, lest a failure below lose them
    if done.test is not None:
        metrics |= {"test_num_beams": done.model.default_num_beams, "test_alpha": done.model.default_alpha}
        done.predictions = trainer.translate(done.test, metrics["test_num_beams"])
    if trainer.is_world_process_zero():
        finish(done, recipe)
    trainer.accelerator.wait_for_everyone()
    return done


def measure(recipe: Recipe, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Measure the model in a folder as `run` measures what it has trained, by the same search; write nothing.

    Raises:
        ValueError: the folder holds no such model, or the recipe, an option or the data is wrong.
    """
    words = [*overrides, *AS_SAVED]
    (model_args, data, args), _ = parse_recipe(recipe, words, *argument_types(recipe, words))
    model, tokenizer = load_saved(folder, AUTO_CLASS, model_args)
    splits = {split: read_split(data, split) for split in ("validation", "test")}
    encoded = {
        split: encode_pairs(pairs, tokenizer, data.max_length, data.bad_lines)
        for split, pairs in splits.items()
        if pairs is not None
    }
    collate, language = DataCollatorForSeq2Seq(tokenizer, model), data.target_language
    trainer, metrics = measure_saved(
        model, args, tokenizer, collate, encoded.get("validation"), target_language=language
    )
    if test := as_test_set(encoded.get("test"), data):
        model.generation_config.alpha = args.generation_alpha  # type: ignore[attr-defined]
        metrics |= {
            "test_num_beams": args.generation_num_beams or model.default_num_beams,
            "test_alpha": args.generation_alpha,
        }
        metrics |= score_outputs(trainer.translate(test, metrics["test_num_beams"]), test, data)
    return metrics


def as_test_set(pairs: Dataset | None, data: PairDataArguments) -> Dataset | None:
    """Put pairs of the same source together, where the arguments want it."""
    return group_references(pairs) if pairs is not None and data.group_references else pairs


def score_outputs(predictions: list[str], test: Dataset, data: PairDataArguments) -> dict[str, Any]:
    """Score what the model wrote, as `test_bleu` and so on."""
    scores = score_texts(predictions, references_of(test), data.target_language, data.metrics)
    signature = {"interval_signature": scores.pop("interval_signature")}
    return {**{f"test_{key}": value for key, value in scores.items()}, **signature}


def read_split(data: PairDataArguments, split: str) -> Dataset | None:
    """Read the training, validation or test pairs that the arguments name; None where they name none."""
    if name := split_of_dataset(data, split):
        fields = (data.source_field, data.target_field, data.bad_lines)
        return load_pairs(str(data.dataset), name, *fields, config_name=data.dataset_config)
    source, target = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
    if source is None:
        return None
    root = Path(data.data_dir or ".")
    return read_pairs(
        root / source,
        root / target if target else None,
        source_field=data.source_field,
        target_field=data.target_field,
        bad_lines=data.bad_lines,
    )


def make_tokenizer(
    data: PairDataArguments, args: RunArguments, train: Dataset | TextStream, model_args
) -> PreTrainedTokenizerBase:
    """Train the tokenizer that the arguments name, on both sides of the training text; or load it."""
    vocab_size = vocabulary_size(presets_for(AUTO_CLASS)[model_args.preset], model_args)

    def texts() -> Iterable[str]:
        if isinstance(train, TextStream):
            return sample_texts(train, args.tokenizer_samples)
        return chain(train["source"], train["target"])

    def sides() -> tuple[Iterable[str], Iterable[str]]:
        if isinstance(train, TextStream):
            found = list(texts())  # source and target by turns
            return found[::2], found[1::2]
        return train["source"], train["target"]

    kinds = {
        "bpe": lambda: train_bpe_tokenizer(texts(), vocab_size, lowercase=data.lowercase),
        "character": lambda: train_character_tokenizer(texts(), appends_eos=True),
        "symbol": lambda: train_symbol_tokenizer(*sides()),
    }
    return tokenizer_for(data.tokenizer, args, kinds)


def make_model(model_args, tokenizer, args: RunArguments, max_length: int) -> PreTrainedModel:
    """Build the model with random weights, and say how it generates by default."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model_args.vocab_size = len(tokenizer)
    model_class = presets_for(AUTO_CLASS)[model_args.preset]
    config = model_config(model_class, model_args, decoder_start_token_id=tokenizer.bos_token_id, **ids)
    if getattr(config, "position_embeddings", None) == "learned" and max_length > config.max_position_embeddings:
        raise ValueError(
            f"max_length={max_length} tokens must not exceed max_position_embeddings={config.max_position_embeddings}, "
            "which are learned."
        )
    model = model_class(config)
    model.generation_config = GenerationConfig(
        num_beams=args.generation_num_beams,
        alpha=args.generation_alpha,  # ours: the library's `length_penalty` is of another formula
        max_new_tokens=max_length + EXTRA_LENGTH,
        decoder_start_token_id=config.decoder_start_token_id,
        **ids,
    )
    return model


def finish(done: Translation, recipe: Recipe):
    """Score the test set, draw one example, and write metrics.json and the card."""
    if done.test is not None:
        done.metrics |= score_outputs(done.predictions, done.test, done.data)
        done.example = sorted(done.test["source"], key=len)[len(done.test) // 2]
        draw(done)
    write_metrics(done.folder, done.metrics)
    card(done, recipe)


def card(done: Translation, recipe: Recipe, **more: Any):
    """Write the model card; `more` goes to `write_model_card`."""
    write_run_card(
        done,
        recipe,
        done.given,
        data=describe_data(done.data),
        licence=done.data.data_licence,
        languages=[code for code in (done.data.source_language, done.data.target_language) if code],
        example=done.example,
        **more,
    )


def draw(done: Translation):
    """Draw what the model looks at when it translates the example of the run; a model without attention has no picture."""
    config = done.model.config
    if getattr(config, "attention", None) == "none":
        return
    layers = f", last of {config.decoder_layers} layers" if hasattr(config, "decoder_layers") else ""
    [seen] = done.model.translate([done.example], tokenizer=done.tokenizer, return_alignment=True)
    ids: Any = [done.tokenizer.convert_tokens_to_ids(tokens) for tokens in (seen.source_tokens, seen.tokens)]
    draw_attention(
        seen.alignment,
        readable_tokens(done.tokenizer, ids[0]),
        readable_tokens(done.tokenizer, ids[1]),
        done.folder / "figures" / "attention.png",
        title=f"Encoder-decoder attention{layers}",
    )


def describe_data(data: PairDataArguments) -> str:
    """Name the pairs and their languages, for the card."""
    files = [Path(side).name for side in (data.train_source, data.train_target) if side]
    name = name_of_text(data.dataset) if split_of_dataset(data, "train") else " and ".join(files)
    pair = (
        f", {data.source_language} to {data.target_language}" if data.source_language and data.target_language else ""
    )
    return f"Pairs of texts from {escape(name)}{escape(pair)}"
