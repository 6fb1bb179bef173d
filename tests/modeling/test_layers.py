import math

import pytest
import torch
from torch.testing import assert_close
from transformers.models.fsmt.modeling_fsmt import SinusoidalPositionalEmbedding

from transformer_theatre import TransformerConfig
from transformer_theatre.modeling.modeling_layers import (
    AddAndNorm,
    FeedForward,
    MultiHeadAttention,
    SinusoidalPositions,
    eager_attention_forward,
    positions_of,
)


def _config(**fields):
    config = TransformerConfig(d_model=8, encoder_attention_heads=2, decoder_attention_heads=2, **fields)
    config._attn_implementation = "eager"
    return config


@pytest.mark.parametrize("heads", [1, 2, 4], ids="heads={}".format)
def test_multi_head_attention_is_equation_1_head_by_head(heads):
    layer = MultiHeadAttention(_config(), heads, layer_idx=0).eval()
    x_BTD, memory_BSD = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    query, key, value = layer.q_proj(x_BTD), layer.k_proj(memory_BSD), layer.v_proj(memory_BSD)
    width = 8 // heads
    slices = [slice(h * width, (h + 1) * width) for h in range(heads)]
    per_head = [(query[..., s] @ key[..., s].mT / width**0.5).softmax(-1) @ value[..., s] for s in slices]
    attended, weights = layer(x_BTD, memory=memory_BSD)
    assert_close(attended, layer.out_proj(torch.cat(per_head, -1)))
    assert weights.shape == (2, heads, 3, 5)
    assert_close(weights.sum(-1), torch.ones(2, heads, 3))


def test_masked_keys_get_no_attention():
    query, key, value = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4)
    mask = torch.tensor([0.0, torch.finfo(torch.float32).min, 0.0])[None, None, None]
    context, weights = eager_attention_forward(torch.nn.Module(), query, key, value, mask, scaling=0.5)
    assert_close(weights[..., 1], torch.zeros(1, 1, 2))
    kept = eager_attention_forward(torch.nn.Module(), query, key[:, :, ::2], value[:, :, ::2], None, scaling=0.5)[0]
    assert_close(context, kept)


def test_dropout_on_attention_weights_happens_in_training_only():
    layer = MultiHeadAttention(_config(attention_dropout=0.5), 2, layer_idx=0)
    x_BTD = torch.randn(2, 6, 8)
    assert not torch.equal(layer.train()(x_BTD)[0], layer(x_BTD)[0])
    assert torch.equal(layer.eval()(x_BTD)[0], layer(x_BTD)[0])


def test_feed_forward_is_equation_2():
    layer = FeedForward(_config(), ffn_dim=12)
    x_BTD = torch.randn(2, 3, 8)
    expected = (x_BTD @ layer.fc1.weight.mT + layer.fc1.bias).clamp(min=0) @ layer.fc2.weight.mT + layer.fc2.bias
    assert_close(layer(x_BTD), expected)


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
def test_add_and_norm_is_section_3_1(norm_first):
    around = AddAndNorm(_config(norm_first=norm_first)).eval()
    torch.nn.init.normal_(around.norm.weight)
    x_BTD = torch.randn(2, 3, 8)

    def norm(x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * around.norm.weight

    result = around.leave(x_BTD, around.enter(x_BTD).sin())
    assert_close(result, x_BTD + norm(x_BTD).sin() if norm_first else norm(x_BTD + x_BTD.sin()))


def test_sinusoids_are_section_3_5_also_far_away():
    d_model = 6
    positions = [0, 1, 100, 1000, 5000]
    table = SinusoidalPositions(d_model)(torch.tensor([positions]))[0]
    for row, pos in zip(table.tolist(), positions, strict=True):
        for i in range(d_model // 2):
            angle = pos / 10_000 ** (2 * i / d_model)
            assert row[2 * i] == pytest.approx(math.sin(angle), abs=1e-3)
            assert row[2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-3)


def test_fairseq_sinusoids_are_those_of_fairseq():
    """The table of the library's FSMT, with sines and cosines in turn, and the padding's row left out."""
    padding, d_model = 1, 10
    table = SinusoidalPositionalEmbedding.get_embedding(40, d_model, padding)[padding + 1 :]
    ours = SinusoidalPositions(d_model, offset=padding + 1, fairseq=True)(torch.arange(len(table))[None])[0]
    assert_close(ours, torch.stack(table.chunk(2, -1), -1).flatten(-2), atol=1e-5, rtol=0)


def test_sinusoids_turn_a_shift_into_a_rotation():
    """PE(pos + k) is a linear function of PE(pos), the same at every pos (section 3.5)."""
    encode, shift = SinusoidalPositions(16), 7
    frequencies = 10_000.0 ** (-torch.arange(0, 16, 2) / 16)
    sine, cosine = (shift * frequencies).sin(), (shift * frequencies).cos()
    here, there = encode(torch.arange(200)[None])[0], encode(torch.arange(200)[None] + shift)[0]
    rotated = torch.stack(
        [here[:, 0::2] * cosine + here[:, 1::2] * sine, here[:, 1::2] * cosine - here[:, 0::2] * sine], -1
    )
    assert_close(there, rotated.flatten(-2), atol=1e-4, rtol=0)


def test_every_seat_has_its_own_number():
    table = SinusoidalPositions(32)(torch.arange(1001)[None])[0]
    distance = torch.cdist(table, table) + 100 * torch.eye(1001)
    assert distance.min() > 0.1


def test_sinusoids_stay_exact_in_half_precision():
    whole = SinusoidalPositions(16)(torch.arange(2000)[None])
    assert torch.equal(SinusoidalPositions(16).half()(torch.arange(2000)[None]), whole)


def test_positions_count_real_tokens():
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    positions = positions_of(mask, torch.zeros(3, 5, 2))
    assert [row[m.bool()].tolist() for row, m in zip(positions, mask, strict=True)] == [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2, 3, 4],
    ]
    assert positions_of(mask, torch.zeros(3, 2, 2)).tolist() == positions[:, -2:].tolist()
    assert positions_of(None, torch.zeros(3, 2, 2), past_length=4).tolist() == [[4, 5]]
