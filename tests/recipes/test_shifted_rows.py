"""Rows that begin elsewhere each epoch: what is predicted stays the same, and runs stay exact."""

import itertools
import random

import numpy as np
import pytest
import torch
import yaml
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer

from transformer_theatre.recipes.full_rows import stack_rows
from transformer_theatre.recipes.shifted_rows import ShiftedRows
from transformer_theatre.recipes.theatre import main
from transformer_theatre.recipes.tokenization import encode_blocks, train_character_tokenizer
from transformer_theatre.recipes.trainer import TheatreTrainer


LETTERS = "abcdefghij"
BLOCK = 16


@pytest.fixture(scope="module")
def tokenizer():
    return train_character_tokenizer([LETTERS])


def documents(*sizes):
    rng = random.Random(0)
    return ["".join(rng.choices(LETTERS, k=size)) for size in sizes]


def rows_of(tokenizer, texts, seed=1, **options):
    table = encode_blocks(Dataset.from_dict({"text": texts}), tokenizer, BLOCK, **options)
    return ShiftedRows(table, seed, tokenizer.eos_token_id)


def pairs_of(rows):
    """What is predicted, and from which token just before it."""
    batch = stack_rows(rows.__getitems__(range(len(rows))))
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert batch["attention_mask"].all()
    predicted = batch["labels"][:, 1:]
    return list(
        zip(batch["input_ids"][predicted != -100].tolist(), predicted[predicted != -100].tolist(), strict=True)
    )


# Shorter than a block, one block and a token, whole blocks, and what is in between.
@pytest.mark.parametrize("size", [3, 16, 17, 18, 32, 33, 34, 100])
@pytest.mark.parametrize("several", [False, True], ids=["one document", "three"])
def test_each_token_is_predicted_once_an_epoch_from_the_one_before_it(tokenizer, size, several):
    texts = documents(size, 5, 29) if several else documents(size)
    end = tokenizer.eos_token_id
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    stream = [end, *itertools.chain(*([*document, end] for document in ids))] if several else ids[0]
    expected = list(itertools.pairwise(stream))
    rows = rows_of(tokenizer, texts)
    for epoch in range(5):
        rows.begin_epoch(epoch)
        assert 0 <= rows.shift < min(BLOCK, len(expected))
        assert pairs_of(rows) == expected[rows.shift :] + expected[: rows.shift]


def test_rows_are_a_piece_of_text_but_for_the_one_at_its_end(tokenizer):
    text = documents(100)[0]
    rows = rows_of(tokenizer, [text])
    for epoch in range(5):
        rows.begin_epoch(epoch)
        found = [tokenizer.decode(row["input_ids"]) for row in rows]
        assert len(found) == 7
        assert sum(piece in text for piece in found) >= 6
        assert found[0] == text[rows.shift : rows.shift + BLOCK]
        # The row at the end goes on with the beginning: the last token is only predicted.
        assert all(piece in text[:-1] + text for piece in found)


def test_shifts_follow_from_seed_and_epoch_alone(tokenizer):
    text = documents(1000)
    rows, again, other = (rows_of(tokenizer, text, seed) for seed in (1, 1, 2))
    shifts = []
    for epoch in (2, 0, 1, 2):
        for each in (rows, again, other):
            each.begin_epoch(epoch)
        shifts.append((rows.shift, other.shift))
        assert rows.shift == again.shift
        assert rows[7]["input_ids"].tolist() == again.__getitems__([3, 7])[1]["input_ids"].tolist()
    assert shifts[0] == shifts[-1]
    assert len(set(shifts)) == 3


def test_all_places_of_a_row_are_begun_at(tokenizer):
    rows, found = rows_of(tokenizer, documents(1000)), []
    for epoch in range(400):
        rows.begin_epoch(epoch)
        found.append(rows.shift)
    counts = np.bincount(found, minlength=BLOCK)
    assert len(counts) == BLOCK
    assert counts.min() > 0
    # 400 draws of 16: by chi-squared with 15 degrees of freedom, 44 in one case of 10,000.
    assert ((counts - 25) ** 2 / 25).sum() < 44


def test_documents_stay_apart(tokenizer):
    rows = rows_of(tokenizer, documents(40, 7, 3, 30), apart=True)
    for epoch in range(4):
        rows.begin_epoch(epoch)
        for row in rows:
            at = 0
            for place, (token, position) in enumerate(zip(row["input_ids"], row["position_ids"], strict=True)):
                at = 0 if place == 0 or token == tokenizer.eos_token_id else at + 1
                assert position == at


