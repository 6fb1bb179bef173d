"""What every model here is built from, in the paper's order: attention, feed-forward, residual, positions.

Section numbers are those of Vaswani et al., 2017 (https://arxiv.org/abs/1706.03762).

Local tensors carry their shape: B batch, T queries (target), S keys (source), D model width, H heads, K width of a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Cache, EncoderDecoderCache, PreTrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


# An activation that the library writes out in several steps, and the same function in one.
_IN_ONE_KERNEL = {"gelu_new": "gelu_pytorch_tanh"}


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Equation 1, written out: softmax(Q K^T / sqrt(d_k)) V.

    Args:
        module: the attention module; its `training` decides whether dropout applies.
        query: (batch, heads, queries, width of a head).
        key: (batch, heads, keys, width of a head).
        value: as `key`.
        attention_mask: added to the scores, (batch, 1, queries, keys): 0 where attending is allowed, the lowest number
            elsewhere; None allows all.
        scaling: 1 / sqrt(d_k).
        dropout: probability, on the weights.

    Returns:
        The context (batch, queries, heads, width of a head) and the weights (batch, heads, queries, keys).
    """
    scores_BHTS = query @ key.mT * scaling
    if attention_mask is not None:
        scores_BHTS = scores_BHTS + attention_mask
    weights_BHTS = scores_BHTS.softmax(-1, dtype=torch.float32).to(query.dtype)
    weights_BHTS = nn.functional.dropout(weights_BHTS, dropout, module.training)
    return (weights_BHTS @ value).transpose(1, 2).contiguous(), weights_BHTS


