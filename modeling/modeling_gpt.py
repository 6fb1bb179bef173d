"""GPT: the decoder of the Transformer alone, trained to continue text.

Radford et al., 2018, "Improving Language Understanding by Generative Pre-Training" (GPT-1, post-norm: the default), and
Radford et al., 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2, `norm_first=True`: normalisation
before every sub-layer and once more after the last, residual projections that start smaller).

Departures from both papers:

1. Queries, keys and values have a projection each: the same function, written as one matrix there.
2. `bias=False` leaves all biases out, as nanoGPT does.
"""

import torch
from torch import nn
from transformers import Cache, DynamicCache, GenerationMixin
from transformers import initialization as init
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from transformer_theatre.configuration.configuration_gpt import GPTConfig

from .cache_names import by_library_name, cache_of, takes_cache_by_both_names
from .modeling_fine_tuning import MultipleChoice, SequenceClassification, TaskModel
from .modeling_layers import (
    AddAndNorm,
    FeedForward,
    MultiHeadAttention,
    TheatrePreTrainedModel,
    check_positions,
    next_tokens,
    positions_of,
)
from .text_continuation import TextContinuation


class GPTLayer(GradientCheckpointingLayer):
    """Figure 1, left, of the GPT paper: masked self-attention, feed-forward."""

    def __init__(self, config: GPTConfig, layer_idx: int):
        super().__init__()
        self.self_attention = MultiHeadAttention(config, config.num_attention_heads, layer_idx, is_causal=True)
        self.self_attention_add_norm = AddAndNorm(config)
        self.feed_forward = FeedForward(config, config.ffn_dim)
        self.feed_forward_add_norm = AddAndNorm(config)

    @takes_cache_by_both_names
    def forward(self, x_BTD, causal_mask, past_key_values: Cache | None = None, **kwargs):
        """(batch, positions, d_model) in and out; `causal_mask` hides what comes later."""
        around = self.self_attention_add_norm
        attended_BTD, _ = self.self_attention(
            around.enter(x_BTD), causal_mask, past_key_values=past_key_values, **kwargs
        )
        x_BTD = around.leave(x_BTD, attended_BTD)

        around = self.feed_forward_add_norm
        return around.leave(x_BTD, self.feed_forward(around.enter(x_BTD)))


class GPTPreTrainedModel(TheatrePreTrainedModel):
    """Initialisation, and what the library needs to know of the model."""

    config_class = GPTConfig
    base_model_prefix = "model"
    _no_split_modules = ["GPTLayer"]

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear) and getattr(module, "writes_to_residual", False):
            std = self.config.initializer_range * (2 * self.config.num_hidden_layers) ** -0.5
            init.normal_(module.weight, std=std)


