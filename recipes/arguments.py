"""Recipes: a YAML file, plus `--key value` on the command line, strictly read into typed arguments."""

import json
import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml
from transformers import HfArgumentParser

from .anchor import check_anchor
from .nearest import nearest
from .run_arguments import COMMON_TRAINING_ARGUMENTS, OF_TRANSLATION, RunArguments


RECIPES = Path(__file__).parent
# Options that say where a run is and who publishes it, not how it trains: they are no part of its recipe.yaml.
NOT_RECIPE = {
    "data_dir",
    "output_dir",
    "overwrite",
    "resume_from_checkpoint",
    "push_to_hub",
    "hub_token",
    "hub_model_id",
    "hub_strategy",
    "hub_private_repo",
    "hub_revision",
    "hub_always_push",
}


@dataclass(frozen=True)
class Recipe:
    """A YAML recipe: its keys and values, and the line of each key."""

    path: Path
    task: str
    values: dict[str, Any]
    lines: dict[str, int]
    anchor: dict[str, Any] | None

    @property
    def name(self) -> str:
        """Folder and file, such as "multi30k-de-en/small"; of a file in somebody's home, the file alone."""
        folder = self.path.resolve().parent
        return self.path.stem if folder in (Path.home(), Path("/")) else f"{folder.name}/{self.path.stem}"


def shipped_recipes() -> dict[str, Path]:
    """Map the name of every recipe that comes with the package to its file."""
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(RECIPES.glob("*/*/*.yaml"))}


def find_recipe(name: str) -> Path:
    """Find a recipe by its path, or one that comes with the package by its name ("multi30k-de-en/small").

    Raises:
        ValueError: there is none; the message names the nearest, and lists those that come with the package.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_recipes()
    # The path that it has in the repository is as good as its name, wherever one stands.
    parts = Path(name).with_suffix("").parts
    short = "/".join(parts[2:]) if len(parts) == 4 and parts[0] == "recipes" and name.endswith(".yaml") else name
    if short in shipped:
        return shipped[short]
    raise ValueError(
        f"There is no recipe {name!r}{nearest(short, shipped)}. Give a YAML file, or one of: {', '.join(shipped)}."
    )


def read_recipe(path: Path, tasks: Sequence[str]) -> Recipe:
    """Read a YAML recipe, with the line of each key.

    Raises:
        ValueError: it is no YAML mapping of names to values, a key stands twice, or `task` is none of `tasks`.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{path} must hold lines of `key: value`, each key a name, and holds {str(values)[:80]!r}.")
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if key.value in lines:
            raise ValueError(
                f"{path}:{key.start_mark.line + 1}: {key.value!r} stands in line {lines[key.value]} already."
            )
        lines[key.value] = key.start_mark.line + 1
    task = values.pop("task", None)
    if task not in tasks:
        raise ValueError(f"{path}:{lines.get('task', 1)}: task: {task!r} must be one of: {', '.join(tasks)}.")
    for key in ("preset", "model_name_or_path", "config_name"):  # they decide what the options are
        if isinstance(values.get(key), (list, dict)):
            raise ValueError(f"{path}:{lines[key]}: {key}: {values[key]!r} must be one value.")
    anchor = values.pop("anchor", None)
    if anchor is not None:
        check_anchor(anchor, f"{path}:{lines['anchor']}")
    return Recipe(path, task, values, lines, anchor)