class MultiHeadAttention(nn.Module):
    """Section 3.2.2: h attention functions side by side, on projections of width d_model / h.

    One class for its three uses (section 3.2.3): the encoder's self-attention, the decoder's masked self-attention
    (`is_causal=True`) and encoder-decoder attention (with `memory`).
    """

    def __init__(self, config: PreTrainedConfig, num_heads: int, layer_idx: int, is_causal: bool = False):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        # The library's sdpa and flash kernels read it, and take a missing one for True.
        self.is_causal = is_causal
        self.head_dim = config.d_model // num_heads
        self.scaling = self.head_dim**-0.5
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.k_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.v_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.out_proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        memory: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from `hidden_states` to themselves or to `memory`.

        Args:
            hidden_states: where queries come from, (batch, queries, d_model).
            attention_mask: as the attention backend wants it, from the library's `create_*_mask`; None allows all (or
                all that came before, if `is_causal`).
            memory: where keys and values come from, (batch, keys, d_model); None: from `hidden_states`. With fewer rows
                than `hidden_states`, each is read by as many rows in turn: the beams of one source (see `check_memory`).
            past_key_values: keys and values of earlier steps; those of `memory` are computed once.
            **kwargs: for the attention backend.

        Returns:
            The new states (batch, queries, d_model), and the weights (batch, heads, queries, keys) or None if the
            backend does not make them. Where rows share a memory, the weights of theirs are side by side: (rows of the
            memory, heads, rows that share one * queries, keys).
        """
        shape = hidden_states.shape
        if memory is not None and memory.shape[0] != shape[0]:
            hidden_states = hidden_states.reshape(memory.shape[0], -1, shape[-1])
        q_BHTK = self._split_heads(self.q_proj(hidden_states))
        k_BHSK, v_BHSK = self._keys_and_values(hidden_states, memory, past_key_values)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context_BTHK, weights_BHTS = attend(
            self,
            q_BHTK,
            k_BHSK,
            v_BHSK,
            attention_mask,
            scaling=self.scaling,
            dropout=self.dropout if self.training else 0.0,
            **kwargs,
        )
        return self.out_proj(context_BTHK.flatten(2)).view(shape), weights_BHTS

    def _split_heads(self, x_BTD: torch.Tensor) -> torch.Tensor:
        return x_BTD.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def _keys_and_values(
        self, hidden_states: torch.Tensor, memory: torch.Tensor | None, past_key_values: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cache: Any = past_key_values
        if isinstance(past_key_values, EncoderDecoderCache):
            if memory is not None and past_key_values.is_updated.get(self.layer_idx):
                layer: Any = past_key_values.cross_attention_cache.layers[self.layer_idx]
                return layer.keys, layer.values
            crossing = memory is not None
            cache = past_key_values.cross_attention_cache if crossing else past_key_values.self_attention_cache
        elif memory is not None:
            cache = None  # a plain cache holds the target's alone

        states = hidden_states if memory is None else memory
        k_BHSK, v_BHSK = self._split_heads(self.k_proj(states)), self._split_heads(self.v_proj(states))
        if cache is not None:
            k_BHSK, v_BHSK = cache.update(k_BHSK, v_BHSK, self.layer_idx)
            if memory is not None:
                past_key_values.is_updated[self.layer_idx] = True
        return k_BHSK, v_BHSK


class FeedForward(nn.Module):
    """Equation 2: W_2 activation(W_1 x + b_1) + b_2, at every position alike (section 3.3); with `bias=False` without b."""

    def __init__(self, config: PreTrainedConfig, ffn_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, ffn_dim, bias=config.bias)
        if config.activation_function not in ACT2FN:
            raise ValueError(
                f"activation_function={config.activation_function!r} must be one of: {', '.join(sorted(ACT2FN))}."
            )
        self.activation = ACT2FN[_IN_ONE_KERNEL.get(config.activation_function, config.activation_function)]
        self.dropout = nn.Dropout(config.activation_dropout)
        self.fc2 = nn.Linear(ffn_dim, config.d_model, bias=config.bias)

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """(batch, positions, d_model) in and out."""
        return self.fc2(self.dropout(self.activation(self.fc1(x_BTD))))


class AddAndNorm(nn.Module):
    """The box "Add & Norm" of figure 1, around one sub-layer.

    LayerNorm(x + Dropout(Sublayer(x))), sections 3.1 and 5.4; or, with `norm_first`, x + Dropout(Sublayer(LayerNorm(x))).
    """

    def __init__(self, config: PreTrainedConfig):
        super().__init__()
        self.norm_first = config.norm_first
        self.norm = nn.LayerNorm(config.d_model, config.layer_norm_eps, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def enter(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """What the sub-layer gets to see of `x_BTD`."""
        return self.norm(x_BTD) if self.norm_first else x_BTD

    def leave(self, x_BTD: torch.Tensor, sublayer_BTD: torch.Tensor) -> torch.Tensor:
        """Add what the sub-layer made of `x_BTD` to it."""
        sum_BTD = x_BTD + self.dropout(sublayer_BTD)
        return sum_BTD if self.norm_first else self.norm(sum_BTD)


class SinusoidalPositions(nn.Module):
    """Section 3.5: PE(pos, 2i) = sin(pos / 10000^(2i/d_model)), PE(pos, 2i+1) = cos of the same.

    Computed from the position at every call, in float32: there is no table to outgrow, to load or to cast.

    Args:
        d_model: width; even.
        offset: what the first position counts as; 0 in the paper, after the padding's id in fairseq.
        fairseq: 10000^(2i/(d_model - 2)) in place of 10000^(2i/d_model), so that the last pair has the longest wave that
            section 3.5 names, 10000 * 2 pi; tensor2tensor and fairseq have it so
            (https://github.com/facebookresearch/fairseq/blob/main/fairseq/modules/sinusoidal_positional_embedding.py).
    """

    def __init__(self, d_model: int, offset: int = 0, fairseq: bool = False):
        super().__init__()
        self.d_model = d_model
        self.offset = offset
        self.divisor = d_model - 2 if fairseq else d_model

    def forward(self, position_ids: torch.Tensor) -> torch.Tensor:
        """Map positions (batch or 1, positions) to (batch or 1, positions, d_model), float32."""
        exponents = torch.arange(0, self.d_model, 2, device=position_ids.device, dtype=torch.float32) / self.divisor
        angles = (position_ids + self.offset)[..., None].float() / 10_000.0**exponents
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def positions_of(
    attention_mask: torch.Tensor | None, inputs_embeds: torch.Tensor, past_length: int | torch.Tensor = 0
) -> torch.Tensor:
    """Number the real tokens 0, 1, 2, ..., so that padding on either side changes nothing.

    Args:
        attention_mask: 1 at real tokens, 0 at padding, (batch, past + positions); None or one that is not
            two-dimensional: every token is real.
        inputs_embeds: (batch, positions, d_model); gives the number of positions and the device.
        past_length: tokens before these, which the cache holds.

    Returns:
        (batch or 1, positions).
    """
    length = inputs_embeds.shape[1]
    if attention_mask is None or attention_mask.dim() != 2:
        return (torch.arange(length, device=inputs_embeds.device) + past_length)[None]
    position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)
    return position_ids[:, -length:].to(inputs_embeds.device)


def check_memory(rows: int, memory_rows: int, past_key_values: Any):
    """Make sure that rows of the target and of the source belong together.

    Args:
        rows: of the target.
        memory_rows: of the source; fewer, where each is read by as many rows in turn: the beams of one source.
        past_key_values: as the decoder gets them. Where rows share a source they hold its keys, from a step before the rows
            were repeated; so no batch of other texts is ever taken for beams.

    Raises:
        ValueError: they do not.
    """
    if rows == memory_rows:
        return
    shares = isinstance(past_key_values, EncoderDecoderCache) and any(past_key_values.is_updated.values())
    if not shares or rows % memory_rows:
        raise ValueError(
            f"The target has {rows} rows and the source {memory_rows}: give one row of the target for each of the source. "
            "(Beams share a source only where past_key_values hold its keys.)"
        )


def check_positions(past_length: int | torch.Tensor, length: int, limit: int):
    """Make sure that tokens do not outnumber learned positions.

    Args:
        past_length: tokens before these; a tensor (of a static cache, whose size is the limit) is not looked into.
        length: tokens.
        limit: learned positions.

    Raises:
        ValueError: there are more tokens than positions.
    """
    total = length + past_length if isinstance(past_length, int) else length
    if total > limit:
        raise ValueError(
            f"{total} tokens are more than the model's max_position_embeddings={limit} learned positions."
        )


class TheatrePreTrainedModel(PreTrainedModel):
    """What all models here share: their abilities, and a `save_pretrained` whose folder loads without this package."""

    supports_gradient_checkpointing = True
    # The library turns it on with the layers', and then makes no cache, which layers computed twice would fill twice.
    gradient_checkpointing = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _skip_keys_device_placement = ["past_key_values", "cache"]  # one thing under two names: cache_names.py

    # Set by the installed package. Where the model came from the Hub as code, the library copies that code itself.
    code_exporter: Callable[[PreTrainedModel, str], None] | None = None

    def save_pretrained(self, save_directory, is_main_process: bool = True, **kwargs):
        """Save as the library does, and beside it the code that loads the model where this package is not installed."""
        if self.code_exporter is not None and is_main_process:
            self.code_exporter(self, save_directory)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)


class SourceTargetPreTrainedModel(TheatrePreTrainedModel):
    """What models with an embedding of the source and one of the target share, whether it is the same or not."""

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resize the vocabulary of source, target and output projection alike; see the library's method."""
        decoder = self.get_decoder()
        if decoder.embed_tokens.weight is not self.get_input_embeddings().weight:
            decoder.embed_tokens = self._get_resized_embeddings(
                decoder.embed_tokens, new_num_tokens, pad_to_multiple_of, mean_resizing
            )
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)


