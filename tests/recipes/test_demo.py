import datetime
import json
import re
import signal

import pytest

from transformer_theatre.recipes.dates import LANGUAGES
from transformer_theatre.recipes.demo import read_as_a_stranger, todays_date
from transformer_theatre.recipes.run_folder import begin_folder
from transformer_theatre.recipes.signals import StoppedBySignalError
from transformer_theatre.recipes.theatre import main


@pytest.mark.parametrize(
    ("locale", "part"), [("de_DE.UTF-8", "Sonntag"), ("fr_CA.UTF-8", "dimanche"), ("tlh", "Sunday"), ("C", "Sunday")]
)
def test_today_is_written_in_the_users_language(monkeypatch, locale, part):
    class Sunday(datetime.date):
        @classmethod
        def today(cls):
            return cls(2026, 11, 22)

    monkeypatch.setattr("transformer_theatre.recipes.demo.datetime.date", Sunday)
    for name in ("LANGUAGE", "LC_ALL", "LC_CTYPE", "LANG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_TIME", locale)
    assert part in todays_date()


@pytest.mark.slow
def test_a_folder_that_a_stranger_cannot_load_fails_with_its_own_message(tmp_path):
    with pytest.raises(RuntimeError, match="could not load"):
        read_as_a_stranger(tmp_path, "today")


def test_another_run_is_not_taken_for_an_earlier_demo(tmp_path, capsys):
    begin_folder(tmp_path, {"task": "translation"}, name="multi30k-de-en/small")
    assert main(["demo", "--output_dir", str(tmp_path)]) == 2
    assert "holds a run of multi30k-de-en/small" in capsys.readouterr().err
    assert (tmp_path / "recipe.yaml").is_file()


def test_a_demo_that_was_stopped_says_what_goes_on(tmp_path, capsys, monkeypatch):
    def stopped(*_):
        raise StoppedBySignalError(
            signal.SIGINT,
            "stopped by SIGINT after step 7, and saved; the same command with --resume_from_checkpoint true goes on.",
        )

    monkeypatch.setattr("transformer_theatre.recipes.demo.train", stopped)
    assert main(["demo", "--output_dir", str(tmp_path / "demo")]) == 130
    said = capsys.readouterr().err
    assert "after step 7, and saved; `theatre demo` begins anew" in said
    assert "theatre train dates/demo --output_dir" in said
    assert f"--data_dir {tmp_path}/demo-data --resume_from_checkpoint true" in said


@pytest.mark.slow
def test_the_demo_keeps_its_promise(tmp_path, capsys):
    folder = tmp_path / "runs" / "demo"
    assert main(["demo", "--output_dir", str(folder), "--date", "Sonntag, 22. November 2026"]) == 0
    output = capsys.readouterr().out
    assert "Sonntag, 22. November 2026  ->  2026-11-22" in output
    assert "PASS: test_exact_match" in output
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test_exact_match"] >= 0.99
    bounds = {"test_exact_match_low", "test_exact_match_high"}
    by_language = {key for key in metrics if key.startswith("test_exact_match_")} - bounds
    assert by_language == {f"test_exact_match_{name}" for name in LANGUAGES.values()}
    assert len(by_language) >= 30
    assert int(re.search(r"of ([\d,]+) unseen dates", output)[1].replace(",", "")) >= 2000
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{100 * metrics['test_exact_match']:.2f}" in card
    assert (folder / "figures" / "attention.png").stat().st_size > 10_000
