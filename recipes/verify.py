"""`theatre verify`: train a recipe, or measure again what it has trained, and hold the figure against the recipe's anchor."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from .anchor import verdict
from .arguments import NOT_RECIPE, Recipe, options_of, parse_recipe, portable
from .model_arguments import recipe_fields
from .pretrained import SOURCES, for_model_of
from .run_folder import read_json, read_recipe_of, recipe_of, write_json
from .train import for_text_of, load_recipe, script, train
from .training import last_checkpoint


USAGE = """usage: theatre verify RECIPE [--output_dir RUN] [--data_dir FOLDER] [--seeds 1 2 3] [--key value ...]

Check the reproduction contract of a recipe: the figure under `anchor:` in its YAML, published or promised, with its source and
tolerance. RECIPE and all further options are those of `theatre train`. Prints PASS or FAIL with the difference.

  theatre verify multi30k-de-en/small --data_dir FOLDER --output_dir RUN
      RUN is the folder of a finished run: nothing is trained. The saved model is measured again, on the recipe's validation and
      test text, and the figures are held against its metrics.json too.
  theatre verify multi30k-de-en/small --data_dir FOLDER
      Without such a folder, train first, into RUN (default: runs/ and the recipe's name).
  theatre verify multi30k-de-en/small --data_dir FOLDER --seeds 1 2 3
      Train once for each seed, into RUN-seed1, RUN-seed2, ...: the mean is held against the anchor, and the spread is the
      sample standard deviation. A seed whose folder is whole is measured, not trained; a run that was cut off goes on from its
      last checkpoint. So the same command again finishes what was interrupted.

Writes RUN-verification.json beside the runs. Exit code 0: PASS; 1: FAIL, or the figure was not measured; 2: the input was wrong."""

# Options that change nothing of what is learnt.
_BESIDE = {
    "task",
    "disable_tqdm",
    "logging_steps",
    "report_to",
    "use_cpu",
    "dataloader_num_workers",
    "dataloader_pin_memory",
    "language",
    "data_licence",
    "data_url",
    "model_licence",
    "hub_task",
    "intended_use",
}
# What `verify` decides itself.
_OWN = {"seed": "--seeds 1", "resume_from_checkpoint": "nothing", "overwrite": "nothing"}


@dataclass
class Check:
    """One run of the recipe: its figure, and how that agrees with what its folder says."""

    folder: str
    seed: int
    trained: bool  # by this command
    value: float | None  # of the anchor's metric
    departs: dict[str, Any] = field(default_factory=dict)  # option -> [in the folder's recipe.yaml, in the recipe]
    differs: dict[str, Any] = field(default_factory=dict)  # figure -> [in its metrics.json, measured again]


def main(argv: Sequence[str]) -> int:
    """Run the command line behind `theatre verify`.

    Raises:
        ValueError: the recipe has no anchor, or an option, the data or a folder is wrong.
    """
    if not argv or {"-h", "--help"} & set(argv):
        print(USAGE)
        return 0 if argv else 2
    recipe, overrides = load_recipe(argv[0]), list(argv[1:])
    has_anchor = recipe.anchor is not None
    recipe = for_model_of(for_text_of(recipe, overrides), overrides)
    if recipe.anchor is None:
        why = "the text is not the recipe's own" if has_anchor else "the recipe has no anchor"
        raise ValueError(f"{recipe.name}: {why}, so there is nothing to verify.")
    options = options_of(overrides)
    for name in sorted(_OWN.keys() & options.keys()):
        raise ValueError(f"--{name} is not for `theatre verify`: give {_OWN[name]} in its place.")
    seeds = seeds_of(options)
    base = Path(options.get("output_dir", [f"runs/{recipe.name}"])[0])
    overrides = without(overrides, {"seeds", "output_dir"})
    checks = []
    chosen: list[int | None] = [*seeds] or [None]
    for seed in chosen:
        folder = base if seed is None else base.with_name(f"{base.name}-seed{seed}")
        words = overrides if seed is None else [*overrides, "--seed", str(seed)]
        checks.append(check(recipe, words, folder, strict=seed is not None))
    return report(recipe, checks, base.with_name(f"{base.name}-verification.json"))


def seeds_of(options: dict[str, list[str]]) -> list[int]:
    """Read `--seeds 1 2 3`; none where it is not given.

    Raises:
        ValueError: they are no whole numbers, or one stands there twice.
    """
    words = options.get("seeds")
    if words is None:
        return []
    if not words or not all(word.isdecimal() for word in words) or len(set(map(int, words))) < len(words):
        raise ValueError(f"--seeds {' '.join(words)} must be whole numbers, none of them twice, as in --seeds 1 2 3.")
    return [int(word) for word in words]


def without(words: Sequence[str], names: set[str]) -> list[str]:
    """Leave options, and the words that belong to them, out of a command line."""
    kept, leaving = [], False
    for word in words:
        if word.startswith("--"):
            leaving = word[2:].partition("=")[0].replace("-", "_") in names
        if not leaving:
            kept.append(word)
    return kept


def check(recipe: Recipe, overrides: Sequence[str], folder: Path, *, strict: bool) -> Check:
    """Measure the run in a folder again, or train it first where there is none or only a part of one.

    Args:
        recipe: with an anchor.
        overrides: what the command line says over it.
        folder: of the run.
        strict: a folder whose run departs from the recipe is refused, not only reported; always so of one that is to go on.

    Raises:
        ValueError: the folder holds a run that departs from the recipe.
    """
    task, anchor = script(recipe.task), recipe.anchor or {}
    overrides = [*overrides, "--output_dir", str(folder)]
    (*_, args), given = parse_recipe(recipe, overrides, *task.argument_types(recipe, overrides))
    found, whole = recipe_of(folder), is_whole(folder)
    departs = departures(folder, given, strict) if found is not None else {}
    if whole and "preset" not in departs:
        departs |= preset_departures(folder, given)
    if departs and (strict or not whole):
        name, (there, here) = next(iter(departs.items()))
        raise ValueError(
            f"{folder} holds a run in which {name} was {_shown(there)}, and it is {_shown(here)} in the recipe: choose another "
            "--output_dir, or delete it."
        )
    if not whole:
        words = [] if found is None else how_to_go_on(recipe, overrides)
        metrics = train(recipe, [*overrides, *words]).metrics
        return Check(str(folder), args.seed, True, metrics.get(anchor["metric"]))
    print(f"{folder} holds a whole run: measuring it again.")
    metrics, path = task.measure(recipe, overrides, folder), folder / "metrics.json"
    said = read_json(path) if path.is_file() else {}
    seed = read_recipe_of(folder).get("seed", 42) if found else args.seed
    return Check(str(folder), seed, False, metrics.get(anchor["metric"]), departs, differences(said, metrics))


def is_whole(folder: Path) -> bool:
    """Say whether a run has written its model, which it does when it has trained."""
    return has_weights(folder) and not missing_beside_weights(folder)


def has_weights(folder: Path) -> bool:
    """Say whether a folder holds the weights of a model, or a part of them."""
    return any(folder.glob("model*.safetensors*"))


def missing_beside_weights(folder: Path) -> list[str]:
    """Name what a folder with weights lacks to be a model."""
    return [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]


def departures(folder: Path, given: dict[str, Any], strict: bool) -> dict[str, Any]:
    """Map every option in which the run of a folder departs from the recipe to what it is there and here.

    Args:
        folder: holds recipe.yaml, the recipe as it was run.
        given: the recipe as it would be run now.
        strict: the seed counts too.
    """
    there = {key: portable(key, value) for key, value in read_recipe_of(folder).items()}
    beside = _BESIDE | NOT_RECIPE | (set() if strict else {"seed"})
    keys = [key for key in dict.fromkeys([*there, *given]) if key not in beside]
    if given.get("max_tokens_per_batch") == "auto":  # the run has put its number there
        keys = [key for key in keys if key != "max_tokens_per_batch"]
    return {key: [there.get(key), given.get(key)] for key in keys if there.get(key) != given.get(key)}


def preset_departures(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Map every field that the preset alone decides, and in which the model of a folder differs, to what it is there and here.

    Args:
        folder: of a whole run.
        given: the recipe as it would be run now; a model that starts from another has the sizes of that one.
    """
    if "preset" not in given or set(SOURCES) & given.keys():
        return {}
    there: Any = AutoConfig.from_pretrained(folder)
    here = type(there).from_preset(given["preset"])
    names = recipe_fields(type(there)).keys() - given.keys() - {"vocab_size"}  # the tokenizer decides that
    if {"row_length", "max_length"} & given.keys():
        names -= {"max_position_embeddings"}
    pairs = {name: [getattr(there, name), getattr(here, name)] for name in sorted(names)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def how_to_go_on(recipe: Recipe, overrides: Sequence[str]) -> list[str]:
    """Say how a run that was cut off goes on: from its last whole checkpoint, or anew where there is none.

    Raises:
        ValueError: it would begin anew over weights that are there.
    """
    resume = ["--resume_from_checkpoint", "true"]
    words = [*overrides, *resume]
    (*_, args), _ = parse_recipe(recipe, words, *script(recipe.task).argument_types(recipe, words))
    try:
        last_checkpoint(args)
    except ValueError:
        folder = Path(args.output_dir)
        if has_weights(folder) and (missing := missing_beside_weights(folder)):
            raise ValueError(
                f"{folder} holds the weights of a model, and no {missing[0]}: put that back, or delete the folder to train again."
            ) from None
        return ["--overwrite", "true"]
    return resume


def differences(said: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Map every figure that is not what metrics.json says, beyond the sixth digit, to both."""
    return {
        key: [said[key], value]
        for key, value in measured.items()
        if key in said
        and (abs(said[key] - value) > 1e-5 * max(1.0, abs(value)) if _is_number(value) else said[key] != value)
    }


def _shown(value: Any) -> str:
    return "not given" if value is None else repr(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def report(recipe: Recipe, checks: list[Check], path: Path) -> int:
    """Print a table of the runs and the verdict on their mean, and write both to a file; return 0 where it is PASS."""
    anchor = recipe.anchor or {}
    values = [one.value for one in checks if one.value is not None]
    complete = len(values) == len(checks)
    mean = statistics.fmean(values) if complete else None
    spread = statistics.stdev(values) if complete and len(values) > 1 else None
    line = verdict(anchor, {anchor["metric"]: mean} if complete else {})
    width = max(len("run"), *(len(one.folder) for one in checks))
    print(f"\n{'run':<{width}}  {'seed':>6}  {anchor['metric']:>24}  metrics.json")
    for one in checks:
        value = "not measured" if one.value is None else f"{one.value:,.4f}"
        agrees = "written now" if one.trained else "differs" if one.differs else "the same"
        print(f"{one.folder:<{width}}  {one.seed:>6}  {value:>24}  {agrees}")
    for one in checks:
        for name, (there, here) in one.differs.items():
            print(f"{one.folder}: {name} is {there} in its metrics.json, and {here} now.")
        for name, (there, here) in one.departs.items():
            print(f"{one.folder}: {name} was {_shown(there)} in the run, and is {_shown(here)} in the recipe.")
    if spread is not None:
        print(f"mean {mean:,.4f}, spread {spread:,.4f} (sample standard deviation of {len(values)} runs)")
    print(f"\n{line}")
    contents = {"recipe": recipe.name, "anchor": anchor, "verdict": line, "mean": mean, "spread": spread}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    write_json(path, {**contents, "runs": [asdict(one) for one in checks], "versions": versions})
    print(f"Written to {path}.")
    return 0 if line.startswith("PASS") else 1
