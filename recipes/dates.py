"""The embedded corpus: dates in many languages and styles, each translated to ISO 8601.

"Sonntag, 22. November 2026" becomes "2026-11-22". Month names, weekday names, and the order of the parts are those of
the Unicode CLDR as packaged by Babel, so a fresh machine needs no download. What is ours:

- Every text is in Unicode normal form C; each run of spaces of any width (CLDR writes no-break and narrow no-break
  ones) is one plain space, and the invisible direction marks of Arabic and Hebrew are gone. `normalize_date_text` does
  this, and belongs before the model when somebody types a date.
- Digits are Western and the calendar is Gregorian in every language, as Babel writes them. The digits are CLDR's own
  choice for all these languages; the Thai calendar counts years from 543 BC, and is not meant here.
- Years are from 1900 to 2099 and always written in full. Dates in digits only are kept where no other reading exists:
  the year comes first, or day, month and year are separated by full stops.
- Beside CLDR's own styles there are those of people at a keyboard: in lower case, with capitals, and without
  punctuation and accents.

Training, validation, and test share no date, whatever the language: what is tested is never a date seen in training.
"""

import datetime
import functools
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from babel import Locale
from babel.dates import format_date


LANGUAGES: dict[str, str] = {
    "am": "Amharic",
    "ar": "Arabic",
    "bg": "Bulgarian",
    "cs": "Czech",
    "cy": "Welsh",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "American English",
    "en_GB": "British English",
    "es": "Spanish",
    "et": "Estonian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hu": "Hungarian",
    "hy": "Armenian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "ka": "Georgian",
    "kk": "Kazakh",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "zh": "Chinese",
}

FIRST_DATE = datetime.date(1900, 1, 1)
LAST_DATE = datetime.date(2099, 12, 31)

# Share of all dates that belongs to each split; the sizes of the splits are chosen independently.
_SPLIT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


@dataclass(frozen=True)
class DateExample:
    """A date as written in one language and style, and the same date in ISO 8601."""

    source: str
    target: str
    language: str  # key of `LANGUAGES`
    style: str  # key of `STYLES`


