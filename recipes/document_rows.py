"""Rows that hold several documents, none of which sees another: positions that begin anew, and what a kernel wants of them.

The library's masks (eager, sdpa, flex) find the documents of a row by its `position_ids`, where no `attention_mask` is given.
Flash kernels know no mask: they take all rows as one, and where each document begins and ends.
"""

from typing import Any

import numpy as np
import torch

from transformer_theatre.modeling.modeling_layers import next_tokens


def positions_in_documents(ids: np.ndarray, end: int | None) -> np.ndarray:
    """Number the tokens of a row from 0, and anew at each end token, which begins the document that follows it.

    As a label it still belongs to the document before it: the last token of that predicts it.

    Args:
        ids: of the row, (tokens,).
        end: the token between documents; None: there is none.
    """
    places = np.arange(len(ids), dtype=np.int32)
    return places - np.maximum.accumulate(np.where(ids == end, places, 0)).astype(np.int32)


def documents_apart(inputs: dict[str, Any], attention: str) -> dict[str, Any]:
    """Make of a batch what a model takes whose attention must not go across documents.

    Args:
        inputs: a batch; one without `position_ids` is left as it is. Rows are full: there is no padding.
        attention: the model's `_attn_implementation`.

    Returns:
        The batch without `attention_mask`, beside which the library would not look for documents. For flash kernels all rows
        as one, (1, rows * tokens), with `cu_seq_lens_q` and `cu_seq_lens_k`, where documents begin and the last one ends
        (documents + 1,), and `max_length_q` and `max_length_k`, tokens of the longest one.
    """
    if "position_ids" not in inputs:
        return inputs
    kept = {name: value for name, value in inputs.items() if name != "attention_mask"}
    if "flash" not in attention:
        return kept
    flat = {name: value.reshape(1, -1) if torch.is_tensor(value) else value for name, value in kept.items()}
    if "labels" in inputs:
        # The first token of a row is not what the last of the row before predicts.
        following = next_tokens(inputs["labels"], inputs["position_ids"].shape[1])
        flat["labels"] = torch.nn.functional.pad(following.reshape(1, -1), (1, 0), value=-100)
    begins = (flat["position_ids"][0] == 0).nonzero()[:, 0].int()
    borders = torch.cat([begins, begins.new_tensor([flat["position_ids"].shape[1]])])
    longest = int(borders.diff().max())
    return {
        **flat,
        "cu_seq_lens_q": borders,
        "cu_seq_lens_k": borders,
        "max_length_q": longest,
        "max_length_k": longest,
    }
