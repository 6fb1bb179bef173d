"""Scores of a trained model on a text: what it writes, and how likely it finds what is written there."""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import DataCollatorForSeq2Seq, PreTrainedModel, PreTrainedTokenizerBase

from .metrics import score_texts
from .models import load
from .text_data import read_documents, read_pairs
from .tokenization import encode_blocks, encode_pairs


# Rows scored at once; it changes nothing but the speed.
_BATCH = 32


def evaluate_pairs(name: str, source: Path, target: Path | None, num_beams: int | None = None) -> dict[str, Any]:
    """Score a translation model: BLEU, chrF, exact match, and the likelihood of the references.

    Args:
        name: model folder, or model on the Hub.
        source: file of source lines, or a .tsv or .jsonl file with both sides.
        target: file of references, parallel to the source.
        num_beams: beams of the search; None: the model's.

    Raises:
        ValueError: the model or a file cannot be read.
    """
    pairs = read_pairs(source, target)
    model, tokenizer = load(name, "AutoModelForSeq2SeqLM")
    translated = model.translate(pairs["source"][:], tokenizer=tokenizer, num_beams=num_beams, progress=True)
    scores = score_texts(translated, pairs["target"])
    nll, tokens = negative_log_likelihood(model, tokenizer, encode_pairs(pairs, tokenizer, max_length=10**9))
    return {
        **scores,
        "num_beams": num_beams or model.generation_config.num_beams or 1,
        **likelihood(nll, tokens, sum(len(text.encode()) for text in pairs["target"])),
    }


def evaluate_text(name: str, path: Path) -> dict[str, Any]:
    """Score a language model: perplexity and bits per byte of a text, read in rows of `longest_row` tokens.

    Raises:
        ValueError: the model or the file cannot be read.
    """
    texts = read_documents(path)
    model, tokenizer = load(name, "AutoModelForCausalLM")
    blocks = encode_blocks(texts, tokenizer, longest_row(model))
    nll, tokens = negative_log_likelihood(model, tokenizer, blocks)
    return likelihood(nll, tokens, sum(len(text.encode()) for text in texts["text"]))


def longest_row(model: PreTrainedModel) -> int:
    """Tokens in a row of text: as many as the model takes, or 128 where it takes any number, as an LSTM does."""
    return getattr(model.config, "max_position_embeddings", None) or 128


def likelihood(nll: float, tokens: int, text_bytes: int) -> dict[str, float | int]:
    """Express a summed negative log-likelihood (nats) per token and per byte of text."""
    return {
        "nll": nll / tokens,
        "perplexity": math.exp(nll / tokens),
        "bits_per_byte": nll / math.log(2) / text_bytes,
        "tokens": tokens,
    }


@torch.no_grad()
def negative_log_likelihood(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Dataset
) -> tuple[float, int]:
    """Sum the negative log-likelihood (nats, without label smoothing) of all labels, and count them.

    Args:
        model: encoder-decoder or causal.
        tokenizer: the model's own.
        rows: `input_ids`, `attention_mask` and `labels`, as `encode_pairs` and `encode_blocks` make them.
    """
    model.eval()
    collate = DataCollatorForSeq2Seq(tokenizer, model)
    columns = ["input_ids", "attention_mask", "labels"]
    total, count = 0.0, 0
    for start in range(0, len(rows), _BATCH):
        part = rows.select(range(start, min(start + _BATCH, len(rows)))).select_columns(columns)
        batch = collate(list(part)).to(model.device)
        labels = batch["labels"] if model.config.is_encoder_decoder else batch["labels"][:, 1:]
        tokens = int((labels != -100).sum())
        total, count = total + model(**batch).loss.item() * tokens, count + tokens
    return total, count
