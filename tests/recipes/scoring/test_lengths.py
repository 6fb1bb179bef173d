import numpy as np
import pytest
import sacrebleu

from transformer_theatre.recipes.metrics import text_statistics
from transformer_theatre.recipes.scoring.lengths import GROUPS, LEAST, by_length, groups_of, lengths_of
from transformer_theatre.recipes.scoring.table import table


@pytest.mark.parametrize("texts", [1, 19, 41, 1000])
def test_every_text_is_in_one_group(texts):
    lengths = np.random.default_rng(texts).integers(1, 40, texts).tolist()
    groups = groups_of(lengths)
    assert [sum(first <= length <= last for first, last in groups) for length in lengths] == [1] * texts
    assert len(groups) == min(GROUPS, max(1, texts // LEAST))
    assert groups == sorted(groups)
    counts = [sum(first <= length <= last for length in lengths) for first, last in groups]
    # A length is in one group as a whole: by so much they may differ from equal parts, on either side.
    assert max(counts) - min(counts) <= 2 * max(map(lengths.count, lengths))


def test_texts_of_one_length_are_one_group():
    assert groups_of([3] * 500) == [(3, 3)]


def test_a_group_scores_what_its_texts_score_alone():
    rng = np.random.default_rng(1)
    references = [" ".join(rng.choice(list("abcdefgh"), rng.integers(4, 20))) for _ in range(60)]
    outputs = [text.replace("a", "b") for text in references]
    statistics = text_statistics(outputs, references, metrics=["bleu"])["bleu"]
    found = by_length("bleu", statistics, references, statistics)
    assert found["unit"] == "words"
    for group in found["groups"]:
        inside = [row for row, text in enumerate(references) if group["from"] <= len(text.split()) <= group["to"]]
        parts = [[texts[row] for row in inside] for texts in (outputs, references)]
        assert group["value"] == group["baseline"] == pytest.approx(sacrebleu.corpus_bleu(parts[0], [parts[1]]).score)
        assert group["low"] <= group["value"] <= group["high"]
        assert group["texts"] == len(inside)


@pytest.mark.parametrize(
    "sizes", [{5: 30, 6: 16, 9: 4}, {3: 25, 5: 21, 9: 4}, {3: 4, 5: 26, 7: 26, 9: 24}, {1: 5, 2: 5}]
)
def test_no_group_is_too_small_for_an_interval(sizes):
    lengths = [length for length, texts in sizes.items() for _ in range(texts)]
    found = groups_of(lengths)
    assert (found[0][0], found[-1][1]) == (min(lengths), max(lengths))
    inside = [sum(first <= length <= last for length in lengths) for first, last in found]
    assert sum(inside) == len(lengths)
    assert min(inside) >= min(LEAST, len(lengths))


def test_text_without_spaces_is_measured_in_characters():
    assert lengths_of([["\u732b\u304c", "\u732b"], ["\u72ac"]]) == ([2, 1], "characters")


def test_text_from_elsewhere_cannot_move_the_cursor():
    row = {"place": "a:1", "chrf": 0.0, "source": "\x1b[2J", "references": ["\x07"], "output": "x\u202ey\n\n"}
    record = {
        "texts": 1,
        "num_beams": 1,
        "files": ["a\x1b[31m"],
        "speed": {"seconds": 1.0},
        "worst": [row],
        "bleu": 1.0,
    }
    shown = table("test", record)
    assert not any(ord(character) < 32 and character != "\n" for character in shown)
    assert "\u202e" not in shown
    assert "U+001B[2J" in shown
