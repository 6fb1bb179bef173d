"""Recipes: a YAML file, plus `--key value` on the command line, strictly read into typed arguments."""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import HfArgumentParser, Seq2SeqTrainingArguments
from transformers.utils import logging

from .anchor import check_anchor
from .bpe_dropout import SIDES
from .optimizers import check_optimizer


RECIPES = Path(__file__).parent
TEXT_METRICS = ("bleu", "chrf", "exact_match", "rouge", "symbol_error_rate")
logger = logging.get_logger(__name__)


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
        default=None, metadata={"help": "name of a Hub dataset, or a folder of save_to_disk, in place of the files"}
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
    source_language: str | None = field(default=None, metadata={"help": "language code, for the model card"})
    target_language: str | None = field(default=None, metadata={"help": "language code, for the model card"})
    data_licence: str | None = field(default=None, metadata={"help": "licence of the data, for the model card"})
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
    train_text: str | None = field(
        default=None, metadata={"help": "a text file, a folder of .txt files, or a .jsonl file; each may end in .gz"}
    )
    validation_text: str | None = field(default=None, metadata={"help": "as train_text; measured while training"})
    validation_share: float = field(
        default=0.1,
        metadata={"help": "share of the training text, cut from its end, where no validation text is named"},
    )
    text_field: str = field(default="text", metadata={"help": "field of .jsonl or dataset rows"})
    row_length: int | None = field(
        default=None, metadata={"help": "tokens in a row of text; default: as many as the model takes, or 128 (LSTM)"}
    )
    separator: str | None = field(
        default=None,
        metadata={"help": "what stands between the documents of a text file; none: a file is one document"},
    )
    dataset: str | None = field(
        default=None, metadata={"help": "name of a Hub dataset, or a folder of save_to_disk, in place of the files"}
    )
    dataset_config: str | None = field(default=None, metadata={"help": "the Hub's name for a part of it"})
    train_split: str = field(default="train", metadata={"help": "split of the dataset to train on"})
    validation_split: str | None = field(default=None, metadata={"help": "split measured while training; or none"})
    language: str | None = field(default=None, metadata={"help": "language code, for the model card"})
    data_licence: str | None = field(default=None, metadata={"help": "licence of the data, for the model card"})
    tokenizer: str = field(
        default="bpe",
        metadata={"help": '"bpe" or "character": trained from the training text; or a folder that holds a tokenizer'},
    )


# Option -> (whether a value fits, what would be right); comparisons are false for what is not a number.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        [
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "generation_num_beams",
            "save_total_limit",
            "average_last",
            "average_best",
            "eval_num_beams",
            "early_stopping_patience",
            "fsdp_size",
            "tokenizer_samples",
        ],
        (lambda value: value >= 1, "1 or more"),
    ),
    **dict.fromkeys(["logging_steps", "save_steps", "eval_steps"], (lambda value: value > 0, "above 0")),
    **dict.fromkeys(
        [
            "skip_nonfinite",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "adam_epsilon",
            "seed",
            "dataloader_num_workers",
        ],
        (lambda value: 0 <= value < math.inf, "0 or more"),
    ),
    **dict.fromkeys(
        ["label_smoothing_factor", "adam_beta1", "adam_beta2"],
        (lambda value: 0 <= value < 1, "at least 0, and below 1"),
    ),
    "learning_rate": (lambda value: 0 < value < 100, "above 0, and far below 100"),
    "muon_learning_rate": (lambda value: 0 < value < 100, "above 0, and far below 100"),
    "noam_factor": (lambda value: 0 < value < math.inf, "above 0"),
    "ema_decay": (lambda value: 0 < value < 1, "above 0, and below 1"),
    "shuffle_buffer": (lambda value: value >= 2, "2 or more"),
    "max_tokens_per_batch": (lambda value: value == "auto" or value >= 1, '1 or more, or "auto"'),
    "bpe_dropout": (lambda value: 0 <= value <= 1, "between 0 and 1"),
    "bpe_dropout_sides": (lambda value: value in SIDES, f"one of {', '.join(SIDES)}"),
}