def normalize_date_text(text: str) -> str:
    """Bring a date, generated or typed, into the corpus' form: NFC, single plain spaces, no direction marks."""
    text = re.sub("[\u061c\u200e\u200f]", "", unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def _capitalized(text: str) -> str:
    return re.sub(r"\w+", lambda word: word[0][0].title() + word[0][1:], text)


def _typed(text: str) -> str:
    return "".join(map(_without_accent, re.sub("[.,\u060c\u1363]", "", text.lower())))


@functools.cache
def _without_accent(character: str) -> str:
    # Elsewhere a mark makes another letter (Cyrillic short i), or is a vowel (Devanagari).
    if unicodedata.name(character, "").startswith(("LATIN", "GREEK")):
        return unicodedata.normalize("NFD", character)[0]
    return character


# Style: (CLDR's name of the pattern it starts from, what is then done to the text).
STYLES: dict[str, tuple[str, Callable[[str], str] | None]] = {
    "full": ("full", None),  # Sonntag, 22. November 2026
    "long": ("long", None),  # 22. November 2026
    "short weekday": ("yMMMEd", None),  # So., 22. Nov. 2026
    "short": ("yMMMd", None),  # 22. Nov. 2026
    "digits": ("yMd", None),  # 22.11.2026
    "lower case": ("full", str.lower),  # sonntag, 22. november 2026
    "capitals": ("full", _capitalized),  # Domingo, 22 De Noviembre De 2026
    "typed weekday": ("full", _typed),  # sonntag 22 november 2026
    "typed": ("long", _typed),  # 22 november 2026
    "typed short": ("yMMMd", _typed),  # 22 nov 2026
}


@functools.cache
def _locale(language: str) -> Locale:
    if language not in LANGUAGES:
        raise ValueError(f"There is no language {language!r}. Choose one of: {', '.join(LANGUAGES)}.")
    return Locale.parse(language)


@functools.cache
def _pattern(language: str, name: str) -> str:
    locale = _locale(language)
    patterns = locale.date_formats if name in locale.date_formats else locale.datetime_skeletons
    return str(patterns[name].pattern)


def _is_certain(language: str, style: str) -> bool:
    name, change = STYLES[style]
    pattern = _pattern(language, name)
    if name == "yMMMd" or change:
        return "MMM" in pattern
    # A month in digits: 2026-03-08, 2026/3/8, 8.3.2026, but not 8/3/2026, in which an American reads the month first.
    return "MMM" in pattern or bool(re.match(r"y[^yMd]+M+[^yMd]+d|(E+\W+)?d+\.\W*M+\.\W*y", pattern))


def _write(date: datetime.date, language: str, style: str) -> str:
    name, change = STYLES[style]
    text = format_date(date, _pattern(language, name), locale=_locale(language))
    return normalize_date_text(change(text) if change else text)


@functools.cache
def styles_of(language: str) -> tuple[str, ...]:
    """Name the styles of a language: those with one possible reading that differ from the styles before them.

    Args:
        language: a key of `LANGUAGES`.

    Raises:
        ValueError: the language is not in `LANGUAGES`.
    """
    # Long names and short ones differ in some months only, and so do capitals.
    probes = [datetime.date(2026, month, 3 + month) for month in range(1, 13)]
    styles: dict[tuple[str, ...], str] = {}
    for style in STYLES:
        if _is_certain(language, style):
            styles.setdefault(tuple(_write(date, language, style) for date in probes), style)
    return tuple(styles.values())


def render_date(date: datetime.date, language: str, style: str) -> str:
    """Write a date as the corpus does.

    Args:
        date: any day; the corpus has those from 1900 to 2099.
        language: a key of `LANGUAGES`.
        style: one of `styles_of(language)`.

    Raises:
        ValueError: there is no such language, or the language does not have this style.
    """
    if style not in styles_of(language):
        raise ValueError(f"{language!r} has no style {style!r}. Choose one of: {', '.join(styles_of(language))}.")
    return _write(date, language, style)


def all_dates() -> list[datetime.date]:
    """List every day from 1900-01-01 to 2099-12-31."""
    days = (LAST_DATE - FIRST_DATE).days + 1
    return [FIRST_DATE + datetime.timedelta(days=day) for day in range(days)]


def split_dates(seed: int) -> dict[str, list[datetime.date]]:
    """Deal all dates out to "train", "validation", and "test", 8 : 1 : 1, so that none is in two of them."""
    dates = all_dates()
    random.Random(f"{seed} dates").shuffle(dates)
    splits, start = {}, 0
    for split, share in _SPLIT_SHARES.items():
        splits[split] = dates[start : start + round(share * len(dates))]
        start += len(splits[split])
    return splits


def date_corpus(
    train_size: int = 60_000, validation_size: int = 2_000, test_size: int = 4_000, seed: int = 0
) -> dict[str, list[DateExample]]:
    """Generate the corpus: the same for the same seed, on any machine with the same version of Babel.

    Languages take turns, and within a language its styles do, so that each split and each beginning of a split is
    balanced. No source text occurs twice in a split. A split of another size begins with the same examples.

    Args:
        train_size: examples in "train".
        validation_size: examples in "validation".
        test_size: examples in "test".
        seed: decides which dates belong to which split, and what is drawn from them.

    Raises:
        ValueError: a size is negative, or larger than the dates of the split times the languages.
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size}
    return {split: _draw(split, dates, sizes[split], seed) for split, dates in split_dates(seed).items()}


def _draw(split: str, dates: Sequence[datetime.date], size: int, seed: int) -> list[DateExample]:
    limit = len(dates) * len(LANGUAGES)
    if not 0 <= size <= limit:
        raise ValueError(f"{split}_size={size} must be between 0 and {limit}.")
    generator = random.Random(f"{seed} {split}")
    languages = generator.sample(list(LANGUAGES), len(LANGUAGES))
    styles = {language: generator.sample(styles_of(language), len(styles_of(language))) for language in languages}
    examples: dict[str, DateExample] = {}
    for number in range(size):
        turn, position = divmod(number, len(languages))
        language = languages[position]
        style = styles[language][turn % len(styles[language])]
        date = generator.choice(dates)
        while (source := _write(date, language, style)) in examples:
            date = generator.choice(dates)
        examples[source] = DateExample(source, date.isoformat(), language, style)
    return list(examples.values())


def count_sources(dates: Iterable[datetime.date] | None = None, languages: Iterable[str] = tuple(LANGUAGES)) -> int:
    """Count the different texts that all styles make of these dates; without arguments, of everything there is.

    Languages share texts ("8 mars 2026" is French and Swedish), which count once.
    """
    pairs = [(language, style) for language in languages for style in styles_of(language)]
    # Which texts coincide on a date depends on nothing but its month, its weekday, and whether its day has two digits.
    kinds = Counter((date.month, date.weekday(), date.day > 9) for date in (all_dates() if dates is None else dates))
    representatives = {(date.month, date.weekday(), date.day > 9): date for date in all_dates()}
    return sum(count * len({_write(representatives[kind], *pair) for pair in pairs}) for kind, count in kinds.items())


def describe_corpus(corpus: Mapping[str, Sequence[DateExample]]) -> str:
    """Say in a few lines what is in a corpus and how small a part that is of what there could be."""
    ways = {(example.language, example.style) for examples in corpus.values() for example in examples}
    languages = {language.split("_")[0] for language, _ in ways}  # English counts once
    lines = [
        f"Dates from {FIRST_DATE} to {LAST_DATE} in {len(languages)} languages, {len(ways)} ways in all, to ISO 8601.",
        f"Different texts possible: {count_sources():,}",
    ]
    dates = {split: {example.target for example in examples} for split, examples in corpus.items()}
    lines += [f"{split}: {len(corpus[split]):,} examples of {len(dates[split]):,} dates" for split in corpus]
    shared = sum(map(len, dates.values())) - len(set().union(*dates.values()))
    return "\n".join([*lines, f"Dates in more than one split: {shared:,}"])


def write_corpus(folder: str | Path, corpus: Mapping[str, Sequence[DateExample]]) -> dict[str, Path]:
    """Write each split to `<split>.tsv` with the columns source, target, language, and style, without a header.

    Args:
        folder: created if it is missing.
        corpus: what `date_corpus` returned.

    Returns:
        The file of each split.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {split: folder / f"{split}.tsv" for split in corpus}
    for split, examples in corpus.items():
        rows = [(example.source, example.target, example.language, example.style) for example in examples]
        # The same bytes on every platform.
        with paths[split].open("w", encoding="utf-8", newline="\n") as file:
            file.writelines("\t".join(row) + "\n" for row in rows)
    return paths


__all__ = [
    "FIRST_DATE",
    "LANGUAGES",
    "LAST_DATE",
    "STYLES",
    "DateExample",
    "all_dates",
    "count_sources",
    "date_corpus",
    "describe_corpus",
    "normalize_date_text",
    "render_date",
    "split_dates",
    "styles_of",
    "write_corpus",
]