def shift_right(labels: torch.Tensor, config: PreTrainedConfig) -> torch.Tensor:
    """Put the start token before `labels` (batch, target), and leave the last out; ignored ones (-100) become padding."""
    shifted_BT = labels.roll(1, dims=-1)
    shifted_BT[:, 0] = config.decoder_start_token_id
    return shifted_BT.masked_fill(shifted_BT == -100, config.pad_token_id)


def next_tokens(labels: torch.Tensor, positions: int) -> torch.Tensor:
    """Return what each position of a causal model is to predict, (batch, positions); -100: nothing.

    Args:
        labels: token ids: those of the positions, (batch, positions), of which the last then predicts nothing; or one more,
            (batch, positions + 1).
        positions: that have logits.

    Raises:
        ValueError: there are other than so many labels.
    """
    if not positions <= labels.shape[-1] <= positions + 1:
        raise ValueError(
            f"labels of shape {tuple(labels.shape)} do not go with logits of {positions} positions: each row has one label for "
            "each token, and one more where the last position is to predict too."
        )
    return nn.functional.pad(labels[:, 1:], (0, positions + 1 - labels.shape[-1]), value=-100)


__all__ = [
    "AddAndNorm",
    "FeedForward",
    "MultiHeadAttention",
    "SinusoidalPositions",
    "SourceTargetPreTrainedModel",
    "TheatrePreTrainedModel",
    "check_memory",
    "check_positions",
    "eager_attention_forward",
    "next_tokens",
    "positions_of",
    "shift_right",
]
