"""Text from elsewhere in a model card: it is shown as it is, and can neither be markup nor metadata."""

import re
import unicodedata
from typing import Any

import yaml


# Characters that Markdown, its tables, HTML or the Hub's formulas would take for something else.
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~$@])")
# What becomes a link without brackets.
_LINK = re.compile(r"(https?|ftp)(://)|\b(www)(\.)", re.IGNORECASE)
# What begins a list, or is a line, at the beginning of a paragraph.
_BEGINNING = re.compile(r"^([-+](?=[-\s]|$)|\d+(?=[.)](\s|$)))")
# Marks that turn the direction of text around, so that it reads otherwise than it is.
_TURNS = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def visible(text: Any) -> str:
    """Put text into one line, its control characters and marks of direction by their code points: "U+001B".

    So it can be shown on a terminal too, which would obey them.
    """
    line = " ".join(str(text).split())
    return "".join(f"U+{ord(character):04X}" if _hidden(character) else character for character in line)


def _hidden(character: str) -> bool:
    return character in _TURNS or unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn")


def escape(text: Any) -> str:
    """Make text safe inside a Markdown table or paragraph: no markup, no link, no second line."""
    shown = visible(text).replace("&", "&amp;")
    safe = _LINK.sub(lambda found: "\\".join(part for part in found.groups() if part), _MARKUP.sub(r"\\\1", shown))
    return _BEGINNING.sub(lambda found: f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}", safe)


def plain(text: Any) -> str:
    """Make text safe in the metadata of a card: one line, which cannot be the line that ends them."""
    return re.sub("-{3,}", "--", visible(text)).strip() or "unnamed"


def quoted(text: str) -> str:
    """Write text as a string of Python, in double quotes where it holds none."""
    written = repr(text)
    return f'"{written[1:-1]}"' if written[0] == "'" and '"' not in written else written


def recipe_text(recipe: dict[str, Any]) -> str:
    """Write a recipe as YAML; where it holds characters that are not seen, with all but ASCII as escapes."""
    text = yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False).strip()
    if any(_hidden(character) for character in text if character != "\n"):
        return yaml.safe_dump(recipe, allow_unicode=False, sort_keys=False).strip()
    return text


def fenced(code: str, language: str) -> str:
    """Make a block of code, with a fence that is longer than any in it."""
    longest = max(map(len, re.findall("`{3,}|~{3,}", code)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{code}\n{fence}"


def shortened(text: str, most: int = 200) -> str:
    """Cut text for a table."""
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"
