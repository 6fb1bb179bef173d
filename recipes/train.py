"""`theatre train`: read a recipe's task, and run the script of that task.

The same for many processes: `torchrun --nproc_per_node 2 -m transformer_theatre.recipes.train RECIPE [--key value ...]`.
"""

import importlib
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

from accelerate import PartialState
from transformers.utils import logging

from .anchor import verdict
from .arguments import Recipe, find_recipe, help_text, options_of, read_recipe, shipped_recipes
from .data_arguments import SPLITS
from .interruption import release_folders
from .pretrained import for_model_of
from .publishing_trainer import forget_pending, publish_pending
from .signals import SIGNALS


logger = logging.get_logger(__name__)
SCRIPTS = {
    "translation": "train_translation",
    "language_modeling": "train_language_model",
    **dict.fromkeys(["classification", "entailment", "similarity", "multiple_choice"], "train_task"),
}

USAGE = """usage: theatre train RECIPE [--key value ...]

Train a model from scratch. RECIPE is a YAML file, or the name of a recipe that comes with the package:

{recipes}

Every key of a recipe is an option too, and the command line wins:

  theatre train multi30k-de-en/small --data_dir path/to/multi30k --output_dir runs/de-en --seed 1
  theatre train RECIPE --help                       the options of that recipe, each with its unit and default
  ... --resume_from_checkpoint true                 the same command again: go on where it was stopped

The output folder is a model folder: `theatre translate FOLDER` and `from_pretrained(FOLDER)` load it."""


def script(task: str) -> ModuleType:
    """Import the training script of a task."""
    return importlib.import_module(f"transformer_theatre.recipes.{SCRIPTS[task]}")


def load_recipe(name: str) -> Recipe:
    """Find and read a recipe.

    Raises:
        ValueError: there is none of this name, or it is no recipe.
    """
    return read_recipe(find_recipe(name), list(SCRIPTS))


def train(recipe: Recipe, overrides: Sequence[str]) -> Any:
    """Run a recipe; `output_dir` is runs/ and the recipe's name unless it is given.

    Returns:
        What the task's script returns.
    """
    if recipe.values.get("output_dir") is None and "output_dir" not in options_of(overrides):
        overrides = ["--output_dir", f"runs/{recipe.name}", *overrides]
    with SIGNALS:
        try:
            done = script(recipe.task).run(recipe, overrides)
            publish_pending()
            return done
        finally:
            forget_pending()
            release_folders()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line behind `theatre train`.

    Raises:
        ValueError: the recipe, an option or the data is wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        tasks: dict[str, list[str]] = {}
        for name, path in shipped_recipes().items():
            tasks.setdefault(path.parents[1].name, []).append(name)
        lines = [f"{task}: {', '.join(names)}" for task, names in tasks.items()]
        fill = partial(
            textwrap.fill, width=100, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
        )
        recipes = "\n".join(map(fill, lines))
        print(USAGE.format(recipes=recipes))
        return 0 if argv else 2
    recipe, overrides = load_recipe(argv[0]), argv[1:]
    if {"-h", "--help", "--help_all"} & set(overrides):
        words = [word for word in overrides if word not in ("-h", "--help", "--help_all")]
        types = script(recipe.task).argument_types(recipe, words)
        print(help_text(recipe, types, everything="--help_all" in overrides))
        return 0
    recipe = for_model_of(for_text_of(recipe, overrides), overrides)
    done = train(recipe, overrides)
    if PartialState().is_main_process:  # the others have not measured the test set
        print(f"\n{summary(done.metrics)}\n")
        if recipe.anchor:
            print(verdict(recipe.anchor, done.metrics))
        print(f"The model is in {done.folder}.")
    return 0


def for_text_of(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Take from a recipe what it says of its own text, where the command line names another text.

    Its languages, its licence, its anchor, and the files that belong to its training text are then none of the recipe's any
    more: what is not named anew is not there, and a warning says so. A file of the same name, in another `data_dir`, counts as the recipe's text.
    """
    texts = {"dataset", "train_source", "train_target", "train_split", "train_text", "train_file"}
    given = options_of(overrides).keys()
    if not texts & given:
        return recipe
    about = {
        "source_language",
        "target_language",
        "language",
        "data_licence",
        "data_url",
        "model_licence",
        "intended_use",
        "dataset",
        "dataset_config",
        "text_field",
        "separator",
        "train_text",
        "validation_text",
        "template",
        "template_words",
        "sample_prompts",
        "source_field",
        "target_field",
        "text_fields",
        "label_field",
        "labels",
        "question_field",
        "question_words",
    }
    about |= {f"{split}_{side}" for split in SPLITS for side in ("source", "target", "split", "file")}
    about |= {f"{split}_share" for split in ("validation", "test")}
    if gone := [key for key in recipe.values if key in about and key not in given]:
        logger.warning(
            f"The text is not that of {recipe.name}: what the recipe says of its own text does not hold ({', '.join(gone)})."
        )
    return replace(recipe, anchor=None, values={k: v for k, v in recipe.values.items() if k not in about})


def summary(metrics: dict[str, Any]) -> str:
    """Lay figures out, one a line, each with the bounds of its 95 % interval."""
    bounds = {f"{key}_{side}" for key in metrics for side in ("low", "high")}
    lines = {}
    for key, value in metrics.items():
        if key not in bounds:
            low, high = (metrics.get(f"{key}_{side}") for side in ("low", "high"))
            lines[key] = _written(value) + ("" if low is None else f"  ({_written(low)} to {_written(high)})")
    width = max(map(len, lines))
    return "\n".join(f"{key:<{width}}  {line}" for key, line in lines.items())


def _written(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


if __name__ == "__main__":
    from .theatre import main as theatre

    sys.exit(theatre(["train", *sys.argv[1:]]))
