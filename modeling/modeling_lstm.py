"""The LSTMs that the Transformer replaced: an encoder-decoder with or without attention, and a language model.

Luong et al., 2015, "Effective Approaches to Attention-based Neural Machine Translation"
(https://arxiv.org/abs/1508.04025), the default; Sutskever et al., 2014, "Sequence to Sequence Learning with Neural
Networks" (https://arxiv.org/abs/1409.3215), `attention="none"`; Zaremba et al., 2014, "Recurrent Neural Network
Regularization" (https://arxiv.org/abs/1409.2329), `is_encoder_decoder=False`. Section and equation numbers are Luong's.

What an LSTM remembers takes the place of keys and values in the library's caches: of every position, each layer's
hidden state is kept as its key, and its cell as its value; input feeding keeps the attentional vector in one layer more.
So a search reorders, repeats and rewinds it as it does a Transformer's.

Departures from the papers, all of them:

1. Biases start at 0, and those of the forget gates at 1 (Jozefowicz et al., 2015); the papers draw them like weights.
2. With `bidirectional=True` the encoder reads both ways, as Bahdanau et al., 2015, do, and each way has half the width.
3. A language model begins every row from zeros; Zaremba et al. carry the state from one batch to the next.
4. A padded position is never attended to, and leaves the state as it was; the papers have no padding.
5. Dropout is on the attentional vector too, before it is fed back, as in OpenNMT.

Local tensors carry their shape: B batch, T target, V vocabulary.
"""

import copy
from typing import Any

import torch
from torch import nn
from transformers import Cache, GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithPast,
    Seq2SeqLMOutput,
    Seq2SeqModelOutput,
)
from transformers.utils import can_return_tuple

from transformer_theatre.configuration.configuration_lstm import LSTMConfig

from .cache_names import by_library_name, cache_of, takes_cache_by_both_names
from .modeling_fine_tuning import MultipleChoice, SequenceClassification, TaskModel
from .modeling_layers import next_tokens, shift_right
from .modeling_lstm_layers import LSTMDecoder, LSTMEncoder, LSTMEncoderOutput, LSTMPreTrainedModel
from .text_continuation import TextContinuation
from .text_to_text import TextToText


class LSTMModel(LSTMPreTrainedModel):
    """The encoder and the decoder, up to the output projection; the decoder alone where there is no source."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        if config.is_encoder_decoder:
            self.encoder = LSTMEncoder(config)
        self.decoder = LSTMDecoder(config)
        if config.is_encoder_decoder and config.share_encoder_decoder_embeddings:
            self._tied_weights_keys = {"decoder.embed_tokens.weight": "encoder.embed_tokens.weight"}
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the source's embedding, which is the target's too where they are shared or there is no source."""
        return (self.encoder if self.config.is_encoder_decoder else self.decoder).embed_tokens

    def set_input_embeddings(self, value: nn.Embedding):
        """Replace the source's embedding, and the target's where it is the same or the only one."""
        if self.decoder.embed_tokens.weight is self.get_input_embeddings().weight:
            self.decoder.embed_tokens = value
        if self.config.is_encoder_decoder:
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
        encoder_outputs: LSTMEncoderOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqModelOutput | BaseModelOutputWithPastAndCrossAttentions:
        """Read the source (unless `encoder_outputs` are given), then write the target; without a source, read the text.

        Args:
            input_ids: (batch, source); where there is no source, the text, (batch, target).
            attention_mask: 1 at real tokens of `input_ids`, 0 at padding; without a source, (batch, past + target).
            decoder_input_ids: (batch, target), the target behind the start token.
            decoder_attention_mask: 1 at real tokens of the target, 0 at padding, (batch, past + target).
            encoder_outputs: what the encoder returned for this source.
            past_key_values: states of earlier target tokens, and what attention needs of the source.
            inputs_embeds: in place of `input_ids`, (batch, source, hidden_size).
            decoder_inputs_embeds: in place of `decoder_input_ids`, (batch, target, hidden_size).
            use_cache: return `past_key_values` for the next tokens.
            **kwargs: `output_attentions`, `output_hidden_states`.

        Raises:
            ValueError: see `LSTMEncoder.forward` and `LSTMDecoder.forward`.
        """
        shared = {"past_key_values": past_key_values, "use_cache": use_cache, "return_dict": True, **kwargs}
        if not self.config.is_encoder_decoder:
            return self.decoder(input_ids, attention_mask, inputs_embeds=inputs_embeds, **shared)
        known: Any = encoder_outputs
        if known is None:
            known = self.encoder(input_ids, attention_mask, inputs_embeds, return_dict=True, **kwargs)
        elif isinstance(known, tuple):
            known = LSTMEncoderOutput(*known)
        final_state = (known.get("final_hidden_state"), known.get("final_cell_state"))
        outputs = self.decoder(
            decoder_input_ids,
            decoder_attention_mask,
            encoder_hidden_states=known.last_hidden_state,
            encoder_attention_mask=attention_mask,
            initial_state=None if final_state[0] is None else final_state,
            inputs_embeds=decoder_inputs_embeds,
            **shared,
        )
        return Seq2SeqModelOutput(
            last_hidden_state=outputs.last_hidden_state,
            **by_library_name(cache_of(outputs)),
            decoder_hidden_states=outputs.hidden_states,
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=known.last_hidden_state,
            encoder_hidden_states=known.hidden_states,
        )


