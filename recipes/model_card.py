"""Render `model_card.md` into a model folder's README.md, with what was measured and nothing else."""

import importlib.resources
from pathlib import Path
from typing import Any

import transformers
from huggingface_hub import ModelCard
from transformers import PreTrainedModel

from .arguments import shipped_recipes
from .card_metadata import measured_on, metadata, name_of_text
from .card_models import CITATION, architecture, departures, what_it_is
from .card_procedure import left_out, procedure
from .card_results import SETS, comparison_rows, figures_of, result_rows, worst_rows
from .card_tasks import card_task
from .card_text import escape, fenced, recipe_text
from .pretrained import SOURCES
from .run_folder import read_json, read_recipe_of, recipe_of, write_json, write_whole
from .text_data import is_local


# What the card says and no other file of the folder holds.
CARD_FILE = "card.json"
EVALUATION_FILE = "evaluation.json"
# Where the code of a card finds the model, and what that is; `publication.stage` puts the repository in its place.
_HERE = ".", 'this folder; or "user/repository", once it is on the Hub'
_TOKENIZERS = {"character": "characters", "symbol": "characters and symbols", "bpe": "byte-level BPE pieces"}
# Pictures of an evaluation, in the order of the card.
_PICTURES = {
    "by-length": "Score by length of the reference",
    "difference": "Difference to the baseline in texts drawn from the same sentences",
}


def template_path() -> Path:
    """Find `model_card.md`: in the installed package, or at the top of the checkout it runs from."""
    package = Path(str(importlib.resources.files("transformer_theatre")))
    installed = package / "model_card.md"
    return installed if installed.is_file() else package.parents[1] / "model_card.md"


def write_model_card(
    folder: Path,
    model: PreTrainedModel,
    *,
    name: str,
    recipe_name: str,
    recipe: dict[str, Any],
    metrics: dict[str, Any],
    data: str,
    languages: list[str],
    example: str,
    contract: str | None = None,
    by_language: dict[str, float] | None = None,
) -> Path:
    """Write README.md into a model folder, and card.json, from which `rewrite_model_card` writes it again.

    Args:
        folder: the model folder; `figures/attention.png` is shown if it is there.
        model: what was trained.
        name: what the model is called.
        recipe_name: the recipe that made it.
        recipe: the recipe as it was run.
        metrics: content of metrics.json; only figures that are in it appear.
        data: one paragraph on what it was trained on, Markdown.
        languages: language codes, for the Hub's metadata.
        example: an input for the code that shows how to use it.
        contract: what the recipe's anchor says of the result, if it has one.
        by_language: exact match in percent for each language, if that was measured.

    Returns:
        The path of the card.
    """
    said: dict[str, Any] = {
        "name": name,
        "recipe_name": recipe_name,
        "data": data,
        "languages": languages,
        "example": example,
    }
    said |= {"contract": contract, "by_language": by_language, **_beginning(recipe)}
    path = folder / "README.md"
    write_whole(path, _rendered(folder, model, recipe, metrics, said, _evaluation(folder)))
    write_json(folder / CARD_FILE, said)
    return path


def rewrite_model_card(folder: Path, model: PreTrainedModel) -> Path:
    """Write README.md of a finished run again, with what was evaluated since.

    Args:
        folder: of the run: card.json, recipe.yaml, metrics.json, and evaluation.json if there is one.
        model: that is in it.

    Raises:
        ValueError: no run has written a card into the folder.
    """
    said, metrics, recipe = read_card(folder)
    path = folder / "README.md"
    write_whole(path, _rendered(folder, model, recipe, metrics, said, _evaluation(folder)))
    return path


