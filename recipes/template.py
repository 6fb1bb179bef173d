"""How the fields of a row become the text of a document: a recipe's `template`."""

import json
import math
import string
from typing import Any

from .nearest import nearest
from .row_parsing import BadLineError, json_object, value_of


class Template:
    r"""A text with the names of fields in braces; `{{` and `}}` are braces.

    Args:
        text: such as "Title: {title}\n\n{text}"; a dotted name goes deeper into a row.
        words: field -> value -> what is written for it, such as {"label": {"0": "negative", "1": "positive"}}. Of such a field,
            other values are errors.

    Raises:
        ValueError: it names no field, or is no such text, or `words` is of a field that it does not name.
    """

    def __init__(self, text: str, words: dict[str, dict[str, str]] | None = None):
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(
                f"template={text!r} is no text with names of fields in braces: {error}. Write {{{{ for a brace."
            ) from None
        if any(name is not None and (not name or form or conversion) for _, name, form, conversion in parts):
            raise ValueError(
                f"template={text!r} must name a field in each pair of braces, and nothing else: {{title}}."
            )
        # A part is the text before a field, and the field.
        self.parts = [(before, name) for before, name, _, _ in parts]
        self.fields = tuple(dict.fromkeys(name for _, name in self.parts if name is not None))
        if not self.fields:
            raise ValueError(f"template={text!r} names no field: write {{text}} where the field text is to stand.")
        self.text, self.words = text, words or {}
        for name in self.words:
            if name not in self.fields:
                raise ValueError(
                    f"template_words are of the field {name!r}, which the template does not name{nearest(name, self.fields)}."
                )

    def of_row(self, row: dict[str, Any]) -> tuple[str, ...]:
        """Write the document of a row.

        Raises:
            BadLineError: a field is missing (the known ones are named), empty, or neither text nor a number.
        """
        return (
            "".join(before + (self._written(row, name) if name is not None else "") for before, name in self.parts),
        )

    def of_line(self, lines: tuple[str, ...]) -> tuple[str, ...]:
        """Write the document of a line of JSON.

        Raises:
            BadLineError: as of `of_row`, or it is no JSON object.
        """
        return self.of_row(json_object(lines[0], self.fields[0]))

    def _written(self, row: dict[str, Any], name: str) -> str:
        value = value_of(row, name)
        if name in self.words:
            known = self.words[name]
            key = value if isinstance(value, str) else json.dumps(value)
            if key not in known:
                raise BadLineError(
                    f'the field "{name}" is {key}, for which template_words has no word; it has {", ".join(known)}'
                )
            return known[key]
        if isinstance(value, float) and not math.isfinite(value):
            raise BadLineError(f'the field "{name}" is {value}, which is no number')
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        return value_of(row, name, of_text=True)


def template_of(text: str | None, words: Any) -> Template | None:
    """Read the two options of a recipe; None where there is no template.

    Raises:
        ValueError: one is wrong, or the words have no template.
    """
    if isinstance(words, str):
        try:
            words = json.loads(words)
        except json.JSONDecodeError as error:
            raise ValueError(f"template_words={words!r} is no JSON object: {error.msg}.") from None
    shape = isinstance(words, dict) and all(isinstance(values, dict) for values in words.values())
    if words is not None and not shape:
        raise ValueError(f"template_words={words!r} must map fields to values, and each value to its word.")
    if text is None:
        if words is not None:
            raise ValueError("template_words need a template that names their fields.")
        return None
    for field, values in (words or {}).items():
        for value, word in values.items():
            if isinstance(word, bool) or not isinstance(word, (str, int, float)):
                raise ValueError(
                    f"template_words has {word!r} for {value!r} of {field!r}, which is no word: put it in quotes, as 'yes', 'no' and "
                    "'null' have to be in YAML."
                )
    named = {
        field: {str(value): str(word) for value, word in values.items()} for field, values in (words or {}).items()
    }
    return Template(text, named)
