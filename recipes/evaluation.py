"""How likely a trained model finds the rows of a text."""

import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.modeling.progress import progress_bar

from .document_rows import documents_apart
from .full_rows import stack_rows
from .likelihood import likelihood_of_rows


# Rows scored at once; it changes nothing but the speed.
_BATCH = 32


def longest_row(model: PreTrainedModel) -> int:
    """Tokens in a row of text: as many as the model takes, or 128 where it takes any number, as an LSTM does."""
    return getattr(model.config, "max_position_embeddings", None) or 128


@torch.no_grad()
def negative_log_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset
) -> list[list[float]]:
    """Return of each row the summed negative log-likelihood of its labels (nats, without label smoothing), and their number.

    Args:
        model: encoder-decoder or causal.
        tokenizer: the model's own.
        rows: `input_ids`, `attention_mask` and `labels`, as `encode_pairs` and `encode_blocks` make them.
    """
    model.eval()
    collate = DataCollatorForSeq2Seq(tokenizer, model) if model.config.is_encoder_decoder else stack_rows
    columns = [name for name in ("input_ids", "attention_mask", "labels", "position_ids") if name in rows.column_names]
    found: list[list[float]] = []
    with progress_bar(len(rows), "scoring", "row") as bar:
        for start in range(0, len(rows), _BATCH):
            part = rows.select(range(start, min(start + _BATCH, len(rows)))).select_columns(columns)
            batch = {name: tensor.to(model.device) for name, tensor in collate(list(part)).items()}
            taken = documents_apart(batch, model.config._attn_implementation)
            logits = model(**taken, use_cache=False).logits
            found += likelihood_of_rows(logits, batch["labels"], shifts=not model.config.is_encoder_decoder).tolist()
            bar.update(len(part))
    return found
