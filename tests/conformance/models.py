"""What is under test, in the words of the library's mixins: which classes, at what size, on what inputs."""

import dataclasses

import transformers
from transformer_theatre.configuration import GPTConfig, TransformerConfig
from transformer_theatre.modeling import AUTO_CLASSES
from transformers.models.auto import modeling_auto


# Test class -> configuration, and the arguments that make it tiny.
TINY_SIZES = {"vocab_size": 99, "d_model": 32, "max_position_embeddings": 100}
CONFIGURATIONS = {
    "encoder-decoder": (
        TransformerConfig,
        {
            **TINY_SIZES,
            **{f"{side}_{field}": size for side in ("encoder", "decoder") for field, size in _SIZES},
        },
    )
}