def read_card(folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Read what the card of a finished run is written from: card.json, metrics.json and recipe.yaml.

    Raises:
        ValueError: one is missing or damaged.
    """
    missing = [name for name in (CARD_FILE, "metrics.json") if not (folder / name).is_file()]
    if recipe_of(folder) is None or missing:
        raise ValueError(
            f"{folder} has no {(missing or ['recipe.yaml'])[0]}: only a run's own folder has a model card."
        )
    return read_json(folder / CARD_FILE), read_json(folder / "metrics.json"), read_recipe_of(folder)


def _evaluation(folder: Path) -> dict[str, Any]:
    path = folder / EVALUATION_FILE
    return read_json(path) if path.is_file() else {}


def _rendered(
    folder: Path,
    model: PreTrainedModel,
    recipe: dict[str, Any],
    metrics: dict[str, Any],
    said: dict[str, Any],
    evaluation: dict[str, Any],
) -> str:
    """Fill in the template."""
    task, kind = card_task(recipe.get("task"), model.config), model.config.model_type
    of_recipe = {prefix: evaluation[name] for prefix, name in SETS.items() if name in evaluation}
    shipped, sources = said["recipe_name"] in shipped_recipes(), [name for name in SOURCES if recipe.get(name)]
    # A starting model brings its own tokenizer.
    kind_of_tokenizer = "" if sources else recipe.get("tokenizer", "bpe")
    measured = dict(metrics)
    for prefix, figures in of_recipe.items():
        measured |= {f"{prefix}_{key}": v for key, v in figures.items() if isinstance(v, (int, float, str))}
    licence = recipe.get("model_licence")
    card = ModelCard.from_template(
        metadata(task.pipeline_tag, said["name"], recipe, measured, said["languages"], said["base_model"]),
        template_path=str(template_path()),
        title=escape(said["name"]),
        summary=f"{what_it_is(model.config)}, {'fine-tuned' if said['base'] else 'trained from scratch'}"
        + (f"; the recipe started from {escape(said['recipe_name'])} of Transformer Theatre." if shipped else "."),
        start=f"the weights of {escape(said['base'])}" if said["base"] else "random weights",
        architecture=architecture(model.config),
        parameters=model.num_parameters(),
        vocabulary=model.config.vocab_size,
        tokenizer_kind=_TOKENIZERS.get(kind_of_tokenizer, "pieces of a tokenizer from elsewhere"),
        seed=recipe.get("seed", 42),
        licence=escape(licence) if licence else None,
        versions={"transformers": escape(metrics.get("train_transformers_version", transformers.__version__))},
        usage=fenced(task.usage(*_HERE, said["example"]), "python"),
        usage_with_package=fenced(task.usage_with_package(_HERE[0], said["example"]), "python"),
        command=fenced(task.command.format(place=_HERE[0]), "bash") if task.command else None,
        picture="figures/attention.png" if (folder / "figures" / "attention.png").is_file() else None,
        purpose=escape(recipe["intended_use"]) if recipe.get("intended_use") else task.purpose,
        limits=task.limits,
        data=said["data"],
        data_url=recipe.get("data_url"),
        counts=left_out(metrics, task.rows),
        procedure=procedure(metrics),
        beginning=f" --{sources[0]} FOLDER_OF/{escape(name_of_text(recipe[sources[0]]))}" if sources else "",
        recipe=fenced(recipe_text(recipe), "yaml"),
        results=_tables(measured, recipe, evaluation),
        lowercase=bool(recipe.get("lowercase")),
        intervals=escape(measured["interval_signature"]) if "interval_signature" in measured else None,
        comparisons=_comparisons(evaluation, of_recipe),
        pictures=_pictures(folder, evaluation),
        worst=worst_rows(_record(evaluation).get("worst", [])),
        languages=[{"name": escape(k), "value": f"{v:.2f}"} for k, v in (said["by_language"] or {}).items()],
        contract=escape(said["contract"]) if said["contract"] else None,
        departures=departures(model),
        citation=CITATION[kind],
    )
    return str(card)


def _beginning(recipe: dict[str, Any]) -> dict[str, Any]:
    """Say which model's weights training began with, if it was no random ones, and whether that is one of the Hub."""
    base = recipe.get("model_name_or_path")
    if not base:
        return {"base": None, "base_model": None}
    return {"base": name_of_text(base), "base_model": base if "/" in base and not is_local(base) else None}


def _tables(measured: dict[str, Any], recipe: dict[str, Any], evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a table of each text that something was measured on."""
    tables = []
    for prefix, name in SETS.items():
        if rows := result_rows(figures_of(measured, prefix)):
            tables.append({"title": f"On the {name} set ({escape(measured_on(prefix, recipe))})", "rows": rows})
    if "files" in evaluation and (rows := result_rows(evaluation)):
        tables.append(
            {"title": f"On {escape(' and '.join(evaluation['files']))}, by `theatre evaluate`", "rows": rows}
        )
    return tables


def _record(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Take what was found on one text: the test set of a recipe, or the files that were named."""
    return evaluation.get("test") or evaluation.get("validation") or evaluation


def _comparisons(evaluation: dict[str, Any], of_recipe: dict[str, Any]) -> list[dict[str, Any]]:
    records = {SETS[prefix]: record for prefix, record in of_recipe.items()} or {"": evaluation}
    return [
        {
            "title": f"{f'{name} set, ' if name else ''}against {escape(record['comparison']['baseline'])}",
            "rows": comparison_rows(record["comparison"]),
        }
        for name, record in records.items()
        if "comparison" in record
    ]


def _pictures(folder: Path, evaluation: dict[str, Any]) -> list[dict[str, str]]:
    wanted = _record(evaluation).get("pictures", [])
    return [
        {"path": name, "title": title}
        for part, title in _PICTURES.items()
        for name in wanted
        if name.endswith(f"{part}.png") and (folder / name).is_file()
    ]
