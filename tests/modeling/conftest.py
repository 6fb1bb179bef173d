import pytest
import torch

from transformer_theatre import (
    GPTConfig,
    GPTForCausalLM,
    LSTMConfig,
    LSTMForConditionalGeneration,
    TransformerConfig,
    TransformerForConditionalGeneration,
)


TINY = {"vocab_size": 50, "d_model": 16}
TINY_TRANSFORMER = {
    **TINY,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 32,
}
TINY_GPT = {**TINY, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 24, "max_position_embeddings": 64}
# Weights start large enough for a state to matter: tests look for what changes nothing.
TINY_LSTM = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "initializer_range": 0.5}


@pytest.fixture
def make_transformer():
    """Build a tiny encoder-decoder; keyword arguments replace fields of its configuration."""

    def make(**fields):
        return TransformerForConditionalGeneration(TransformerConfig(**{**TINY_TRANSFORMER, **fields})).eval()

    return make


@pytest.fixture
def make_gpt():
    """Build a tiny GPT; keyword arguments replace fields of its configuration."""

    def make(**fields):
        return GPTForCausalLM(GPTConfig(**{**TINY_GPT, **fields})).eval()

    return make


@pytest.fixture
def make_lstm():
    """Build a tiny LSTM encoder-decoder; keyword arguments replace fields of its configuration."""

    def make(model_class=LSTMForConditionalGeneration, **fields):
        return model_class(LSTMConfig(**{**TINY_LSTM, **fields})).eval()

    return make


@pytest.fixture
def tokens():
    """Draw token ids, none of them special: `tokens(batch, length)`."""
    return lambda batch, length: torch.randint(3, TINY["vocab_size"], (batch, length))
