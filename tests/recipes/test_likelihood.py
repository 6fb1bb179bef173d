import math
import random

import pytest
import torch

from transformer_theatre.recipes.likelihood import TextSize, likelihood, likelihood_of_rows, size_of


def test_likelihood_of_a_uniform_guess():
    """A model that gives each of 256 bytes the same probability needs 8 bits for each."""
    figures = likelihood([[60 * math.log(256), 60], [40 * math.log(256), 40]], TextSize(100, 50))
    for side in ("", "_low", "_high"):
        assert figures[f"perplexity{side}"] == pytest.approx(256)
    assert figures["bits_per_byte"] == pytest.approx(8)
    assert figures["bits_per_character"] == pytest.approx(16)  # a character is two bytes here
    assert figures["tokens"] == 100


def test_the_order_of_the_rows_changes_no_digit():
    rng = random.Random(0)
    rows = [[rng.uniform(0, 10) * 10 ** rng.uniform(-8, 8), rng.randint(1, 90)] for _ in range(200)]
    figures = likelihood(rows, TextSize(1000, 900))
    rng.shuffle(rows)
    assert likelihood(rows, TextSize(1000, 900)) == figures


def test_the_interval_is_of_the_mean_over_tokens_not_over_rows():
    # One long row that is easy, many short ones that are not: the mean over rows lies far above.
    rows = [[1000.0, 1000]] * 5 + [[9.0, 1]] * 50
    figures = likelihood(rows)
    assert figures["nll_low"] <= figures["nll"] == (5000 + 450) / 5050
    assert figures["nll"] <= figures["nll_high"] < 2
    assert figures["perplexity_high"] == math.exp(figures["nll_high"])
    assert "bits_per_byte" not in figures


@pytest.mark.parametrize(
    ("shifts", "columns"), [(False, 4), (True, 4), (True, 5)], ids=["aligned", "shifted", "one more"]
)
def test_rows_are_summed_without_what_is_ignored(shifts, columns):
    logits, labels = torch.randn(2, 4, 7), torch.randint(0, 7, (2, columns))
    labels[1, 2:] = -100
    expected = []
    for row in range(2):
        terms = []
        for place in range(columns):
            label = labels[row, place].item()
            before = place - 1 if shifts else place
            if label != -100 and before >= 0:
                terms.append(-logits[row, before].log_softmax(-1)[label].item())
        expected.append([sum(terms), len(terms)])
    torch.testing.assert_close(
        likelihood_of_rows(logits, labels, shifts=shifts),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-6,
        atol=0,
    )


def test_bytes_are_those_of_utf_8_and_characters_are_code_points():
    assert size_of(["a", "\N{LATIN SMALL LETTER A WITH DIAERESIS}", "\N{HIRAGANA LETTER A}"]) == (1 + 2 + 3, 3)
