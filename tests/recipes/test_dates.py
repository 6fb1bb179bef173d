import csv
import datetime
import os
import subprocess
import sys
import unicodedata
from collections import Counter
from itertools import combinations

import pytest

from transformer_theatre.recipes import dates
from transformer_theatre.recipes.dates import (
    LANGUAGES,
    STYLES,
    count_sources,
    date_corpus,
    describe_corpus,
    normalize_date_text,
    render_date,
    split_dates,
    styles_of,
    write_corpus,
)


PAIRS = [(language, style) for language in LANGUAGES for style in styles_of(language)]


@pytest.fixture(scope="module")
def corpus():
    return date_corpus(train_size=12_000, validation_size=1_000, test_size=2_000, seed=0)


def all_examples(corpus):
    return [example for examples in corpus.values() for example in examples]


def test_the_corpus_has_many_languages_scripts_and_styles():
    scripts = {unicodedata.name(c).split()[0] for pair in PAIRS for c in render_date(datetime.date(2026, 3, 8), *pair)}
    assert {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "GEORGIAN", "HEBREW", "ARABIC", "DEVANAGARI"} <= scripts
    assert {"TAMIL", "THAI", "ETHIOPIC", "CJK", "HANGUL"} <= scripts
    assert len({language.split("_")[0] for language in LANGUAGES}) >= 30
    assert min(len(styles_of(language)) for language in LANGUAGES) >= 3
    assert all("full" in styles_of(language) and "long" in styles_of(language) for language in LANGUAGES)


def test_no_text_has_two_right_answers():
    # Texts with a weekday repeat when it does, and 28 years have seven leap years that begin on seven weekdays.
    # Days from 1 to 12 can be taken for months; among the others, what holds for one holds for all.
    with_weekday = [pair for pair in PAIRS if STYLES[pair[1]][0] in ("full", "yMMMEd")]
    without = [pair for pair in PAIRS if pair not in with_weekday]
    answers = {}
    for year in range(1904, 1932, 4):
        for day in range(366):
            date = datetime.date(year, 1, 1) + datetime.timedelta(days=day)
            pairs = (without if year == 1904 else []) + (with_weekday if date.day <= 13 else [])
            for pair in pairs:
                text = dates._write(date, *pair).replace(str(year), "YEAR")
                assert answers.setdefault(text, (date.month, date.day)) == (date.month, date.day), (text, *pair)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_style_writes_the_year_and_the_day_and_the_parts_never_run_together(language):
    for style in styles_of(language):
        for date in (datetime.date(1976, 5, 24), datetime.date(2048, 11, 19)):
            numbers = "".join(c if c.isdecimal() else " " for c in render_date(date, language, style)).split()
            assert str(date.year) in numbers
            assert str(date.day) in numbers


def test_dates_in_digits_are_never_of_two_readings():
    for language, style in PAIRS:
        text = render_date(datetime.date(2026, 3, 8), language, style)
        if not any(c.isalpha() for c in text):
            year_first = text.startswith("2026")
            assert year_first or text.replace(" ", "").rstrip(".") in {"8.3.2026", "08.03.2026", "8.03.2026"}, text


def test_the_target_is_the_date_that_the_source_was_written_from(corpus):
    for example in all_examples(corpus):
        date = datetime.date.fromisoformat(example.target)
        assert example.source == render_date(date, example.language, example.style)


def test_splits_share_no_date(corpus):
    shares = split_dates(seed=0)
    targets = {split: {example.target for example in examples} for split, examples in corpus.items()}
    for one, other in combinations(corpus, 2):
        assert not targets[one] & targets[other]
        assert not set(shares[one]) & set(shares[other])
    assert sorted(date for split in shares.values() for date in split) == dates.all_dates()
    assert len(dates.all_dates()) == 200 * 365 + 49  # 1900 was no leap year, 2000 was one


def test_every_style_of_every_language_is_in_training_and_all_have_their_share(corpus):
    languages = Counter(example.language for example in corpus["train"])
    assert set(languages) == set(LANGUAGES)
    assert max(languages.values()) - min(languages.values()) <= 1
    pairs = Counter((example.language, example.style) for example in corpus["train"])
    assert set(pairs) == set(PAIRS)
    for language in LANGUAGES:
        counts = [pairs[language, style] for style in styles_of(language)]
        assert max(counts) - min(counts) <= 1


