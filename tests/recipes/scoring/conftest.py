import random

import pytest

from transformer_theatre.recipes.theatre import main


RECIPE = """
task: translation
train_source: train.de
train_target: train.en
validation_source: val.de
validation_target: val.en
test_source: test.de
test_target: test.en
target_language: en
vocab_size: 300
preset: transformer-tiny
d_model: 16
encoder_layers: 1
decoder_layers: 1
encoder_attention_heads: 2
decoder_attention_heads: 2
encoder_ffn_dim: 32
decoder_ffn_dim: 32
dropout: 0.0
max_steps: 3
learning_rate: 1e-2
save_strategy: "no"
generation_num_beams: 2
use_cpu: true
disable_tqdm: true
"""
WORDS = ["ein", "hund", "katze", "haus", "baum", "sieht", "rennt", "klein", "rot", "blau"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Two translators of one recipe, a language model, and their text."""
    folder = tmp_path_factory.mktemp("runs")
    rng = random.Random(0)
    for split, size in (("train", 40), ("val", 30), ("test", 60)):
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(1, 12))) for _ in range(size)]
        (folder / f"{split}.de").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (folder / f"{split}.en").write_text("\n".join(line.upper() for line in lines) + "\n", encoding="utf-8")
    (folder / "toy.yaml").write_text(RECIPE, encoding="utf-8")
    for name, seed in (("one", "1"), ("two", "2")):
        words = ["--data_dir", str(folder), "--output_dir", str(folder / name), "--seed", seed]
        assert main(["train", str(folder / "toy.yaml"), *words]) == 0
    (folder / "play.txt").write_text("To be, or not to be: that is the question.\n" * 80, encoding="utf-8")
    gpt = ["--d_model", "16", "--num_hidden_layers", "1", "--ffn_dim", "32", "--max_steps", "3", "--use_cpu", "true"]
    for name, seed in (("gpt", "1"), ("gpt-two", "2")):
        words = [
            "--train_text",
            "play.txt",
            "--data_dir",
            str(folder),
            "--output_dir",
            str(folder / name),
            "--seed",
            seed,
        ]
        assert main(["train", "shakespeare-char/cpu", *words, *gpt, "--disable_tqdm", "true"]) == 0
    return folder
