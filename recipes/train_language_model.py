"""Task "language_modeling": train a GPT or an LSTM on running text, from scratch or from a trained model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.trainer_utils import HubStrategy

from .arguments import Recipe, parse_recipe
from .bad_lines import StreamedBadLines
from .card_metadata import name_of_text
from .card_text import escape
from .data_arguments import TextDataArguments, split_of_dataset
from .evaluation import longest_row
from .full_rows import stack_rows
from .likelihood import size_of
from .lora import add_adapters, same_adapters
from .model_arguments import (
    model_arguments,
    model_config,
    preset_of,
    presets_for,
    settle_positions,
    vocabulary_size,
)
from .run_arguments import RunArguments
from .run_card import write_run_card
from .run_folder import write_metrics
from .samples import Samples
from .shifted_rows import ShiftedRows
from .start_arguments import SamplingArguments, StartArguments
from .starting_model import load_starting_model, starting_preset
from .stream_batches import StreamBatches
from .streamed_text import batches_of_text, become_stream, sample_texts, stream_documents
from .text_data import load_documents, read_documents
from .text_streams import MemoryStream, TextStream
from .tokenization import PIECE, encode_blocks, note_limit, train_bpe_tokenizer, train_character_tokenizer
from .training import (
    AS_SAVED,
    begin_output,
    check_output,
    last_checkpoint,
    load_saved,
    measure_saved,
    settle_tokens,
    tokenizer_for,
    train_and_measure,
    trained_model,
)


AUTO_CLASS = "AutoModelForCausalLM"
DEFAULT_PRESET = "gpt-1"


@dataclass
class LanguageModel:
    """What a run leaves behind: the model and what it measured."""

    folder: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    metrics: dict[str, Any]
    prompt: str  # of the sample that is shown


def argument_types(recipe: Recipe, overrides: Sequence[str]) -> tuple[Any, ...]:
    """Make the dataclasses of the task's arguments: those of the model come from the preset that is chosen."""
    preset = starting_preset(recipe, overrides, AUTO_CLASS) or preset_of(recipe, overrides, AUTO_CLASS, DEFAULT_PRESET)
    return model_arguments(AUTO_CLASS, preset), StartArguments, SamplingArguments, TextDataArguments, RunArguments