class LSTMForConditionalGeneration(LSTMPreTrainedModel, GenerationMixin, TextToText):
    """The encoder-decoder with its output projection (equation 6), for translation."""

    def __init__(self, config: LSTMConfig):
        if not config.is_encoder_decoder:
            raise ValueError("is_encoder_decoder=False is the configuration of a language model: use LSTMForCausalLM.")
        super().__init__(config)
        self.model = LSTMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
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
        encoder_outputs: LSTMEncoderOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Predict the next token of the target at every position of it.

        Args:
            input_ids: as in `LSTMModel.forward`, and so are all arguments not listed here.
            attention_mask: 1 at real tokens of the source, 0 at padding.
            decoder_input_ids: (batch, target); made from `labels` where they are given and it is not.
            decoder_attention_mask: 1 at real tokens of the target, 0 at padding.
            encoder_outputs: what the encoder returned for this source.
            past_key_values: states of earlier target tokens, and what attention needs of the source.
            inputs_embeds: (batch, source, hidden_size).
            decoder_inputs_embeds: (batch, target, hidden_size).
            labels: token ids to predict, (batch, target), aligned with the logits; -100 is ignored.
            use_cache: return `past_key_values` for the next tokens.
            logits_to_keep: logits of the last so many positions only, or of the positions a tensor lists; 0: of all.
            **kwargs: as in `LSTMModel.forward`; `num_items_in_batch`, the tokens that the loss is divided by, goes to the
                loss.
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
            return_dict=True,
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
            cross_attentions=outputs.cross_attentions,
            encoder_last_hidden_state=outputs.encoder_last_hidden_state,
            encoder_hidden_states=outputs.encoder_hidden_states,
        )


class LSTMForCausalLM(LSTMPreTrainedModel, GenerationMixin, TextContinuation):
    """The decoder alone with its output projection: the language model of Zaremba et al., 2014."""

    _tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}

    def __init__(self, config: LSTMConfig):
        if config.is_encoder_decoder:
            config = copy.deepcopy(config)
            config.is_encoder_decoder = False
        super().__init__(config)
        self.model = LSTMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @takes_cache_by_both_names
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            input_ids: (batch, positions).
            attention_mask: 1 at real tokens, 0 at padding, (batch, past + positions); None: every token is real.
            past_key_values: states of earlier tokens.
            inputs_embeds: token embeddings in place of `input_ids`, (batch, positions, hidden_size).
            labels: token ids, (batch, positions), the same as `input_ids`, or one more, which the last position predicts: the
                shift happens here; -100 is ignored.
            use_cache: return `past_key_values` for the next tokens; they are read one by one then.
            logits_to_keep: logits of the last so many positions only, or of the positions a tensor lists; 0: of all.
            **kwargs: `output_hidden_states`; `num_items_in_batch` (the tokens that the loss is divided by) and
                `shift_labels` (labels already shifted) go to the loss.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache if labels is None else False,
            return_dict=True,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits_BTV = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            shifted = {"shift_labels": next_tokens(labels, logits_BTV.shape[1]), **kwargs}
            loss = self.loss_function(logits_BTV, labels, self.config.vocab_size, **shifted)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits_BTV,
            **by_library_name(cache_of(outputs)),
            hidden_states=outputs.hidden_states,
        )


class LSTMTaskModel(LSTMPreTrainedModel, TaskModel):
    """The language model with a linear layer that reads the last token, in the place of GPT-1 (Radford et al., 2018, table 5)."""

    _tied_weights_keys = {"lm_head.weight": "model.decoder.embed_tokens.weight"}

    def __init__(self, config: LSTMConfig, outputs: int):
        if config.is_encoder_decoder:
            config = copy.deepcopy(config)
            config.is_encoder_decoder = False
        super().__init__(config)
        self.model = LSTMModel(config)
        self.add_heads(config, outputs)
        self.post_init()


class LSTMForSequenceClassification(SequenceClassification, LSTMTaskModel):
    """Classes, entailment, similarity and regression; see `GPTForSequenceClassification`."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config, outputs=config.num_labels)  # type: ignore[arg-type]  # the library says "or None"


class LSTMForMultipleChoice(MultipleChoice, LSTMTaskModel):
    """Multiple choice; see `GPTForMultipleChoice`."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config, outputs=1)


__all__ = [
    "LSTMForCausalLM",
    "LSTMForConditionalGeneration",
    "LSTMForMultipleChoice",
    "LSTMForSequenceClassification",
    "LSTMModel",
    "LSTMPreTrainedModel",
]
