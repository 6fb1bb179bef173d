"""Configurations: one class per model type, every field with its unit and its place in the paper."""

from transformer_theatre.configuration.configuration_gpt import GPTConfig
from transformer_theatre.configuration.configuration_lstm import LSTMConfig
from transformer_theatre.configuration.configuration_transformer import TransformerConfig


__all__ = ["GPTConfig", "LSTMConfig", "TransformerConfig"]
