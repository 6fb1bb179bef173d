"""Open the training text that a recipe's arguments name as a stream, and make of it what a trainer trains on."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from .bad_lines import StreamedBadLines
from .bpe_dropout import BpeDropout, draw_for
from .chained_streams import ChainedStreams
from .data_arguments import PairDataArguments, TextDataArguments, split_of_dataset
from .row_parsing import parse_fields
from .run_arguments import RunArguments
from .stream_batches import StreamBatches
from .stream_rows import PackedRows, PairRows, StreamRows
from .text_data import bare_name, document_files, open_dataset, pair_files
from .text_streams import DatasetStream, DocumentStream, LineStream, TextStream
from .tokenization import PIECE


def stream_pairs(data: PairDataArguments) -> TextStream:
    """Open the training pairs.

    Raises:
        ValueError: there are none, or an argument does not apply.
    """
    bad = StreamedBadLines(data.bad_lines, "pairs")
    if split_of_dataset(data, "train"):
        fields = (data.source_field, data.target_field)
        return _dataset_stream(data, fields, bad, data.max_train_samples)
    if data.train_source is None:
        raise ValueError("There is nothing to train on: give train_source (and train_target), or dataset.")
    root = Path(data.data_dir or ".")
    target = root / data.train_target if data.train_target else None
    paths, parse = pair_files(root / data.train_source, target, data.source_field, data.target_field)
    return LineStream(paths, parse, bad, data.max_train_samples)


def stream_documents(data: TextDataArguments) -> TextStream:
    """Open the training documents.

    Raises:
        ValueError: there are none, or an argument does not apply.
    """
    bad, template = StreamedBadLines(data.bad_lines, "documents"), data.prompt
    if split_of_dataset(data, "train"):
        fields = (data.text_field,) if template is None else template.fields
        return _dataset_stream(data, fields, bad, None, None if template is None else template.of_row)
    if not data.train_text:
        raise ValueError("There is nothing to train on: give train_text, or dataset.")
    streams: list[TextStream] = []
    for path in data.train_text:
        files, parse = document_files(Path(data.data_dir or ".") / path, data.text_field, data.separator, template)
        if parse is None:
            streams.append(DocumentStream(files, data.separator, bad, PIECE))
        else:
            streams += [LineStream([file], parse, bad) for file in files]
    return streams[0] if len(streams) == 1 else ChainedStreams(streams)


def sample_texts(text: TextStream, count: int) -> Iterator[str]:
    """Give the texts of the first rows, for a tokenizer: pairs, documents, or the lines of plain text."""
    text.restart()
    seen = 0
    for row in text:
        yield from row.texts
        seen += row.texts[0].count("\n") + 1 if isinstance(text, DocumentStream) else 1
        if seen >= count:
            break
    text.restart()


def batches_of_pairs(
    text: TextStream,
    tokenizer: PreTrainedTokenizerBase,
    data: PairDataArguments,
    args: RunArguments,
    collate: Callable,
) -> StreamBatches:
    """Make the batches of a stream of pairs."""
    tokens: Any = args.max_tokens_per_batch
    rows = PairRows(
        text,
        tokenizer,
        data.max_length,
        most=tokens // 2 if tokens else None,
        dropout=BpeDropout(tokenizer, args.bpe_dropout) if args.bpe_dropout else None,
        seed=args.seed,
        dropout_sides=args.bpe_dropout_sides,
    )
    return _batches(rows, args, collate)


def batches_of_text(
    text: TextStream,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    args: RunArguments,
    collate: Callable,
    *,
    apart: bool = False,
) -> StreamBatches:
    """Make the batches of a stream of documents, in rows of `length` tokens; `apart` as for `PackedRows`.

    Raises:
        ValueError: a batch does not hold a row.
    """
    tokens: Any = args.max_tokens_per_batch
    if tokens and tokens < length:
        raise ValueError(f"max_tokens_per_batch={tokens} must be at least row_length={length}.")
    dropout = BpeDropout(tokenizer, args.bpe_dropout) if args.bpe_dropout else None
    rows = PackedRows(text, tokenizer, length, dropout=dropout, seed=args.seed, apart=apart)
    return _batches(rows, args, collate)


def become_stream(args: RunArguments, blocks: Dataset, batches: StreamBatches):
    """Let a run, whose text has another number of rows each epoch, count steps in place of epochs.

    Args:
        args: of the run: `num_train_epochs`, and what happens each epoch, become numbers of steps.
        blocks: the text in rows, split as the tokenizer does it.
        batches: of the same text with dropout.

    Raises:
        ValueError: an option does not go with a stream.
    """
    epoch = _steps_of_epoch(blocks, batches, args)
    if args.max_steps <= 0:
        args.max_steps = max(1, math.ceil(args.num_train_epochs * epoch))
    for name in ("eval", "save", "logging"):
        if getattr(args, f"{name}_strategy") == "epoch":
            setattr(args, f"{name}_strategy", type(args.logging_strategy)("steps"))
            setattr(args, f"{name}_steps", max(1, math.ceil(epoch)))
    args.streaming = True
    args.check_streaming()


def _steps_of_epoch(blocks: Dataset, batches: StreamBatches, args: RunArguments) -> float:
    tokens: Any = args.max_tokens_per_batch
    rows: Any = batches.rows
    text, length, growth = rows.text, rows.length, []
    text.restart()
    for row in islice(text, 50):
        dropped = rows.dropout.encode_bare(row.texts[0], draw_for(args.seed, 0, row.number))
        plain = rows.tokenizer(row.texts[0], add_special_tokens=False, verbose=False)["input_ids"]
        growth.append((len(plain if dropped is None else dropped), len(plain)))
    text.restart()
    dropped_tokens, plain_tokens = (sum(sizes) for sizes in zip(*growth, strict=True))
    predicted = sum(blocks["length"]) - len(blocks)
    in_update = (
        (tokens // length if tokens else args.train_batch_size) * args.world_size * args.gradient_accumulation_steps
    )
    return predicted * dropped_tokens / max(1, plain_tokens) / (length - 1) / in_update


def _batches(rows: StreamRows, args: RunArguments, collate: Callable) -> StreamBatches:
    tokens: Any = args.max_tokens_per_batch
    return StreamBatches(
        rows,
        collate,
        seed=args.seed,
        buffer=args.shuffle_buffer,
        max_tokens=tokens,
        batch_size=args.train_batch_size,
        grouped=args.train_sampling_strategy == "group_by_length",
        world_size=args.world_size,
        rank=args.process_index,
    )


def _dataset_stream(
    data: PairDataArguments | TextDataArguments,
    fields: tuple[str, ...],
    bad: StreamedBadLines,
    limit: int | None,
    parse: Callable | None = None,
) -> TextStream:
    opened = open_dataset(str(data.dataset), data.train_split, data.dataset_config, fields, streaming=True)
    name = f"{bare_name(str(data.dataset))}[{data.train_split}]"
    return DatasetStream(name, opened, parse or partial(parse_fields, fields=fields), bad, limit)
