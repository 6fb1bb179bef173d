"""Documents written from the fields of rows."""

import gzip
import json

import pytest
from datasets import Dataset

from transformer_theatre.recipes.data_arguments import TextDataArguments
from transformer_theatre.recipes.row_parsing import BadLineError
from transformer_theatre.recipes.streamed_text import stream_documents
from transformer_theatre.recipes.template import Template, template_of
from transformer_theatre.recipes.train_language_model import read_text


ROWS = [
    {"title": "Dawn", "text": "The sun {rises}.", "label": 1, "by": {"name": "Ann"}},
    {"title": "Dusk", "text": "It sets.", "label": 0, "by": {"name": "Bob"}},
]
TEMPLATE = "{{{title}}} by {by.name}, {label}:\n{text}"
WRITTEN = ["{Dawn} by Ann, good:\nThe sun {rises}.", "{Dusk} by Bob, bad:\nIt sets."]
WORDS = {"label": {1: "good", 0: "bad"}}


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of JSON lines, one of them packed."""
    for name, row, opens in (("a.jsonl", ROWS[0], open), ("b.jsonl.gz", ROWS[1], gzip.open)):
        with opens(tmp_path / name, "wt", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return tmp_path


def test_fields_are_written_into_the_template():
    template = template_of(TEMPLATE, json.dumps(WORDS))
    assert [template.of_row(row)[0] for row in ROWS] == WRITTEN
    assert Template("{label} {title}").of_row(ROWS[0]) == ("1 Dawn",)


@pytest.mark.parametrize("streaming", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize("named", [["a.jsonl", "b.jsonl.gz"], ["."]], ids=["files", "folder"])
def test_rows_of_several_files_become_documents(folder, named, streaming):
    data = TextDataArguments(str(folder), train_text=named, template=TEMPLATE, template_words=WORDS)
    if not streaming:
        assert read_text(data, "train")["text"][:] == WRITTEN
        return
    stream = stream_documents(data)
    assert [row.texts[0] for row in stream] == WRITTEN
    stream.restart()
    assert next(stream).texts[0] == WRITTEN[0]
    place = stream.place()
    assert [row.texts[0] for row in stream] == WRITTEN[1:]
    stream.restart(json.loads(json.dumps(place)))
    assert [(row.number, row.texts[0]) for row in stream] == [(2, WRITTEN[1])]


@pytest.mark.parametrize("streaming", [False, True], ids=["in memory", "streamed"])
def test_rows_of_a_data_set_become_documents(tmp_path, streaming):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved")
    data = TextDataArguments(dataset=str(tmp_path / "saved"), template=TEMPLATE, template_words=WORDS)
    found = [row.texts[0] for row in stream_documents(data)] if streaming else read_text(data, "train")["text"][:]
    assert found == WRITTEN


def test_a_field_that_is_not_there_is_named_with_those_that_are(folder):
    data = TextDataArguments(str(folder), train_text=["a.jsonl"], template="{titel} {text}")
    with pytest.raises(
        ValueError, match=r'a.jsonl:1: there is no field "titel"; the fields are: title, text, label, by.name'
    ):
        read_text(data, "train")


MISTAKES = {
    "brace": (["{title"], "no text with names of fields in braces"),
    "number": (["{} {text}"], "must name a field in each pair of braces"),
    "format": (["{label:>3}"], "must name a field in each pair of braces"),
    "none": (["text"], "names no field"),
    "words": (["{text}", {"texts": {"1": "a"}}], "which the template does not name .did you mean 'text'"),
    "a word that YAML read": (["{label}", {"label": {"0": False}}], "has False for '0' of 'label', which is no word"),
    "no word": (["{label}", {"label": {"0": None}}], "has None for '0' of 'label', which is no word"),
    "no template": ([None, {"label": {"1": "a"}}], "template_words need a template"),
    "flat": (["{label}", {"label": "good"}], "must map fields to values"),
    "no json": (["{label}", "{label"], "is no JSON object"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_wrong_template_is_named(words, message):
    with pytest.raises(ValueError, match=message):
        template_of(*[*words, None][:2])


@pytest.mark.parametrize("value", [None, [1], True, " "], ids=str)
def test_a_field_must_be_text_or_a_number(value):
    with pytest.raises(BadLineError, match='field "label"'):
        Template("{label}").of_row({"label": value})


def test_a_value_without_a_word_is_named():
    with pytest.raises(BadLineError, match='"label" is 2, for which template_words has no word; it has 1, 0'):
        template_of("{label}", WORDS).of_row({"label": 2})


def test_text_of_both_kinds_in_a_folder_and_templates_of_plain_text_are_errors(folder):
    (folder / "c.txt").write_text("plain", encoding="utf-8")
    with pytest.raises(ValueError, match=r"holds plain text and JSON lines, a.jsonl and c.txt"):
        read_text(TextDataArguments(str(folder), train_text=["."]), "train")
    with pytest.raises(ValueError, match=r"is for JSON lines and data sets; .* is plain text"):
        read_text(TextDataArguments(str(folder), train_text=["c.txt"], template="{text}"), "train")
    with pytest.raises(ValueError, match="the template names its fields; give one"):
        TextDataArguments(template="{text}", text_field="body")


def test_a_number_that_is_none_is_no_text():
    with pytest.raises(BadLineError, match='the field "title" is nan, which is no number'):
        Template("{title}").of_row({"title": float("nan")})
