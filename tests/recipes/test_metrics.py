import os
import subprocess
import sys

import pytest
import sacrebleu

from transformer_theatre.recipes.metrics import score_texts
from transformer_theatre.recipes.moses import moses_lowercase


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


def test_every_score_lies_in_its_interval():
    scores = score_texts(PREDICTIONS * 20, REFERENCES * 20, "en")
    for name in ("bleu", "bleu_lowercase", "bleu_moses_lowercase", "chrf", "exact_match"):
        assert scores[f"{name}_low"] < scores[name] < scores[f"{name}_high"]
    # The signature is that of the score, which resampling does not change: it is compared with published ones.
    assert "bs:" not in scores["bleu_signature"]
    assert "bs:1000|seed:12345" in scores["interval_signature"]


def test_moses_tokens_are_those_of_the_data_sets_own_files():
    """Lines of Multi30k's raw files, and of its *.lc.norm.tok files."""
    pytest.importorskip("sacremoses")
    english, german = moses_lowercase("en"), moses_lowercase("de-AT")
    assert english.tokenize("Two men, in a room; don't \u201cmove\u201d.") == (
        "two men , in a room ; don &apos;t &quot; move . &quot;"
    )
    assert german.tokenize("Ein Mann z.B. l\u00e4uft.") == "ein mann z.b. l\u00e4uft ."
    assert english.name.startswith("moses-en-sacremoses-")


def test_moses_bleu_is_multi_bleu_of_the_tokens():
    pytest.importorskip("sacremoses")
    scores = score_texts(PREDICTIONS, REFERENCES, "en")
    tokens = [[moses_lowercase("en").tokenize(text) for text in texts] for texts in (PREDICTIONS, REFERENCES)]
    expected = sacrebleu.corpus_bleu(tokens[0], [tokens[1]], tokenize="none", force=True)
    assert scores["bleu_moses_lowercase"] == pytest.approx(expected.score)
    assert "case:lc|eff:no|tok:moses-en-sacremoses-" in scores["bleu_moses_lowercase_signature"]


@pytest.mark.parametrize("language", [None, "xx", "english"])
def test_what_moses_does_not_know_is_absent(language):
    assert not any("moses" in key for key in score_texts(PREDICTIONS, REFERENCES, language))


def test_without_sacremoses_its_figure_is_absent(monkeypatch):
    monkeypatch.setattr("transformer_theatre.recipes.moses.find_spec", lambda name: None)
    assert not any("moses" in key for key in score_texts(PREDICTIONS, REFERENCES, "en"))
