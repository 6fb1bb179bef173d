import random

import numpy as np
import pytest
import sacrebleu
from sacrebleu.significance import PairedTest

from transformer_theatre.recipes.metrics import text_statistics
from transformer_theatre.recipes.paired_bootstrap import differences, paired_comparison
from transformer_theatre.recipes.sentence_statistics import mean_statistics


WORDS = [
    "a",
    "dog",
    "cat",
    "man",
    "woman",
    "child",
    "runs",
    "sits",
    "jumps",
    "through",
    "over",
    "the",
    "snow",
    "grass",
    "street",
    "house",
    "and",
    "sees",
    "nothing",
    ".",
]
METRICS = {"bleu": sacrebleu.metrics.BLEU, "chrf": sacrebleu.metrics.CHRF, "ter": sacrebleu.metrics.TER}


@pytest.fixture(scope="module")
def texts():
    """References, the outputs of a system, and those of another one that makes more mistakes."""
    rng = random.Random(3)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(60)]

    def system(mistakes):
        return [
            " ".join(rng.choice(WORDS) if rng.random() < mistakes else word for word in text.split())
            for text in references
        ]

    return references, system(0.30), system(0.36)


@pytest.mark.parametrize("name", METRICS)
def test_the_test_is_sacrebleus(texts, name):
    references, model, baseline = texts
    systems = [("baseline", baseline), ("model", model)]
    signatures, scores = PairedTest(systems, {name: METRICS[name]()}, [references], test_type="bs")()
    [key] = [key for key in scores if key != "System"]
    theirs = scores[key]
    ours = paired_comparison(
        text_statistics(model, references, metrics=[name])[name],
        text_statistics(baseline, references, metrics=[name])[name],
    )
    assert ours["p_value"] == theirs[1].p_value
    assert (ours["model"], ours["baseline"]) == pytest.approx((theirs[1].score, theirs[0].score))
    assert ours["signature"] == str(signatures[key])
    assert 0.001 < ours["p_value"] < 0.999  # neither is the test of a foregone conclusion


def test_a_system_compared_with_itself_differs_by_chance_alone(texts):
    references, model, _ = texts
    same = text_statistics(model, references, metrics=["bleu"])["bleu"]
    found = paired_comparison(same, same)
    assert (found["difference"], found["low"], found["high"], found["wins"]) == (0, 0, 0, 0)


def test_the_interval_of_the_difference_is_that_of_paired_values():
    """Each text is hard or easy for both: their difference is known far better than either mean."""
    generator = np.random.default_rng(0)
    hard = generator.normal(0, 10, 2000)
    one, other = hard + generator.normal(0.5, 1, 2000), hard + generator.normal(0, 1, 2000)
    found = paired_comparison(mean_statistics(one), mean_statistics(other))
    error = (one - other).std() / 2000**0.5
    assert found["difference"] == pytest.approx((one - other).mean())
    middle = (one - other).mean()
    assert [found["low"], found["high"]] == pytest.approx(
        [middle - 1.96 * error, middle + 1.96 * error], abs=error / 5
    )
    assert found["p_value"] < 0.01
    assert found["wins"] == 1
    worse = paired_comparison(mean_statistics(one, lower_is_better=True), mean_statistics(other))
    assert worse["wins"] == 0


def test_swapping_the_systems_turns_the_difference_around(texts):
    references, model, baseline = texts
    first, second = (text_statistics(text, references, metrics=["chrf"])["chrf"] for text in (model, baseline))
    there, back = paired_comparison(first, second), paired_comparison(second, first)
    assert back["difference"] == -there["difference"]
    assert back["p_value"] == there["p_value"]
    np.testing.assert_allclose(differences(first, second), -differences(second, first))


def test_texts_that_are_not_the_same_are_refused():
    with pytest.raises(ValueError, match="3 texts cannot be compared with 2"):
        paired_comparison(mean_statistics([1, 2, 3]), mean_statistics([1, 2]))
