"""FSMT, fairseq's Transformer as the library has it: WMT19 and others of https://huggingface.co/facebook and allenai."""

import functools
from pathlib import Path

import torch
from transformers import FSMTForConditionalGeneration, PreTrainedConfig

from transformer_theatre.configuration.configuration_transformer import TransformerConfig
from transformer_theatre.modeling.modeling_transformer import TransformerForConditionalGeneration

from .checkpoint import model_type, read_folder
from .fields import Fields
from .format import Format, Source
from .marian import STACK_FIELDS, STACK_ONLY, stack_pairs
from .names import Names, Pair, Redundant, in_turn


_FIELDS = Fields(
    same=STACK_FIELDS,
    theirs={**STACK_ONLY, "add_bias_logits": False, "static_position_embeddings": True},
)


def sinusoids(shape: torch.Size, padding: int) -> torch.Tensor:
    """Fairseq's table, (positions, d_model): frequencies from 1 to exactly 1/10000, all sines first, zeros for padding."""
    positions, half = shape[0], shape[1] // 2
    frequencies = torch.logspace(0, -4, half, dtype=torch.float64)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    table = torch.cat([angles.sin(), angles.cos()], -1).float()
    table[padding] = 0
    return table


def _names(config: PreTrainedConfig) -> Names:
    encoder, decoder = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    head, reads = "model.decoder.output_projection.weight", (in_turn(1),)
    if config.tie_word_embeddings:
        embeddings = [Pair(encoder, decoder, reads, (encoder, head))]
    else:
        embeddings = [
            Pair(encoder, encoder, reads),
            Pair(decoder, decoder, reads),
            Pair("lm_head.weight", head, reads),
        ]
    table = functools.partial(sinusoids, padding=config.position_offset - 1)
    redundant = [Redundant(f"model.{side}.embed_positions.weight", table) for side in ("encoder", "decoder")]
    return Names([*embeddings, *stack_pairs()], redundant)


def _to_our_config(config: PreTrainedConfig, tensors: dict[str, torch.Tensor]) -> TransformerConfig:
    fields = _FIELDS.to_ours(config)
    shared = config.tie_word_embeddings
    return TransformerConfig(
        **fields,
        vocab_size=config.tgt_vocab_size,
        source_vocab_size=None if shared else config.src_vocab_size,
        share_encoder_decoder_embeddings=shared,
        position_embeddings="sinusoidal-fairseq",
        # Fairseq numbers tokens from the padding's id + 1 on.
        position_offset=config.pad_token_id + 1,
    )


def _read(folder: Path) -> Source:
    return read_folder(folder, FSMTForConditionalGeneration, "model.")


FSMT = Format(
    name="fsmt",
    what="FSMT: fairseq's WMT19 models of facebook and allenai",
    matches=lambda path: model_type(path) == "fsmt",
    read=_read,
    ours=TransformerForConditionalGeneration,
    to_our_config=_to_our_config,
    names=_names,
)
