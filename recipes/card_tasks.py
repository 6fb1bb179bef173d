"""What a model card says of a task. For a new task, add one entry to `CARD_TASKS`."""

from dataclasses import dataclass
from typing import Any

from .card_text import quoted


@dataclass(frozen=True)
class CardTask:
    """The words of one task.

    Args:
        pipeline_tag: what the Hub calls it, unless `hub_task` says otherwise.
        auto_class: that loads its models.
        use: Python after `model = ...`; `{example}` is a Python string.
        purpose: what the model is for, unless `intended_use` says otherwise.
        limits: what it is not for.
        rows: what training data consist of, in the plural.
        pipeline: Python that uses the library's pipeline, if there is one for it.
        command: of the package, if there is one for it.
    """

    pipeline_tag: str
    auto_class: str
    use: str
    purpose: str
    limits: str
    rows: str
    pipeline: str = ""
    command: str = ""

    def usage(self, place: str, what: str, example: str) -> str:
        """Write the code that loads the model with transformers alone.

        Args:
            place: folder or repository.
            what: a comment on it.
            example: an input.
        """
        lines = [
            f"from transformers import {self.auto_class}{', pipeline' if self.pipeline else ''}",
            "",
            f"name = {quoted(place)}  # {what}",
            f"model = {self.auto_class}.from_pretrained(name, trust_remote_code=True)",
            self.use.format(example=quoted(example)),
        ]
        if self.pipeline:
            lines += ["", self.pipeline.format(example=quoted(example))]
        return "\n".join(lines)

    def usage_with_package(self, place: str, example: str) -> str:
        """Write the code that loads the model where the package is installed."""
        lines = [
            "import transformer_theatre  # registers the classes: no remote code is run",
            f"from transformers import {self.auto_class}",
            "",
            f"name = {quoted(place)}",
            f"model = {self.auto_class}.from_pretrained(name)",
            self.use.format(example=quoted(example)),
        ]
        return "\n".join(lines)


_OWN_TEXT = "It repeats whatever bias its training text has. Measure it on your own text before you rely on it."
CARD_TASKS = {
    "translation": CardTask(
        pipeline_tag="translation",
        auto_class="AutoModelForSeq2SeqLM",
        use="print(model.translate([{example}]))  # any number of texts, in any order",
        pipeline='translator = pipeline("translation", model=name, trust_remote_code=True)\nprint(translator({example}))',
        command="theatre translate {place} < source.txt",
        purpose="It maps text of the kind it was trained on, one sentence at a time.",
        limits=f"It was trained on the text below and knows nothing else. {_OWN_TEXT}",
        rows="pairs of texts",
    ),
    "language_modeling": CardTask(
        pipeline_tag="text-generation",
        auto_class="AutoModelForCausalLM",
        use="print(model.continue_text([{example}], max_new_tokens=200))",
        command='theatre generate {place} --prompt "Once"',
        purpose="It continues text of the kind it was trained on.",
        limits=f"What it writes is not checked against any fact. {_OWN_TEXT}",
        rows="rows of text",
    ),
    **dict.fromkeys(
        ["classification", "entailment", "similarity"],
        CardTask(
            pipeline_tag="text-classification",
            auto_class="AutoModelForSequenceClassification",
            use="print(model.config.id2label)",
            pipeline='classify = pipeline("text-classification", model=name, trust_remote_code=True)\n'
            'print(classify({example}))  # of two texts: classify({{"text": ..., "text_pair": ...}})',
            purpose="It answers on text of the kind it was trained on.",
            limits=f"It gives an answer on any other text too. {_OWN_TEXT}",
            rows="labelled rows",
        ),
    ),
    "multiple_choice": CardTask(
        pipeline_tag="multiple-choice",
        auto_class="AutoModelForMultipleChoice",
        use="""from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(name)
context, answers = {example}, ["one answer", "another"]
inputs = tokenizer([context] * len(answers), answers, padding=True, return_tensors="pt")
print(model(**{{key: value[None] for key, value in inputs.items()}}).logits.softmax(-1))""",
        purpose="It chooses among answers of the kind it was trained on.",
        limits=f"It always chooses one. {_OWN_TEXT}",
        rows="labelled rows",
    ),
}


def card_task(task: str | None, config: Any) -> CardTask:
    """Return the words of a task; a recipe that names none is of the task that its model is for.

    Args:
        task: as the recipe has it.
        config: of the model.
    """
    return (
        CARD_TASKS.get(task or "") or CARD_TASKS["translation" if config.is_encoder_decoder else "language_modeling"]
    )
