import random

import pytest


WORDS = [
    "ein",
    "der",
    "hund",
    "katze",
    "baum",
    "sieht",
    "rennt",
    "schnell",
    "klein",
    "gross",
    "rot",
    "blau",
    "haus",
    "garten",
    "mann",
    "frau",
    "kind",
]


@pytest.fixture
def corpus(tmp_path):
    """A folder with parallel files of a toy language, whose translation is the words in capitals, in reverse order."""
    rng = random.Random(0)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, size in (("train", 64), ("val", 8), ("test", 8)):
        lines = [" ".join(rng.choices(WORDS, k=rng.randint(2, 7))) for _ in range(size)]
        (folder / f"{split}.de").write_text("\n".join(lines) + "\n", encoding="utf-8")
        answers = [" ".join(reversed(line.upper().split())) for line in lines]
        (folder / f"{split}.en").write_text("\n".join(answers) + "\n", encoding="utf-8")
    return folder


TINY_RECIPE = """
task: translation
train_source: train.de
train_target: train.en
validation_source: val.de
validation_target: val.en
test_source: test.de
test_target: test.en
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
per_device_train_batch_size: 8
learning_rate: 1e-3
label_smoothing_factor: 0.1
eval_strategy: "no"
save_strategy: "no"
generation_num_beams: 2
use_cpu: true
"""


@pytest.fixture
def recipe_file(tmp_path):
    """Write a tiny translation recipe, with lines added or replaced: `recipe_file("dropout: 0.1")`."""

    def write(*lines, without=()):
        keys = {line.partition(":")[0] for line in lines} | set(without)
        kept = [line for line in TINY_RECIPE.strip().splitlines() if line.partition(":")[0] not in keys]
        path = tmp_path / "toy" / "tiny.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join([*kept, *lines]) + "\n", encoding="utf-8")
        return path

    return write
