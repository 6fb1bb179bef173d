"""How many floating-point operations a model must do to learn from tokens, whatever way it is computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class ModelFlops:
    """What the operations of a forward and a backward pass depend on.

    Each weight of a matrix takes 2 operations a token forwards and 4 backwards: the 6 N of Kaplan et al., 2020
    (https://arxiv.org/abs/2001.08361, table 1), with the matrix before the softmax and without looking up embeddings. Each layer
    of attention takes 12 * width for every pair of a query and a key, as in appendix B of Chowdhery et al., 2022
    (https://arxiv.org/abs/2204.02311), which halves nothing for causal masks. Padding, and what checkpointing computes twice,
    is no work that must be done.

    Args:
        source_weights: of matrices that every source token meets; all, in a causal model.
        target_weights: of matrices that every target token meets.
        source_attention: layers times width of the attention from source to source.
        target_attention: the same, from target to target.
        cross_attention: the same, from target to source.
    """

    source_weights: int
    target_weights: int
    source_attention: int
    target_attention: int
    cross_attention: int

    def of(self, sums: Sequence[float]) -> float:
        """Count the operations for tokens, by the sums that `TokenCounter` keeps."""
        source, target, source_pairs, target_pairs, cross_pairs = sums
        weights = self.source_weights * source + self.target_weights * target
        attention = self.source_attention * source_pairs + self.target_attention * target_pairs
        return 6.0 * weights + 12.0 * (attention + self.cross_attention * cross_pairs)


# Matrices in the decoder that source tokens meet: what makes keys and values of them.
_OF_MEMORY = ("cross_attention.k_proj", "cross_attention.v_proj", "attention.key_proj")


def flops_of(model: PreTrainedModel) -> ModelFlops:
    """Look at the weights and the configuration of a model."""
    config: Any = model.config
    pairs = config.is_encoder_decoder
    weights = {"source": 0, "target": 0}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        meets_source = not pairs or ".encoder." in f".{name}." or name.endswith(_OF_MEMORY)
        count = sum(weight.numel() for weight in module.parameters(recurse=False) if weight.ndim > 1)
        weights["source" if meets_source else "target"] += count
    source = target = cross = 0
    if config.model_type == "theatre_lstm":
        cross = config.hidden_size if pairs and config.attention != "none" else 0
    elif pairs:
        source, target = config.encoder_layers * config.d_model, config.decoder_layers * config.d_model
        cross = target
    else:
        source = config.num_hidden_layers * config.hidden_size
    return ModelFlops(weights["source"], weights["target"], source, target, cross)
