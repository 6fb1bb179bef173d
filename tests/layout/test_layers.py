"""Imports point down, and what travels to the Hub can travel (docstring of modeling/remote_code.py)."""

import ast
import sys
from pathlib import Path

import pytest


LAYERS = {"configuration": 0, "modeling": 1, "recipes": 2}
# What every stranger who loads a model has installed.
TRAVELLING = {"torch", "tqdm", "transformers", "huggingface_hub", "transformer_theatre", *sys.stdlib_module_names}

REPOSITORY = Path(__file__).parents[2]
FILES = [(layer, path) for layer in LAYERS for path in sorted((REPOSITORY / layer).rglob("*.py"))]
MODEL_FILES = [(layer, path) for layer, path in FILES if layer != "recipes"]


def by_file(files):
    return pytest.mark.parametrize(
        ("layer", "path"), files, ids=[path.relative_to(REPOSITORY).as_posix() for _, path in files]
    )


def imports(path):
    """Yield line number, level and full dotted name of each import statement."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)


@by_file(FILES)
def test_imports_point_down(layer, path):
    for line, level, name in imports(path):
        root, _, rest = name.partition(".")
        if level:
            assert level == 1, f"line {line}: write `from transformer_theatre.folder.file import name`"
            assert name, f"line {line}: write `from .file import name`"
        assert level or root not in LAYERS, f"line {line}: write transformer_theatre.{root}"
        if root == "transformer_theatre":
            assert LAYERS.get(rest.partition(".")[0], 2) <= LAYERS[layer], f"line {line}: upward import of {name}"


@by_file(MODEL_FILES)
def test_models_need_nothing_that_a_stranger_lacks(layer, path):
    for line, level, name in imports(path):
        assert level or name.partition(".")[0] in TRAVELLING, f"line {line}: {name} is not everywhere"


@by_file(MODEL_FILES)
def test_models_import_files_not_packages(layer, path):
    """The Hub has no packages: only an import that names the file can be rewritten."""
    for line, _, name in imports(path):
        if name.startswith("transformer_theatre") and path.name != "__init__.py":
            assert name.count(".") == 2, f"line {line}: write transformer_theatre.folder.file, not {name}"


def test_model_files_fit_in_one_folder():
    stems = [path.stem for _, path in MODEL_FILES if path.name != "__init__.py"]
    assert sorted(stems) == sorted(set(stems))
    assert all(len(path.relative_to(REPOSITORY).parts) == 2 for _, path in MODEL_FILES), "the Hub has no sub-folders"


def test_files_are_named_after_what_they_are():
    assert not {path.stem for _, path in FILES} & {"utils", "helpers", "common", "misc"}


def test_the_facade_re_exports_models_only():
    facade = REPOSITORY / "src" / "transformer_theatre" / "__init__.py"
    assert {name for _, _, name in imports(facade)} <= {
        "transformer_theatre.configuration",
        "transformer_theatre.modeling",
    }