class RecipeParser(HfArgumentParser):
    """The library's parser, which raises ValueError instead of ending the program."""

    def __init__(self, types: Any, **kwargs: Any):
        super().__init__(types, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        """Raise what argparse would print.

        Raises:
            ValueError: always.
        """
        # argparse names both spellings of an option; one is enough.
        raise ValueError(re.sub(r"(--\w+)/--[\w-]+", r"\1", message))


def parse_recipe(recipe: Recipe, overrides: Sequence[str], *types: type) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Parse a recipe and what the command line says over it into one dataclass per type.

    Values pass through argparse, so that `1e-3`, a string in YAML 1.1, becomes a float.

    Args:
        recipe: from `read_recipe`.
        overrides: `["--learning_rate", "1e-3", ...]`.
        *types: dataclasses, no two with a field of the same name.

    Returns:
        One instance per type, and the recipe as run: every key that was given, with its value, but for those that say where
        it ran.

    Raises:
        ValueError: a key belongs to none of `types` (the nearest known one is named), or a value has the wrong type.
    """
    parser = RecipeParser(types)
    known = {action.dest for action in parser._actions} - {"help"} - _elsewhere(recipe.task)
    preset = next((part.default for kind in types for part in fields(kind) if part.name == "preset"), None)
    task = f"task {recipe.task}" + (f" with preset {preset}" if preset else "")
    words = options_of(overrides)
    for key in [*recipe.values, *words]:
        if key not in known:
            named = f"--{key}" if key in words else f"{recipe.path}:{recipe.lines[key]}: {key!r}"
            raise ValueError(f"{named} is no option of {task}{nearest(key, known)}.")
    for key in RunArguments._VALID_DICT_FIELDS:
        for word in words.get(key, []):
            _as_yaml(key, word)
    _check_shapes(recipe, types)
    given = dict.fromkeys([*recipe.values, *words])
    argv = [word for key, value in recipe.values.items() if value is not None for word in _as_words(key, value)]
    try:
        parser.parse_args(argv)
    except ValueError as error:
        option = re.search(r"argument --(\w+)", str(error))
        where = f":{recipe.lines[option[1]]}" if option and option[1] in recipe.lines else ""
        raise ValueError(f"{recipe.path}{where}: {error}") from None
    parser.parse_args([*argv, *overrides])
    if "per_device_train_batch_size" in words and (
        words.get("max_tokens_per_batch") or recipe.values.get("max_tokens_per_batch")
    ):
        raise ValueError(
            f"--per_device_train_batch_size {words['per_device_train_batch_size'][0]} has no use beside max_tokens_per_batch: batches "
            "are filled by tokens. Leave it out; of fewer --max_tokens_per_batch batches are smaller."
        )
    parsed = parser.parse_args_into_dataclasses([*argv, *overrides], look_for_args_file=False)
    for key in given:
        value = next(getattr(part, key) for part in parsed if hasattr(part, key))
        value = getattr(value, "value", value)  # an enumeration's word
        # What became an object is written as it was given: in the YAML, or as JSON on the command line.
        plain = value is None or isinstance(value, (str, int, float, list, dict))
        given[key] = value if plain else _as_yaml(key, words[key][0]) if key in words else recipe.values[key]
    kept = {key: value for key, value in given.items() if key not in NOT_RECIPE and value != []}
    return parsed, {key: portable(key, value) for key, value in kept.items()}


def _check_shapes(recipe: Recipe, types: Sequence[type]):
    """Make sure that a recipe has lists and mappings only where options take them, and in lists no word that YAML takes for another.

    Raises:
        ValueError: it has not; the message names file and line.
    """
    # Not those of the fields, which the parser changes.
    bases = [base for kind in types for base in reversed(kind.__mro__)]
    kinds = {name: str(kind) for base in bases for name, kind in getattr(base, "__annotations__", {}).items()}
    for key, value in recipe.values.items():
        place, kind = f"{recipe.path}:{recipe.lines[key]}: {key}: {value!r}", kinds.get(key, "")
        if (isinstance(value, list) and "list" not in kind) or (isinstance(value, dict) and "dict" not in kind):
            raise ValueError(f"{place} must be one value.")
        if isinstance(value, list) and (odd := [word for word in value if word is None or isinstance(word, bool)]):
            raise ValueError(
                f"{place} holds {odd[0]}, which YAML made of a word: put it in quotes, as 'yes', 'no' and 'null'."
            )


# Options whose values are text, in which a slash is a slash.
_TEXTS = {"separator", "template", "template_words", "sample_prompts", "labels", "question_words", "intended_use"}


def portable(key: str, value: Any) -> Any:
    """Give the value of an option as recipe.yaml has it: of paths without what says where they lie on this machine."""
    return value if key in _TEXTS else without_place(value)


def without_place(value: Any) -> Any:
    """Take from a path what says where it lies on this machine, and from lists and dictionaries that of all paths in them."""
    if isinstance(value, dict):
        return {key: without_place(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_place(part) for part in value]
    if not isinstance(value, str):
        return value
    placed = value.startswith("~") or PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()
    if not placed and value != "." and ".." not in PureWindowsPath(value).parts:
        return value
    name = PureWindowsPath(value).name
    return Path(value).resolve().name if name in ("", "..") else name


def options_of(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Map every option that the command line names to its words: of `--key value`, `--key=value` or `--key one two`."""
    options: dict[str, list[str]] = {}
    words: list[str] = []
    for word in overrides:
        if word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            words = options[key.replace("-", "_")] = [value] if equals else []
        else:
            words.append(word)
    return options


def _as_yaml(key: str, word: str) -> Any:
    try:
        return json.loads(word) if word.startswith("{") else word
    except json.JSONDecodeError as error:
        raise ValueError(
            f"--{key} {word!r} is no JSON, in which names stand in double quotes, as in "
            f"--{key} '{{\"name\": 1}}': {error}."
        ) from None


def _as_words(key: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"--{key}", json.dumps(value)]
    values = value if isinstance(value, list) else [value]
    return [f"--{key}", *map(str, values)] if len(values) != 1 else [f"--{key}={values[0]}"]


def _elsewhere(task: str) -> set[str]:
    """Name the training arguments that a task has no use for."""
    return set() if task == "translation" else OF_TRANSLATION


def help_text(recipe: Recipe, types: Sequence[Any], everything: bool) -> str:
    """List the options of a recipe's task, each with its unit and default, the recipe's own values as defaults.

    Args:
        recipe: its values take the place of the defaults.
        types: as for `parse_recipe`.
        everything: also list the library's rarer training arguments.
    """
    lines = [f"Options of {recipe.path} (task: {recipe.task}). In the YAML: `key: value`; here: `--key value`.", ""]
    for kind in types:
        lines += [f"{kind._argument_group_name}:"]
        for part in fields(kind):
            hidden = issubclass(kind, RunArguments) and part.name not in COMMON_TRAINING_ARGUMENTS and not everything
            if hidden or not part.init or part.name in _elsewhere(recipe.task):
                continue
            default = recipe.values.get(part.name, part.default if part.default is not MISSING else None)
            default = " ".join(map(str, default)) if isinstance(default, list) else default
            note = " ".join(str(part.metadata.get("help", "")).replace("%%", "%").split())
            lines += [f"  --{part.name} {default if default is not None else ''}".rstrip(), f"      {note}"]
        lines += [""]
    if not everything:
        lines += ["All of transformers.Seq2SeqTrainingArguments are options too: --help_all lists them."]
    return "\n".join(lines)
