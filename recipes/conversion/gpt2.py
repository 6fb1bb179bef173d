"""GPT-2, as the library has it (`GPT2LMHeadModel`), with the original's names."""

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedConfig

from transformer_theatre.configuration.configuration_gpt import GPTConfig
from transformer_theatre.modeling.modeling_gpt import GPTForCausalLM

from .checkpoint import model_type, read_folder
from .fields import Fields
from .format import Format, Source
from .names import TRANSPOSED, Names, Pair, Redundant, Step


# Fields that GPT-2 and OpenAI GPT share with us.
GPT_FIELDS = {
    "vocab_size": "vocab_size",
    "d_model": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "dropout": "resid_pdrop",
    "attention_dropout": "attn_pdrop",
    "layer_norm_eps": "layer_norm_epsilon",
    "initializer_range": "initializer_range",
    "tie_word_embeddings": "tie_word_embeddings",
    "pad_token_id": "pad_token_id",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
}
_FIELDS = Fields(
    same={**GPT_FIELDS, "activation_function": "activation_function", "use_cache": "use_cache"},
    theirs={"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
    ours={"norm_first": True, "activation_dropout": 0.0},
)


def layer_pairs(*weight_steps: Step) -> list[Pair]:
    """Pair all tensors of the layers, which GPT-2, OpenAI GPT and nanoGPT call alike.

    Args:
        *weight_steps: what happens to each matrix.
    """
    here, there = "model.layers.*", "transformer.h.*"
    attention = tuple(f"{here}.self_attention.{name}_proj" for name in "qkv")
    matrices = {
        "attn.c_attn": attention,
        "attn.c_proj": (f"{here}.self_attention.out_proj",),
        "mlp.c_fc": (f"{here}.feed_forward.fc1",),
        "mlp.c_proj": (f"{here}.feed_forward.fc2",),
    }
    norms = {"ln_1": f"{here}.self_attention_add_norm.norm", "ln_2": f"{here}.feed_forward_add_norm.norm"}
    pairs = []
    for part in ("weight", "bias"):
        steps = weight_steps if part == "weight" else ()
        for name, ours in matrices.items():
            pairs.append(Pair(tuple(f"{our}.{part}" for our in ours), f"{there}.{name}.{part}", steps))
        pairs += [Pair(f"{ours}.{part}", f"{there}.{name}.{part}") for name, ours in norms.items()]
    return pairs


def final_norm_pairs() -> list[Pair]:
    """Pair the LayerNorm after the last layer."""
    return [Pair(f"model.norm.{part}", f"transformer.ln_f.{part}") for part in ("weight", "bias")]


def embedding_pairs(config: PreTrainedConfig, tokens: str, positions: str) -> list[Pair]:
    """Pair embeddings and output projection, given what the format calls the two embeddings."""
    ours, head = "model.embed_tokens.weight", "lm_head.weight"
    pairs = [Pair("model.embed_positions.weight", f"transformer.{positions}.weight")]
    if config.tie_word_embeddings:
        return [*pairs, Pair(ours, f"transformer.{tokens}.weight", copies=(head,))]
    return [*pairs, Pair(ours, f"transformer.{tokens}.weight"), Pair(head, head)]


def masks() -> list[Redundant]:
    """List what older versions stored: the causal mask, and the number that it puts in place of a score."""
    return [
        Redundant("transformer.h.*.attn.bias", lambda shape: torch.ones(shape).tril()),
        Redundant("transformer.h.*.attn.masked_bias", lambda shape: torch.full(shape, -1e4)),
    ]


def to_our_config(config: PreTrainedConfig, tensors: dict[str, torch.Tensor]) -> GPTConfig:
    """Make our configuration from GPT-2's."""
    return GPTConfig(**_FIELDS.to_ours(config), norm_first=True, ffn_dim=config.n_inner or 4 * config.n_embd)


def _names(config: PreTrainedConfig) -> Names:
    return Names([*embedding_pairs(config, "wte", "wpe"), *layer_pairs(TRANSPOSED), *final_norm_pairs()], masks())


def _to_their_config(config: PreTrainedConfig) -> GPT2Config:
    fields: dict[str, Any] = _FIELDS.to_theirs(config)
    return GPT2Config(**fields, embd_pdrop=config.dropout, n_inner=config.ffn_dim)


def _read(folder: Path) -> Source:
    return read_folder(folder, GPT2LMHeadModel, "transformer.")


GPT2 = Format(
    name="gpt2",
    what="GPT-2, and what others trained in its format",
    matches=lambda path: model_type(path) == "gpt2",
    read=_read,
    ours=GPTForCausalLM,
    to_our_config=to_our_config,
    names=_names,
    theirs=GPT2LMHeadModel,
    to_their_config=_to_their_config,
)
