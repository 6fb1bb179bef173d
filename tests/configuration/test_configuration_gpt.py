import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from transformer_theatre import GPTConfig, GPTForCausalLM


def test_defaults_are_gpt_1():
    config = GPTConfig()
    assert (config.num_hidden_layers, config.d_model, config.num_attention_heads, config.ffn_dim) == (
        12,
        768,
        12,
        3072,
    )
    assert (config.max_position_embeddings, config.vocab_size, config.norm_first) == (512, 40_478, False)
    assert (config.dropout, config.attention_dropout, config.initializer_range) == (0.1, 0.1, 0.02)
    assert (config.classifier_dropout, config.lm_loss_weight) == (0.1, 0.5)


@pytest.mark.parametrize(("preset", "millions"), [("gpt-1", 116.5), ("gpt-2", 124.4), ("gpt-char", 10.7)])
def test_parameters_of_the_presets(preset, millions):
    config = GPTConfig.from_preset(preset)
    with torch.device("meta"):
        model = GPTForCausalLM(config)
    d, width = config.d_model, config.ffn_dim
    layer = 4 * d * d + 2 * d * width + 2 * d
    layer += 4 * d + width + d + 2 * d if config.bias else 0
    embeddings = (config.vocab_size + config.max_position_embeddings) * d
    final_norm = (1 + config.bias) * d if config.norm_first else 0
    assert model.num_parameters() == embeddings + config.num_hidden_layers * layer + final_norm
    assert round(model.num_parameters() / 1e6, 1) == millions


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'gpt-3'.*gpt-1, gpt-2, gpt-char"):
        GPTConfig.from_preset("gpt-3")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 7}, r"num_attention_heads=7 must divide d_model=768"),
        ({"attention_dropout": -0.1}, r"attention_dropout=-0.1 must be a probability"),
        ({"classifier_dropout": 1}, r"classifier_dropout=1 must be a probability"),
        ({"lm_loss_weight": -0.5}, r"lm_loss_weight=-0.5 must be 0 or more"),
        ({"norm_first": "yes"}, r"norm_first"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_fields_are_named(fields, message):
    with pytest.raises(StrictDataclassError, match=message):
        GPTConfig(**fields)