def test_rows_are_named_by_the_text_and_the_shift(tokenizer):
    data = Dataset.from_dict({"text": documents(100), "origin": ["a.txt"]})
    rows = ShiftedRows(encode_blocks(data, tokenizer, BLOCK), 1, None)
    rows.begin_epoch(3)
    batch = stack_rows(rows.__getitems__([4, 2]))
    assert rows.rows_of(batch) == [2, 4]
    assert rows.name_of(2) == f"a.txt from token 33 on, {rows.shift} tokens later"
    # The last of 7 blocks reaches back by 13 tokens, from token 97 to token 84.
    assert rows.name_of(6) == f"a.txt from token 84 on, {13 + rows.shift} tokens later"
    assert rows.expected_lengths(torch.tensor([[BLOCK]])).tolist() == [[BLOCK]]


RECIPE = """
task: language_modeling
train_text: train.txt
validation_text: val.txt
shift_rows: true
tokenizer: character
preset: gpt-char
d_model: 16
num_hidden_layers: 1
num_attention_heads: 2
ffn_dim: 32
max_position_embeddings: 16
dropout: 0.1
max_steps: 14
per_device_train_batch_size: 4
learning_rate: 1e-2
lr_scheduler_type: constant
eval_strategy: "no"
save_strategy: steps
save_steps: 2
use_cpu: true
"""


@pytest.fixture
def train(tmp_path):
    """Train by `RECIPE` into a folder, and return the exit code: of 6 updates an epoch."""
    for name, size in (("train", 24 * BLOCK + 1), ("val", 100)):
        (tmp_path / f"{name}.txt").write_text(documents(size)[0], encoding="utf-8")
    (tmp_path / "text.yaml").write_text(RECIPE, encoding="utf-8")

    def run(folder, *words):
        begin = ["train", str(tmp_path / "text.yaml"), "--data_dir", str(tmp_path)]
        return main([*begin, "--output_dir", str(tmp_path / folder), *words])

    return run


def same_weights(one, other):
    found, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("words", [[], ["--max_tokens_per_batch", "64"]], ids=["rows", "tokens"])
def test_a_run_that_goes_on_within_an_epoch_or_between_two_ends_alike(train, tmp_path, words):
    assert train("whole", *words) == 0
    for stop in (8, 12):
        folder = f"stopped-{stop}"
        assert train(folder, *words, "--max_steps", str(stop)) == 0
        assert train(folder, *words, "--resume_from_checkpoint", "true") == 0
        assert same_weights(tmp_path / folder, tmp_path / "whole")
    assert train("unshifted", *words, "--shift_rows", "false") == 0
    assert not same_weights(tmp_path / "unshifted", tmp_path / "whole")


def test_a_run_reads_the_rows_of_each_of_its_epochs(train, tmp_path, monkeypatch):
    read, step = [], TheatreTrainer.training_step

    def training_step(self, model, inputs, *args):
        read.extend(map(tuple, inputs["input_ids"].tolist()))
        return step(self, model, inputs, *args)

    monkeypatch.setattr(TheatreTrainer, "training_step", training_step)
    assert train("run") == 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    rows = rows_of(tokenizer, [(tmp_path / "train.txt").read_text(encoding="utf-8")], seed=42)
    expected = []
    for epoch in range(2):
        rows.begin_epoch(epoch)
        expected.append({tuple(row["input_ids"].tolist()) for row in rows})
    assert [set(read[:24]), set(read[24:48])] == expected
    assert expected[0] != expected[1]


def test_workers_that_outlive_an_epoch_are_told_of_the_next(train, tmp_path):
    # Without dropout, since a loader with such workers takes other numbers from the source of chance.
    plain = ["--dropout", "0", "--attention_dropout", "0"]
    assert train("whole", *plain) == 0
    assert train("workers", *plain, "--dataloader_num_workers", "1", "--dataloader_persistent_workers", "true") == 0
    assert same_weights(tmp_path / "workers", tmp_path / "whole")


def test_a_run_goes_on_only_with_rows_as_they_were(train, capsys):
    assert train("run", "--max_steps", "2") == 0
    assert train("run", "--shift_rows", "false", "--resume_from_checkpoint", "true") == 2
    assert "its shift_rows was True, and is False now" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--streaming", "true"], ["--bpe_dropout", "0.1"]], ids=["stream", "dropout"])
def test_text_that_is_read_anew_is_not_shifted(train, tmp_path, capsys, words):
    assert train("run", *words) == 2
    said = capsys.readouterr().err
    assert "shift_rows=true does not go with" in said
    assert f"{words[0].removeprefix('--')}={yaml.safe_load(words[1])}" in said
    assert not (tmp_path / "run").exists()
