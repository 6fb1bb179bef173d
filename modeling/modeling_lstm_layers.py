"""What the LSTMs are built from: encoder and decoder; see modeling_lstm.py for the papers.

Section and equation numbers are those of Luong et al., 2015 (https://arxiv.org/abs/1508.04025).

Local tensors carry their shape: B batch, T target, S source, D width, L layers.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers import initialization as init
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions
from transformers.utils import ModelOutput, can_return_tuple
from transformers.utils.generic import merge_with_config_defaults

from transformer_theatre.configuration.configuration_lstm import LSTMConfig

from .cache_names import by_library_name, takes_cache_by_both_names
from .modeling_layers import SourceTargetPreTrainedModel, check_memory
from .modeling_lstm_attention import LSTMMemory, LuongAttention


@dataclass
class LSTMEncoderOutput(ModelOutput):
    """What the encoder knows of the source.

    Args:
        last_hidden_state: the last layer's state at every position, (batch, source, hidden_size).
        final_hidden_state: each layer's hidden state at the end, (batch, layers, hidden_size).
        final_cell_state: each layer's cell at the end, (batch, layers, hidden_size).
        hidden_states: where asked for, the embeddings and `last_hidden_state`.
        attentions: always None: there is none.
    """

    last_hidden_state: torch.Tensor | None = None
    final_hidden_state: torch.Tensor | None = None
    final_cell_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LSTMState(NamedTuple):
    """What the decoder carries from one position to the next; `output_BD` is what its output projection reads."""

    hidden_LBD: torch.Tensor
    cell_LBD: torch.Tensor
    output_BD: torch.Tensor


def real_tokens(attention_mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Return True at real tokens of the last `length` positions; None, where there is no mask (batch, positions): all."""
    if attention_mask is None or attention_mask.dim() != 2:
        return None
    return attention_mask[:, -length:].bool()


def reading_order(keep_BT: torch.Tensor, backwards: bool = False) -> torch.Tensor:
    """Number positions in the order of reading: real tokens, from first to last or `backwards`, then the padding."""
    length = keep_BT.shape[1]
    rank_T = torch.arange(length, device=keep_BT.device)
    return (keep_BT.logical_not() * length + (rank_T.flip(0) if backwards else rank_T)).argsort(-1)


def take_positions(x_BTD: torch.Tensor, order_BT: torch.Tensor) -> torch.Tensor:
    """Put the positions of each row in the order that its numbers give."""
    return x_BTD.gather(1, order_BT[..., None].expand_as(x_BTD))


class LSTMPreTrainedModel(SourceTargetPreTrainedModel):
    """Initialisation, and what the library needs to know of the model."""

    config_class = LSTMConfig
    base_model_prefix = "model"
    _no_split_modules = ["LSTMEncoder", "LSTMDecoder"]
    supports_gradient_checkpointing = False
    _supports_sdpa = False
    _supports_flash_attn = False
    _supports_flex_attn = False
    _supports_attention_backend = False
    _can_compile_fullgraph = False

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        bound = self.config.initializer_range
        if isinstance(module, (nn.Linear, nn.Embedding)):
            init.uniform_(module.weight, -bound, bound)
        elif isinstance(module, nn.LSTM):
            for name, parameter in module.named_parameters():
                if name.startswith("weight"):
                    init.uniform_(parameter, -bound, bound)
                else:
                    # Gates in torch's order: input, forget, cell, output; each has two biases, which are added.
                    start = torch.zeros(4, module.hidden_size)
                    start[1] = float(name.startswith("bias_ih"))
                    init.copy_(parameter, start.flatten())

    @property
    def dummy_inputs(self) -> dict[str, torch.Tensor]:
        """The smallest inputs that `forward` takes."""
        ids = torch.tensor([[3, 4, 5]], device=self.device)
        return {"input_ids": ids, **({"decoder_input_ids": ids} if self.config.is_encoder_decoder else {})}