def run(recipe: Recipe, overrides: Sequence[str]) -> LanguageModel:
    """Train by a recipe, and write the model folder.

    Raises:
        ValueError: the recipe, an option or the data is wrong; the message says where, and what would be right.
    """
    (model_args, start, sampling, data, args), given = parse_recipe(
        recipe, overrides, *argument_types(recipe, overrides)
    )
    check_start(start, args, given)
    check_shift(data, args)
    check_output(args)
    set_seed(args.seed)  # before the model: initialisation is part of the recipe
    train: Any
    train, validation = stream_texts(data) if args.streaming else read_texts(data)
    model, tokenizer = begin_model(start, data, args, train, model_args)
    length, apart = row_length(data, model), keeps_apart(data, model)
    settle_tokens(args, given, model, length)
    rows = training_rows(train, tokenizer, length, args, apart=apart)
    validation_rows = encode_blocks(validation, tokenizer, length, stride=data.eval_stride, apart=apart)
    model.generation_config.update(max_new_tokens=length // 2, **sampling.for_generation())
    prompts = sampling.sample_prompts or [beginning(validation["text"][0], tokenizer, length // 2)]
    model.continue_text(prompts, tokenizer=tokenizer, max_new_tokens=1, seed=0)  # a wrong prompt is named now
    folder = begin_output(args, recipe, given, model, tokenizer, rows, validation_rows)

    taken = ShiftedRows(rows, args.seed, tokenizer.eos_token_id) if data.shift_rows else rows
    text_size = size_of(validation["text"])
    samples = [Samples(tokenizer, prompts, sampling.sample_tokens)] if sampling.sample_tokens else []
    trainer, metrics = train_and_measure(
        model, args, tokenizer, stack_rows, taken, validation_rows, text_size=text_size, callbacks=samples
    )
    done = LanguageModel(folder, trained_model(trainer), tokenizer, metrics, prompts[0])
    if trainer.is_world_process_zero():
        finish(done, recipe, given, data)
    trainer.accelerator.wait_for_everyone()
    return done


def check_start(start: StartArguments, args: RunArguments, given: dict[str, Any]):
    """Make sure that what a run starts from goes with its other options.

    Raises:
        ValueError: it does not.
    """
    if start.model_name_or_path and "tokenizer" in given:
        raise ValueError(
            f"tokenizer={given['tokenizer']}: the tokenizer is that of {start.model_name_or_path}; leave it out."
        )
    if start.lora_rank:
        check_adapters(start.lora_rank, args)


def check_adapters(rank: int, args: RunArguments):
    """Make sure that adapters go with the other options of a run.

    Raises:
        ValueError: they do not.
    """
    if args.fsdp_size > 1:
        raise ValueError(f"lora_rank={rank} does not go with fsdp_size={args.fsdp_size}.")
    for name in ("average_last", "average_best", "ema_decay"):
        if getattr(args, name):
            raise ValueError(
                f"lora_rank={rank} does not go with {name}={getattr(args, name)}: two matrices whose product is learnt cannot be "
                "averaged apart."
            )
    strategy = HubStrategy(args.hub_strategy).value
    if args.push_to_hub and strategy != "end":
        raise ValueError(
            f"lora_rank={rank} does not go with hub_strategy={strategy}: checkpoints hold adapters, which plain models cannot "
            "load. hub_strategy=end publishes the finished model alone."
        )


def check_shift(data: TextDataArguments, args: RunArguments):
    """Make sure that rows that are shifted each epoch go with the other options of a run.

    Raises:
        ValueError: they do not: there are no rows before a stream is read.
    """
    for name in ("streaming", "bpe_dropout"):
        if data.shift_rows and getattr(args, name):
            raise ValueError(
                f"shift_rows=true does not go with {name}={getattr(args, name)}, which reads the text anew as it comes: "
                "give --shift_rows false, or leave that out."
            )


def begin_model(
    start: StartArguments, data: TextDataArguments, args: RunArguments, train: Dataset | TextStream, model_args: Any
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the model that the arguments start from, or make one with random weights; and its tokenizer.

    Raises:
        ValueError: it cannot be loaded, or is not as the recipe says.
    """
    checkpoint = last_checkpoint(args)
    if start.model_name_or_path:
        model = load_starting_model(start.model_name_or_path, AUTO_CLASS, model_args, checkpoint)
        tokenizer = tokenizer_for(start.model_name_or_path, args, {})
    else:
        tokenizer = make_tokenizer(data, args, train, model_args)
        settle_positions(presets_for(AUTO_CLASS)[model_args.preset], model_args, data.row_length)
        model = make_model(model_args, tokenizer)
    if start.lora_rank:
        add_adapters(model, start)
    same_adapters(model, checkpoint)
    note_limit(tokenizer, model)
    return model, tokenizer


def training_rows(
    train: Dataset | TextStream,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    args: RunArguments,
    *,
    apart: bool,
) -> Dataset | StreamBatches:
    """Cut the training text into rows, or make the batches of a stream of it, which bpe_dropout needs too."""
    if isinstance(train, TextStream):
        return batches_of_text(train, tokenizer, length, args, stack_rows, apart=apart)
    rows = encode_blocks(train, tokenizer, length, apart=apart)
    if not args.bpe_dropout:
        return rows
    text = MemoryStream(train, StreamedBadLines("error", "documents"), PIECE)
    batches = batches_of_text(text, tokenizer, length, args, stack_rows, apart=apart)
    become_stream(args, rows, batches)
    return batches


def measure(recipe: Recipe, overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Measure the model in a folder as `run` measures what it has trained; write nothing.

    Raises:
        ValueError: the folder holds no such model, or the recipe, an option or the data is wrong.
    """
    words = [*overrides, *AS_SAVED]
    (model_args, *_, args), _ = parse_recipe(recipe, words, *argument_types(recipe, words))
    model, tokenizer = load_saved(folder, AUTO_CLASS, model_args)
    validation, cut, _ = text_to_measure(recipe, words, model)
    text_size = size_of(validation["text"])
    return measure_saved(model, args, tokenizer, stack_rows, cut(tokenizer), text_size=text_size)[1]


def text_to_measure(
    recipe: Recipe, overrides: Sequence[str], model: PreTrainedModel
) -> tuple[Dataset, partial[Dataset], TextDataArguments]:
    """Read the validation text of a recipe; return it, what cuts it into rows as training does, given a tokenizer, and where it is from.

    Raises:
        ValueError: the recipe, an option or the data is wrong.
    """
    (_, _, _, data, _), _ = parse_recipe(recipe, overrides, *argument_types(recipe, overrides))
    validation = read_text(data, "validation")
    if validation is None:  # it is the end of the training text
        _, validation = read_texts(data)
    length, apart = row_length(data, model), keeps_apart(data, model)
    cut = partial(encode_blocks, validation, block_size=length, stride=data.eval_stride, apart=apart)
    return validation, cut, data


def read_texts(data: TextDataArguments) -> tuple[Dataset, Dataset]:
    """Read the training and the validation text.

    Where none is named for validation, the last `validation_share` of the training text's characters is cut off for it: whole
    documents, if the end of one makes it no less than half as long and no more than twice, and leaves half of the rest at least.
    """
    train = read_text(data, "train")
    if train is None:
        raise ValueError("There is nothing to train on: give train_text, or dataset.")
    validation = read_text(data, "validation")
    if validation is not None:
        return train, validation
    if not 0 < data.validation_share < 1:
        raise ValueError(f"validation_share={data.validation_share} must lie between 0 and 1.")
    total = sum(map(len, train["text"]))
    left = total - int(total * data.validation_share)
    if not 0 < left < total:
        raise ValueError(
            f"validation_share={data.validation_share} of {total:,} characters leaves {left:,} of them to train on: give more text, "
            "another share, or validation_text."
        )
    ends = list(accumulate(map(len, train["text"])))[:-1]
    asked = total - left
    near = [end for end in ends if asked / 2 <= total - end <= asked * 2 and end >= left / 2]
    left = min(near, key=lambda end: abs(end - left), default=left)
    parts: tuple[list[dict[str, str]], list[dict[str, str]]] = ([], [])
    for row in train:
        text = row["text"]
        for part, piece in zip(parts, (text[:left], text[left:]), strict=True):
            if piece:
                part.append({**row, "text": piece})
        left = max(0, left - len(text))
    return Dataset.from_list(parts[0]), Dataset.from_list(parts[1])


def stream_texts(data: TextDataArguments) -> tuple[TextStream, Dataset]:
    """Open the training text as a stream, and read the validation text.

    Raises:
        ValueError: there is no validation text: the end of a stream, of which it would be a share, is not known.
    """
    validation = read_text(data, "validation")
    if validation is None:
        raise ValueError("streaming needs validation_text (or validation_split): a share of a stream is not known.")
    return stream_documents(data), validation


def read_text(data: TextDataArguments, split: str) -> Dataset | None:
    """Read the training or validation documents that the arguments name; None where they name none."""
    options: dict[str, Any] = {"bad_lines": data.bad_lines, "template": data.prompt, "text_field": data.text_field}
    if name := split_of_dataset(data, split):
        return load_documents(str(data.dataset), name, config_name=data.dataset_config, **options)
    options["separator"] = data.separator
    paths = [Path(data.data_dir or ".") / path for path in getattr(data, f"{split}_text")]
    return concatenate_datasets([read_documents(path, **options) for path in paths]) if paths else None


def make_tokenizer(
    data: TextDataArguments, args: RunArguments, train: Dataset | TextStream, model_args
) -> PreTrainedTokenizerBase:
    """Train the tokenizer that the arguments name on the training text; or load it."""
    vocab_size = vocabulary_size(presets_for(AUTO_CLASS)[model_args.preset], model_args)

    def texts() -> Iterable[str]:
        return sample_texts(train, args.tokenizer_samples) if isinstance(train, TextStream) else train["text"]

    kinds = {
        "bpe": lambda: train_bpe_tokenizer(texts(), vocab_size, appends_eos=False),
        "character": lambda: train_character_tokenizer(texts()),
    }
    return tokenizer_for(data.tokenizer, args, kinds)


def make_model(model_args, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Build the model for a tokenizer, with random weights."""
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    model_args.vocab_size = len(tokenizer)
    model_class = presets_for(AUTO_CLASS)[model_args.preset]
    return model_class(model_config(model_class, model_args, **ids))


def row_length(data: TextDataArguments, model: PreTrainedModel) -> int:
    """Tokens in a row of text: what the arguments say, or else `longest_row`.

    Raises:
        ValueError: the model does not take so many, or more would be skipped of the validation text than a row holds.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    length = longest_row(model) if data.row_length is None else data.row_length
    if length < 2 or (limit is not None and length > limit):
        right = "2 or more" if limit is None else f"between 2 and max_position_embeddings={limit}"
        raise ValueError(f"row_length={length} must be {right}.")
    if (data.eval_stride or 0) > length:
        raise ValueError(f"eval_stride={data.eval_stride} must be at most row_length={length}.")
    return length


def keeps_apart(data: TextDataArguments, model: PreTrainedModel) -> bool:
    """Say whether the documents of a row do not see one another.

    Raises:
        ValueError: they should not, and the model has no attention to keep from it.
    """
    apart = not data.attend_across_documents
    if apart and not type(model)._supports_sdpa:
        raise ValueError(
            f"attend_across_documents=false needs a model with attention, and a {model.config.model_type} has none."
        )
    return apart


def finish(done: LanguageModel, recipe: Recipe, given: dict, data: TextDataArguments):
    """Show a sample, and write metrics.json and the card."""
    write_metrics(done.folder, done.metrics)
    print(f"\nA sample that begins with {done.prompt!r}:\n")
    [more] = done.model.continue_text([done.prompt], tokenizer=done.tokenizer, max_new_tokens=300, seed=0)
    print(done.prompt + more)
    write_run_card(
        done,
        recipe,
        given,
        data=f"Text from {escape(name_of_text(data.dataset if split_of_dataset(data, 'train') else data.train_text))}",
        licence=data.data_licence,
        languages=[data.language] if data.language else [],
        example=done.prompt,
    )


def beginning(text: str, tokenizer: PreTrainedTokenizerBase, most: int) -> str:
    """Take the first words of a text, as far as the tokenizer knows them, in at most `most` tokens."""
    text = text.lstrip()[:40]
    ids = tokenizer(text.rpartition(" ")[0] or text, add_special_tokens=False, verbose=False)["input_ids"][:most]
    unknown = tokenizer.unk_token_id
    known = ids[: ids.index(unknown)] if unknown in ids else ids
    # A piece may end inside a character.
    return str(tokenizer.decode(known)).rstrip("\ufffd")
