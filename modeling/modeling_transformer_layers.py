"""What the Transformer is built from, box by box of figure 1: layers, and the two stacks of them; see modeling_transformer.py.

Local tensors carry their shape: B batch, T target, S source, D model width.
"""

import torch
from torch import nn
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from transformer_theatre.configuration.configuration_transformer import TransformerConfig

from .cache_names import by_library_name, takes_cache_by_both_names
from .modeling_layers import (
    AddAndNorm,
    FeedForward,
    MultiHeadAttention,
    SinusoidalPositions,
    SourceTargetPreTrainedModel,
    check_memory,
    check_positions,
    positions_of,
)


class EncoderLayer(GradientCheckpointingLayer):
    """Figure 1, left: self-attention, feed-forward."""

    def __init__(self, config: TransformerConfig, layer_idx: int):
        super().__init__()
        self.self_attention = MultiHeadAttention(config, config.encoder_attention_heads, layer_idx)
        self.self_attention_add_norm = AddAndNorm(config)
        self.feed_forward = FeedForward(config, config.encoder_ffn_dim)
        self.feed_forward_add_norm = AddAndNorm(config)

    def forward(self, x_BSD, padding_mask, **kwargs):
        """(batch, source, d_model) in and out; `padding_mask` hides padding."""
        around = self.self_attention_add_norm
        attended_BSD, _ = self.self_attention(around.enter(x_BSD), padding_mask, **kwargs)
        x_BSD = around.leave(x_BSD, attended_BSD)

        around = self.feed_forward_add_norm
        return around.leave(x_BSD, self.feed_forward(around.enter(x_BSD)))


class DecoderLayer(GradientCheckpointingLayer):
    """Figure 1, right: masked self-attention, attention to the encoder's output, feed-forward."""

    def __init__(self, config: TransformerConfig, layer_idx: int):
        super().__init__()
        heads = config.decoder_attention_heads
        self.self_attention = MultiHeadAttention(config, heads, layer_idx, is_causal=True)
        self.self_attention_add_norm = AddAndNorm(config)
        self.cross_attention = MultiHeadAttention(config, heads, layer_idx)
        self.cross_attention_add_norm = AddAndNorm(config)
        self.feed_forward = FeedForward(config, config.decoder_ffn_dim)
        self.feed_forward_add_norm = AddAndNorm(config)

    @takes_cache_by_both_names
    def forward(self, x_BTD, causal_mask, memory_BSD, memory_mask, past_key_values: Cache | None = None, **kwargs):
        """(batch, target, d_model) in and out; `causal_mask` hides what comes later, `memory_mask` the source's padding."""
        around = self.self_attention_add_norm
        attended_BTD, _ = self.self_attention(
            around.enter(x_BTD), causal_mask, past_key_values=past_key_values, **kwargs
        )
        x_BTD = around.leave(x_BTD, attended_BTD)

        around = self.cross_attention_add_norm
        attended_BTD, _ = self.cross_attention(
            around.enter(x_BTD), memory_mask, memory_BSD, past_key_values=past_key_values, **kwargs
        )
        x_BTD = around.leave(x_BTD, attended_BTD)

        around = self.feed_forward_add_norm
        return around.leave(x_BTD, self.feed_forward(around.enter(x_BTD)))


class TransformerPreTrainedModel(SourceTargetPreTrainedModel):
    """Initialisation, and what the library needs to know of the model."""

    config_class = TransformerConfig
    base_model_prefix = "model"
    _no_split_modules = ["EncoderLayer", "DecoderLayer"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.Embedding):
            init.normal_(module.weight, std=self.config.d_model**-0.5)

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Embedding:
        """Resize the vocabulary of source, target and output projection alike; see the library's method.

        Raises:
            ValueError: source and target have a vocabulary each.
        """
        changes = new_num_tokens is not None or pad_to_multiple_of is not None
        if changes and self.config.source_vocab_size is not None:
            raise ValueError(
                f"One new size ({new_num_tokens}) cannot fit two vocabularies: source_vocab_size="
                f"{self.config.source_vocab_size}, and vocab_size={self.config.vocab_size} of the target."
            )
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)

    @property
    def dummy_inputs(self) -> dict[str, torch.Tensor]:
        """The smallest inputs that `forward` takes."""
        ids = torch.tensor([[3, 4, self.config.eos_token_id]], device=self.device)
        return {"input_ids": ids, "decoder_input_ids": ids}