def test_texts_occur_once_in_normal_form_and_on_one_line(corpus):
    for examples in corpus.values():
        assert len({example.source for example in examples}) == len(examples)
    for example in all_examples(corpus):
        assert example.source == normalize_date_text(example.source)
        assert all(c == " " or unicodedata.category(c)[0] in "LMNP" for c in example.source)


def test_a_typed_date_is_brought_into_the_form_of_the_corpus():
    typed = "\u200f 8\u202fMa\u0308rz\u00a0 2026\n"
    assert normalize_date_text(typed) == render_date(datetime.date(2026, 3, 8), "de", "long").replace(".", "")


def test_styles_of_the_keyboard_have_no_capitals_no_punctuation_and_no_accents():
    date = datetime.date(2026, 3, 8)
    assert render_date(date, "de", "typed weekday") == "sonntag 8 marz 2026"
    assert render_date(date, "el", "typed weekday") == "κυριακη 8 μαρτιου 2026"
    assert render_date(datetime.date(2026, 5, 8), "kk", "typed") == "2026 ж 8 мамыр"
    assert render_date(date, "fr", "capitals") == "Dimanche 8 Mars 2026"
    assert render_date(date, "tr", "lower case") == "8 mart 2026 pazar"


def test_another_process_draws_the_same_corpus_and_another_seed_another():
    code = f"import runpy; print(repr(runpy.run_path({dates.__file__!r})['date_corpus'](300, 50, 50, seed=7)))"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert process.stdout.decode().strip() == repr(date_corpus(300, 50, 50, seed=7))
    assert date_corpus(300, 50, 50, seed=7) == date_corpus(300, 50, 50, seed=7)
    assert date_corpus(300, 50, 50, seed=7)["test"] != date_corpus(300, 50, 50, seed=8)["test"]


def test_another_size_changes_neither_the_beginning_nor_the_other_splits(corpus):
    small = date_corpus(train_size=500, validation_size=1_000, test_size=100, seed=0)
    assert small["train"] == corpus["train"][:500]
    assert small["validation"] == corpus["validation"]
    assert small["test"] == corpus["test"][:100]


def test_texts_are_counted_without_writing_them_all():
    year = [date for date in dates.all_dates() if date.year == 2026]
    languages = ["da", "de", "fr", "ja", "ru", "sv", "zh"]
    pairs = [pair for pair in PAIRS if pair[0] in languages]
    texts = {render_date(date, *pair) for date in year for pair in pairs}
    assert count_sources(year, languages) == len(texts) < len(year) * len(pairs)


def test_the_description_has_the_sizes_and_the_number_of_texts(corpus):
    description = describe_corpus(corpus)
    assert "12,000 examples" in description
    assert f"{count_sources():,}" in description
    assert "Dates in more than one split: 0" in description
    assert "Dates in more than one split: 0" not in describe_corpus({"one": corpus["test"], "other": corpus["test"]})


def test_the_written_corpus_reads_back(corpus, tmp_path):
    paths = write_corpus(tmp_path / "new" / "folder", corpus)
    assert {split: path.name for split, path in paths.items()} == {split: f"{split}.tsv" for split in corpus}
    for split, path in paths.items():
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        assert [dates.DateExample(*row) for row in rows] == corpus[split]


def test_unknown_languages_styles_and_impossible_sizes_are_named():
    date = datetime.date(2026, 3, 8)
    with pytest.raises(ValueError, match=r"'xx'.*'?am"):
        render_date(date, "xx", "full")
    with pytest.raises(ValueError, match=r"'en' has no style 'digits'.*full, long"):
        render_date(date, "en", "digits")
    with pytest.raises(ValueError, match="test_size=-1 must be between 0 and"):
        date_corpus(10, 10, -1)
    with pytest.raises(ValueError, match="validation_size=1000000 must be between 0 and"):
        date_corpus(10, 1_000_000, 10)