@dataclass
class RunArguments(Seq2SeqTrainingArguments):
    """The library's training arguments (all of them), with defaults for a person who watches."""

    _argument_group_name = "training"

    output_dir: str | None = field(
        default=None, metadata={"help": "folder of the run and of its model; default: runs/ and the recipe's name"}
    )
    overwrite: bool = field(default=False, metadata={"help": "delete what an earlier run left in output_dir"})
    logging_steps: float = field(default=50, metadata={"help": "optimizer steps between two lines of the log"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints to keep"})
    use_cpu: bool = field(
        default=not torch.accelerator.is_available(), metadata={"help": "leave an accelerator alone"}
    )
    dataloader_pin_memory: bool = field(
        default=torch.accelerator.is_available(), metadata={"help": "page-locked memory, for an accelerator"}
    )
    generation_num_beams: int | None = field(default=4, metadata={"help": "beams when test text is generated"})
    predict_with_generate: bool = field(
        default=False,
        metadata={
            "help": "each evaluation also translates the validation text, and measures bleu, chrf and exact_match"
        },
    )
    eval_num_beams: int = field(
        default=1,
        metadata={"help": "beams when validation text is translated; 1 is greedy, and by far the fastest"},
    )
    metric_for_best_model: str | None = field(
        default=None,
        metadata={
            "help": "loss (the default), perplexity, bits_per_byte, or with predict_with_generate bleu, chrf, exact_match: what "
            "load_best_model_at_end, average_best and early_stopping_patience go by"
        },
    )
    early_stopping_patience: int | None = field(
        default=None,
        metadata={"help": "evaluations without a better metric_for_best_model, after which training ends"},
    )
    max_tokens_per_batch: int | str | None = field(
        default=None,
        metadata={
            "help": "tokens, padding counted, of source and target together, in a batch of one device; in place of "
            'per_device_train_batch_size and train_sampling_strategy; "auto": as many as fit the device'
        },
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "read the training text while training on it, from files or the Hub; needs max_steps"},
    )
    shuffle_buffer: int = field(
        default=10_000, metadata={"help": "rows of a stream that are held, to be drawn from at random"}
    )
    tokenizer_samples: int = field(
        default=100_000,
        metadata={
            "help": "rows at the beginning of a stream (pairs, documents, lines) that its tokenizer is trained on"
        },
    )
    bpe_dropout: float = field(
        default=0.0,
        metadata={
            "help": "probability of leaving out a merge of two pieces of a word, anew each epoch (BPE-dropout, Provilkov "
            "et al., 2020: 0.1); in training only"
        },
    )
    bpe_dropout_sides: str = field(
        default="both", metadata={"help": 'of pairs, where bpe_dropout applies: "source", "target" or "both"'}
    )
    noam_factor: float | None = field(
        default=None,
        metadata={
            "help": "learning rate = factor * width^-0.5 * min(step^-0.5, step * warmup_steps^-1.5), equation 3 of the "
            "paper, in place of learning_rate and lr_scheduler_type"
        },
    )
    optimizer: str | None = field(
        default=None,
        metadata={
            "help": '"muon" (for matrices of hidden layers; all else is learned by `optim`) or "radam", in place of the '
            "library's `optim`"
        },
    )
    muon_learning_rate: float | None = field(
        default=None, metadata={"help": "peak rate of the matrices that Muon learns; default: learning_rate"}
    )
    average_last: int | None = field(
        default=None, metadata={"help": "checkpoints: their mean is measured and saved as the model (section 6.1)"}
    )
    average_best: int | None = field(
        default=None, metadata={"help": "as average_last, but of the checkpoints with the best metric_for_best_model"}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "the exponential moving average of the weights is measured and saved as the model; 0.999, say"
        },
    )
    fsdp_size: int = field(
        default=1,
        metadata={
            "help": "processes that share one copy of weights, gradients and optimizer state (FSDP2): docs/scaling.md"
        },
    )

    skip_nonfinite: int = field(
        default=0,
        metadata={
            "help": "updates, in the whole run, that are skipped because their loss or gradient is no number; at the next the "
            "run stops"
        },
    )
    logging_nan_inf_filter: bool = field(
        default=False, metadata={"help": "of no effect: no loss that is no number comes into the log's means"}
    )

    def __post_init__(self):
        """Check ranges, before anything is written, and use one accelerator in one process.

        What the Trainer does with several accelerators in one process would average batch means.

        Raises:
            ValueError: an option is out of its range.
        """
        if isinstance(self.max_tokens_per_batch, str) and self.max_tokens_per_batch != "auto":
            self.max_tokens_per_batch = _whole_number("max_tokens_per_batch", self.max_tokens_per_batch)
        for name, (fits, right) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not fits(value):
                raise ValueError(f"{name}={value} must be {right}.")
        if self.max_steps <= 0 and not self.num_train_epochs > 0:
            raise ValueError(f"num_train_epochs={self.num_train_epochs} must be above 0, or max_steps be given.")
        self.check_streaming()
        averages = [name for name in ("average_last", "average_best", "ema_decay") if getattr(self, name)]
        if len(averages) > 1:
            raise ValueError(f"Give one of {' and '.join(averages)}: a model has one average.")
        if averages[:1] == ["average_last"] and self.save_total_limit is not None:
            self.save_total_limit = max(self.save_total_limit, self.average_last or 0)
        if averages[:1] == ["average_best"]:
            self.save_total_limit = None  # which are the best is known in the end
        if self.noam_factor is not None and not self.warmup_steps:
            raise ValueError("noam_factor needs warmup_steps: the paper's schedule begins with a rise.")
        if (self.metric_for_best_model or "").removeprefix("eval_") in ("loss", "perplexity", "bits_per_byte"):
            self.greater_is_better = False  # the library knows it of the loss alone
        check_optimizer(self.optimizer, self.muon_learning_rate)
        super().__post_init__()
        if self.n_gpu > 1:
            logger.warning(
                f"Only one of {self.n_gpu} GPUs is used; `torchrun --nproc_per_node {self.n_gpu}` uses all."
            )
            self._n_gpu = 1

    def check_streaming(self):
        """Check what a stream needs.

        Raises:
            ValueError: it is missing, or another option does not go with a stream.
        """
        if not self.streaming:
            return
        if self.max_steps <= 0:
            raise ValueError("streaming needs max_steps: how many steps an epoch of a stream has is not known.")
        if self.dataloader_num_workers > 1:
            raise ValueError(
                f"dataloader_num_workers={self.dataloader_num_workers} must be 0 or 1 for a stream: it is read in its order, by "
                "one process."
            )
        if not self.max_tokens_per_batch and self.train_sampling_strategy not in ("random", "group_by_length"):
            raise ValueError(
                f"train_sampling_strategy={self.train_sampling_strategy} is not for a stream, which is drawn from a buffer: give "
                "random or group_by_length."
            )
        for name in ("eval_strategy", "save_strategy", "logging_strategy"):
            if getattr(getattr(self, name), "value", getattr(self, name)) == "epoch":
                raise ValueError(
                    f"{name}=epoch is not for a stream, whose epochs have no known length: give steps, and "
                    f"{name.replace('strategy', 'steps')}."
                )
        if self.ignore_data_skip:
            raise ValueError("ignore_data_skip is not for a stream: it goes on where it was, without reading again.")


