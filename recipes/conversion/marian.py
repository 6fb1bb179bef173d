"""Marian, as the library has it: OPUS-MT and other models of https://huggingface.co/Helsinki-NLP (`MarianMTModel`)."""

from pathlib import Path
from typing import Any

import torch
from transformers import MarianConfig, MarianMTModel, PreTrainedConfig

from transformer_theatre.configuration.configuration_transformer import TransformerConfig
from transformer_theatre.modeling.modeling_transformer import TransformerForConditionalGeneration

from .checkpoint import model_type, read_folder
from .fields import Fields
from .format import Format, Source
from .names import FLAT, Names, Pair, Redundant, in_turn


# Fields that Marian and FSMT share with us.
STACK_FIELDS = {
    name: name
    for name in (
        "d_model",
        "encoder_layers",
        "decoder_layers",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "activation_function",
        "max_position_embeddings",
        "scale_embedding",
        "tie_word_embeddings",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "decoder_start_token_id",
        "use_cache",
    )
}
# Flags of old configurations that the library's classes do not read: they stand for another model than these build.
STACK_ONLY = {
    "normalize_before": False,
    "normalize_embedding": False,
    "add_final_layer_norm": False,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
_FIELDS = Fields(
    same={**STACK_FIELDS, "share_encoder_decoder_embeddings": "share_encoder_decoder_embeddings"},
    theirs={**STACK_ONLY, "static_position_embeddings": True},
    ours={"position_embeddings": "sinusoidal", "position_offset": 0, "norm_first": False, "layer_norm_eps": 1e-5},
)


def stack_pairs() -> list[Pair]:
    """Pair all tensors of the layers of both stacks, which Marian and FSMT call alike."""
    pairs = []
    for side in ("encoder", "decoder"):
        here = there = f"model.{side}.layers.*"
        blocks = {"self_attention": "self_attn", "feed_forward": "final"}
        if side == "decoder":
            blocks["cross_attention"] = "encoder_attn"
        for block, name in blocks.items():
            for part in ("weight", "bias"):
                norm = f"{here}.{block}_add_norm.norm.{part}"
                pairs.append(Pair(norm, f"{there}.{name}_layer_norm.{part}", (in_turn(0),)))
        for block, name in blocks.items():
            if block == "feed_forward":
                pairs += _linear(f"{here}.feed_forward.fc1", f"{there}.fc1", writes=False)
                pairs += _linear(f"{here}.feed_forward.fc2", f"{there}.fc2", writes=True)
            else:
                for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
                    there_name = f"{there}.{name}.{projection}"
                    pairs += _linear(f"{here}.{block}.{projection}", there_name, writes=projection == "out_proj")
    return pairs


def _linear(ours: str, theirs: str, writes: bool) -> list[Pair]:
    """Pair a projection that writes into the residual stream, or else reads from it."""
    steps = (in_turn(0),) if writes else ()
    return [
        Pair(f"{ours}.weight", f"{theirs}.weight", steps or (in_turn(1),)),
        Pair(f"{ours}.bias", f"{theirs}.bias", steps),
    ]


def sinusoids(shape: torch.Size) -> torch.Tensor:
    """Section 3.5 with all sines first, (positions, d_model); in float64 until the last step, as Marian's table is."""
    positions, width = shape
    exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
    angles = torch.arange(positions, dtype=torch.float64)[:, None] / 10_000**exponents
    return torch.cat([angles.sin(), angles.cos()], -1).float()


def _names(config: PreTrainedConfig) -> Names:
    encoder, decoder = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    head, reads = "lm_head.weight", (in_turn(1),)
    shared = config.share_encoder_decoder_embeddings and config.tie_word_embeddings
    if shared:
        embeddings = [Pair(encoder, "model.shared.weight", reads, (encoder, decoder, head))]
    else:
        embeddings = [Pair(encoder, encoder, reads)]
        tied = config.tie_word_embeddings
        embeddings += (
            [Pair(decoder, decoder, reads, (head,))] if tied else [Pair(n, n, reads) for n in (decoder, head)]
        )
    redundant = [Redundant(f"model.{side}.embed_positions.weight", sinusoids) for side in ("encoder", "decoder")]
    bias = "final_logits_bias"
    if config.output_bias:
        embeddings.append(Pair("lm_head.bias", bias, (FLAT,)))
    else:
        redundant.append(Redundant(bias, torch.zeros))
    return Names([*embeddings, *stack_pairs()], redundant)


def _to_our_config(config: PreTrainedConfig, tensors: dict[str, torch.Tensor]) -> TransformerConfig:
    fields = _FIELDS.to_ours(config)
    if config.share_encoder_decoder_embeddings and not config.tie_word_embeddings:
        raise ValueError(
            "A marian model with tie_word_embeddings=False and share_encoder_decoder_embeddings=True cannot be converted: "
            "transformers 4 shares the embeddings then, and transformers 5 does not."
        )
    if config.share_encoder_decoder_embeddings:
        sizes = {"vocab_size": config.vocab_size}
    else:
        sizes = {"vocab_size": config.decoder_vocab_size, "source_vocab_size": config.vocab_size}
    bias = tensors.get("final_logits_bias")
    return TransformerConfig(**fields, **sizes, output_bias=bias is not None and bool(bias.any()))


def _to_their_config(config: PreTrainedConfig) -> MarianConfig:
    fields: dict[str, Any] = _FIELDS.to_theirs(config)
    if config.decoder_start_token_id is None:
        raise ValueError("A model with decoder_start_token_id=None cannot be expressed in Marian's format.")
    # There, only what is tied to the output is shared.
    fields["share_encoder_decoder_embeddings"] &= config.tie_word_embeddings
    sizes = {"vocab_size": config.source_vocab_size or config.vocab_size, "decoder_vocab_size": config.vocab_size}
    return MarianConfig(**fields, **sizes, forced_eos_token_id=None)


def _read(folder: Path) -> Source:
    return read_folder(folder, MarianMTModel, "model.")


MARIAN = Format(
    name="marian",
    what="MarianMT: OPUS-MT and other models of Helsinki-NLP",
    matches=lambda path: model_type(path) == "marian",
    read=_read,
    ours=TransformerForConditionalGeneration,
    to_our_config=_to_our_config,
    names=_names,
    theirs=MarianMTModel,
    to_their_config=_to_their_config,
)
