"""The tasks of GPT-1's fine-tuning (Radford et al., 2018, figure 1, right): what each reads, and which head answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from .task_inputs import encode_classification, encode_entailment, encode_multiple_choice, encode_similarity


@dataclass(frozen=True)
class TaskKind:
    """One of the tasks.

    Args:
        auto_class: that loads its model.
        texts: what the texts of a row are called; of a multiple choice `answers` stands for two texts or more.
        encode: turns rows into token ids.
    """

    auto_class: str
    texts: tuple[str, ...]
    encode: Callable[..., Any]


TASKS: dict[str, TaskKind] = {
    "classification": TaskKind("AutoModelForSequenceClassification", ("text",), encode_classification),
    "entailment": TaskKind("AutoModelForSequenceClassification", ("premise", "hypothesis"), encode_entailment),
    "similarity": TaskKind("AutoModelForSequenceClassification", ("first", "second"), encode_similarity),
    "multiple_choice": TaskKind("AutoModelForMultipleChoice", ("context", "answers"), encode_multiple_choice),
}


def longest_sequence(model: PreTrainedModel) -> int:
    """Tokens of a sequence that a model takes: as many as it has positions, or 512 where it takes any number, as an LSTM does."""
    return getattr(model.config, "max_position_embeddings", None) or 512


def columns_of(task: str, texts: list[list[str]]) -> dict[str, list[Any]]:
    """Name the texts of rows as the encoder of the task wants them.

    Args:
        task: a key of `TASKS`.
        texts: of each row; of a multiple choice the context, then the answers.
    """
    names = TASKS[task].texts
    if task == "multiple_choice":
        return {names[0]: [row[0] for row in texts], names[1]: [row[1:] for row in texts]}
    return {name: [row[place] for row in texts] for place, name in enumerate(names)}
