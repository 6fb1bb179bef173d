import os
import subprocess
import sys

import pytest
import sacrebleu

from transformer_theatre.recipes.evaluation import likelihood
from transformer_theatre.recipes.metrics import score_texts


PREDICTIONS = ["A dog runs through the snow.", "two men sit", "The cat."]
REFERENCES = ["A dog is running through the snow.", "Two men sit.", "The cat."]


def test_scores_are_sacrebleus_with_its_signatures():
    scores = score_texts(PREDICTIONS, REFERENCES)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES]).score)
    lower = sacrebleu.corpus_bleu([p.lower() for p in PREDICTIONS], [[r.lower() for r in REFERENCES]])
    assert scores["bleu_lowercase"] == pytest.approx(lower.score)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score)
    assert scores["exact_match"] == pytest.approx(1 / 3)
    assert "case:mixed" in scores["bleu_signature"]
    assert "case:lc" in scores["bleu_lowercase_signature"]
    assert f"version:{sacrebleu.__version__}" in scores["chrf_signature"]


def test_nothing_and_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="0 predictions cannot be scored against 0 references"):
        score_texts([], [])
    with pytest.raises(ValueError, match="1 predictions cannot be scored against 2 references"):
        score_texts(["a"], ["a", "b"])


def test_metrics_need_no_network(tmp_path):
    code = (
        "from transformer_theatre.recipes.metrics import score_texts; print(score_texts(['a'], ['a'])['exact_match'])"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HTTPS_PROXY": "http://127.0.0.1:9"}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "1.0", result.stderr


def test_likelihood_of_a_uniform_guess():
    """A model that gives each of 256 bytes the same probability needs 8 bits for each."""
    from math import log

    figures = likelihood(100 * log(256), 100, 100)
    assert figures["perplexity"] == pytest.approx(256)
    assert figures["bits_per_byte"] == pytest.approx(8)
