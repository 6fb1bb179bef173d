"""`theatre demo`: the whole way in a few minutes, on a machine that has nothing but this package.

It writes the data, trains the original Transformer on it, measures it on dates it has never seen, draws what it looks at,
and has a process that cannot import this package load the result and read a date.
"""

import datetime
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from babel import Locale
from babel.core import default_locale

from .anchor import verdict
from .dates import LANGUAGES, date_corpus, describe_corpus, normalize_date_text, render_date, write_corpus
from .run_folder import check_folder, recipe_of, write_metrics
from .signals import StoppedBySignalError
from .train import load_recipe, train
from .train_translation import Translation, card, draw


RECIPE = "dates/demo"

# What somebody types who has transformers and nothing else.
STRANGER = """
import sys

sys.modules["transformer_theatre"] = None  # importing the package now fails, as where it is not installed
from transformers import AutoModelForSeq2SeqLM

folder, text = sys.argv[1:]
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True)
assert model.__class__.__module__.startswith("transformers_modules."), model.__class__.__module__
print(model.translate([text])[0])
"""


def demo(folder: Path, date: str | None = None) -> int:
    """Run the demo, and print what happens.

    Args:
        folder: of the run; an earlier demo in it is replaced.
        date: a date as its user writes it, to be read at the end; None: today, in the user's language.

    Returns:
        0 if the model reads at least 99 % of the unseen dates, and a process without the package agrees with it; else 1.

    Raises:
        ValueError: the folder cannot be written, or holds something else than a demo.
    """
    started = time.monotonic()
    if folder.is_dir() and recipe_of(folder) not in (None, RECIPE):
        raise ValueError(
            f"{folder} holds a run of {recipe_of(folder)}, not an earlier demo: choose another --output_dir."
        )
    check_folder(folder, overwrite=True)
    _heading("1. The text: dates in many languages, written in many ways")
    corpus = date_corpus()
    print(describe_corpus(corpus))
    data = folder.with_name(f"{folder.name}-data")
    write_corpus(data, corpus)
    for example in corpus["test"][:3]:
        print(f"    {example.source}  ->  {example.target}   ({LANGUAGES[example.language]})")

    _heading("2. The rehearsal: training the original Transformer from random weights")
    recipe = load_recipe(RECIPE)
    words = ["--output_dir", str(folder), "--data_dir", str(data)]
    try:
        run = train(recipe, [*words, "--overwrite", "true"])
    except StoppedBySignalError as stop:
        again = "--resume_from_checkpoint true"
        ways = f"`theatre demo` begins anew, `theatre train {RECIPE} {shlex.join(words)} {again}`"
        # Where nothing is saved the message promises nothing.
        raise StoppedBySignalError(stop.number, str(stop).replace(f"the same command with {again}", ways)) from None

    _heading("3. The test: dates that no training example has")
    languages = [example.language for example in corpus["test"]]
    by_language = _share_by_language(run, languages)
    _print_scores(run, by_language)
    contract = verdict(recipe.anchor or {}, run.metrics)
    print(f"\n{contract}")
    run.metrics |= {f"test_exact_match_{name}": share / 100 for name, share in by_language.items()}
    write_metrics(folder, run.metrics)
    text = run.example = normalize_date_text(date or todays_date())
    draw(run)
    card(run, recipe, by_language=by_language)

    _heading("4. The stranger: another process, which cannot import this package, loads the model")
    answer, expected = read_as_a_stranger(folder, text), run.model.translate([text], tokenizer=run.tokenizer)[0]
    print(f"    {text}  ->  {answer}")
    if answer != expected:
        print(f"    FAIL: this process reads {expected}; the model did not survive its being saved.")

    _heading("The end")
    _print_ending(folder, data, text, time.monotonic() - started)
    return 0 if contract.startswith("PASS") and answer == expected else 1


def todays_date() -> str:
    """Write today's date in the language of the user's locale, or in English if the corpus does not have it."""
    code = default_locale("LC_TIME") or "en"
    short = Locale.parse(code).language if "_" in code else code
    language = next((name for name in (code, short) if name in LANGUAGES), "en")
    return render_date(datetime.date.today(), language, "full")


def read_as_a_stranger(folder: Path, text: str) -> str:
    """Let a new process, in which this package cannot be imported, load the model folder and translate one text.

    Raises:
        RuntimeError: it could not; the message is its own.
    """
    result = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder.resolve()), text],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"A process without the package could not load {folder}:\n{result.stderr}")
    return result.stdout.strip()


def _share_by_language(run: Translation, languages: list[str]) -> dict[str, float]:
    """Exact match in percent for each language's English name, the worst first."""
    assert run.test is not None
    right = defaultdict(list)
    for language, prediction, reference in zip(languages, run.predictions, run.test["target"], strict=True):
        right[LANGUAGES[language]].append(prediction == reference)
    shares = {name: 100 * sum(hits) / len(hits) for name, hits in right.items()}
    return dict(sorted(shares.items(), key=lambda item: item[1]))


def _print_scores(run: Translation, by_language: dict[str, float]):
    assert run.test is not None
    worst = next(iter(by_language))
    print(f"Exactly right: {100 * run.metrics['test_exact_match']:.2f} % of {len(run.test):,} unseen dates.")
    print(f"The worst language is {worst}, with {by_language[worst]:.1f} %.\n")
    cells = [f"{name:<18}{share:6.1f} %" for name, share in sorted(by_language.items())]
    for start in range(0, len(cells), 3):
        print("    " + "    ".join(cells[start : start + 3]))
    pairs = zip(run.test["source"], run.predictions, run.test["target"], strict=True)
    wrong = [(source, prediction, target) for source, prediction, target in pairs if prediction != target]
    if wrong:
        print("\nSome that it got wrong:")
        for source, prediction, target in wrong[:3]:
            print(f"    {source}  ->  {prediction}   (it is {target})")


def _print_ending(folder: Path, data: Path, text: str, seconds: float):
    print(f"All this took {seconds / 60:.1f} minutes. Made:")
    made = {
        "model.safetensors": "the weights",
        "*.py": "the code that loads them anywhere",
        "README.md": "its model card, with these figures",
        "metrics.json": "all figures",
        "figures/attention.png": "what it looks at while it reads that date: do open it",
    }
    for name, what in made.items():
        print(f"    {folder / name!s:<34}  {what}")
    print(f"    {str(data) + '/':<34}  the text it learned from")
    command = "theatre" if shutil.which("theatre") else os.path.relpath(sys.argv[0])
    print("\nTry next:")
    print(f'    echo "{text}" | {command} translate {folder}')
    print(f"    {command} train multi30k-de-en/small --data_dir FOLDER   # your own translator: docs/translation.md")
    print(f"    {command} train shakespeare-char/cpu --data_dir FOLDER   # your own GPT: docs/gpt.md")


def _heading(text: str):
    print(f"\n{text}\n{'-' * len(text)}", flush=True)
