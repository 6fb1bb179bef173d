import numpy as np
import pytest

from transformer_theatre.recipes.bootstrap import interval
from transformer_theatre.recipes.task_metrics import TASK_METRICS, score_answers


RNG = np.random.default_rng(7)
TWO = RNG.integers(0, 2, (2, 60))
FOUR = RNG.integers(0, 4, (2, 60))
# Rounded, so that there are equal numbers.
NUMBERS = np.round(RNG.normal(size=(2, 60)) + np.linspace(0, 3, 60), 1)
DATA = {"accuracy": FOUR, "f1": FOUR, "matthews_correlation": FOUR, "pearsonr": NUMBERS, "spearmanr": NUMBERS}


def figure(name, predictions, references, counts=None):
    return TASK_METRICS[name].figure(np.array(predictions), np.array(references))(
        np.ones(len(predictions)) if counts is None else counts
    )


def test_of_two_classes_they_are_the_formulas_of_the_four_counts():
    predictions, references = TWO
    tp, fp, fn, tn = (((predictions == p) & (references == r)).sum() for p, r in ((1, 1), (1, 0), (0, 1), (0, 0)))
    scores = score_answers(predictions.tolist(), references.tolist(), ["accuracy", "f1", "matthews_correlation"])
    assert scores["accuracy"] == pytest.approx((tp + tn) / 60)
    assert scores["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    denominator = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert scores["matthews_correlation"] == pytest.approx((tp * tn - fp * fn) / denominator)


def test_of_more_classes_f1_is_their_mean_and_matthews_a_correlation_of_indicators():
    predictions, references = FOUR
    of_class = [figure("f1", (predictions == c).astype(int), (references == c).astype(int)) for c in range(4)]
    assert figure("f1", predictions, references) == pytest.approx(np.mean(of_class))
    # A class that is nowhere does not count: without the rows that have to do with class 2, the mean is over three.
    kept = (predictions != 2) & (references != 2)
    of_class = [
        figure("f1", (predictions[kept] == c).astype(int), (references[kept] == c).astype(int)) for c in (0, 1, 3)
    ]
    assert figure("f1", predictions[kept], references[kept]) == pytest.approx(np.mean(of_class))
    x, y = (np.eye(4)[side] - np.eye(4)[side].mean(0) for side in FOUR)
    expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert figure("matthews_correlation", predictions, references) == pytest.approx(expected)


def test_spearman_is_pearson_of_the_mean_ranks():
    x, y = NUMBERS
    ranks = [[(side < v).sum() + ((side == v).sum() + 1) / 2 for v in side] for side in NUMBERS]
    assert len(set(x)) < len(x)
    assert figure("pearsonr", x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert figure("spearmanr", x, y) == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize("name", DATA)
def test_a_row_that_is_drawn_often_counts_like_as_many_rows(name):
    predictions, references = DATA[name]
    counts = np.random.default_rng(3).integers(0, 4, 60)
    repeated = [np.repeat(side, counts) for side in (predictions, references)]
    assert figure(name, predictions, references, counts) == pytest.approx(figure(name, *repeated))


def test_the_bounds_of_accuracy_are_those_of_a_mean():
    predictions, references = FOUR
    scores = score_answers(predictions.tolist(), references.tolist(), ["accuracy"])
    low, high = interval((predictions == references)[:, None], lambda total: total[0] / 60)
    assert (scores["accuracy_low"], scores["accuracy_high"]) == (pytest.approx(low), pytest.approx(high))
    assert low < scores["accuracy"] < high


@pytest.mark.parametrize("name", ["matthews_correlation", "pearsonr", "spearmanr"])
def test_where_nothing_varies_there_is_no_correlation(name):
    assert figure(name, [1, 1, 1], [0, 1, 0]) == 0.0
    assert figure(name, [0, 1, 0], [1, 1, 1]) == 0.0
    assert figure("pearsonr", [0.1] * 9, np.arange(9)) == 0.0


def test_rows_without_answers_cannot_be_scored():
    with pytest.raises(ValueError, match="0 predictions cannot be scored against 0 references"):
        score_answers([], [], ["accuracy"])
    with pytest.raises(ValueError, match="1 predictions cannot be scored against 2 references"):
        score_answers([1], [1, 0], ["accuracy"])
