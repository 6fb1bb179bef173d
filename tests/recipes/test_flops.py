import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from transformer_theatre import (
    GPTConfig,
    GPTForCausalLM,
    GPTForSequenceClassification,
    LSTMConfig,
    LSTMForCausalLM,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)
from transformer_theatre.recipes.flops import forward_flops, training_flops, training_flops_per_token
from transformer_theatre.recipes.run_counters import RunCounters


# Sizes that all differ, so that no two can change places.
TRANSFORMER = {
    "vocab_size": 31,
    "d_model": 8,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 12,
    "decoder_ffn_dim": 20,
}
GPT = {"vocab_size": 31, "d_model": 8, "num_hidden_layers": 3, "num_attention_heads": 2, "ffn_dim": 20}
LSTM = {"vocab_size": 31, "hidden_size": 8, "num_hidden_layers": 3}

MODELS = {
    "transformer": (TransformerForConditionalGeneration, TransformerConfig(**TRANSFORMER)),
    "gpt": (GPTForCausalLM, GPTConfig(**GPT, norm_first=True)),
    "lstm": (LSTMForConditionalGeneration, LSTMConfig(**LSTM)),
    "lstm-both-ways": (LSTMForConditionalGeneration, LSTMConfig(**LSTM, bidirectional=True, reverse_source=False)),
    "lstm-no-feeding": (LSTMForConditionalGeneration, LSTMConfig(**LSTM, input_feeding=False)),
    "lstm-no-attention": (LSTMForConditionalGeneration, LSTMConfig(**LSTM, attention="none", input_feeding=False)),
    "lstm-language": (
        LSTMForCausalLM,
        LSTMConfig(
            **LSTM, attention="none", input_feeding=False, reverse_source=False, is_encoder_decoder=False
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_formula_is_what_torch_counts(name):
    """Of unfused kernels: torch has no count of fused recurrent layers, and counts what fused attention does twice."""
    model_class, config = MODELS[name]
    config._attn_implementation = "eager"
    model = model_class(config)
    source, target = torch.randint(3, 31, (2, 5)), torch.randint(3, 31, (2, 7))
    inputs = {"input_ids": source, "labels": target} if config.is_encoder_decoder else {"input_ids": target}
    inputs.setdefault("labels", target)
    source_length = 5 if config.is_encoder_decoder else 0
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        loss = model(**inputs).loss
        forward = counter.get_total_flops()
        loss.backward()
    assert forward == forward_flops(config, source_length, 7, rows=2)
    assert counter.get_total_flops() == training_flops(config, source_length, 7, rows=2) - _untrained_zeros(config)


def _untrained_zeros(config, rows=2):
    """An LSTM begins with zeros, for which torch computes no gradient: one product fewer for each layer and row."""
    if config.model_type != "theatre_lstm":
        return 0
    directions = 2 if config.bidirectional else 1
    return rows * config.num_hidden_layers * directions * 2 * 4 * (config.hidden_size // directions) ** 2


@pytest.mark.parametrize("name", ["transformer", "gpt"])
def test_checkpointed_activations_are_computed_twice(name):
    model_class, config = MODELS[name]
    config._attn_implementation = "eager"
    model = model_class(config).train()
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    target = torch.randint(3, 31, (2, 7))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=target, labels=target).loss.backward()
    source_length = 7 if config.is_encoder_decoder else 0
    assert counter.get_total_flops() == training_flops(config, source_length, 7, 2, checkpoints_activations=True)


def test_training_the_papers_base_model_costs_what_6_times_its_layers_weights_would():
    """Kaplan et al., equation 2.2: 6 operations for each weight that multiplies a token, where attention is cheap."""
    config = TransformerConfig()
    width, ffn = config.d_model, config.encoder_ffn_dim
    # A target token meets the decoder and the output projection; a source token the encoder, and keys and values of its
    # states in every decoder layer.
    source = 6 * (4 * width**2 + 2 * width * ffn) + 6 * 2 * width**2
    target = 6 * (6 * width**2 + 2 * width * ffn) + width * config.vocab_size
    assert training_flops_per_token(config, 1e-6, 1e-6) == pytest.approx(6 * (source + target) / 2)


def test_other_models_are_refused():
    config = TransformerConfig()
    config.model_type = "bert"
    with pytest.raises(ValueError, match="no formula for 'bert'"):
        forward_flops(config, 5, 5)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_fine_tuned_model_computes_logits_of_tokens_for_its_auxiliary_loss_alone(weight):
    config = GPTConfig(**GPT, lm_loss_weight=weight, dropout=0.0)
    config._attn_implementation = "eager"
    model = GPTForSequenceClassification(config).train()
    target = torch.randint(3, 31, (2, 7))
    with FlopCounterMode(display=False) as counter:
        model(input_ids=target, labels=torch.tensor([0, 1]))
    classifier = 2 * 2 * config.d_model * config.num_labels
    # The last token of a row predicts none.
    unpredicted = 2 * 2 * config.d_model * config.vocab_size if weight else 0
    expected = forward_flops(config, 0, 7, rows=2, projects=weight > 0) + classifier - unpredicted
    assert counter.get_total_flops() == expected
    counted = RunCounters(model, None, None)
    assert counted.projects == (weight > 0)
