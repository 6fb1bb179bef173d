"""How likely a model finds a text: negative log-likelihood per token, perplexity, bits per byte and per character."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from transformer_theatre.modeling.modeling_layers import next_tokens

from .bootstrap import interval


class TextSize(NamedTuple):
    """How long a text is, whatever tokenizer reads it."""

    bytes: int  # as UTF-8
    characters: int  # code points


def likelihood_of_rows(logits_BTV: torch.Tensor, labels_BT: torch.Tensor, *, shifts: bool) -> torch.Tensor:
    """Sum the negative log-likelihood of each row's labels (nats, without label smoothing), and count them; (batch, 2).

    Args:
        logits_BTV: of the model; also of all rows as one, (1, batch * positions, vocabulary), as flash kernels give them.
        labels_BT: token ids, -100 ignored.
        shifts: True where the model predicts the token after each position (see `next_tokens`), False where labels are aligned
            with the logits.
    """
    logits_BTV = logits_BTV.view(len(labels_BT), -1, logits_BTV.shape[-1])
    if shifts:
        labels_BT = next_tokens(labels_BT, logits_BTV.shape[1])
    nll_BT = nn.functional.cross_entropy(logits_BTV.float().mT, labels_BT, reduction="none")
    # Apple's devices have no float64.
    kind = torch.float32 if nll_BT.device.type == "mps" else torch.float64
    return torch.stack([nll_BT.sum(1, dtype=kind), (labels_BT != -100).sum(1, dtype=kind)], dim=1)


def likelihood(rows: Sequence[Sequence[float]], text_size: TextSize | None = None) -> dict[str, Any]:
    """Express summed negative log-likelihoods per token, and per byte and character of text.

    Args:
        rows: of each sentence or row of text, its sum in nats and its tokens; the order changes nothing, to the last digit.
        text_size: of the whole text.

    Returns:
        `nll` (nats per token) and `perplexity`, its exponential, with the bounds of their 95 % intervals, found by
        resampling the rows (`nll_low`, `nll_high`, ...); `tokens`; and `bits_per_byte` and `bits_per_character` where the size is
        known.
    """
    total = math.fsum(row[0] for row in rows)
    tokens = math.fsum(row[1] for row in rows)
    # Sorted, as they may come in any order: by length, or from several processes.
    bounds = interval(sorted(map(tuple, rows)), lambda sums: sums[0] / max(1.0, sums[1]))
    figures: dict[str, Any] = {}
    for suffix, nll in zip(("", "_low", "_high"), (total / max(1.0, tokens), *bounds), strict=True):
        figures[f"nll{suffix}"] = nll
        # Beyond the largest double it is not worth the name.
        figures[f"perplexity{suffix}"] = math.exp(nll) if nll < 700 else math.inf
    if text_size is not None:
        figures["bits_per_byte"] = total / math.log(2) / text_size.bytes
        figures["bits_per_character"] = total / math.log(2) / text_size.characters
    return {**figures, "tokens": int(tokens)}


def size_of(texts: Sequence[str]) -> TextSize:
    """Measure texts together."""
    return TextSize(sum(len(text.encode()) for text in texts), sum(map(len, texts)))