def _whole_number(name: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError(f'{name}={word!r} must be a whole number, or "auto".') from None


# Options that say where a run is and who may publish it, not how it trains: they are no part of its recipe.yaml.
_NOT_RECIPE = {"data_dir", "output_dir", "overwrite", "resume_from_checkpoint", "hub_token"}


@dataclass(frozen=True)
class Recipe:
    """A YAML recipe: its keys and values, and the line of each key."""

    path: Path
    task: str
    values: dict[str, Any]
    lines: dict[str, int]
    anchor: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Folder and file, such as "multi30k-de-en/small"."""
        return f"{self.path.resolve().parent.name}/{self.path.stem}"


def shipped_recipes() -> dict[str, Path]:
    """Map the name of every recipe that comes with the package to its file."""
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(RECIPES.glob("*/*/*.yaml"))}


def find_recipe(name: str) -> Path:
    """Find a recipe by its path, or one that comes with the package by its name ("multi30k-de-en/small").

    Raises:
        ValueError: there is none; the message names the nearest, and lists those that come with the package.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_recipes()
    # The path that it has in the repository is as good as its name, wherever one stands.
    parts = Path(name).with_suffix("").parts
    short = "/".join(parts[2:]) if len(parts) == 4 and parts[0] == "recipes" and name.endswith(".yaml") else name
    if short in shipped:
        return shipped[short]
    raise ValueError(
        f"There is no recipe {name!r}{nearest(short, shipped)}. Give a YAML file, or one of: {', '.join(shipped)}."
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)`, or nothing where no known name is near."""
    match = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {match[0]!r}?)" if match else ""


def read_recipe(path: Path, tasks: Sequence[str]) -> Recipe:
    """Read a YAML recipe, with the line of each key.

    Raises:
        ValueError: it is no YAML mapping of names to values, a key stands twice, or `task` is none of `tasks`.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path} must hold lines of `key: value`, each key a name, and holds {str(values)[:80]!r}.")
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.value in lines:
            raise ValueError(
                f"{path}:{key.start_mark.line + 1}: {key.value!r} stands in line {lines[key.value]} already."
            )
        lines[key.value] = key.start_mark.line + 1
    task = values.pop("task", None)
    if task not in tasks:
        raise ValueError(f"{path}:{lines.get('task', 1)}: task: {task!r} must be one of: {', '.join(tasks)}.")
    anchor = values.pop("anchor", None)
    if anchor is not None:
        check_anchor(anchor, f"{path}:{lines['anchor']}")
    return Recipe(path, task, values, lines, anchor)


class RecipeParser(HfArgumentParser):
    """The library's parser, which raises ValueError instead of ending the program."""

    def __init__(self, types: Any, **kwargs: Any):
        super().__init__(types, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        """Raise what argparse would print.

        Raises:
            ValueError: always.
        """
        # argparse names both spellings of an option; one is enough.
        raise ValueError(re.sub(r"(--\w+)/--[\w-]+", r"\1", message))


def parse_recipe(recipe: Recipe, overrides: Sequence[str], *types: type) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Parse a recipe and what the command line says over it into one dataclass per type.

    Values pass through argparse, so that `1e-3`, a string in YAML 1.1, becomes a float.

    Args:
        recipe: from `read_recipe`.
        overrides: `["--learning_rate", "1e-3", ...]`.
        *types: dataclasses, no two with a field of the same name.

    Returns:
        One instance per type, and the recipe as run: every key that was given, with its value, but for those that say where
        it ran.

    Raises:
        ValueError: a key belongs to none of `types` (the nearest known one is named), or a value has the wrong type.
    """
    parser = RecipeParser(types)
    known = {action.dest for action in parser._actions} - {"help"}
    preset = next((part.default for kind in types for part in fields(kind) if part.name == "preset"), None)
    task = f"task {recipe.task}" + (f" with preset {preset}" if preset else "")
    words = options_of(overrides)
    for key in [*recipe.values, *words]:
        if key not in known:
            named = f"--{key}" if key in words else f"{recipe.path}:{recipe.lines[key]}: {key!r}"
            raise ValueError(f"{named} is no option of {task}{nearest(key, known)}.")
    given = dict.fromkeys([*recipe.values, *words])
    argv = [word for key, value in recipe.values.items() if value is not None for word in _as_words(key, value)]
    try:
        parser.parse_args(argv)
    except ValueError as error:
        option = re.search(r"argument --(\w+)", str(error))
        where = f":{recipe.lines[option[1]]}" if option and option[1] in recipe.lines else ""
        raise ValueError(f"{recipe.path}{where}: {error}") from None
    parser.parse_args([*argv, *overrides])
    parsed = parser.parse_args_into_dataclasses([*argv, *overrides], look_for_args_file=False)
    for key in given:
        value = next(getattr(part, key) for part in parsed if hasattr(part, key))
        value = getattr(value, "value", value)  # an enumeration's word
        # What became an object is written as it was given: in the YAML, or as JSON on the command line.
        plain = value is None or isinstance(value, (str, int, float, list, dict))
        given[key] = value if plain else _as_yaml(words[key][0]) if key in words else recipe.values[key]
    return parsed, {key: value for key, value in given.items() if key not in _NOT_RECIPE and value != []}


def options_of(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Map every option that the command line names to its words: of `--key value`, `--key=value` or `--key one two`."""
    options: dict[str, list[str]] = {}
    words: list[str] = []
    for word in overrides:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            words = options[key.replace("-", "_")] = [value] if equals else []
        else:
            words.append(word)
    return options


def _as_yaml(word: str) -> Any:
    return json.loads(word) if word.startswith("{") else word


def _as_words(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"--{key}", json.dumps(value)]
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *map(str, values)] if len(values) != 1 else [f"--{key}={values[0]}"]


# The library's arguments that a person who trains will look for; `--help_all` shows the others too.
COMMON_TRAINING_ARGUMENTS = [
    "output_dir",
    "overwrite",
    "resume_from_checkpoint",
    "seed",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "max_tokens_per_batch",
    "streaming",
    "shuffle_buffer",
    "tokenizer_samples",
    "bpe_dropout",
    "bpe_dropout_sides",
    "gradient_accumulation_steps",
    "train_sampling_strategy",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "noam_factor",
    "optimizer",
    "muon_learning_rate",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "weight_decay",
    "max_grad_norm",
    "label_smoothing_factor",
    "bf16",
    "fp16",
    "torch_compile",
    # Older versions of the library have only the second name.
    "activation_checkpointing" if hasattr(RunArguments, "activation_checkpointing") else "gradient_checkpointing",
    "fsdp_size",
    "logging_steps",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "average_last",
    "average_best",
    "ema_decay",
    "skip_nonfinite",
    "predict_with_generate",
    "eval_num_beams",
    "metric_for_best_model",
    "load_best_model_at_end",
    "early_stopping_patience",
    "generation_num_beams",
    "use_cpu",
]


def help_text(recipe: Recipe, types: Sequence[Any], everything: bool) -> str:
    """List the options of a recipe's task, each with its unit and default, the recipe's own values as defaults.

    Args:
        recipe: its values take the place of the defaults.
        types: as for `parse_recipe`.
        everything: also list the library's rarer training arguments.
    """
    lines = [f"Options of {recipe.path} (task: {recipe.task}). In the YAML: `key: value`; here: `--key value`.", ""]
    for kind in types:
        lines += [f"{kind._argument_group_name}:"]
        for part in fields(kind):
            hidden = kind is RunArguments and part.name not in COMMON_TRAINING_ARGUMENTS and not everything
            if hidden or not part.init:
                continue
            default = recipe.values.get(part.name, part.default if part.default is not MISSING else None)
            default = " ".join(map(str, default)) if isinstance(default, list) else default
            note = " ".join(str(part.metadata.get("help", "")).split())
            lines += [f"  --{part.name} {default if default is not None else ''}".rstrip(), f"      {note}"]
        lines += [""]
    if not everything:
        lines += ["All of transformers.Seq2SeqTrainingArguments are options too: --help_all lists them."]
    return "\n".join(lines)
