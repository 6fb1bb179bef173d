import pytest
import sacrebleu
from datasets import Dataset

from transformer_theatre.recipes.data_arguments import TEXT_METRICS
from transformer_theatre.recipes.metrics import score_texts
from transformer_theatre.recipes.references import group_references, references_of


PREDICTIONS = ["A dog runs through the snow.", "two men sit on a bench", "The cat sleeps."]
FIRST = ["A dog is running through the snow.", "Two men sit.", "The cat."]
SECOND = ["A dog runs in snow.", "two men sit on one bench", "The cat sleeps."]


def test_rows_of_the_same_source_become_one_text_with_several_references():
    pairs = Dataset.from_dict({"source": ["b", "a", "b", "b"], "target": ["1", "2", "3", "1"], "origin": [*"wxyz"]})
    grouped = group_references(pairs)
    assert grouped["source"][:] == ["b", "a"]
    assert grouped["origin"][:] == ["w", "x"]
    assert references_of(grouped) == [["1", "3"], ["2"]]
    assert references_of(pairs) == ["1", "2", "3", "1"]


def test_one_reference_in_a_list_is_one_reference():
    lists = [[reference] for reference in FIRST]
    assert score_texts(PREDICTIONS, FIRST, "en", TEXT_METRICS) == score_texts(PREDICTIONS, lists, "en", TEXT_METRICS)


def test_several_references_are_scored_as_sacrebleu_does():
    scores = score_texts(PREDICTIONS, [list(pair) for pair in zip(FIRST, SECOND, strict=True)])
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(PREDICTIONS, [FIRST, SECOND]).score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(PREDICTIONS, [FIRST, SECOND]).score)
    assert "nrefs:2" in scores["bleu_signature"]
    assert scores["exact_match"] == pytest.approx(1 / 3)


def test_texts_may_have_different_numbers_of_references():
    """A reference that stands twice changes nothing, so texts with fewer references equal texts with one repeated."""
    uneven = score_texts(PREDICTIONS, [[FIRST[0], SECOND[0]], [FIRST[1]], [SECOND[2]]], "en", TEXT_METRICS)
    repeated = score_texts(PREDICTIONS, [[FIRST[0], SECOND[0]], [FIRST[1]] * 2, [SECOND[2]] * 2], "en", TEXT_METRICS)
    signed = [key for key in uneven if key.endswith("signature")]
    assert all(
        "nrefs:var" in uneven.pop(key) and "nrefs:2" in repeated.pop(key) for key in signed if "interval" not in key
    )
    assert {key: value for key, value in uneven.items() if "signature" not in key} == pytest.approx(
        {key: value for key, value in repeated.items() if "signature" not in key}
    )


def test_what_is_one_of_its_references_is_right_by_every_metric():
    scores = score_texts(PREDICTIONS, [[*pair] for pair in zip(FIRST, PREDICTIONS, strict=True)], "en", TEXT_METRICS)
    right = {"bleu": 100, "chrf": 100, "exact_match": 1, "rouge1": 100, "rougeL": 100, "symbol_error_rate": 0}
    assert {key: scores[key] for key in right} == pytest.approx(right)


def test_every_metric_can_be_chosen_alone():
    for name in TEXT_METRICS:
        found = {key for key in score_texts(PREDICTIONS, FIRST, "en", [name]) if "signature" not in key}
        assert found
        assert all(key.startswith(name) for key in found), name
