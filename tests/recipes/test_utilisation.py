from types import SimpleNamespace

import pytest
import torch

from transformer_theatre import GPTConfig, LSTMConfig, TransformerConfig
from transformer_theatre.recipes.flops import training_flops
from transformer_theatre.recipes.token_counter import TokenCounter
from transformer_theatre.recipes.utilisation import flops_of_tokens, peak_flops, precision_of


ROWS = [(5, 3), (9, 11), (1, 2)]
CONFIGS = [TransformerConfig.from_preset("transformer-tiny"), LSTMConfig.from_preset("lstm-luong")]


def _batch(rows, pairs):
    """Rows of a batch, padded on the right, as the collator makes them."""

    def mask(lengths):
        return torch.tensor([[place < length for place in range(max(lengths))] for length in lengths]).long()

    first = [s for s, _ in rows] if pairs else [t for _, t in rows]
    batch = {"attention_mask": mask(first), "labels": mask([t for _, t in rows])}
    batch["labels"] = batch["labels"].masked_fill(batch["labels"] == 0, -100)
    return {**batch, "decoder_input_ids": batch["labels"]} if pairs else batch


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.model_type)
def test_rows_of_any_length_take_what_each_takes(config):
    counter = TokenCounter()
    for rows in (ROWS[:2], ROWS[2:]):
        counter.add(_batch(rows, pairs=True))
    assert flops_of_tokens(config, counter.sums) == pytest.approx(sum(training_flops(config, *row) for row in ROWS))
    assert counter.real == sum(map(sum, ROWS))
    assert counter.padded == 2 * 9 + 2 * 11 + 1 + 2


def test_a_language_model_reads_one_text_a_row():
    config, counter = GPTConfig.from_preset("gpt-char"), TokenCounter()
    counter.add(_batch(ROWS, pairs=False))
    assert flops_of_tokens(config, counter.sums) == pytest.approx(sum(training_flops(config, 0, t) for _, t in ROWS))
    assert (counter.real, counter.padded) == (16, 33)


def test_a_peak_is_known_or_it_is_not_given():
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bfloat16") == 312e12
    assert peak_flops("Tesla T4", "bfloat16") is None  # it has no such units
    for name in ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "NVIDIA GeForce RTX 4090 Laptop GPU", "AMD EPYC"):
        assert peak_flops(name, "float16") is None


def test_the_format_is_that_of_the_products():
    def named(dtype, **options):
        return precision_of(SimpleNamespace(**{"bf16": False, "fp16": False, **options}), dtype)

    assert named(torch.float32, bf16=True) == named(torch.bfloat16) == "bfloat16"
    assert named(torch.float32, fp16=True) == named(torch.float16) == "float16"
    assert named(torch.float32) == "float32"
