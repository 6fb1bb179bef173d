"""The model card of a run that has just ended: what every task says of one in the same words."""

from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedModel

from .anchor import verdict
from .arguments import Recipe
from .card_text import escape
from .model_card import write_model_card


class Run(Protocol):
    """What a training script leaves behind."""

    folder: Path
    model: PreTrainedModel
    metrics: dict[str, Any]


def write_run_card(
    done: Run, recipe: Recipe, given: dict[str, Any], *, data: str, licence: str | None, **more: Any
) -> Path:
    """Write the card of a run, with what its recipe's anchor says of the result.

    Args:
        done: the run.
        recipe: that it was started by.
        given: the recipe as it was run.
        data: what it was trained on, Markdown, without a full stop.
        licence: of the data.
        **more: goes to `write_model_card`.

    Returns:
        The path of the card.
    """
    terms = f" Licence: {escape(licence)}." if licence else ""
    return write_model_card(
        done.folder,
        done.model,
        name=done.folder.resolve().name,
        recipe_name=recipe.name,
        recipe={"task": recipe.task, **given},
        metrics=done.metrics,
        data=f"{data}.{terms}",
        contract=verdict(recipe.anchor, done.metrics) if recipe.anchor else None,
        **more,
    )
