"""What the Hub reads of a model card: languages, licence, data sets, task, and the figures as a `model-index`."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from .card_results import CASED, SETS, SHOWN, figures_of
from .card_text import plain
from .hub_names import HUB_TASKS, LICENCES, is_language, is_repository
from .text_data import bare_name, is_local


# Keys of a recipe that name a text, in the order in which they say most.
_TEXTS = {
    "test": ("test_source", "test_file", "dataset", "train_file"),
    "eval": ("validation_source", "validation_text", "validation_file", "dataset", "train_text", "train_file"),
}


def metadata(
    task_tag: str,
    name: str,
    recipe: dict[str, Any],
    metrics: dict[str, Any],
    languages: list[str],
    base: str | None = None,
) -> ModelCardData:
    """Make the metadata of a card; what the Hub would refuse is left out.

    Args:
        task_tag: the Hub's name of what the model does.
        name: of the model.
        recipe: as it was run.
        metrics: content of metrics.json, with what was evaluated since.
        languages: codes.
        base: name on the Hub of the model whose weights training began with, if there is one.
    """
    chosen = recipe.get("hub_task")
    results = [result for prefix in SETS for result in _results(prefix, chosen or task_tag, recipe, metrics)]
    licence, data = recipe.get("model_licence"), recipe.get("dataset")
    return ModelCardData(
        language=list(dict.fromkeys(filter(is_language, languages))) or None,
        license=licence if licence in LICENCES else None,
        library_name="transformers",
        pipeline_tag=chosen if chosen in HUB_TASKS else task_tag,
        tags=["transformer-theatre", "fine-tuned" if recipe.get("model_name_or_path") else "from-scratch"],
        base_model=base if base and is_repository(base) else None,
        datasets=[str(data)] if data and is_repository(str(data)) and not is_local(str(data)) else None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=plain(name) if results else None,
        eval_results=results or None,
    )


def _results(prefix: str, task_type: str, recipe: dict[str, Any], metrics: dict[str, Any]) -> list[EvalResult]:
    figures, on = figures_of(metrics, prefix), measured_on(prefix, recipe)
    return [
        EvalResult(
            task_type=task_type,
            dataset_type=on,
            dataset_name=f"{on} ({SETS[prefix]})",
            dataset_split=SETS[prefix],
            metric_type=hub,
            metric_name=shown.name.removesuffix(", %"),
            metric_value=round(figures[key], 4),
            metric_args=_measured_by(figures, key),
        )
        for key, shown in SHOWN.items()
        if (hub := _hub_name(key, recipe)) and isinstance(figures.get(key), (int, float))
    ]


def _hub_name(key: str, recipe: dict[str, Any]) -> str | None:
    """Name a figure as the Hub does; not one that the model was not trained for, as one of case where it writes none."""
    if recipe.get("lowercase"):
        return "bleu" if key == "bleu_lowercase" else None if key in CASED else SHOWN[key].hub
    return SHOWN[key].hub


def _measured_by(figures: dict[str, Any], key: str) -> dict[str, Any] | None:
    found = {
        side: figures[f"{key}_{side}"] if side == "signature" else round(figures[f"{key}_{side}"], 4)
        for side in ("signature", "low", "high")
        if f"{key}_{side}" in figures
    }
    found = {{"low": "interval_95_low", "high": "interval_95_high"}.get(name, name): v for name, v in found.items()}
    return {name: plain(v) if isinstance(v, str) else v for name, v in found.items()} or None


def measured_on(prefix: str, recipe: dict[str, Any]) -> str:
    """Name what figures were measured on: a data set, or the file of the text."""
    return plain(name_of_text(*(recipe.get(key) for key in _TEXTS[prefix])))


def name_of_text(*names: Any) -> str:
    """Name a text by the first of its names that there is, without its place; or several of the same kind."""
    known = next((name for name in names if name), "unnamed")
    return ", ".join(map(bare_name, known if isinstance(known, list) else [known]))
