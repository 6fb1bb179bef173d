"""What only an accelerator can show: its kernels and its half precision give what the equations give."""

import importlib.util

import pytest
import torch
from torch.testing import assert_close

from transformer_theatre import LSTMForCausalLM, LSTMForConditionalGeneration


pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(params=["encoder-decoder", "gpt"])
def model(request, make_transformer, make_gpt):
    # Heads of 32, the least that flash kernels take.
    sizes = {"d_model": 128, "norm_first": True}
    return (make_transformer(**sizes) if request.param == "encoder-decoder" else make_gpt(**sizes)).cuda()


def _logits(model, ids, mask):
    extra = {"decoder_input_ids": ids} if model.config.is_encoder_decoder else {}
    return model(ids, attention_mask=mask, **extra).logits[mask.bool()].float()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["eager", "sdpa", "flash_attention_2", "flex_attention"])
def test_every_kernel_gives_what_equation_1_gives(model, tokens, backend, dtype):
    if backend == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        pytest.skip("needs the package flash_attn")
    ids = tokens(2, 16).cuda()
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    model.set_attn_implementation("eager")
    expected = _logits(model, ids, mask)
    half = model.to(dtype)
    half.set_attn_implementation(backend)
    assert_close(_logits(half, ids, mask), expected, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_generates_and_has_gradients(model, tokens, dtype):
    model, ids = model.to(dtype), tokens(2, 8).cuda()
    assert model.generate(ids, max_new_tokens=8, num_beams=2, do_sample=False).max() < model.config.vocab_size
    model.train()(ids, labels=ids).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("model_class", [LSTMForConditionalGeneration, LSTMForCausalLM])
def test_the_recurrent_kernel_gives_what_the_cpus_gives(make_lstm, tokens, model_class, dtype):
    model, ids = make_lstm(model_class), tokens(2, 16)
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    expected = _logits(model, ids, mask)
    half = model.to("cuda", dtype)
    assert_close(_logits(half, ids.cuda(), mask.cuda()).cpu(), expected, atol=0.05, rtol=0.05)
    assert half.generate(ids.cuda(), max_new_tokens=8, num_beams=2, do_sample=False).max() < model.config.vocab_size
    half.train()(ids.cuda(), labels=ids.cuda()).loss.backward()
    assert all(p.grad.isfinite().all() for p in half.parameters())
