"""What a recipe of a task says of its labelled rows, and how it trains: GPT-1's settings are the defaults."""

from dataclasses import dataclass, field

from .card_options import DATA_LICENCE, LANGUAGE
from .data_arguments import check_one_place
from .nearest import nearest
from .run_arguments import RunArguments
from .task_metrics import CLASS_METRICS, NUMBER_METRICS, TASK_METRICS


@dataclass
class TaskDataArguments:
    """Where the rows of a task come from, and how they become tokens."""

    _argument_group_name = "data"

    data_dir: str | None = field(default=None, metadata={"help": "folder that relative file names start from"})
    train_file: list[str] = field(
        default_factory=list, metadata={"help": "one or more .tsv (no header) or .jsonl files; each may end in .gz"}
    )
    validation_file: str | None = field(default=None, metadata={"help": "as train_file; measured while training"})
    test_file: str | None = field(default=None, metadata={"help": "as train_file; measured once, at the end"})
    validation_share: float = field(
        default=0.0, metadata={"help": "share of the training rows taken for validation, where it has no file"}
    )
    test_share: float = field(default=0.0, metadata={"help": "as validation_share, for the test"})
    dataset: str | None = field(
        default=None, metadata={"help": "name of a Hub dataset, or a folder of save_to_disk, in place of files"}
    )
    dataset_config: str | None = field(default=None, metadata={"help": 'the Hub\'s name for a part of it: "cola"'})
    train_split: str = field(default="train", metadata={"help": "split of the dataset to train on"})
    validation_split: str | None = field(default=None, metadata={"help": "split measured while training; or none"})
    test_split: str | None = field(default=None, metadata={"help": "split measured once, at the end; or none"})
    text_fields: list[str] = field(
        default_factory=list,
        metadata={
            "help": "fields of .jsonl or dataset rows, or numbers of .tsv columns from 1: the text; premise and hypothesis; both "
            "texts to compare; or the context and its answers; default: text; premise hypothesis; first second; none"
        },
    )
    label_field: str = field(
        default="label",
        metadata={"help": "as text_fields: a class, by name or number; a number; or the right answer, from 0"},
    )
    labels: list[str] = field(
        default_factory=list,
        metadata={
            "help": "names of the classes, in order: what the model answers; default: the labels of the training rows. Rows of "
            "task similarity have numbers for labels unless names are given"
        },
    )
    question_field: str | None = field(
        default=None, metadata={"help": "of a multiple choice: the field that says what is asked of the context"}
    )
    question_words: list[str] = field(
        default_factory=list,
        metadata={"help": "what stands behind the context for each value of question_field: cause=because effect=so"},
    )
    metrics: list[str] = field(
        default_factory=list,
        metadata={
            "help": f"what is measured: {', '.join(CLASS_METRICS)}; of numbers {', '.join(NUMBER_METRICS)}; the best checkpoint "
            "is chosen by the first; default: accuracy, or pearsonr and spearmanr"
        },
    )
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "tokens of a sequence, special ones counted; longer texts are cut at their end; default: as many as the model "
            "takes, or 512 (LSTM)"
        },
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "rows; use only the first so many"})
    bad_lines: str = field(
        default="error",
        metadata={"help": '"error": stop at the first bad row; "skip": leave bad rows out, count and name them'},
    )
    language: str | None = field(default=None, metadata=LANGUAGE)
    data_licence: str | None = field(default=None, metadata=DATA_LICENCE)
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": '"bpe" (the default) or "character": trained from the texts of the training rows; or a folder that holds a '
            "tokenizer; a pre-trained model has its own"
        },
    )

    def __post_init__(self):
        """Check ranges.

        Raises:
            ValueError: an option is out of its range, or does not go with another.
        """
        check_one_place(self, ["file"])
        for name, least in (("max_length", 3), ("max_train_samples", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}={value} must be {least} or more.")
        for name in ("validation_share", "test_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 0, and below 1.")
        if self.validation_share + self.test_share >= 1:
            raise ValueError(
                f"validation_share={self.validation_share} and test_share={self.test_share} leave nothing to train on."
            )
        if len(set(self.labels)) < len(self.labels) or len(self.labels) == 1:
            raise ValueError(f"labels={' '.join(self.labels)} must be two names or more, none of them twice.")
        if unknown := [name for name in self.metrics if name not in TASK_METRICS]:
            near = nearest(unknown[0], TASK_METRICS)
            raise ValueError(f"metrics: {unknown[0]!r} must be one of: {', '.join(TASK_METRICS)}{near}.")
        if bad := [pair for pair in self.question_words if not pair.partition("=")[2]]:
            raise ValueError(f"question_words: {bad[0]!r} must be a value and its words, as in cause=because.")
        if bool(self.question_field) != bool(self.question_words):
            raise ValueError("question_field and question_words go together: give both, or neither.")


@dataclass
class TaskRunArguments(RunArguments):
    """The training arguments, with the fine-tuning settings of GPT-1 (Radford et al., 2018, section 4.1) as defaults."""

    learning_rate: float = field(default=6.25e-5, metadata={"help": "peak"})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "rows in a batch of one device"})
    num_train_epochs: float = field(default=3.0, metadata={"help": "times that every row is learnt from"})
    warmup_steps: float = field(
        default=0.002, metadata={"help": "updates in which the rate rises from 0; below 1: a share of all"}
    )
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's, of weights that are no bias or gain"})
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={
            "choices": ["random", "sequential", "group_by_length"],
            "help": "rows of like length share a batch, which then is padded little",
        },
    )
    eval_strategy: str = field(
        default="epoch",
        metadata={"choices": ["epoch", "steps", "no"], "help": 'when to measure validation: "epoch", "steps", "no"'},
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": 'when to save a checkpoint: as eval_strategy, or "best"'}
    )
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "the model is the checkpoint with the best metric_for_best_model"}
    )
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "rows measured at once"})
    metric_for_best_model: str | None = field(
        default=None, metadata={"help": "loss, or one of `metrics`; default: the first of them"}
    )

    def check_streaming(self):
        """Say nothing of what a stream needs: a task has none, and its script says so."""
