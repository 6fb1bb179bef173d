"""`theatre classify`: what a fine-tuned model answers on texts, pairs of texts, or contexts with answers."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .line_reader import LineReader
from .models import load, load_config
from .row_parsing import BadLineError, parse_tsv
from .stdin_lines import CHUNK, stdin_lines
from .task_inputs import TaskCollator
from .task_kinds import TASKS, columns_of, longest_sequence
from .task_rows import with_question
from .text_data import JSON_LINES, ending_of, find_file
from .tokenization import warn_of_unknown


# Padded tokens in a batch.
BATCH_TOKENS = 8192


@dataclass(frozen=True)
class Answer:
    """What a model says of a row.

    Args:
        label: name of the class; number of the answer, from 0, of a multiple choice; or a number, spelled out.
        probability: that the model gives it; None where the answer is a number.
    """

    label: str
    probability: float | None

    def __str__(self) -> str:
        return self.label if self.probability is None else f"{self.label}\t{self.probability:.4f}"


class Classifier:
    """A fine-tuned model and its tokenizer, which frames texts as in training.

    Args:
        name: model folder, or model on the Hub.

    Raises:
        ValueError: there is no such model, or it is not fine-tuned for a task.
    """

    def __init__(self, name: str):
        self.model, self.tokenizer, self.task = load_fine_tuned(name)
        self.longest = min(longest_sequence(self.model), self.tokenizer.model_max_length)
        self.collate = TaskCollator(self.tokenizer)
        # Of models that have learned from questions, such as COPA's: question -> its word, which stands behind the context.
        self.questions: dict[str, str] = {}
        if self.task == "multiple_choice":
            self.questions = getattr(self.model.config, "question_words", None) or {}

    def columns(self) -> str:
        """Say what a line holds."""
        if self.task == "multiple_choice":
            question = f", its question ({' or '.join(self.questions)})" if self.questions else ""
            return f"a context{question} and two answers or more, with tabs between"
        return {"text": "a text"}.get(TASKS[self.task].texts[0], "two texts, with a tab between")

    def parse(self, line: str) -> list[str]:
        """Take the texts from a line.

        Raises:
            BadLineError: it has another number of columns than the task reads, one is empty, or a question has no word.
        """
        cells = line.split("\t")
        least = 4 if self.questions else 3
        wanted = range(least, 1 << 30) if self.task == "multiple_choice" else [len(TASKS[self.task].texts)]
        if len(cells) not in wanted:
            raise BadLineError(f"the number of columns is {len(cells)}, and a line must hold {self.columns()}")
        texts = list(parse_tsv((line,), tuple(range(1, len(cells) + 1))))
        if not self.questions:
            return texts
        context, question, *answers = texts
        return with_question([context, *answers], question, self.questions, "column 2, the question,")

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Sequence[str]], places: Sequence[str] | None = None) -> list[Answer]:
        """Answer rows.

        Args:
            rows: of each, one text, two, or the context and its answers; texts that are too long are cut at their end.
            places: of each, for the warning that says what was cut.

        Returns:
            An answer for each, in their order.
        """
        if not rows:
            return []
        columns = columns_of(self.task, [list(row) for row in rows])
        data = Dataset.from_dict(columns | ({} if places is None else {"origin": list(places)}))
        encoded = TASKS[self.task].encode(data, self.tokenizer, self.longest)["input_ids"][:]
        warn_of_unknown(self.tokenizer, sequences_of(encoded))
        answers: list[Any] = [None] * len(rows)
        for batch in _batches(encoded):
            inputs = self.collate([{"input_ids": encoded[number]} for number in batch])
            logits = self.model(**{name: values.to(self.model.device) for name, values in inputs.items()}).logits
            for number, answer in zip(batch, self._answers(logits.float()), strict=True):
                answers[number] = answer
        return answers

    def _answers(self, logits: torch.Tensor) -> list[Answer]:
        config: Any = self.model.config
        if self.task != "multiple_choice" and config.num_labels == 1:
            return [Answer(f"{value:.4f}", None) for value in logits[:, 0].tolist()]
        best, numbers = (side.tolist() for side in logits.softmax(-1).max(-1))
        names = [str(n) if self.task == "multiple_choice" else config.id2label[n] for n in numbers]
        return [Answer(name, probability) for name, probability in zip(names, best, strict=True)]


def sequences_of(rows: Iterable[Any]) -> Iterator[list[int]]:
    """Yield the sequences of rows of one, or of several each."""
    for row in rows:
        yield from row if isinstance(row[0], list) else [row]


def load_fine_tuned(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, str]:
    """Load a fine-tuned model; say which task it was made for.

    Raises:
        ValueError: there is no such model, or it is not fine-tuned for a task.
    """
    config = load_config(name, "AutoModelForCausalLM")
    made = " ".join(config.architectures or [])
    kinds = ("AutoModelForSequenceClassification", "AutoModelForMultipleChoice")
    auto_class = next((kind for kind in kinds if kind.removeprefix("AutoModel") in made), None)
    if auto_class is None:
        raise ValueError(
            f"{name} holds a {made or config.model_type}, which continues text: fine-tune it first, by `theatre train "
            f"rotten-tomatoes/small --model_name_or_path {name}`, say."
        )
    model, tokenizer = load(name, auto_class)
    if getattr(tokenizer, "extract_token", None) is None:
        raise ValueError(f"The tokenizer of {name} has no task tokens: the model was not fine-tuned by a recipe here.")
    task = getattr(config, "finetuning_task", None)
    if task not in TASKS:
        task = "multiple_choice" if auto_class == kinds[1] else "classification"
    return model, tokenizer, task


def _batches(encoded: Sequence[Any]) -> Iterator[list[int]]:
    """Cut rows, the longest first, into batches of at most `BATCH_TOKENS` padded tokens, a row at least."""
    shapes = [(len(ids), max(map(len, ids))) if isinstance(ids[0], list) else (1, len(ids)) for ids in encoded]
    batch: list[int] = []
    width = sequences = 0
    for number in sorted(range(len(encoded)), key=lambda row: -shapes[row][1]):
        sequences = max(sequences, shapes[number][0])
        width = max(width, shapes[number][1])
        if batch and (len(batch) + 1) * sequences * width > BATCH_TOKENS:
            yield batch
            batch, (sequences, width) = [], shapes[number]
        batch.append(number)
    if batch:
        yield batch


def lines_of(path: Path | None) -> Iterator[tuple[str, str]]:
    """Yield each line of a file, or of stdin, with its place.

    Raises:
        ValueError: a line is not UTF-8, or the file is no text by its name.
    """
    if path is not None:
        found = find_file(path)
        if (ending := ending_of(found)) in (*JSON_LINES, ".csv"):
            raise ValueError(
                f"{found}: lines of {ending} are no texts. Give a file with a text a line, of several texts with tabs between "
                "them: `jq -r .text FILE` takes them out of JSON lines."
            )
        for number, line in enumerate(LineReader(found), 1):
            yield f"{found}:{number}", line.removesuffix("\n")
        return
    for number, line in enumerate(stdin_lines(), 1):
        yield f"stdin:{number}", line


def parsed_lines(classify: Classifier, path: Path | None, *, typed: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the columns of each line, none of a blank one.

    Args:
        classify: reads the columns.
        path: a file, or None for stdin.
        typed: a person types the lines, who is told what is wrong with one and goes on.

    Raises:
        ValueError: a line has the wrong columns; the message names it.
    """
    for place, line in lines_of(path):
        try:
            row = classify.parse(line) if line.strip() else []
        except BadLineError as problem:
            if not typed:
                raise ValueError(f"{place}: {problem}.") from None
            print(f"theatre: {problem}.", file=sys.stderr)
            continue
        yield place, row


def run(name: str, path: Path | None) -> int:
    """Write a line for each line: the label, a tab and its probability; blank lines stay blank.

    Raises:
        ValueError: the model or the file cannot be read, or a line has the wrong columns; the message names it.
    """
    classify = Classifier(name)
    typed = path is None and sys.stdin.isatty()
    if typed:
        print(f"Type {classify.columns()}, and press Enter; Ctrl-D ends.", file=sys.stderr)
    datasets.disable_progress_bars()
    rows: list[tuple[str, list[str]]] = []
    if path is not None:  # all of it, before the first answer
        for _ in parsed_lines(classify, path):
            pass
    for row in parsed_lines(classify, path, typed=typed):
        rows.append(row)
        if typed or len(rows) == CHUNK:
            write_answers(classify, rows)
            rows = []
    write_answers(classify, rows)
    return 0


def write_answers(classify: Classifier, rows: Sequence[tuple[str, list[str]]]):
    """Print the answers to rows, each with its place, and an empty line for each that is empty."""
    filled = [(place, row) for place, row in rows if row]
    answers = iter(classify([row for _, row in filled], [place for place, _ in filled]))
    for _, row in rows:
        print(next(answers) if row else "")
    sys.stdout.flush()
