"""The original Transformer and a GPT as a Hugging Face model package.

`import transformer_theatre` registers every model with the library's Auto classes.
"""

from transformer_theatre.configuration import GPTConfig, TransformerConfig
from transformer_theatre.modeling import (
    GPTForCausalLM,
    GPTModel,
    TransformerForConditionalGeneration,
    TransformerModel,
)


__version__ = "0.1.0"

__all__ = [
    "GPTConfig",
    "GPTForCausalLM",
    "GPTModel",
    "TransformerConfig",
    "TransformerForConditionalGeneration",
    "TransformerModel",
]
