import pytest
import torch

from transformer_theatre import GPTConfig, GPTForCausalLM, TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes.measured_update import KeptBytes
from transformer_theatre.recipes.memory import Bytes, kept_activations, training_memory


TRANSFORMER = {
    "vocab_size": 31,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 80,
}
GPT = {"vocab_size": 31, "d_model": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 80}
CPU = Bytes(mask=4)


def kept_bytes(model, **inputs):
    with KeptBytes(model) as kept:
        model.train()(**inputs, use_cache=False).logits.sum()
    return kept.bytes()


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids="dropout={}".format)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_formula_is_what_autograd_keeps_of_a_transformer(attention, dropout, norm_first):
    config = TransformerConfig(**TRANSFORMER, dropout=dropout, norm_first=norm_first)
    config._attn_implementation = attention
    model = TransformerForConditionalGeneration(config)
    source, target = torch.randint(3, 31, (3, 50)), torch.randint(3, 31, (3, 70))
    measured = kept_bytes(model, input_ids=source, decoder_input_ids=target)
    expected = kept_activations(config, 3, 50, 70, CPU, fused_attention=attention == "sdpa")
    assert measured == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])
@pytest.mark.parametrize("function", ["relu", "gelu", "gelu_new"])
def test_formula_is_what_autograd_keeps_of_a_gpt(function, norm_first):
    config = GPTConfig(**GPT, attention_dropout=0.0, norm_first=norm_first, activation_function=function)
    measured = kept_bytes(GPTForCausalLM(config), input_ids=torch.randint(3, 31, (3, 70)))
    assert measured == pytest.approx(kept_activations(config, 3, 0, 70, CPU), rel=0.01)


def test_checkpointed_activations_are_those_of_the_layers_inputs():
    config = TransformerConfig(**TRANSFORMER)
    model = TransformerForConditionalGeneration(config)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    source, target = torch.randint(3, 31, (3, 50)), torch.randint(3, 31, (3, 70))
    measured = kept_bytes(model, input_ids=source, decoder_input_ids=target)
    whole = kept_activations(config, 3, 50, 70, CPU)
    recomputed = max(3 * size for size in (_layer(config, "encoder"), _layer(config, "decoder")))
    expected = kept_activations(config, 3, 50, 70, CPU, checkpoints_activations=True) - recomputed
    assert measured == pytest.approx(expected, rel=0.01)
    assert measured < whole / 4


def _layer(config, side):
    """Bytes of one row in one layer: the difference that one more layer makes."""
    more = TransformerConfig(**{**TRANSFORMER, f"{side}_layers": TRANSFORMER[f"{side}_layers"] + 1})
    return (kept_activations(more, 3, 50, 70, CPU) - kept_activations(config, 3, 50, 70, CPU)) / 3


def test_devices_share_what_fsdp_shares():
    config = TransformerConfig()
    alone, shared = (training_memory(config, 10**9, 1, 5, 5, fsdp_size=size) for size in (1, 8))
    assert (shared.gradients, shared.optimizer) == (alone.gradients / 8, alone.optimizer / 8)
    assert alone.gradients == 4e9
    assert (shared.activations, shared.logits) == (alone.activations, alone.logits)


def test_models_without_a_formula_are_refused():
    config = TransformerConfig(activation_function="silu")
    with pytest.raises(ValueError, match="no formula for 'silu'"):
        training_memory(config, 1, 1, 5, 5)
