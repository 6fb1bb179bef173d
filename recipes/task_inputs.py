"""Texts turned into what GPT's fine-tuned models read (Radford et al., 2018, figure 1, right, and section 3.3).

    classification     start text extract
    entailment         start premise delimiter hypothesis extract
    similarity         start first delimiter second extract, and start second delimiter first extract
    multiple choice    start context delimiter answer extract, for every answer

The tokenizer of `add_task_tokens` does it by itself: `tokenizer(text)` and `tokenizer(premise, hypothesis)` put these tokens
in their places, also after AutoTokenizer has loaded it where this package is not installed.

Texts that are too long are cut: in every sequence the longer of its texts, at its end, and both once they are equally long.
"""

from collections.abc import Callable
from itertools import islice
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, processors
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.utils import logging

from .tokenization import IGNORED


logger = logging.get_logger(__name__)

# Name of the tokenizer's attribute -> token; `tokenizer.start_token_id` is its id.
PAD_TOKEN = "<pad>"
TASK_TOKENS = {"start_token": "<start>", "delimiter_token": "<delimiter>", "extract_token": "<extract>"}


def add_task_tokens(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerFast:
    """Make a tokenizer with the tokens start, delimiter and extract, and padding if it has none; give the model embeddings for them.

    Args:
        tokenizer: of the pre-trained model; it stays as it is.
        model: its embeddings grow where the vocabulary outgrows them. New ones begin as all weights do (section 4.1).

    Returns:
        A plain fast tokenizer that puts the new tokens around every text and pair of texts.

    Raises:
        ValueError: the tokenizer is none of the tokenizers library's.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"{type(tokenizer).__name__} is no fast tokenizer: load it with AutoTokenizer.")
    task_tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        model_specific_special_tokens=TASK_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        split_special_tokens=tokenizer.split_special_tokens,
        # GPT-2 has no padding token.
        **{"pad_token": PAD_TOKEN}
        | {name: token for name, token in tokenizer.special_tokens_map.items() if name.endswith("_token")},
    )
    start, delimiter, extract = TASK_TOKENS.values()
    task_tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {extract}",
        pair=f"{start} $A {delimiter} $B:0 {extract}",
        special_tokens=[(token, task_tokenizer.convert_tokens_to_ids(token)) for token in TASK_TOKENS.values()],
    )
    if model.config.pad_token_id is None:
        model.config.pad_token_id = task_tokenizer.pad_token_id
    if len(task_tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(task_tokenizer), mean_resizing=False)
    return task_tokenizer


def encode_classification(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Turn texts into token ids: start text extract.

    Args:
        dataset: column `text`; and, for this and the other encoders, `origin` for messages if there is one.
        tokenizer: from `add_task_tokens`.
        max_length: tokens that a sequence may have, special tokens included; what is longer is cut, and counted.

    Returns:
        The columns of `dataset` and `input_ids`, `length`: tokens of the row's longest sequence.

    Raises:
        ValueError: a column is missing, the tokenizer has no task tokens, or `max_length` leaves no room for text.
    """
    return _encode(dataset, tokenizer, max_length, ["text"], lambda text: (text,))


def encode_entailment(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Turn pairs into token ids: start premise delimiter hypothesis extract.

    Args, returns and errors are those of `encode_classification`; the columns are `premise` and `hypothesis`.
    """
    columns = ["premise", "hypothesis"]
    return _encode(dataset, tokenizer, max_length, columns, lambda premise, hypothesis: (premise, hypothesis))


def encode_similarity(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Turn pairs into the token ids of both orders: `input_ids` is a list of two lists.

    Args, returns and errors are those of `encode_classification`; the columns are `first` and `second`.
    """
    columns = ["first", "second"]
    return _encode(dataset, tokenizer, max_length, columns, lambda first, second: [(first, second), (second, first)])


def encode_multiple_choice(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Turn contexts with answers into token ids: `input_ids` is a list with a list for each answer.

    Args, returns and errors are those of `encode_classification`; the columns are `context` and `answers`, a list of
    texts, of which rows need not have the same number.

    Raises:
        ValueError: also where a row has no answers, or its `label` is not the number of one, from 0.
    """
    columns = ["context", "answers"]
    _check_columns(dataset, columns)
    labels: Any = dataset["label"] if "label" in dataset.column_names else [IGNORED] * len(dataset)
    for number, (answers, label) in enumerate(zip(dataset["answers"], labels, strict=True)):
        if not answers:
            raise ValueError(f"{_origin(dataset, number)}: there are no answers to choose from.")
        if label != IGNORED and not 0 <= label < len(answers):
            last = len(answers) - 1
            raise ValueError(
                f"{_origin(dataset, number)}: label={label} must be the number of an answer: 0 to {last}."
            )
    return _encode(
        dataset, tokenizer, max_length, columns, lambda context, answers: [(context, answer) for answer in answers]
    )


class TaskCollator:
    """Pads encoded rows to a batch.

    Args:
        tokenizer: whose padding token and side to take.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.pad_token_id = tokenizer.pad_token_id
        self.pads_left = tokenizer.padding_side == "left"

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return a batch.

        Args:
            rows: `input_ids`, one list of token ids each or a list of lists, and, if known, `label` (or `labels`): a
                class, a number or a list of numbers.

        Returns:
            `input_ids` and `attention_mask`, (batch, positions) or (batch, sequences, positions), where sequences that a
            row lacks are all padding; and `labels`, (batch,) or (batch, labels).
        """
        several = isinstance(rows[0]["input_ids"][0], list)
        sequences = [row["input_ids"] if several else [row["input_ids"]] for row in rows]
        shape = (len(rows), max(map(len, sequences)), max(len(ids) for row in sequences for ids in row))
        input_ids = torch.full(shape, self.pad_token_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        for row, lists in enumerate(sequences):
            for number, ids in enumerate(lists):
                where = slice(shape[-1] - len(ids), None) if self.pads_left else slice(len(ids))
                input_ids[row, number, where] = torch.tensor(ids)
                attention_mask[row, number, where] = 1
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if not several:
            batch = {name: values[:, 0] for name, values in batch.items()}
        for name in {"label", "labels"} & rows[0].keys():
            batch["labels"] = torch.tensor([row[name] for row in rows])
        return batch


def _encode(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    columns: list[str],
    texts_of: Callable[..., tuple[str, ...] | list[tuple[str, ...]]],
) -> Dataset:
    """Encode what `texts_of` makes of each row's `columns`: the texts of one sequence, or those of several."""
    _check_columns(dataset, columns)
    if getattr(tokenizer, "extract_token", None) is None:
        raise ValueError("The tokenizer has no task tokens: give the one that add_task_tokens returns.")
    least = len(columns) + tokenizer.num_special_tokens_to_add(pair=len(columns) == 2)
    if max_length < least:
        raise ValueError(
            f"max_length={max_length} must be at least {least}: the special tokens, and one of each text."
        )
    encoded = dataset.map(
        _encode_batch,
        batched=True,
        input_columns=columns,
        fn_kwargs={"tokenizer": tokenizer, "max_length": max_length, "texts_of": texts_of},
        desc="encoding rows",
    )
    cut = [number for number, length in enumerate(encoded["full_length"][:]) if length > max_length]
    if cut:
        first, length = _origin(dataset, cut[0]), encoded[cut[0]]["full_length"]
        logger.warning(
            f"Cut {len(cut):,} of {len(dataset):,} rows to max_length={max_length} tokens a sequence; the first is "
            f"{first}, with {length:,} tokens."
        )
    return encoded.remove_columns("full_length")


def _encode_batch(
    *columns: list[Any],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    texts_of: Callable[..., tuple[str, ...] | list[tuple[str, ...]]],
) -> dict[str, list[Any]]:
    rows = [texts_of(*values) for values in zip(*columns, strict=True)]
    texts = [sequence for row in rows for sequence in (row if isinstance(row, list) else [row])]
    sequences = _token_ids(tokenizer, texts)
    full_lengths = [len(ids) for ids in sequences]
    too_long = [number for number, length in enumerate(full_lengths) if length > max_length]
    if too_long:
        cut = _token_ids(tokenizer, [texts[number] for number in too_long], truncation=True, max_length=max_length)
        for number, ids in zip(too_long, cut, strict=True):
            sequences[number] = ids
        tokenizer.backend_tokenizer.no_truncation()  # it would be saved with the tokenizer
    input_ids = _by_row(rows, sequences)
    return {
        "input_ids": [
            group if isinstance(row, list) else group[0] for row, group in zip(rows, input_ids, strict=True)
        ],
        "length": [max(map(len, group)) for group in input_ids],
        "full_length": [max(group) for group in _by_row(rows, full_lengths)],
    }


def _by_row(rows: list[Any], values: list[Any]) -> list[list[Any]]:
    """Give each row as many of the values, in order, as it has sequences."""
    rest = iter(values)
    return [list(islice(rest, len(row) if isinstance(row, list) else 1)) for row in rows]


def _token_ids(tokenizer: PreTrainedTokenizerBase, texts: list[tuple[str, ...]], **options: Any) -> list[list[int]]:
    firsts, *seconds = map(list, zip(*texts, strict=True))
    return tokenizer(firsts, *seconds, verbose=False, **options)["input_ids"]


def _check_columns(dataset: Dataset, columns: list[str]):
    for name in columns:
        if name not in dataset.column_names:
            raise ValueError(f"The data has no column {name!r}; it has: {', '.join(dataset.column_names)}.")


def _origin(dataset: Dataset, number: int) -> str:
    return dataset[number].get("origin", f"row {number + 1}")
