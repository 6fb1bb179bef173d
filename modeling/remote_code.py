"""Write a model's source files, flattened, beside its `config.json`, so that it loads where this package is missing.

The library loads such code by `trust_remote_code=True` (https://huggingface.co/docs/transformers/custom_models). It finds
files by their relative imports, one folder deep; hence the imports across our folders are rewritten on the way.
"""

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from transformers import PreTrainedModel
from transformers.utils import logging


logger = logging.get_logger(__name__)


# `from transformer_theatre.configuration.configuration_x import X` here is `from .configuration_x import X` there.
_PACKAGE_IMPORT = re.compile(r"^from transformer_theatre\.(configuration|modeling)\.(\w+) import ", re.MULTILINE)
# A whole statement, on one line or in parentheses: the sibling, and the first name that is imported from it.
_SIBLING_IMPORT = re.compile(r"^from \.(\w+) import (?=\(?\s*(\w+))(?:\([^)]*\)|[^\n(]*)\n", re.MULTILINE)


class CodeExporter:
    """Write the code of one model into a folder, and say in its configuration which class is loaded by which Auto class.

    Args:
        auto_classes: name of an Auto class -> the model classes registered with it.
    """

    def __init__(self, auto_classes: Mapping[str, Sequence[type[PreTrainedModel]]]):
        self.auto_classes = auto_classes

    def __call__(self, model: PreTrainedModel, folder: str | Path):
        """Write `model`'s files into `folder`, and set `model.config.auto_map` (and `custom_pipelines`, where it has any).

        A class that somebody derived from one of ours is left to the library, which writes code only where
        `register_for_auto_class` was called: our code would not be what the model runs.

        Raises:
            ValueError: a file imports a part of the package that cannot travel.
        """
        known = {member for members in self.auto_classes.values() for member in members}
        model_class = next((parent for parent in type(model).__mro__ if parent in known), None)
        # A sharded model is of a class that torch derives on the spot, and that adds nothing to the code.
        if model_class is None or not (type(model) is model_class or type(model).__module__.startswith("torch.")):
            logger.warning_once(f"{type(model).__name__} is not of this package, so its code is not saved beside it.")
            return
        config_class = type(model.config)
        auto_map = {"AutoConfig": _reference(config_class)}
        for auto_class, members in self.auto_classes.items():
            for member in members:
                if member.__module__ == model_class.__module__:
                    auto_map[auto_class] = _reference(member)
        sources = flat_sources(model_class)
        model.config.auto_map = auto_map
        if hasattr(model_class, "custom_pipelines"):
            model.config.custom_pipelines = model_class.custom_pipelines
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in sources.items():
            (folder / name).write_text(text, encoding="utf-8")


def flat_sources(model_class: type[PreTrainedModel]) -> dict[str, str]:
    """Map file name to flattened source, for `model_class` and everything of this package that it imports.

    Raises:
        ValueError: a file imports a part of the package that cannot travel.
    """
    modules, flat = [model_class.__module__], {}
    while modules:
        module = importlib.import_module(modules.pop())
        path = Path(inspect.getfile(module))
        if path.name in flat:
            continue
        text = path.read_text(encoding="utf-8")
        modules += [f"transformer_theatre.{part}.{stem}" for part, stem in _PACKAGE_IMPORT.findall(text)]
        modules += [f"{module.__package__}.{match[1]}" for match in _SIBLING_IMPORT.finditer(text)]
        flat[path.name] = _PACKAGE_IMPORT.sub(r"from .\2 import ", text)
        if re.search(r"^\s*(from|import) transformer_theatre\b", flat[path.name], re.MULTILINE):
            raise ValueError(f"{path} imports a part of transformer_theatre that cannot travel to the Hub.")
    imported = {name: {match[1]: match[2] for match in _SIBLING_IMPORT.finditer(text)} for name, text in flat.items()}
    return {name: _with_indirect_imports(name, text, imported) for name, text in flat.items()}


def _with_indirect_imports(name: str, text: str, imported: Mapping[str, Mapping[str, str]]) -> str:
    """Import in a file what its siblings import: older versions of the library (5.4) fetch no more than a file names itself.

    Args:
        name: of the file.
        text: of the file.
        imported: name of every file -> its siblings, each with one name that is imported from it.
    """
    reached, waiting = dict(imported[name]), list(imported[name])
    while waiting:
        for stem, what in imported[f"{waiting.pop()}.py"].items():
            if stem not in reached:
                reached[stem] = what
                waiting.append(stem)
    lines = [
        f"from .{stem} import {what}  # noqa: F401\n"
        for stem, what in sorted(reached.items())
        if stem not in imported[name]
    ]
    if not lines:
        return text
    end = max(match.end() for match in _SIBLING_IMPORT.finditer(text))
    return text[:end] + "".join(lines) + text[end:]


def _reference(cls: type) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"