class TransformerStack(TransformerPreTrainedModel):
    """What both stacks begin with: embeddings times sqrt(d_model), plus positions, with dropout on the sum (section 5.4)."""

    def __init__(self, config: TransformerConfig, vocab_size: int):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(vocab_size, config.d_model)
        self.embed_positions = (
            nn.Embedding(config.max_position_embeddings, config.d_model)
            if config.position_embeddings == "learned"
            else SinusoidalPositions(
                config.d_model, config.position_offset, fairseq=config.position_embeddings == "sinusoidal-fairseq"
            )
        )
        self.embed_scale = config.d_model**0.5 if config.scale_embedding else 1.0
        self.dropout = nn.Dropout(config.dropout)
        self.norm = (
            nn.LayerNorm(config.d_model, config.layer_norm_eps, bias=config.bias)
            if config.norm_first
            else nn.Identity()
        )

    def post_init(self):
        """Finish as the library does; what devices share is said by the whole model's plans, but for the embeddings."""
        super().post_init()
        self._tp_plan = {name: style for name, style in (self._tp_plan or {}).items() if name == "embed_tokens"}
        self._fsdp_plan = {}

    def embed(self, input_ids, inputs_embeds, attention_mask, past_length=0) -> torch.Tensor:
        """Return the sum of scaled embeddings and positions, (batch, positions, d_model), before dropout."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds (decoder_... for the decoder).")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if self.config.position_embeddings == "learned":
            check_positions(past_length, inputs_embeds.shape[1], self.config.max_position_embeddings)
        position_ids = positions_of(attention_mask, inputs_embeds, past_length)
        return inputs_embeds * self.embed_scale + self.embed_positions(position_ids).to(inputs_embeds.dtype)


class TransformerEncoder(TransformerStack):
    """Figure 1, the whole left column."""

    _can_record_outputs = {
        "hidden_states": EncoderLayer,
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attention"),
    }

    def __init__(self, config: TransformerConfig):
        super().__init__(config, config.source_vocab_size or config.vocab_size)
        self.layers = nn.ModuleList([EncoderLayer(config, index) for index in range(config.encoder_layers)])
        self.post_init()

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        """Read the source.

        Args:
            input_ids: (batch, source).
            attention_mask: 1 at real tokens, 0 at padding, (batch, source); None: every token is real.
            inputs_embeds: token embeddings before scaling, in place of `input_ids`, (batch, source, d_model).
            **kwargs: `output_attentions`, `output_hidden_states`, and arguments of the attention backend.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds` is given, or there are more tokens than
                learned positions.
        """
        x_BSD = self.embed(input_ids, inputs_embeds, attention_mask)
        padding_mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=x_BSD, attention_mask=attention_mask
        )
        x_BSD = self.dropout(x_BSD)
        for layer in self.layers:
            x_BSD = layer(x_BSD, padding_mask, **kwargs)
        return BaseModelOutput(last_hidden_state=self.norm(x_BSD))


class TransformerDecoder(TransformerStack):
    """Figure 1, the right column up to the last "Add & Norm"."""

    _can_record_outputs = {
        "hidden_states": DecoderLayer,
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attention"),
        "cross_attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="cross_attention"),
    }

    def __init__(self, config: TransformerConfig):
        super().__init__(config, config.vocab_size)
        self.layers = nn.ModuleList([DecoderLayer(config, index) for index in range(config.decoder_layers)])
        self.post_init()

    @takes_cache_by_both_names
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Write the target, looking back at the source and at what is written already.

        Args:
            input_ids: (batch, target), the target behind the start token ("shifted right" in figure 1).
            attention_mask: 1 at real tokens, 0 at padding, (batch, past + target); None: every token is real.
            encoder_hidden_states: the encoder's output, (batch, source, d_model); or fewer rows, if each is the source of
                as many rows of the target in turn (beams), whose keys `past_key_values` hold.
            encoder_attention_mask: 1 at real tokens of the source, 0 at padding, (batch, source).
            past_key_values: keys and values of earlier tokens, and of the source.
            inputs_embeds: token embeddings before scaling, in place of `input_ids`, (batch, target, d_model).
            use_cache: return `past_key_values` for the next tokens.
            **kwargs: `output_attentions`, `output_hidden_states`, and arguments of the attention backend.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds` is given, there are more tokens than learned
                positions, or `encoder_hidden_states` is missing or has another number of rows.
        """
        if encoder_hidden_states is None:
            raise ValueError("The decoder needs encoder_hidden_states, the encoder's output.")
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(config=self.config), DynamicCache(config=self.config))
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        x_BTD = self.embed(input_ids, inputs_embeds, attention_mask, past_length)
        check_memory(len(x_BTD), len(encoder_hidden_states), past_key_values)

        is_pair = isinstance(past_key_values, EncoderDecoderCache)
        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x_BTD,
            attention_mask=attention_mask,
            **by_library_name(past_key_values.self_attention_cache if is_pair else past_key_values),
        )
        memory_mask = create_bidirectional_mask(
            config=self.config,
            inputs_embeds=x_BTD.reshape(len(encoder_hidden_states), -1, x_BTD.shape[-1]),
            attention_mask=encoder_attention_mask,
            encoder_hidden_states=encoder_hidden_states,
        )
        x_BTD = self.dropout(x_BTD)
        past = by_library_name(past_key_values)
        for layer in self.layers:
            x_BTD = layer(x_BTD, causal_mask, encoder_hidden_states, memory_mask, **past, **kwargs)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=self.norm(x_BTD), **past)


__all__ = [
    "DecoderLayer",
    "EncoderLayer",
    "TransformerDecoder",
    "TransformerEncoder",
    "TransformerPreTrainedModel",
    "TransformerStack",
]
