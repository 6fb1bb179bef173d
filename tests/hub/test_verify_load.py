"""`theatre verify-load`: a model that answers as it did passes, in this environment and in fresh ones."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from model_folders import make, theatre

from transformer_theatre.recipes import verify_load
from transformer_theatre.recipes.golden import GOLDEN, Answer, write_golden
from transformer_theatre.recipes.verify_load import Installing, Row, requirement, run, table


def arguments(model, **options):
    names = ("revision", "transformers", "torch", "environments")
    given = dict.fromkeys(names) | {"pip": "", "share_torch": False} | options
    return argparse.Namespace(model=str(model), **given)


@pytest.mark.parametrize(
    ("version", "wanted"),
    [
        ("5", "transformers==5.*"),
        ("5.4", "transformers==5.4.*"),
        ("5.10.2", "transformers==5.10.2"),
        ("latest", "transformers"),
    ],
)
def test_a_version_is_the_newest_that_begins_so(version, wanted):
    assert requirement(version) == wanted


@pytest.mark.parametrize("version", ["5.x", "newest", "5.4.1.2", "-r", "5.4 --pre"])
def test_what_is_no_version_is_refused(version, tmp_path):
    with pytest.raises(ValueError, match="must be versions such as"):
        run(arguments(tmp_path, transformers=version))


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no model folder"):
        run(arguments(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        run(arguments(tmp_path))
    with pytest.raises(ValueError, match="is of a repository on the Hub"):
        run(arguments(tmp_path, revision="v1"))
    with pytest.raises(ValueError, match="give --transformers"):
        run(arguments(tmp_path, share_torch=True))


def test_the_table_says_what_passes_what_does_not_and_what_has_no_answer(capsys, monkeypatch, tmp_path):
    make(tmp_path / "model")
    write_golden(tmp_path / "model", tmp_path / "model" / GOLDEN)
    good = Answer(1e-7, 1e-4, [], "5.4.0", "2.6.0", "3.11.7")
    bad = Answer(0.5, 1e-4, ["the text that it writes"], "5.10.0", "2.6.0", "3.11.7")
    found = iter([good, bad, RuntimeError("ImportError: gone")])

    def ask(place, golden, **options):
        assert options["environment"] == {"PYTHONPATH": ""}
        answer = next(found)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(verify_load, "ask_stranger", ask)
    monkeypatch.setattr(Installing, "python", lambda self, version: sys.executable)
    assert run(arguments(tmp_path / "model", transformers="5.4, 5.10,latest")) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["5.4", "5.4.0", "2.6.0", "3.11.7", "1e-07", "0.0001", "PASS"]
    assert lines[2].endswith("FAIL: not as they were: the text that it writes")
    assert lines[3].startswith("latest")
    assert lines[3].endswith("FAIL: ImportError: gone")
    assert table([Row("5.4", good)]).count("\n") == 1


def test_pip_gets_the_version_the_torch_and_the_options(monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(verify_load, "_command", lambda words: said.append(words) or "")
    (tmp_path / "transformers-5.4").mkdir()  # as venv does
    installing = Installing(tmp_path, "torch==2.6.*", "--no-index --find-links 'a folder'")
    python = installing.python("5.4")
    asked = ["transformers==5.4.*", "safetensors", "torch==2.6.*", "--no-index", "--find-links", "a folder"]
    assert said[1][1:] == ["-m", "pip", "install", "--quiet", *asked]
    assert installing.python("5.4") == python  # which is there already
    assert len(said) == 2


@pytest.mark.slow
def test_a_fresh_environment_answers_without_any_network(hub, tmp_path):
    """It is given the installed transformers, as pip finds it; a version that is nowhere is a line that says so."""
    make(tmp_path / "model")
    kept = tmp_path / "environments"
    words = ["verify-load", tmp_path / "model", "--share-torch", "--pip=--no-index", "--environments", kept]
    version = transformers.__version__
    result = theatre(hub, tmp_path / "home", *words, "--transformers", f"{version},5.0.0")
    assert result.returncode == 1
    first, second = result.stdout.splitlines()[-2:]
    assert first.split()[:2] == [version, version]
    assert first.endswith("PASS")
    assert "FAIL: no environment: ERROR: No matching distribution found for transformers==5.0.0" in second
    assert not (tmp_path / "model" / GOLDEN).exists()
    python = kept / f"transformers-{version}" / "bin" / "python"
    code = "import sys; print(sys.prefix)"
    prefix = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(prefix) == kept / f"transformers-{version}"


@pytest.mark.slow
def test_a_published_model_passes_and_a_changed_one_fails(hub, tmp_path):
    make(tmp_path / "model")
    home = tmp_path / "home"
    assert theatre(hub, home, "publish", tmp_path / "model", "user/model").returncode == 0
    result = theatre(hub, tmp_path / "stranger", "verify-load", "user/model", token=None)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].endswith("PASS")
    config = tmp_path / "model" / "config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, "norm_first": not fields["norm_first"]}), encoding="utf-8")
    result = theatre(hub, home, "verify-load", tmp_path / "model")
    assert result.returncode == 1
    assert "FAIL" in result.stdout