class LSTMStack(LSTMPreTrainedModel):
    """What both sides begin with: embeddings, and dropout on them."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)

    def embed(self, input_ids: torch.Tensor | None, inputs_embeds: torch.Tensor | None) -> torch.Tensor:
        """Return what the first layer reads, (batch, positions, hidden_size)."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give exactly one of input_ids and inputs_embeds (decoder_... for the decoder).")
        return self.dropout(self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds)

    def make_lstm(self, input_size: int, width: int, bidirectional: bool = False) -> nn.LSTM:
        """Make all layers, with dropout between them (Zaremba et al., 2014, figure 2: never over time)."""
        layers = self.config.num_hidden_layers
        between = float(self.config.dropout) if layers > 1 else 0.0
        return nn.LSTM(input_size, width, layers, batch_first=True, dropout=between, bidirectional=bidirectional)


class LSTMEncoder(LSTMStack):
    """Reads the source: forwards, backwards, or both ways with half the width each."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        width = config.hidden_size // 2 if config.bidirectional else config.hidden_size
        self.lstm = self.make_lstm(config.hidden_size, width, config.bidirectional)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> LSTMEncoderOutput:
        """Read the source.

        Args:
            input_ids: (batch, source).
            attention_mask: 1 at real tokens, 0 at padding, (batch, source); None: every token is real.
            inputs_embeds: token embeddings in place of `input_ids`, (batch, source, hidden_size).
            output_hidden_states: also return `hidden_states`; None: what the configuration says.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds` is given.
        """
        x_BSD = self.embed(input_ids, inputs_embeds)
        length = x_BSD.shape[1]
        keep_BS = real_tokens(attention_mask, length)
        if keep_BS is None:
            keep_BS = torch.ones(x_BSD.shape[:2], dtype=torch.bool, device=x_BSD.device)
        order_BS = reading_order(keep_BS, backwards=self.config.reverse_source)
        # A row of padding alone is read as one token, which nothing attends to.
        lengths = keep_BS.sum(-1).clamp(min=1).cpu()
        packed = pack_padded_sequence(take_positions(x_BSD, order_BS), lengths, True, enforce_sorted=False)
        packed, (hidden, cell) = self.lstm(packed)
        read_BSD = pad_packed_sequence(packed, batch_first=True, total_length=length)[0]
        last_BSD = take_positions(read_BSD, order_BS.argsort(-1))
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return LSTMEncoderOutput(
            last_hidden_state=last_BSD,
            final_hidden_state=self._side_by_side(hidden),
            final_cell_state=self._side_by_side(cell),
            hidden_states=(x_BSD, last_BSD) if wanted else None,
        )

    def _side_by_side(self, states: torch.Tensor) -> torch.Tensor:
        """Join both directions: (layers * directions, batch, width) to (batch, layers, hidden_size)."""
        return states.unflatten(0, (self.config.num_hidden_layers, -1)).permute(2, 0, 1, 3).flatten(2)


class LSTMDecoder(LSTMStack):
    """Writes the target, from the encoder's last states on, looking back at the source; or continues text, from zeros."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        attends = config.is_encoder_decoder and config.attention == "luong"
        self.feeds = attends and config.input_feeding
        self.lstm = self.make_lstm(config.hidden_size * (2 if self.feeds else 1), config.hidden_size)
        self.attention = LuongAttention(config) if attends else None
        self.post_init()

    @takes_cache_by_both_names
    @merge_with_config_defaults
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        initial_state: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Read tokens, and know at each what came before it.

        Args:
            input_ids: (batch, target).
            attention_mask: 1 at real tokens, 0 at padding, (batch, past + target); None: every token is real.
            encoder_hidden_states: the encoder's output, (batch, source, hidden_size).
            encoder_attention_mask: 1 at real tokens of the source, 0 at padding, (batch, source).
            initial_state: the encoder's final hidden states and cells, each (batch, layers, hidden_size); not looked at
                where `past_key_values` hold a state.
            past_key_values: states of earlier tokens.
            inputs_embeds: token embeddings in place of `input_ids`, (batch, target, hidden_size).
            use_cache: return `past_key_values` for the next tokens.
            output_attentions: also return the weights, (batch, 1, target, source), as `cross_attentions`.
            output_hidden_states: also return the embeddings and the output as `hidden_states`.

        Raises:
            ValueError: not exactly one of `input_ids` and `inputs_embeds` is given, what the encoder knows is missing or has
                another number of rows, or the cache has a fixed size.
        """
        x_BTD = self.embed(input_ids, inputs_embeds)
        keep_BT = real_tokens(attention_mask, x_BTD.shape[1])
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
            if self.config.is_encoder_decoder:
                past_key_values = EncoderDecoderCache(past_key_values, DynamicCache(config=self.config))
        pair = past_key_values if isinstance(past_key_values, EncoderDecoderCache) else None
        cache = pair.self_attention_cache if pair is not None else past_key_values
        if encoder_hidden_states is not None and self.attention is not None:
            check_memory(len(x_BTD), len(encoder_hidden_states), pair)
        memory = self._memory(encoder_hidden_states, encoder_attention_mask, pair)
        state = self._first_state(x_BTD, initial_state, cache)
        if cache is None and not self.feeds:
            out_BTD, weights_BTS = self._read_at_once(x_BTD, keep_BT, state, memory)
        else:
            out_BTD, weights_BTS = self._read_one_by_one(x_BTD, keep_BT, state, memory, cache)
        wants_weights = self.config.output_attentions if output_attentions is None else output_attentions
        wants_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=out_BTD,
            **by_library_name(past_key_values),
            hidden_states=(x_BTD, out_BTD) if wants_states else None,
            cross_attentions=(weights_BTS[:, None],) if wants_weights and weights_BTS is not None else None,
        )

    def _memory(
        self, states_BSD: torch.Tensor | None, mask: torch.Tensor | None, past: EncoderDecoderCache | None
    ) -> LSTMMemory | None:
        """What to attend to; `past` keeps it for the next tokens."""
        if self.attention is None:
            return None
        if past is not None and past.is_updated.get(0):
            layer: Any = past.cross_attention_cache.layers[0]
            keys_BSD, states_BSD = layer.keys[:, 0], layer.values[:, 0]
        elif states_BSD is None:
            raise ValueError("The decoder needs encoder_hidden_states, the encoder's output.")
        else:
            keys_BSD = self.attention.key_proj(states_BSD)
            if past is not None:
                past.cross_attention_cache.update(keys_BSD[:, None], states_BSD[:, None], 0)
                past.is_updated[0] = True
        return LSTMMemory(states_BSD, keys_BSD, real_tokens(mask, states_BSD.shape[1]))

    def _first_state(self, x_BTD: torch.Tensor, initial_state: Any, cache: Cache | None) -> LSTMState:
        """The state before the first of these tokens: the cache's last, or the encoder's, or zeros."""
        layers = self.config.num_hidden_layers
        zeros_LBD = x_BTD.new_zeros(layers, len(x_BTD), self.config.hidden_size)
        if cache is not None and cache.is_compileable:
            raise ValueError("An LSTM keeps its states in a DynamicCache: leave cache_implementation out.")
        if cache is not None and cache.get_seq_length():
            kept: Any = cache.layers
            hidden_LBD = torch.stack([layer.keys[:, 0, -1] for layer in kept[:layers]])
            cell_LBD = torch.stack([layer.values[:, 0, -1] for layer in kept[:layers]])
            return LSTMState(hidden_LBD, cell_LBD, kept[layers].keys[:, 0, -1] if self.feeds else zeros_LBD[0])
        if not self.config.is_encoder_decoder:
            return LSTMState(zeros_LBD, zeros_LBD, zeros_LBD[0])
        if initial_state is None:
            raise ValueError(
                "The decoder begins with the encoder's final states: give encoder_outputs as the encoder returned them, "
                "an LSTMEncoderOutput."
            )
        check_memory(len(x_BTD), len(initial_state[0]), None)
        hidden_LBD, cell_LBD = (part.transpose(0, 1).contiguous() for part in initial_state)
        return LSTMState(hidden_LBD, cell_LBD, zeros_LBD[0])

    def _read_at_once(
        self, x_BTD: torch.Tensor, keep_BT: torch.Tensor | None, state: LSTMState, memory: LSTMMemory | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Read all tokens in one call of the kernel, real ones first, so that padding comes too late to change anything."""
        if keep_BT is not None:
            order_BT = reading_order(keep_BT)
            x_BTD = take_positions(x_BTD, order_BT)
        out_BTD, _ = self.lstm(x_BTD, (state.hidden_LBD, state.cell_LBD))
        if keep_BT is not None:
            out_BTD = take_positions(out_BTD, order_BT.argsort(-1))
        return self._look_back(out_BTD, memory)

    def _read_one_by_one(
        self,
        x_BTD: torch.Tensor,
        keep_BT: torch.Tensor | None,
        state: LSTMState,
        memory: LSTMMemory | None,
        cache: Cache | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Read token after token, where each needs the output before it or the cache needs each state."""
        states: list[LSTMState] = []
        weights: list[Any] = []
        for t in range(x_BTD.shape[1]):
            new, weights_BS = self.step(x_BTD[:, t], state, memory)
            if keep_BT is not None:
                keep_B1 = keep_BT[:, t, None]
                new = LSTMState(
                    *(torch.where(keep_B1, after, before) for after, before in zip(new, state, strict=True))
                )
            state = new
            states.append(state)
            weights.append(weights_BS)
        hidden_LBTD, cell_LBTD, out_BTD = (torch.stack(part, -2) for part in zip(*states, strict=True))
        if cache is not None:
            for index, (hidden_BTD, cell_BTD) in enumerate(zip(hidden_LBTD, cell_LBTD, strict=True)):
                cache.update(hidden_BTD[:, None], cell_BTD[:, None], index)
            if self.feeds:
                if len(cache.layers) == self.config.num_hidden_layers:
                    cache.layers.append(DynamicLayer())
                cache.update(out_BTD[:, None], out_BTD[:, None, :, :0], self.config.num_hidden_layers)
        return out_BTD, torch.stack(weights, 1) if memory is not None else None

    def step(
        self, x_BD: torch.Tensor, state: LSTMState, memory: LSTMMemory | None
    ) -> tuple[LSTMState, torch.Tensor | None]:
        """Read one token (figure 4).

        Args:
            x_BD: its embedding, after dropout.
            state: after the token before it.
            memory: the source; None: there is no attention.

        Returns:
            The state after it, and the attention weights (batch, source), or None.
        """
        if self.feeds:
            x_BD = torch.cat([x_BD, state.output_BD.to(x_BD.dtype)], -1)
        out_B1D, (hidden_LBD, cell_LBD) = self.lstm(x_BD[:, None], (state.hidden_LBD, state.cell_LBD))
        out_B1D, weights_B1S = self._look_back(out_B1D, memory)
        return LSTMState(hidden_LBD, cell_LBD, out_B1D[:, 0]), weights_B1S[:, 0] if weights_B1S is not None else None

    def _look_back(self, h_BTD: torch.Tensor, memory: LSTMMemory | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the output projection reads: the attentional vectors, with their weights; without attention the states."""
        out_BTD, weights_BTS = self.attention(h_BTD, memory) if self.attention is not None else (h_BTD, None)
        return self.dropout(out_BTD), weights_BTS


__all__ = [
    "LSTMDecoder",
    "LSTMEncoder",
    "LSTMEncoderOutput",
    "LSTMPreTrainedModel",
    "LSTMStack",
    "LSTMState",
    "reading_order",
    "real_tokens",
    "take_positions",
]
