"""What people install: the wheel, its content, and that it works where the checkout is not."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


pytestmark = pytest.mark.slow

# Runs outside the checkout; prints where things are found.
PROBE = """
import importlib.metadata, importlib.resources, importlib.util, sys
import transformer_theatre, transformer_theatre.recipes
folder = sys.argv[1]
package = importlib.resources.files("transformer_theatre")
assert str(package).startswith(folder), package
for part in ("configuration", "modeling", "recipes"):
    module = importlib.import_module(f"transformer_theatre.{part}")
    assert module.__file__.startswith(folder), module.__file__
    assert importlib.util.find_spec(part) is None, f"{part} is importable as a top-level package"
assert (package / "model_card.md").is_file()
assert (package / "py.typed").is_file()
assert transformer_theatre.__version__ == importlib.metadata.version("transformer-theatre")

from pathlib import Path
from transformer_theatre.recipes.arguments import find_recipe
from transformer_theatre.recipes.model_card import template_path, write_model_card
from transformer_theatre.recipes.theatre import main
assert str(find_recipe("multi30k-de-en/small")).startswith(folder)
assert str(template_path()).startswith(folder)
sizes = {f"{side}_{name}": 1 for side in ("encoder", "decoder") for name in ("layers", "attention_heads", "ffn_dim")}
config = transformer_theatre.TransformerConfig(vocab_size=9, d_model=2, **sizes)
model = transformer_theatre.TransformerForConditionalGeneration(config)
empty = {"recipe_name": "a/b", "recipe": {}, "metrics": {}, "data": "", "languages": [], "example": ""}
assert "Departures" in write_model_card(Path.cwd(), model, name="a", **empty).read_text(encoding="utf-8")
assert main(["train", "multi30k-de-en/small", "--help"]) == 0
"""


def run(*command, cwd):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def build(source, output, *kinds):
    run(sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", output, source, cwd=output.parent)
    return output


def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def checkout(repository, tmp_path_factory):
    """A copy of the checkout, as git would hand it out, so that no build leaves anything behind in this one."""
    copy = tmp_path_factory.mktemp("checkout") / "transformer-theatre"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    return shutil.copytree(repository, copy, ignore=unwanted)


@pytest.fixture(scope="module")
def archives(checkout, tmp_path_factory):
    """Wheel and source distribution, both built from the tree."""
    output = tmp_path_factory.mktemp("archives")
    build(checkout, output, "--sdist")
    build(checkout, output, "--wheel")
    return next(output.glob("*.whl")), next(output.glob("*.tar.gz"))


def test_wheel_holds_one_package_and_all_its_data(archives, checkout):
    content = names(archives[0])
    top_level = {name.partition("/")[0] for name in content}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"transformer_theatre"}

    recipes = {
        path.relative_to(checkout).as_posix()
        for ending in ("yaml", "sh")
        for path in (checkout / "recipes").rglob(f"*.{ending}")
    }
    sources = {
        path.relative_to(checkout).as_posix()
        for folder in ("configuration", "modeling", "recipes")
        for path in (checkout / folder).rglob("*.py")
    }
    wanted = {f"transformer_theatre/{name}" for name in recipes | sources}
    wanted |= {f"transformer_theatre/{name}" for name in ("__init__.py", "model_card.md", "py.typed")}
    assert {name for name in content if name.startswith("transformer_theatre/")} == wanted
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in content)


def test_wheel_from_the_sdist_is_the_wheel_from_the_tree(archives, tmp_path):
    wheel, sdist = archives
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    output = tmp_path / "dist"
    output.mkdir()
    (again,) = build(unpacked, output, "--wheel").glob("*.whl")
    assert again.name == wheel.name
    assert names(again) == names(wheel)


def test_installed_wheel_works_outside_the_checkout(archives, checkout, tmp_path):
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, archives[0], cwd=tmp_path)
    code = f"import sys; sys.path.insert(0, {str(site)!r}); sys.argv = ['probe', {str(site)!r}]\n{PROBE}"
    output = run(sys.executable, "-I", "-c", code, cwd=tmp_path)
    assert "--learning_rate 3e-3" in output

    installed = {path.relative_to(site / "transformer_theatre") for path in site.rglob("*.yaml")}
    assert installed == {Path(path).relative_to(checkout) for path in (checkout / "recipes").rglob("*.yaml")}