class GPTModel(GPTPreTrainedModel):
    """Token and position embeddings, then `num_hidden_layers` layers."""

    _can_record_outputs = {
        "hidden_states": GPTLayer,
        "attentions": OutputRecorder(MultiHeadAttention, index=1, layer_name="self_attention"),
    }

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.d_model)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([GPTLayer(config, index) for index in range(config.num_hidden_layers)])
        self.norm = (
            nn.LayerNorm(config.d_model, config.layer_norm_eps, bias=config.bias)
            if config.norm_first
            else nn.Identity()
        )
        if config.norm_first:
            # GPT-2, section 2.3: projections into the residual stream start smaller, by the root of their number.
            for layer in self.layers:
                layer.self_attention.out_proj.writes_to_residual = True
                layer.feed_forward.fc2.writes_to_residual = True
        self.post_init()

    @takes_cache_by_both_names
    @merge_with_config_defaults
    @capture_outputs
    def forward(  # type: ignore[misc]  # the library's dictionary of arguments lists position_ids as well
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPast:
        """Turn tokens into states that know what came before them.

        Args:
            input_ids: (batch, positions).
            attention_mask: 1 at real tokens, 0 at padding, (batch, past + positions); None: every token is real.
            position_ids: (batch, positions); None: real tokens are numbered from 0, whichever side is padded. Rows that
                hold several documents number each from 0; given without `attention_mask`, the documents then do not see
                one another. Flash kernels want them in one row, with the library's `cu_seq_lens_q`, `max_length_q`, ....
            past_key_values: keys and values of earlier tokens.
            inputs_embeds: token embeddings in place of `input_ids`, (batch, positions, d_model).
            use_cache: return `past_key_values` for the next tokens.
            **kwargs: `output_attentions`, `output_hidden_states`, and arguments of the attention backend.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds` is given, or there are more tokens than
                positions.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds.")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        past_length = past_key_values.get_seq_length() if past_key_values is not None else 0
        # Where all rows are given to a flash kernel as one, its longest document is what needs positions.
        longest = kwargs.get("max_length_q") or inputs_embeds.shape[1]
        check_positions(past_length, longest, self.config.max_position_embeddings)

        causal_mask = create_causal_mask(
            config=self.config,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            **by_library_name(past_key_values),
        )
        if position_ids is None:
            position_ids = positions_of(attention_mask, inputs_embeds, past_length)
        # After the mask: the library looks for packed documents only where there is no cache.
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)

        x_BTD = self.dropout(inputs_embeds + self.embed_positions(position_ids))
        past = by_library_name(past_key_values)
        for layer in self.layers:
            x_BTD = layer(x_BTD, causal_mask, position_ids=position_ids, **past, **kwargs)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x_BTD), **past)


class GPTForCausalLM(GPTPreTrainedModel, GenerationMixin, TextContinuation):
    """GPT with its output projection: the logits of the next token (equation 2 of the GPT paper)."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.model = GPTModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    @takes_cache_by_both_names
    @can_return_tuple
    def forward(  # type: ignore[misc]  # the library's dictionary of arguments lists position_ids as well
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Unpack[TransformersKwargs],
    ) -> CausalLMOutputWithPast:
        """Predict the next token at every position.

        Args:
            input_ids: as in `GPTModel.forward`, and so are all arguments not listed here.
            attention_mask: 1 at real tokens, 0 at padding.
            position_ids: (batch, positions).
            past_key_values: keys and values of earlier tokens.
            inputs_embeds: (batch, positions, d_model).
            labels: token ids, (batch, positions), the same as `input_ids`, or one more, which the last position predicts: the
                shift happens here; -100 is ignored.
            use_cache: return `past_key_values` for the next tokens.
            logits_to_keep: logits of the last so many positions only, or of the positions a tensor lists; 0: of all.
            **kwargs: as in `GPTModel.forward`; `num_items_in_batch` (the tokens that the loss is divided by) and
                `shift_labels` (labels already shifted) go to the loss.
        """
        outputs = self.model(
            input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
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
            attentions=outputs.attentions,
        )


class GPTTaskModel(GPTPreTrainedModel, TaskModel):
    """GPT with a linear layer W_y that reads the token "extract", the last one (figure 1, right, and equation 3)."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}
    _tp_plan = {"lm_head": "colwise_gather_output"}

    def __init__(self, config: GPTConfig, outputs: int):
        super().__init__(config)
        self.model = GPTModel(config)
        self.add_heads(config, outputs)
        self.post_init()


class GPTForSequenceClassification(SequenceClassification, GPTTaskModel):
    """Classes, entailment, similarity and regression: the tasks of figure 1, right, with one answer for each row.

    `config.num_labels` and `config.problem_type` choose the loss, as in the library; one label is regression.
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config, outputs=config.num_labels)  # type: ignore[arg-type]  # the library says "or None"


class GPTForMultipleChoice(MultipleChoice, GPTTaskModel):
    """Multiple choice: every answer is read after its context, and a softmax over them chooses (figure 1, right)."""

    def __init__(self, config: GPTConfig):
        super().__init__(config, outputs=1)


__all__ = [
    "GPTForCausalLM",
    "GPTForMultipleChoice",
    "GPTForSequenceClassification",
    "GPTModel",
    "GPTPreTrainedModel",
]
