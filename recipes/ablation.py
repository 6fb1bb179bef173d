"""`theatre compare gpt1-ablation`: table 5 of GPT-1 (Radford et al., 2018) at the scale of a model that was pre-trained here."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from transformer_theatre.configuration import GPTConfig, LSTMConfig

from .ablation_report import Cell, write_report
from .arguments import Recipe, options_of, parse_recipe, shipped_recipes
from .data_arguments import split_of_dataset
from .data_folder import data_files, data_folder
from .models import check_writes, load_config
from .pretrained import for_model_of
from .publication import Published
from .run_folder import write_json
from .task_kinds import TASKS
from .task_metrics import TASK_METRICS, Figure
from .task_splits import metrics_of
from .text_data import find_file, is_local
from .train import load_recipe, script, train
from .train_task import PREDICTIONS
from .verify import departures, how_to_go_on, is_whole, seeds_of, without


USAGE = """usage: theatre compare gpt1-ablation --pretrained MODEL [--pretrained_lstm MODEL] --data_dir FOLDER
           [--recipes NAME ...] [--seeds 1 2 3] [--output_dir runs/gpt1-ablation] [--key value ...]

Fine-tune a pre-trained GPT on every task, and again without its pre-trained weights, without the auxiliary loss, and with an LSTM
in its place: table 5 of the GPT-1 paper. Further options are those of `theatre train`, and go to all runs.

  --pretrained       folder of a language model, a GPT, or its name on the Hub
  --pretrained_lstm  the same of an LSTM; without it, its column is left out
  --data_dir         the folder in which, or in folders of which, the recipes' files lie
  --recipes          which recipes of tasks to compare on (default: all that come with the package)
  --seeds            train each once for each seed, and take the mean (default: the recipe's seed)
  --output_dir       folder of the runs; ablation.md, ablation.json and ablation.png are written into it

A run that is whole is not trained again, and one that was cut off goes on from its last checkpoint: the same command again
finishes what was interrupted."""

_OWN = {"pretrained", "pretrained_lstm", "data_dir", "recipes", "seeds", "output_dir"}
_KINDS = {"pretrained": GPTConfig.model_type, "pretrained_lstm": LSTMConfig.model_type}
# What the comparison decides itself.
_DECIDED = ("seed", "model_name_or_path", "config_name", "lm_loss_weight", "resume_from_checkpoint", "overwrite")
INPUTS = "inputs.json"  # checksums of what a comparison was made from
FULL, LSTM = "full", "lstm"


@dataclass(frozen=True)
class Run:
    """One fine-tuning of the comparison: a recipe, adapted to the model, and what the command line says over it."""

    recipe: Recipe
    name: str
    variant: str
    folder: Path
    words: list[str]
    metric: str  # by which it is compared


def variants_of(pretrained: str, pretrained_lstm: str | None) -> dict[str, list[str]]:
    """Say by which options each row of the paper's table is trained."""
    variants = {
        FULL: ["--model_name_or_path", pretrained],
        "no-pretraining": ["--config_name", pretrained],
        "no-auxiliary-loss": ["--model_name_or_path", pretrained, "--lm_loss_weight", "0"],
    }
    return variants | ({LSTM: ["--model_name_or_path", pretrained_lstm]} if pretrained_lstm else {})


def main(argv: Sequence[str]) -> int:
    """Run the command line behind `theatre compare gpt1-ablation`.

    Raises:
        ValueError: an option, a recipe, a model or the data is wrong; nothing is trained then.
    """
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0 if argv else 2
    options = options_of(argv)
    for name in _DECIDED:
        if name in options:
            raise ValueError(f"--{name} is not for this comparison, which decides it.")
    models = [_model(options, name) for name in ("pretrained", "pretrained_lstm")]
    if models[0] is None:
        raise ValueError("--pretrained MODEL is missing: the folder of a language model.")
    base = Path(_only(options, "output_dir") or "runs/gpt1-ablation")
    root = Path(_only(options, "data_dir") or ".")
    names = options.get("recipes") or task_recipes()
    recipes = [load_recipe(name) for name in names]
    for recipe in recipes:
        if recipe.task not in TASKS:
            raise ValueError(f"{recipe.name} is of task {recipe.task}, and a comparison is of: {', '.join(TASKS)}.")
    if len({recipe.name for recipe in recipes}) < len(names):
        raise ValueError(f"--recipes {' '.join(names)} must be of different names.")
    words, seeds = without(argv, _OWN), seeds_of(options)
    places = [(recipe, data_folder(recipe, root)) for recipe in recipes]
    runs = []
    for recipe, place in places:
        for variant, more in variants_of(models[0], models[1]).items():
            runs += planned(recipe, variant, place, base, [*words, *more], seeds)
    same_inputs(base, places, dict(zip(_KINDS, models, strict=True)))
    for number, one in enumerate(runs, 1):
        print(f"\n{number} of {len(runs)}: {one.name}, {one.variant}, in {one.folder}")
        finish(one)
    write_report(base, cells_of(runs), has_lstm=models[1] is not None)
    return 0


def task_recipes() -> list[str]:
    """Name the recipes of tasks that come with the package."""
    return [name for name in shipped_recipes() if load_recipe(name).task in TASKS]


def _only(options: dict[str, list[str]], name: str) -> str | None:
    words = options.get(name)
    if words is not None and len(words) != 1:
        raise ValueError(f"--{name} {' '.join(words)} must be one word.")
    return words[0] if words else None


def _model(options: dict[str, list[str]], name: str) -> str | None:
    """Name a pre-trained model, a folder by its full path: a run says what it began with."""
    model = _only(options, name)
    if model is None:
        return None
    config = load_config(model, "AutoModelForCausalLM")
    check_writes(model, config)
    if config.model_type != _KINDS[name]:
        raise ValueError(f"--{name} {model} holds a {config.model_type} model, and must hold a {_KINDS[name]}.")
    return str(Path(model).expanduser().resolve()) if is_local(model) else model


def planned(
    recipe: Recipe, variant: str, place: Path, base: Path, words: Sequence[str], seeds: Sequence[int]
) -> list[Run]:
    """Plan the runs of a recipe and a variant, one for each seed, and look at everything that can be wrong with them.

    Raises:
        ValueError: something is; or a folder holds another run.
    """
    recipe = for_model_of(recipe, words)
    runs = []
    chosen: list[int | None] = [*seeds] or [None]
    for seed in chosen:
        folder = base / recipe.name.replace("/", "-") / (variant if seed is None else f"{variant}-seed{seed}")
        more = [] if seed is None else ["--seed", str(seed)]
        more = [*words, *more, "--data_dir", str(place), "--output_dir", str(folder)]
        (_, _, data, _), given = parse_recipe(recipe, more, *script(recipe.task).argument_types(recipe, more))
        if (folder / "recipe.yaml").is_file() and (departs := departures(folder, given, strict=True)):
            option, (there, here) = next(iter(departs.items()))
            raise ValueError(
                f"{folder} holds a run in which {option} was {there!r}, and it would be {here!r} now: choose another "
                "--output_dir, or delete it."
            )
        if not (data.test_file or data.test_share or split_of_dataset(data, "test")):
            raise ValueError(
                f"{recipe.path} names no test rows, by which models are compared: give test_file, test_split or test_share."
            )
        runs.append(Run(recipe, recipe.name, variant, folder, more, metrics_of(recipe.task, data)[0]))
    return runs


def same_inputs(base: Path, places: Sequence[tuple[Recipe, Path]], models: dict[str, str | None]):
    """Make sure that what was trained for a comparison was trained from these models and on these rows, and note them.

    Raises:
        ValueError: one of them is another than it was.
    """
    path = base / INPUTS
    then: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    now = {
        name: _checksum(*sorted(Path(model).glob("*.safetensors"))) or model for name, model in models.items() if model
    }
    for recipe, folder in places:
        now |= {f"{recipe.name}: {name}": _checksum(find_file(folder / name)) for name in data_files(recipe)}
    if changed := [name for name, checksum in now.items() if then.get(name, checksum) != checksum]:
        raise ValueError(
            f"{base} holds a comparison in which {changed[0]} was another one: choose another --output_dir, or delete it."
        )
    base.mkdir(parents=True, exist_ok=True)
    write_json(path, {**then, **now})


def _checksum(*paths: Path) -> str:
    """Sum up files; nothing where there is none."""
    return "".join(Published.of(path).sha256[:16] for path in paths if path.is_file())


def finish(one: Run):
    """Train a run, or go on with it, unless it is whole and measured."""
    if is_whole(one.folder) and (one.folder / PREDICTIONS).is_file():
        print("It is whole, and is not trained again.")
        return
    begun = (one.folder / "recipe.yaml").is_file()
    train(one.recipe, [*one.words, *(how_to_go_on(one.recipe, one.words) if begun else [])])


def cells_of(runs: Sequence[Run]) -> list[Cell]:
    """Measure every recipe and variant, and hold each variant against the full one on the same test rows."""
    figures: dict[tuple[str, str], list[Figure]] = {}
    sizes: dict[str, int] = {}
    metrics = {one.name: one.metric for one in runs}
    for one in runs:
        predictions, labels = answers_of(one.folder)
        sizes[one.name] = len(labels)
        figure = TASK_METRICS[one.metric].figure(predictions, labels)
        figures.setdefault((one.name, one.variant), []).append(figure)
    return [
        Cell.of(name, variant, metrics[name], sizes[name], found, figures[name, FULL])
        for (name, variant), found in figures.items()
    ]


def answers_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read what a run answered on its test rows, and what was right, in the order of their origins."""
    numbers: dict[Any, int] = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("label2id") or {}
    lines = (folder / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    rows = sorted(map(json.loads, lines), key=lambda row: row["origin"])
    sides = ([numbers.get(row[side], row[side]) for row in rows] for side in ("prediction", "label"))
    predictions, labels = (np.array(side) for side in sides)
    return predictions, labels
