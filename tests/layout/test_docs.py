import re
from pathlib import Path

import pytest

from transformer_theatre.recipes.arguments import shipped_recipes
from transformer_theatre.recipes.train import load_recipe


DOCS = Path(__file__).parents[2] / "docs"
# Figures and options whose names begin like those of tests.
_NOT_TESTS = (
    "_bleu",
    "_lowercase",
    "_error_rate",
    "_signature",
    "_source",
    "_target",
    "_split",
    "_accuracy",
    "_share",
    "_file",
)


def _links(repository):
    for page in sorted(repository.glob("docs/*.md")):
        for name, path, line in re.findall(r"\[`(\w+)`\]\(\.\./([\w/.]+)#L(\d+)\)", page.read_text(encoding="utf-8")):
            yield page.name, name, path, int(line)


def test_every_link_to_a_line_points_at_the_definition_it_names(repository):
    links = list(_links(repository))
    assert len(links) >= 15
    for page, name, path, line in links:
        lines = (repository / path).read_text(encoding="utf-8").splitlines()
        where = [number for number, text in enumerate(lines, 1) if re.match(rf"\s*(class|def) {name}\b", text)]
        assert line in where, f"docs/{page}: {name} stands in line {where} of {path}, not {line}"


def test_every_test_that_the_docs_name_exists(repository):
    tests = "".join(path.read_text(encoding="utf-8") for path in repository.glob("tests/**/test_*.py"))
    for page in repository.glob("docs/*.md"):
        for name in re.findall(r"`(test_\w+)", page.read_text(encoding="utf-8")):
            if name.startswith("test_") and not name.endswith(_NOT_TESTS):
                assert f"def {name}(" in tests, f"docs/{page.name} names {name}"


def test_the_table_of_recipes_has_every_recipe_with_its_anchor(repository):
    rows = {}
    for line in (repository / "docs" / "recipes.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| `"):
            rows.setdefault(line.split("`")[1], line)
    for name in shipped_recipes():
        anchor = load_recipe(name).anchor
        if anchor is not None:
            assert f" {anchor['figure']:g}" in rows[name], f"{name}: the table does not say {anchor['figure']}"


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CONTRIBUTING.md",
        "docs/translation.md",
        "docs/gpt.md",
        "docs/lstm.md",
        "docs/tasks.md",
        "docs/theatre.md",
        "docs/convert.md",
        "docs/recipes.md",
        "docs/styles.md",
        "docs/scaling.md",
        "docs/publish.md",
    ],
)
def test_every_relative_link_leads_somewhere(repository, name):
    page = repository / name
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{name} links to {target}"
    assert "@@" not in page.read_text(encoding="utf-8")
