"""Our weights copied into the library's models give our logits."""

import pytest
import torch
from torch.testing import assert_close
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    MarianConfig,
    MarianMTModel,
    OpenAIGPTConfig,
    OpenAIGPTLMHeadModel,
)


def _shake(model):
    """Move norms and biases away from 1 and 0, where mistakes hide."""
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)


_MARIAN_NAMES = {
    "self_attention_add_norm.norm": "self_attn_layer_norm",
    "cross_attention_add_norm.norm": "encoder_attn_layer_norm",
    "feed_forward_add_norm.norm": "final_layer_norm",
    "self_attention": "self_attn",
    "cross_attention": "encoder_attn",
    "feed_forward.fc": "fc",
}


def to_marian(model):
    """Copy an encoder-decoder into MarianMTModel.

    Marian's table has all sines first, then all cosines; ours has them in turn. The residual stream's channels are
    permuted to match: rows of what writes into it, columns of what reads from it.
    """
    config = model.config
    same = "vocab_size d_model encoder_layers decoder_layers encoder_attention_heads decoder_attention_heads encoder_ffn_dim"
    same += " decoder_ffn_dim activation_function max_position_embeddings scale_embedding pad_token_id eos_token_id"
    fields = {name: getattr(config, name) for name in same.split()}
    marian = MarianMTModel(MarianConfig(**fields, decoder_start_token_id=1, dropout=0.0)).eval()
    order = torch.cat([torch.arange(0, config.d_model, 2), torch.arange(1, config.d_model, 2)])
    state = marian.state_dict()
    for name, value in model.state_dict().items():
        for ours, theirs in _MARIAN_NAMES.items():
            name = name.replace(ours, theirs)
        if any(
            part in name
            for part in ("q_proj.weight", "k_proj.weight", "v_proj.weight", "fc1.weight", "embed", "lm_head")
        ):
            value = value[:, order]
        elif any(part in name for part in ("out_proj", "fc2", "layer_norm")):
            value = value[order]
        assert name in state, name
        state[name] = value
    state["model.shared.weight"] = state["lm_head.weight"]
    marian.load_state_dict(state)
    return marian


@pytest.mark.parametrize("scale", [True, False], ids=["scaled", "unscaled"])
def test_encoder_decoder_is_marian(make_transformer, tokens, scale):
    model = make_transformer(scale_embedding=scale)
    _shake(model)
    source, target = tokens(3, 7), tokens(3, 5)
    mask = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4])
    with torch.no_grad():
        expected = to_marian(model)(source, mask, decoder_input_ids=target).logits
        assert_close(model(source, mask, decoder_input_ids=target).logits, expected, atol=1e-5, rtol=1e-5)


def _to_gpt(model, theirs, attention, feed_forward, norms):
    """Copy a GPT into the library's; it writes queries, keys and values as one matrix, and matrices transposed."""
    ours, state = model.state_dict(), theirs.state_dict()
    state["transformer.wte.weight" if "transformer.wte.weight" in state else "transformer.tokens_embed.weight"] = ours[
        "model.embed_tokens.weight"
    ]
    state["transformer.wpe.weight" if "transformer.wpe.weight" in state else "transformer.positions_embed.weight"] = (
        ours["model.embed_positions.weight"]
    )
    state["lm_head.weight"] = ours["lm_head.weight"]
    for i in range(model.config.num_hidden_layers):
        here, there = f"model.layers.{i}", f"transformer.h.{i}"
        for part in ("weight", "bias"):
            joined = [ours[f"{here}.self_attention.{p}_proj.{part}"] for p in "qkv"]
            state[f"{there}.{attention}.c_attn.{part}"] = torch.cat(
                [p.mT if part == "weight" else p for p in joined], -1
            )
            pairs = {
                f"{attention}.c_proj": "self_attention.out_proj",
                f"{feed_forward}.c_fc": "feed_forward.fc1",
                f"{feed_forward}.c_proj": "feed_forward.fc2",
            }
            for name, source in pairs.items():
                value = ours[f"{here}.{source}.{part}"]
                state[f"{there}.{name}.{part}"] = value.mT if part == "weight" else value
            for name, source in zip(norms, ("self_attention_add_norm", "feed_forward_add_norm"), strict=True):
                state[f"{there}.{name}.{part}"] = ours[f"{here}.{source}.norm.{part}"]
    if "transformer.ln_f.weight" in state:
        state["transformer.ln_f.weight"] = ours["model.norm.weight"]
        state["transformer.ln_f.bias"] = ours["model.norm.bias"]
    theirs.load_state_dict(state)
    return theirs.eval()


def _sizes(config):
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.d_model,
        "n_layer": config.num_hidden_layers,
        "n_head": config.num_attention_heads,
        "n_positions": config.max_position_embeddings,
    }


def test_gpt_is_openai_gpt(make_gpt, tokens):
    model = make_gpt(ffn_dim=64)
    _shake(model)
    theirs = _to_gpt(
        model, OpenAIGPTLMHeadModel(OpenAIGPTConfig(**_sizes(model.config))), "attn", "mlp", ("ln_1", "ln_2")
    )
    ids = tokens(3, 9)
    with torch.no_grad():
        assert_close(model(ids).logits, theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_gpt_with_norm_first_is_gpt_2(make_gpt, tokens):
    model = make_gpt(norm_first=True)
    _shake(model)
    config = GPT2Config(**_sizes(model.config), n_inner=model.config.ffn_dim, bos_token_id=1, eos_token_id=1)
    theirs = _to_gpt(model, GPT2LMHeadModel(config), "attn", "mlp", ("ln_1", "ln_2"))
    ids = tokens(3, 9)
    mask = torch.tensor([[1] * 9, [0] * 2 + [1] * 7, [1] * 9])
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, position_ids=positions).logits[mask.bool()]
        assert_close(model(ids, attention_mask=mask).logits[mask.bool()], expected, atol=1e-5, rtol=1e-5)
