import pytest

from transformer_theatre.recipes.anchor import verdict


ANCHOR = {"metric": "test_bleu", "figure": 36.5, "tolerance": 0.5, "source": "somebody"}


@pytest.mark.parametrize(("value", "word"), [(40.0, "PASS"), (36.0, "PASS"), (35.9, "FAIL")])
def test_higher_is_better_unless_said_otherwise(value, word):
    assert verdict(ANCHOR, {"test_bleu": value}).startswith(f"{word}: test_bleu {value:.4g} against 36.5")


@pytest.mark.parametrize(("value", "word"), [(30.0, "PASS"), (37.0, "PASS"), (37.1, "FAIL")])
def test_lower_can_be_better(value, word):
    assert verdict({**ANCHOR, "lower_is_better": True}, {"test_bleu": value}).startswith(word)


def test_an_anchor_that_cannot_be_held_against_the_run_is_refused():
    with pytest.raises(ValueError, match="metric 'test_bleu' was not measured; measured were: eval_nll"):
        verdict(ANCHOR, {"eval_nll": 1.0})
    with pytest.raises(ValueError, match="unknown key 'figrue'"):
        verdict({**ANCHOR, "figrue": 1}, {"test_bleu": 1.0})
