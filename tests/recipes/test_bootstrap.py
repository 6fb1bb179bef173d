import numpy as np
import pytest
import sacrebleu

from transformer_theatre.recipes.bootstrap import interval


PREDICTIONS = [f"a {word} runs through the {place}" for word in ("dog", "cat", "man") for place in ("snow", "town")]
REFERENCES = [f"a {word} is running in the {place}" for word in ("dog", "bird", "man") for place in ("snow", "wood")]


@pytest.mark.parametrize("metric", [sacrebleu.metrics.BLEU(), sacrebleu.metrics.CHRF()], ids=["bleu", "chrf"])
def test_half_the_interval_is_what_sacrebleu_prints(metric):
    theirs = metric.corpus_score(PREDICTIONS, [REFERENCES], n_bootstrap=1000)
    statistics = metric._extract_corpus_statistics(PREDICTIONS, [REFERENCES])
    low, high = interval(statistics, lambda total: metric._compute_score_from_stats(total.tolist()).score)
    # They sum in float32.
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=1e-4)
    assert low < theirs.score < high


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(0).normal(5.0, 2.0, size=(4000, 1))
    low, high = interval(values, lambda total: total[0] / len(values))
    error = values.std() / len(values) ** 0.5
    assert [low, high] == pytest.approx([values.mean() - 1.96 * error, values.mean() + 1.96 * error], abs=0.2 * error)


def test_the_interval_is_the_same_each_time():
    values = np.random.default_rng(0).random((50, 1))
    assert interval(values, lambda total: total[0]) == interval(values, lambda total: total[0])
