"""Whether generators are on style, measured on styles that differ in every word."""

import json
import math
import random

import pytest
import transformers

from transformer_theatre.recipes.compare_styles import main, pieces_of_words, read_style
from transformer_theatre.recipes.naive_bayes import NaiveBayes, words_of
from transformer_theatre.recipes.theatre import main as theatre


WORDS = {"sea": ["wave", "salt", "ship"], "land": ["hill", "corn", "mill"]}
RECIPE = """
task: language_modeling
validation_share: 0.2
max_steps: {steps}
per_device_train_batch_size: 8
learning_rate: 1e-2
lr_scheduler_type: constant
eval_strategy: "no"
save_strategy: "no"
use_cpu: true
"""
SIZES = """
train_text: both.txt
vocab_size: 280
preset: gpt-char
d_model: 32
num_hidden_layers: 1
num_attention_heads: 2
ffn_dim: 64
max_position_embeddings: 32
dropout: 0.0
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A model of both styles, hardly trained, and one that has learned each."""
    folder, rng = tmp_path_factory.mktemp("styles"), random.Random(0)
    for name, words in {**WORDS, "both": [*WORDS["sea"], *WORDS["land"]]}.items():
        (folder / f"{name}.txt").write_text(" ".join(rng.choices(words, k=600)), encoding="utf-8")
    (folder / "base.yaml").write_text(RECIPE.format(steps=3) + SIZES, encoding="utf-8")
    start = ["--data_dir", str(folder), "--output_dir"]
    assert theatre(["train", str(folder / "base.yaml"), *start, str(folder / "base")]) == 0
    for name in WORDS:
        lines = (
            f"train_text: {name}.txt\nmodel_name_or_path: {folder / 'base'}\nsample_prompts: ['{WORDS[name][0]} ']\n"
        )
        (folder / f"{name}.yaml").write_text(RECIPE.format(steps=60) + lines, encoding="utf-8")
        assert theatre(["train", str(folder / f"{name}.yaml"), *start, str(folder / name)]) == 0
    return folder


@pytest.mark.slow
def test_generators_that_have_learned_their_style_pass_and_the_model_they_started_from_does_not(runs, capsys):
    options = [
        "--data_dir",
        str(runs),
        "--samples",
        "10",
        "--tokens",
        "30",
        "--words",
        "5",
        "--output",
        str(runs / "figures.json"),
    ]
    assert main([str(runs / "base"), str(runs / "sea"), str(runs / "land"), *options]) == 0
    figures = json.loads((runs / "figures.json").read_text(encoding="utf-8"))
    for name in WORDS:
        found = figures[name]
        own = json.loads((runs / name / "metrics.json").read_text(encoding="utf-8"))["eval_perplexity"]
        assert found["perplexity_after"] == pytest.approx(own, rel=1e-5)
        assert found["drop"] == pytest.approx(1 - own / found["perplexity_before"])
        assert found["judge"] == 1  # no word is of both styles
        assert found["taken_for"][name] == round(10 * found["on_style"])
        assert len(found["samples"]) == 10
    assert "PASS" in capsys.readouterr().out
    # What each writes is taken for the other's style, where they have changed their names.
    (runs / "sea").rename(runs / "swap")
    try:
        recipe = (runs / "swap" / "recipe.yaml").read_text(encoding="utf-8")
        (runs / "swap" / "recipe.yaml").write_text(recipe.replace("sea.txt", "land.txt"), encoding="utf-8")
        (runs / "land" / "recipe.yaml").rename(runs / "kept.yaml")
        (runs / "land" / "recipe.yaml").write_text(recipe, encoding="utf-8")
        assert main([str(runs / "base"), str(runs / "swap"), str(runs / "land"), *options]) == 1
        assert "FAIL" in capsys.readouterr().out
    finally:
        (runs / "kept.yaml").rename(runs / "land" / "recipe.yaml")
        (runs / "swap" / "recipe.yaml").write_text(recipe, encoding="utf-8")
        (runs / "swap").rename(runs / "sea")


def test_the_model_that_a_run_started_from_is_not_looked_for(runs, monkeypatch):
    """Its name alone stands in recipe.yaml, which might be that of a model on the Hub."""
    asked, load = [], transformers.AutoConfig.from_pretrained
    monkeypatch.setattr(
        transformers.AutoConfig, "from_pretrained", lambda name, **options: asked.append(name) or load(name, **options)
    )
    style = read_style(runs / "sea", str(runs))
    assert set(style.train[0].split()) == set(WORDS["sea"])
    assert {str(name) for name in asked} <= {str(runs / "sea")}


def test_wrong_input_is_named(runs, capsys):
    base, sea = str(runs / "base"), str(runs / "sea")
    for words, message in (
        ([base, sea], "Two or more runs with different names"),
        ([base, sea, sea], "Two or more runs with different names"),
        ([base, sea, str(runs)], "is no folder of a run"),
        ([base, sea, str(runs / "land"), "--samples", "0"], "--samples 0 must be 1 or more"),
        ([base, sea, str(runs / "land"), "--words", "1000"], "classes with words are needed"),
    ):
        assert main([*words, "--data_dir", str(runs)]) == 2
        assert message in capsys.readouterr().err


def test_the_judge_is_naive_bayes_with_add_one_smoothing():
    judge = NaiveBayes({"a": ["x x y"], "b": ["y z"]})
    scores = judge.scores("x z w")
    # Three words are known; "w" is not, and counts nothing.
    assert scores["a"] == pytest.approx(math.log(3 / 6) + math.log(1 / 6))
    assert scores["b"] == pytest.approx(math.log(1 / 5) + math.log(2 / 5))
    assert judge.classify("z z") == "b"
    assert words_of("It's\nDONE.") == ["It", "'", "s", "\n", "DONE", "."]  # verse in small letters is another style


def test_pieces_have_so_many_words_and_no_rest():
    pieces = pieces_of_words(["a b c d e", "f g"], 2, 10, seed=0)
    assert sorted(pieces) == ["a b", "c d", "f g"]
    assert len(pieces_of_words(["a b c d e"] * 50, 2, 10, seed=0)) == 10
