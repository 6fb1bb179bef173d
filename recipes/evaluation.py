"""Scores of a trained model on a text: what it writes, and how likely it finds what is written there."""

from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.modeling.progress import progress_bar

from .bootstrap import SIGNATURE
from .document_rows import documents_apart
from .likelihood import likelihood, likelihood_of_rows, size_of
from .metrics import score_texts
from .models import load
from .run_folder import recipe_of
from .text_data import read_documents, read_pairs
from .tokenization import encode_blocks, encode_pairs


# Rows scored at once; it changes nothing but the speed.
_BATCH = 32


def evaluate_pairs(
    name: str, source: Path, target: Path | None, num_beams: int | None = None, target_language: str | None = None
) -> dict[str, Any]:
    """Score a translation model: BLEU, chrF, exact match, and the likelihood of the references.

    Args:
        name: model folder, or model on the Hub.
        source: file of source lines, or a .tsv or .jsonl file with both sides.
        target: file of references, parallel to the source.
        num_beams: beams of the search; None: the model's.
        target_language: code of the references', see `score_texts`; None: what the recipe of the model folder says.

    Raises:
        ValueError: the model or a file cannot be read.
    """
    pairs = read_pairs(source, target)
    model, tokenizer = load(name, "AutoModelForSeq2SeqLM")
    translated = model.translate(pairs["source"][:], tokenizer=tokenizer, num_beams=num_beams, progress=True)
    scores = score_texts(translated, pairs["target"], target_language or _target_language(Path(name)))
    rows = negative_log_likelihood(model, tokenizer, encode_pairs(pairs, tokenizer, max_length=10**9))
    return {
        **scores,
        "num_beams": num_beams or model.generation_config.num_beams or 1,
        **likelihood(rows, size_of(pairs["target"])),
    }


def evaluate_text(name: str, path: Path, stride: int | None = None) -> dict[str, Any]:
    """Score a language model: perplexity and bits per byte of a text, read in rows of `longest_row` tokens.

    Args:
        name: model folder, or model on the Hub.
        path: of the text; see `read_documents`.
        stride: tokens from one row to the next; see `encode_blocks`.

    Raises:
        ValueError: the model or the file cannot be read.
    """
    texts = read_documents(path)
    model, tokenizer = load(name, "AutoModelForCausalLM")
    blocks = encode_blocks(texts, tokenizer, longest_row(model), stride=stride)
    rows = negative_log_likelihood(model, tokenizer, blocks)
    return {**likelihood(rows, size_of(texts["text"])), "interval_signature": SIGNATURE}


def longest_row(model: PreTrainedModel) -> int:
    """Tokens in a row of text: as many as the model takes, or 128 where it takes any number, as an LSTM does."""
    return getattr(model.config, "max_position_embeddings", None) or 128


def _target_language(folder: Path) -> str | None:
    if recipe_of(folder) is None:
        return None
    return yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8")).get("target_language")


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
    collate = DataCollatorForSeq2Seq(tokenizer, model)
    columns = [name for name in ("input_ids", "attention_mask", "labels", "position_ids") if name in rows.column_names]
    found: list[list[float]] = []
    with progress_bar(len(rows), "scoring", "row") as bar:
        for start in range(0, len(rows), _BATCH):
            part = rows.select(range(start, min(start + _BATCH, len(rows)))).select_columns(columns)
            batch = collate(list(part)).to(model.device)
            taken = documents_apart(batch, model.config._attn_implementation)
            logits = model(**taken, use_cache=False).logits.view(*batch["labels"].shape, -1)
            found += likelihood_of_rows(logits, batch["labels"], shifts=not model.config.is_encoder_decoder).tolist()
            bar.update(len(part))
    return found
