"""The original Transformer (Vaswani et al., 2017, https://arxiv.org/abs/1706.03762), to the letter by default.

Figure 1, from the page to the class:

    both columns                     TransformerModel
    Linear and Softmax on top        TransformerForConditionalGeneration (the softmax is in the loss and in `generate`)
    left column, one grey box        modeling_transformer_layers.EncoderLayer
    right column, one grey box       modeling_transformer_layers.DecoderLayer
    "Nx", with embedding and sum     modeling_transformer_layers.TransformerEncoder, TransformerDecoder
    Multi-Head Attention             modeling_layers.MultiHeadAttention
    Feed Forward                     modeling_layers.FeedForward
    Add & Norm                       modeling_layers.AddAndNorm
    Positional Encoding              modeling_layers.SinusoidalPositions

Departures from the paper, all of them:

1. Attention projections have biases, as fairseq's do; equation 1 has none (36,864 parameters in the base model).
   `bias=False` leaves out all biases, those of equation 2 and of normalisations too.
2. The paper does not say how weights start. Here projections are Xavier-uniform with zero biases, and embeddings
   normal with standard deviation d_model^-0.5, so that scaled ones start at 1, as in tensor2tensor.
3. `norm_first=True` adds one LayerNorm after the last layer of each stack, without which its output is not normalised.
4. Padded positions are never attended to, and positions count real tokens only; the paper has no padding.
5. `attention_dropout` and `activation_dropout` exist, and are 0.
6. For models from elsewhere (docs/convert.md), and off by default: `source_vocab_size`, a vocabulary of the source's own;
   `output_bias`, a bias of the output projection; `position_embeddings="sinusoidal-fairseq"` and `position_offset`, the
   sinusoids of tensor2tensor and fairseq, which differ a little from section 3.5.

Local tensors carry their shape: B batch, T target, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput, Seq2SeqModelOutput
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from transformer_theatre.configuration.configuration_transformer import TransformerConfig

from .cache_names import by_library_name, cache_of, takes_cache_by_both_names
from .modeling_layers import shift_right
from .modeling_transformer_layers import TransformerDecoder, TransformerEncoder, TransformerPreTrainedModel
from .text_to_text import TextToText


class TransformerModel(TransformerPreTrainedModel):
    """Figure 1, both columns, up to the last "Add & Norm"."""

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.encoder = TransformerEncoder(config)
        self.decoder = TransformerDecoder(config)
        if config.share_encoder_decoder_embeddings:
            self._tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the source's embedding, which is the target's too where they are shared."""
        return self.encoder.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding):
        """Replace the source's embedding, and the target's where it is the same."""
        if self.decoder.embed_tokens.weight is self.encoder.embed_tokens.weight:
            self.decoder.embed_tokens = value
        self.encoder.embed_tokens = value

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """Name what is tied; the library asks `tie_word_embeddings` alone, but the two sides share by their own switch."""
        return super().get_expanded_tied_weights_keys(True) if all_submodels else dict(self._tied_weights_keys or {})

    @takes_cache_by_both_names
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqModelOutput:
        """Read the source (unless `encoder_outputs` are given), then write the target.

        Args:
            input_ids: (batch, source).
            attention_mask: 1 at real tokens of the source, 0 at padding, (batch, source).
            decoder_input_ids: (batch, target), the target behind the start token.
            decoder_attention_mask: 1 at real tokens of the target, 0 at padding, (batch, past + target).
            encoder_outputs: what the encoder returned for this source.
            past_key_values: keys and values of earlier target tokens, and of the source.
            inputs_embeds: in place of `input_ids`, (batch, source, d_model).
            decoder_inputs_embeds: in place of `decoder_input_ids`, (batch, target, d_model).
            use_cache: return `past_key_values` for the next tokens.
            **kwargs: `output_attentions`, `output_hidden_states`, and arguments of the attention backend.
        """
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids, attention_mask=attention_mask, inputs_embeds=inputs_embeds, **kwargs
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            as_tuple: Any = encoder_outputs
            encoder_outputs = BaseModelOutput(*as_tuple)
        decoder_outputs = self.decoder(
            decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=decoder_outputs.last_hidden_state,
            **by_library_name(cache_of(decoder_outputs)),
            decoder_hidden_states=decoder_outputs.hidden_states,
            decoder_attentions=decoder_outputs.attentions,
            cross_attentions=decoder_outputs.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )


class TransformerForConditionalGeneration(TransformerPreTrainedModel, GenerationMixin, TextToText):
    """Figure 1, whole: the Transformer with its output projection, for translation and whatever else maps text to text."""

    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: TransformerConfig):
        super().__init__(config)
        self.model = TransformerModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=config.output_bias)
        shares = config.share_encoder_decoder_embeddings
        self._tied_weights_keys = {"lm_head.weight": f"model.{'encoder' if shares else 'decoder'}.embed_tokens.weight"}
        self.post_init()

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Shift `labels` (batch, target) right behind the start token; ignored ones (-100) become padding."""
        return shift_right(labels, self.config)

    @takes_cache_by_both_names
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> Seq2SeqLMOutput:
        """Predict the next token of the target at every position of it.

        Args:
            input_ids: as in `TransformerModel.forward`, and so are all arguments not listed here.
            attention_mask: 1 at real tokens of the source, 0 at padding.
            decoder_input_ids: (batch, target); made from `labels` where they are given and it is not.
            decoder_attention_mask: 1 at real tokens of the target, 0 at padding.
            encoder_outputs: what the encoder returned for this source.
            past_key_values: keys and values of earlier target tokens, and of the source.
            inputs_embeds: (batch, source, d_model).
            decoder_inputs_embeds: (batch, target, d_model).
            labels: token ids to predict, (batch, target), aligned with the logits; -100 is ignored.
            use_cache: return `past_key_values` for the next tokens.
            logits_to_keep: logits of the last so many positions only, or of the positions a tensor lists; 0: of all.
            **kwargs: as in `TransformerModel.forward`; `num_items_in_batch`, the tokens that the loss is divided by, goes
                to the loss.
        """
        if labels is not None:
            use_cache = False
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            encoder_outputs=encoder_outputs,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            decoder_inputs_embeds=decoder_inputs_embeds,
            use_cache=use_cache,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            # Labels are aligned with the logits; without `shift_labels` the library would shift them once more.
            loss = self.loss_function(logits_BTV, labels, self.config.vocab_size, **{"shift_labels": labels, **kwargs})
        return Seq2SeqLMOutput(
            loss=loss,
            logits=logits_BTV,
            **by_library_name(cache_of(outputs)),
            decoder_hidden_states=outputs.decoder_hidden_states,
            decoder_attentions=outputs.decoder_attentions,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
            encoder_attentions=outputs.encoder_attentions,
        )


__all__ = ["TransformerForConditionalGeneration", "TransformerModel", "TransformerPreTrainedModel"]
