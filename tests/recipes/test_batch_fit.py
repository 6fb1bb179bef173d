"""The number of tokens that a batch may have, where memory is what a test says it is."""

from types import SimpleNamespace

import pytest
import torch

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes import batch_fit
from transformer_theatre.recipes.batch_fit import MOST_TOKENS, bytes_kept, tokens_that_fit, tried_tokens


SIZES = {"vocab_size": 300, "d_model": 16, "dropout": 0.1}
ARGUMENTS = {"device": torch.device("cpu"), "world_size": 1, "ema_decay": None, "bf16": False, "fp16": False}
ARGUMENTS |= {"gradient_checkpointing": False, "fsdp_size": 1}


@pytest.fixture(params=["pairs", "text"])
def model(request):
    if request.param == "text":
        return GPTForCausalLM(GPTConfig(num_hidden_layers=2, num_attention_heads=2, ffn_dim=32, **SIZES))
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 32))
    }
    return TransformerForConditionalGeneration(TransformerConfig(**sides, **SIZES))


def arguments(**changed):
    return SimpleNamespace(**{**ARGUMENTS, **changed})


def rows_of(model, tokens, longest):
    sides = 2 if model.config.is_encoder_decoder else 1
    return batch_fit._batch(model, tokens // sides // longest, longest)


@pytest.mark.parametrize("free", [8 * 2**20, 32 * 2**20])
def test_a_batch_on_a_cpu_keeps_within_the_memory_that_is_free(model, free, monkeypatch):
    monkeypatch.setattr(batch_fit, "free_memory", lambda: free)
    tokens = tokens_that_fit(model, arguments(), 20)
    fixed = 3 * sum(weight.nbytes for weight in model.parameters())
    taken = fixed + bytes_kept(model, arguments(), rows_of(model, tokens, 20))
    assert 0.3 * free < taken < 0.8 * free


def test_more_memory_holds_more_and_more_state_holds_less(model, monkeypatch):
    def found(free, **changed):
        monkeypatch.setattr(batch_fit, "free_memory", lambda: free)
        return tokens_that_fit(model, arguments(**changed), 20)

    base = found(8 * 2**20)
    assert found(16 * 2**20) > 1.8 * base
    assert found(8 * 2**20, ema_decay=0.9) < base
    assert found(2**50) == MOST_TOKENS


def test_a_model_whose_layers_are_computed_again_holds_more(monkeypatch):
    """Of its layers backward keeps what goes in, and one of them as a whole."""
    sizes = {**SIZES, "vocab_size": 20}
    model = GPTForCausalLM(GPTConfig(num_hidden_layers=8, num_attention_heads=2, ffn_dim=64, **sizes))
    free, fixed = 8 * 2**20, 3 * sum(weight.nbytes for weight in model.parameters())
    monkeypatch.setattr(batch_fit, "free_memory", lambda: free)
    plain, tokens = (tokens_that_fit(model, arguments(gradient_checkpointing=on), 20) for on in (False, True))
    batch, again = rows_of(model, tokens, 20), arguments(gradient_checkpointing=True)
    whole = bytes_kept(model, again, batch)
    with batch_fit._checkpointing(model, again):
        inputs = bytes_kept(model, again, batch)
    assert tokens > 2 * plain
    assert inputs < whole / 4
    assert 1.5 * (inputs + whole / 8) == pytest.approx(0.8 * free - fixed, rel=0.05)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def test_bytes_are_linear_in_rows(model):
    kept = [bytes_kept(model, arguments(), batch_fit._batch(model, rows, 20)) for rows in (2, 4, 6, 12)]
    assert kept[2] - kept[1] == pytest.approx(kept[1] - kept[0], rel=0.01)
    assert kept[3] - kept[2] == pytest.approx(3 * (kept[1] - kept[0]), rel=0.01)


def test_too_little_memory_is_an_error_that_says_so(model, monkeypatch):
    monkeypatch.setattr(batch_fit, "free_memory", lambda: 100_000)
    with pytest.raises(ValueError, match="not even one row of 20 tokens on a side fits into the memory of cpu"):
        tokens_that_fit(model, arguments(), 20)


def test_the_search_leaves_model_and_chance_as_they_were(model, monkeypatch):
    monkeypatch.setattr(batch_fit, "free_memory", lambda: 2**23)
    model.eval()
    before, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    tokens_that_fit(model, arguments(), 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("most", [1, 2, 3, 7, 8, *(pytest.param(many, marks=pytest.mark.slow) for many in (50, 499))])
def test_a_device_is_tried_until_its_memory_runs_out(most):
    tried = []

    def step(rows):
        tried.append(rows)
        if rows > most:
            raise torch.OutOfMemoryError("out of memory")

    tokens = tried_tokens(step, 60)
    assert tokens <= max(60, 0.9 * most * 60)
    assert tokens >= 0.6 * most * 60 or tokens == 60
    assert len(tried) < 15


@pytest.mark.slow
def test_a_device_without_end_is_tried_up_to_the_papers_batch():
    tried = []
    assert tried_tokens(tried.append, 60) == MOST_TOKENS
    assert max(tried) * 60 <= 2 * MOST_TOKENS


def test_nothing_fits_and_other_errors_are_not_taken_for_it():
    def no_memory(rows):
        raise RuntimeError("MPS backend out of memory")

    def broken(rows):
        raise RuntimeError("a kernel is missing")

    assert tried_tokens(no_memory, 60) == 0
    with pytest.raises(RuntimeError, match="a kernel is missing"):
        tried_tokens(broken, 60)


def test_a_step_of_the_trial_changes_no_weight(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    synchronized = batch_fit.torch.accelerator.synchronize
    batch_fit.torch.accelerator.synchronize = lambda: None
    try:
        batch_fit._step(model, arguments(ema_decay=0.9), batch_fit._batch(model, 2, 10))
    finally:
        batch_fit.torch.accelerator.synchronize = synchronized
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.gpu
def test_what_was_found_on_an_accelerator_runs_there(model):
    device = torch.accelerator.current_accelerator()
    tokens = tokens_that_fit(model, arguments(device=torch.device(device.type, 0), ema_decay=0.9), 20)
    sides = 2 if model.config.is_encoder_decoder else 1
    batch_fit._step(model.to(device), arguments(), batch_fit._batch(model, tokens // sides // 20, 20))
