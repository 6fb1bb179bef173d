"""What a recipe says of its text: where it comes from, and how it becomes tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .card_options import DATA_LICENCE, DATA_URL, HUB_TASK, INTENDED_USE, LANGUAGE, MODEL_LICENCE
from .hub_names import check_hub_names
from .nearest import nearest
from .template import template_of


SPLITS = ("train", "validation", "test")
TEXT_METRICS = ("bleu", "chrf", "exact_match", "rouge", "symbol_error_rate", "ter")


def split_of_dataset(data: Any, split: str) -> str | None:
    """Name the split of the data set that a text comes from; None where it comes from files, or there is none.

    Args:
        data: arguments with the fields `dataset` and `train_split`, `validation_split`, ...
        split: one of `SPLITS`.
    """
    return getattr(data, f"{split}_split", None) or None if data.dataset else None


def check_one_place(data: Any, kinds: Sequence[str]):
    """Make sure that the text of each split comes from the data set or from files, which may stand beside it for other splits.

    Args:
        data: as for `split_of_dataset`.
        kinds: how the names of the fields for files end: "text" of `train_text`, `validation_text`.

    Raises:
        ValueError: a split would come from both; or from a data set, and none is named.
    """
    for name in ("dataset_config", "validation_split", "test_split"):
        if (value := getattr(data, name, None)) and not data.dataset:
            raise ValueError(f"{name}={value} is of a data set, and none is named: give dataset, or leave it out.")
    for split in SPLITS:
        named = [name for kind in kinds if getattr(data, name := f"{split}_{kind}", None)]
        if named and (part := split_of_dataset(data, split)):
            raise ValueError(
                f"dataset={data.dataset}, {split}_split={part} and {named[0]}={getattr(data, named[0])}: a text comes from a data set or "
                f"from files; give one (--{split}_split '' is none)."
            )


@dataclass
class PairDataArguments:
    """Where pairs of source and target text come from, and how they become tokens."""

    _argument_group_name = "data"

    data_dir: str | None = field(default=None, metadata={"help": "folder that relative file names start from"})
    train_source: str | None = field(
        default=None,
        metadata={"help": "file of source lines; or one .tsv or .jsonl file with both sides; each may end in .gz"},
    )
    train_target: str | None = field(default=None, metadata={"help": "file of target lines, parallel to the source"})
    validation_source: str | None = field(default=None, metadata={"help": "as train_source; measured while training"})
    validation_target: str | None = field(default=None, metadata={"help": "as train_target"})
    test_source: str | None = field(default=None, metadata={"help": "as train_source; measured once, at the end"})
    test_target: str | None = field(default=None, metadata={"help": "as train_target"})
    dataset: str | None = field(
        default=None, metadata={"help": "name of a Hub dataset, or a folder of save_to_disk, in place of files"}
    )
    dataset_config: str | None = field(default=None, metadata={"help": 'the Hub\'s name for a part of it: "de-en"'})
    train_split: str = field(default="train", metadata={"help": "split of the dataset to train on"})
    validation_split: str | None = field(default=None, metadata={"help": "split measured while training; or none"})
    test_split: str | None = field(default=None, metadata={"help": "split measured once, at the end; or none"})
    source_field: str = field(
        default="source", metadata={"help": 'field of .jsonl or dataset rows; dots go deeper: "translation.de"'}
    )
    target_field: str = field(
        default="target", metadata={"help": "as source_field; a list of texts in it makes as many pairs"}
    )
    group_references: bool = field(
        default=False, metadata={"help": "test pairs of the same source are one text with several references"}
    )
    metrics: list[str] = field(
        default_factory=lambda: list(TEXT_METRICS[:3]),
        metadata={
            "help": f"what test outputs are scored by: {', '.join(TEXT_METRICS)} (edits per phoneme, word or other symbol "
            "between white space); bleu, chrf and exact_match by default"
        },
    )
    source_language: str | None = field(default=None, metadata=LANGUAGE)
    target_language: str | None = field(default=None, metadata=LANGUAGE)
    data_licence: str | None = field(default=None, metadata=DATA_LICENCE)
    data_url: str | None = field(default=None, metadata=DATA_URL)
    model_licence: str | None = field(default=None, metadata=MODEL_LICENCE)
    hub_task: str | None = field(default=None, metadata=HUB_TASK)
    intended_use: str | None = field(default=None, metadata=INTENDED_USE)
    tokenizer: str = field(
        default="bpe",
        metadata={
            "help": '"bpe", "character" or "symbol" (the source spelled, the target in symbols with white space between, such '
            "as phonemes): trained from the training text; or a folder that holds a tokenizer"
        },
    )
    lowercase: bool = field(
        default=False, metadata={"help": 'drop the case of all text, of what is written too; with tokenizer "bpe"'}
    )
    max_length: int = field(default=256, metadata={"help": "tokens; a longer side of a pair is a bad line"})
    bad_lines: str = field(
        default="error",
        metadata={"help": '"error": stop at the first bad line; "skip": leave bad pairs out, count and name them'},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "pairs; use only the first so many"})

    def __post_init__(self):
        """Check ranges.

        Raises:
            ValueError: an option is out of its range, or does not go with another.
        """
        check_hub_names(data_url=self.data_url, model_licence=self.model_licence, hub_task=self.hub_task)
        check_one_place(self, ["source", "target"])
        for name, least in (("max_length", 2), ("max_train_samples", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be {least} or more.")
        if unknown := [name for name in self.metrics if name not in TEXT_METRICS]:
            near = nearest(unknown[0], TEXT_METRICS)
            raise ValueError(f"metrics: {unknown[0]!r} must be one of: {', '.join(TEXT_METRICS)}{near}.")
        if self.lowercase and self.tokenizer != "bpe":
            raise ValueError(
                f'lowercase goes with a tokenizer that is trained, "bpe", and not with {self.tokenizer!r}.'
            )


@dataclass
class TextDataArguments:
    """Where running text comes from, and how it becomes tokens."""

    _argument_group_name = "data"

    data_dir: str | None = field(default=None, metadata={"help": "folder that relative file names start from"})
    train_text: list[str] = field(
        default_factory=list,
        metadata={
            "help": "a text file, a .jsonl file, or a folder of either, or several of them; each file may end in .gz"
        },
    )
    validation_text: list[str] = field(
        default_factory=list, metadata={"help": "as train_text; measured while training"}
    )
    validation_share: float = field(
        default=0.1,
        metadata={"help": "share of the training text, cut from its end, where no validation text is named"},
    )
    text_field: str = field(default="text", metadata={"help": "field of .jsonl or dataset rows"})
    template: str | None = field(
        default=None,
        metadata={
            "help": 'in place of text_field, a document with names of fields in braces: "Title: {title}\n\n{text}"'
        },
    )
    template_words: dict | str | None = field(
        default=None,
        metadata={
            "help": 'what is written for values of a field of the template: {"label": {"0": "negative", "1": "positive"}}'
        },
    )
    bad_lines: str = field(
        default="error",
        metadata={"help": '"error": stop at the first bad row; "skip": leave bad rows out, count and name them'},
    )
    row_length: int | None = field(
        default=None, metadata={"help": "tokens in a row of text; default: as many as the model takes, or 128 (LSTM)"}
    )
    separator: str | None = field(
        default=None,
        metadata={"help": "what stands between the documents of a text file; none: a file is one document"},
    )
    attend_across_documents: bool = field(
        default=True,
        metadata={
            "help": "tokens see those of earlier documents in the same row, as in GPT-2; false: each document is by itself, "
            "its positions from 0"
        },
    )
    shift_rows: bool = field(
        default=False,
        metadata={
            "help": "in each epoch rows of training text begin a number of tokens later, drawn from seed and epoch, so that a text "
            "read many times is not always cut at the same places; each token is still predicted once an epoch"
        },
    )
    dataset: str | None = field(
        default=None, metadata={"help": "name of a Hub dataset, or a folder of save_to_disk, in place of files"}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "the Hub's name for a part of it"})
    train_split: str = field(default="train", metadata={"help": "split of the dataset to train on"})
    validation_split: str | None = field(default=None, metadata={"help": "split measured while training; or none"})
    language: str | None = field(default=None, metadata=LANGUAGE)
    data_licence: str | None = field(default=None, metadata=DATA_LICENCE)
    data_url: str | None = field(default=None, metadata=DATA_URL)
    model_licence: str | None = field(default=None, metadata=MODEL_LICENCE)
    hub_task: str | None = field(default=None, metadata=HUB_TASK)
    intended_use: str | None = field(default=None, metadata=INTENDED_USE)
    tokenizer: str = field(
        default="bpe",
        metadata={"help": '"bpe" or "character": trained from the training text; or a folder that holds a tokenizer'},
    )
    eval_stride: int | None = field(
        default=None,
        metadata={
            "help": "tokens from one row of the validation text to the next; with fewer than row_length rows overlap, and each "
            "token is predicted from more than row_length - eval_stride before it; default: row_length, no overlap"
        },
    )

    def __post_init__(self):
        """Check what can be checked without the text.

        Raises:
            ValueError: an option is wrong, or does not go with another, or the Hub would not understand it.
        """
        check_hub_names(data_url=self.data_url, model_licence=self.model_licence, hub_task=self.hub_task)
        check_one_place(self, ["text"])
        self.prompt = template_of(self.template, self.template_words)
        self.template_words = self.prompt.words if self.prompt is not None and self.prompt.words else None
        if self.prompt is not None and self.text_field != "text":
            raise ValueError(
                f"text_field={self.text_field!r} and a template: the template names its fields; give one."
            )
        if self.row_length is not None and self.row_length < 2:
            raise ValueError(f"row_length={self.row_length} must be 2 or more tokens.")
        if self.eval_stride is not None and self.eval_stride < 1:
            raise ValueError(f"eval_stride={self.eval_stride} must be 1 or more tokens.")
