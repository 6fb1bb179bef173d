"""The original Transformer, a GPT, and the LSTMs they replaced as a Hugging Face model package.

`import transformer_theatre` registers every model with the library's Auto classes.
"""

from transformer_theatre.configuration import GPTConfig, LSTMConfig, TransformerConfig
from transformer_theatre.modeling import (
    GPTForCausalLM,
    GPTForMultipleChoice,
    GPTForSequenceClassification,
    GPTModel,
    LSTMForCausalLM,
    LSTMForConditionalGeneration,
    LSTMForMultipleChoice,
    LSTMForSequenceClassification,
    LSTMModel,
    TransformerForConditionalGeneration,
    TransformerModel,
)


__version__ = "0.1.0"

__all__ = [
    "GPTConfig",
    "GPTForCausalLM",
    "GPTForMultipleChoice",
    "GPTForSequenceClassification",
    "GPTModel",
    "LSTMConfig",
    "LSTMForCausalLM",
    "LSTMForConditionalGeneration",
    "LSTMForMultipleChoice",
    "LSTMForSequenceClassification",
    "LSTMModel",
    "TransformerConfig",
    "TransformerForConditionalGeneration",
    "TransformerModel",
]
