"""What a recipe says of its training: the library's arguments, and those that it lacks."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Seq2SeqTrainingArguments
from transformers.utils import logging

from .bpe_dropout import SIDES
from .optimizers import check_optimizer


logger = logging.get_logger(__name__)

# Option -> (whether a value fits, what would be right); comparisons are false for what is not a number.
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(
        [
            "per_device_train_batch_size",
            "per_device_eval_batch_size",
            "gradient_accumulation_steps",
            "generation_num_beams",
            "save_total_limit",
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
            "average_last",
            "average_best",
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
        ["label_smoothing_factor", "adam_beta1", "adam_beta2", "ema_decay"],
        (lambda value: 0 <= value < 1, "at least 0, and below 1"),
    ),
    "learning_rate": (lambda value: 0 < value < 100, "above 0, and far below 100"),
    "muon_learning_rate": (lambda value: 0 < value < 100, "above 0, and far below 100"),
    "noam_factor": (lambda value: 0 < value < math.inf, "above 0"),
    "generation_alpha": (lambda value: 0 <= value <= 100, "from 0 to 100"),
    "shuffle_buffer": (lambda value: value >= 2, "2 or more"),
    "max_tokens_per_batch": (lambda value: value == "auto" or value >= 1, '1 or more, or "auto"'),
    "bpe_dropout": (lambda value: 0 <= value <= 1, "between 0 and 1"),
    "bpe_dropout_sides": (lambda value: value in SIDES, f"one of {', '.join(SIDES)}"),
}


# Options of tasks that translate; others have none of them.
OF_TRANSLATION = {
    "predict_with_generate",
    "eval_num_beams",
    "generation_num_beams",
    "generation_alpha",
    "bpe_dropout_sides",
}


@dataclass
class RunArguments(Seq2SeqTrainingArguments):
    """The library's training arguments (all of them), with defaults for a person who watches."""

    _argument_group_name = "training"

    output_dir: str | None = field(
        default=None, metadata={"help": "folder of the run and of its model; default: runs/ and the recipe's name"}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={"help": '"true": go on from the last whole checkpoint in output_dir; or the folder of one of them'},
    )
    overwrite: bool = field(default=False, metadata={"help": "delete what an earlier run left in output_dir"})
    logging_steps: float = field(default=50, metadata={"help": "optimizer steps between two lines of the log"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints to keep"})
    use_cpu: bool = field(
        default=not torch.accelerator.is_available(),
        metadata={"help": "leave an accelerator alone; true by itself where there is none"},
    )
    dataloader_pin_memory: bool = field(
        default=torch.accelerator.is_available(), metadata={"help": "page-locked memory, for an accelerator"}
    )
    generation_num_beams: int | None = field(default=4, metadata={"help": "beams when test text is generated"})
    generation_alpha: float = field(
        default=0.6,
        metadata={
            "help": "of the length penalty ((5 + tokens) / 6) ** alpha of these beams; more favours longer texts"
        },
    )
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
            "help": "loss (the default), perplexity, bits_per_byte, bits_per_character, or with predict_with_generate bleu, chrf, exact_match: what "
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
            'library\'s `optim`; "optim": that alone, where a recipe has another'
        },
    )
    muon_learning_rate: float | None = field(
        default=None, metadata={"help": "peak rate of the matrices that Muon learns; default: learning_rate"}
    )
    average_last: int | None = field(
        default=None,
        metadata={"help": "checkpoints: their mean is measured and saved as the model (section 6.1); 0: none"},
    )
    average_best: int | None = field(
        default=None, metadata={"help": "as average_last, but of the checkpoints with the best metric_for_best_model"}
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "the exponential moving average of the weights is measured and saved as the model; 0.999, say; 0: none"
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
        saves = str(getattr(self.save_strategy, "value", self.save_strategy))
        if averages and averages[0] != "ema_decay" and saves == "no":
            raise ValueError(
                f"{averages[0]}={getattr(self, averages[0])} needs checkpoints, and save_strategy=no saves none: give another, "
                f"or --{averages[0]} 0."
            )
        if averages[:1] == ["average_last"] and self.save_total_limit is not None:
            self.save_total_limit = max(self.save_total_limit, self.average_last or 0)
        if averages[:1] == ["average_best"]:
            self.save_total_limit = None  # which are the best is known in the end
        if self.noam_factor is not None and not self.warmup_steps:
            raise ValueError("noam_factor needs warmup_steps: the paper's schedule begins with a rise.")
        name = (self.metric_for_best_model or "").removeprefix("eval_")
        if name in ("loss", "perplexity", "bits_per_byte", "bits_per_character"):
            self.greater_is_better = False  # the library knows it of the loss alone
        if self.optimizer == "optim":
            self.optimizer = None
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
    "generation_alpha",
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "hub_private_repo",
    "use_cpu",
]
