"""Attention as the LSTMs have it, section 3.1 of Luong et al., 2015 (https://arxiv.org/abs/1508.04025).

Local tensors carry their shape: B batch, T target, S source, D width.
"""

from typing import NamedTuple

import torch
from torch import nn

from transformer_theatre.configuration.configuration_lstm import LSTMConfig


class LSTMMemory(NamedTuple):
    """What attention looks at: the encoder's states, W_a times them, and True at real tokens (None: all are)."""

    states_BSD: torch.Tensor
    keys_BSD: torch.Tensor
    keep_BS: torch.Tensor | None


class LuongAttention(nn.Module):
    """Global attention with the "general" score, and the attentional vector (section 3.1)."""

    def __init__(self, config: LSTMConfig):
        super().__init__()
        self.key_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.combine = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)

    def forward(self, h_BTD: torch.Tensor, memory: LSTMMemory) -> tuple[torch.Tensor, torch.Tensor]:
        """Equations 8 (score h_t W_a h_s), 7 (its softmax) and 5 (tanh(W_c [c_t; h_t])).

        Args:
            h_BTD: the decoder's states.
            memory: with fewer rows than `h_BTD`, each is read by as many rows in turn: the beams of one source (see
                `check_memory`).

        Returns:
            The attentional vectors (batch, target, hidden_size), and the weights (batch, target, source).
        """
        rows, length, width = h_BTD.shape
        h_BTD = h_BTD.reshape(len(memory.states_BSD), -1, width)
        scores_BTS = h_BTD @ memory.keys_BSD.mT.to(h_BTD.dtype)
        if memory.keep_BS is not None:
            scores_BTS = scores_BTS.masked_fill(~memory.keep_BS[:, None], torch.finfo(scores_BTS.dtype).min)
        weights_BTS = scores_BTS.softmax(-1, dtype=torch.float32).to(h_BTD.dtype)
        context_BTD = weights_BTS @ memory.states_BSD.to(h_BTD.dtype)
        out_BTD = self.combine(torch.cat([context_BTD, h_BTD], -1)).tanh()
        return out_BTD.view(rows, length, width), weights_BTS.view(rows, length, -1)


__all__ = ["LSTMMemory", "LuongAttention"]
