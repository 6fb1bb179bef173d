"""What is cut off the training text to validate on, where nothing is named for that."""

import json

import pytest

from transformer_theatre.recipes.data_arguments import TextDataArguments
from transformer_theatre.recipes.train_language_model import read_texts


@pytest.fixture
def cut(tmp_path):
    """Write documents as JSON lines, or one as plain text, and return the two parts as lists."""

    def split(documents, share):
        name = "a.txt" if len(documents) == 1 else "a.jsonl"
        lines = documents if len(documents) == 1 else [json.dumps({"text": text}) for text in documents]
        (tmp_path / name).write_text("\n".join(lines), encoding="utf-8")
        parts = read_texts(TextDataArguments(str(tmp_path), train_text=[name], validation_share=share))
        return [part["text"] for part in parts]

    return split


@pytest.mark.parametrize("share", [0.07, 0.1, 0.14])
def test_documents_stay_whole(cut, share):
    documents = ["x" * 100 for _ in range(9)] + ["y" * 100]
    assert [list(part) for part in cut(documents, share)] == [documents[:9], documents[9:]]


def test_the_nearest_end_of_a_document_is_taken(cut):
    documents = ["a" * 40, "b" * 20, "c" * 20, "d" * 20]
    assert [list(part) for part in cut(documents, 0.29)] == [documents[:3], documents[3:]]
    assert [list(part) for part in cut(documents, 0.31)] == [documents[:2], documents[2:]]


def test_a_document_is_cut_where_the_share_would_be_another_without(cut):
    assert cut(["0123456789" * 10], 0.1) == [["0123456789" * 9], ["0123456789"]]
    # The end that is nearest would leave more than twice, or less than half, of what was asked for.
    assert cut(["a" * 10, "b" * 90], 0.2) == [["a" * 10, "b" * 70], ["b" * 20]]
    assert cut(["a", "b" * 99], 0.5) == [["a", "b" * 49], ["b" * 50]]
    assert cut(["a" * 96, "b" * 4], 0.1) == [["a" * 90], ["a" * 6, "b" * 4]]
