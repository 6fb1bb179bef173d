"""OpenAI GPT, the first one, as the library has it (`OpenAIGPTLMHeadModel`)."""

from pathlib import Path

import torch
from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel, PreTrainedConfig

from transformer_theatre.configuration.configuration_gpt import GPTConfig
from transformer_theatre.modeling.modeling_gpt import GPTForCausalLM

from .checkpoint import model_type, read_folder
from .fields import Fields
from .format import Format, Source
from .gpt2 import GPT_FIELDS, embedding_pairs, layer_pairs, masks
from .names import TRANSPOSED, Names, Redundant


_FIELDS = Fields(same=GPT_FIELDS, ours={"norm_first": False, "activation_dropout": 0.0})
# What they call an activation, and what the library calls it everywhere else.
_ACTIVATIONS = {"gelu": "gelu_new", "relu": "relu", "silu": "silu", "swish": "silu"}


def _names(config: PreTrainedConfig) -> Names:
    position_ids = Redundant("transformer.position_ids", lambda shape: torch.arange(shape.numel()).view(shape))
    pairs = [*embedding_pairs(config, "tokens_embed", "positions_embed"), *layer_pairs(TRANSPOSED)]
    return Names(pairs, [*masks(), position_ids])


def _to_our_config(config: PreTrainedConfig, tensors: dict[str, torch.Tensor]) -> GPTConfig:
    if config.afn not in _ACTIVATIONS:
        raise ValueError(
            f"An openai-gpt model with afn={config.afn!r} cannot be converted: {', '.join(_ACTIVATIONS)} can."
        )
    fields = _FIELDS.to_ours(config)
    return GPTConfig(
        **fields, norm_first=False, ffn_dim=4 * config.n_embd, activation_function=_ACTIVATIONS[config.afn]
    )


def _to_their_config(config: PreTrainedConfig) -> OpenAIGPTConfig:
    names = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    if config.activation_function not in names:
        raise ValueError(
            f"A model with activation_function={config.activation_function!r} cannot be expressed in that format: "
            f"only one with {', '.join(names)} can."
        )
    if config.ffn_dim != 4 * config.d_model:
        raise ValueError(
            f"A model with ffn_dim={config.ffn_dim} cannot be expressed in that format: only one with 4 * d_model="
            f"{4 * config.d_model} can."
        )
    fields = _FIELDS.to_theirs(config)
    return OpenAIGPTConfig(**fields, embd_pdrop=config.dropout, afn=names[config.activation_function])


def _read(folder: Path) -> Source:
    return read_folder(folder, OpenAIGPTLMHeadModel, "transformer.")


OPENAI_GPT = Format(
    name="openai-gpt",
    what="OpenAI GPT, the first of them",
    matches=lambda path: model_type(path) == "openai-gpt",
    read=_read,
    ours=GPTForCausalLM,
    to_our_config=_to_our_config,
    names=_names,
    theirs=OpenAIGPTLMHeadModel,
    to_their_config=_to_their_config,
)
