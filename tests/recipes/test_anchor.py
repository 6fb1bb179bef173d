import pytest

from transformer_theatre.recipes.anchor import check_anchor, verdict


ANCHOR = {"metric": "test_bleu", "figure": 36.5, "tolerance": 0.5, "source": "somebody"}


@pytest.mark.parametrize(("value", "word"), [(40.0, "PASS"), (36.0, "PASS"), (35.9, "FAIL")])
def test_higher_is_better_unless_said_otherwise(value, word):
    assert verdict(ANCHOR, {"test_bleu": value}).startswith(f"{word}: test_bleu {value:.4g} against 36.5")


@pytest.mark.parametrize(("value", "word"), [(30.0, "PASS"), (37.0, "PASS"), (37.1, "FAIL")])
def test_lower_can_be_better(value, word):
    assert verdict({**ANCHOR, "lower_is_better": True}, {"test_bleu": value}).startswith(word)


def test_what_was_not_measured_is_no_failure_and_no_success():
    assert verdict(ANCHOR, {"eval_nll": 1.0}).startswith("NOT MEASURED: test_bleu")


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        (
            {**ANCHOR, "figrue": 1},
            "small.yaml:7: anchor must have the keys figure, metric, source, and may have budget",
        ),
        ({"metric": "test_bleu", "figure": 1}, "anchor must have the keys"),
        ("36.5", "anchor must have the keys"),
        ({**ANCHOR, "figure": "high"}, "anchor: figure='high' must be a number"),
    ],
    ids=["unknown", "missing", "no-mapping", "no-number"],
)
def test_an_anchor_that_cannot_be_held_against_a_run_is_refused(anchor, message):
    with pytest.raises(ValueError, match=message):
        check_anchor(anchor, "small.yaml:7")
