"""Does a converted model do what the original does? Both run on the same texts, side by side."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from transformer_theatre.modeling.text_batches import padded


# The largest difference of two logits that is taken for rounding, in float32.
TOLERANCE = 1e-4
TEXTS = (
    "The theatre was full, and nobody spoke.",
    'My friend asked: "Have you seen the dog?"',
    "It's 9.30 p.m.; 1,234 people (or more) are waiting.",
    "Wir sehen uns morgen früh am Bahnhof!",
    "Où est la bibliothèque, s'il vous plaît ?",
    "Сегодня хорошая погода.",
    "to be or not to be",
    "A",
)
_NEW_TOKENS = 32
_ROWS, _LONGEST_ROW = 8, 16  # where there is no tokenizer


@dataclass
class Parity:
    """What two models have in common.

    Args:
        texts: rows that both have read.
        text_is: where they came from.
        tokens: logits compared, for each of which there is a whole vocabulary of them.
        largest_logit: of the original, absolute.
        largest_difference: between two logits of the same token, absolute.
        greedy_identical: texts for which greedy search wrote the same tokens.
        beam_4_identical: texts for which beam search with 4 beams did.
    """

    texts: int
    text_is: str
    tokens: int = 0
    largest_logit: float = 0.0
    largest_difference: float = 0.0
    greedy_identical: int = 0
    beam_4_identical: int = 0

    def check(self):
        """Raise RuntimeError if logits differ by more than rounding."""
        if not self.largest_difference <= TOLERANCE:
            raise RuntimeError(
                f"the converted model is not the original: logits differ by {self.largest_difference:.3g}, and "
                f"{TOLERANCE:.0e} is allowed; nothing was written"
            )

    def to_dict(self) -> dict[str, Any]:
        """Give what parity.json holds."""
        return asdict(self)

    def __str__(self):
        return (
            f"logits: largest difference {self.largest_difference:.2g} (largest logit {self.largest_logit:.3g}; "
            f"{self.tokens} tokens of {self.texts} texts: {self.text_is})\n"
            f"greedy search: {self.greedy_identical} of {self.texts} outputs identical\n"
            f"beam search, 4 beams: {self.beam_4_identical} of {self.texts} outputs identical"
        )


def token_rows(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], config: Any) -> list[list[int]]:
    """Turn texts into what both models read.

    Args:
        tokenizer: the original's.
        texts: one row each; those that have no token are left out, and so are tokens that the model does not know.
        config: of our model; a row has at most half as many tokens as it has positions.
    """
    size, longest = source_size(config), config.max_position_embeddings // 2
    rows = [[token for token in row if token < size][:longest] for row in tokenizer(list(texts))["input_ids"]]
    return [row for row in rows if row]


def random_rows(config: Any) -> list[list[int]]:
    """Draw rows of tokens, none of them special, for a model without tokenizer."""
    generator = torch.Generator().manual_seed(0)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    special = {config.pad_token_id, config.bos_token_id, *ends}
    plain = torch.tensor([number for number in range(source_size(config)) if number not in special])
    longest = min(_LONGEST_ROW, config.max_position_embeddings // 2)
    lengths = [1 + index * (longest - 1) // (_ROWS - 1) for index in range(_ROWS)]
    return [plain[torch.randint(len(plain), (length,), generator=generator)].tolist() for length in lengths]


def source_size(config: Any) -> int:
    """Tokens that a model of ours reads."""
    return getattr(config, "source_vocab_size", None) or config.vocab_size


def compare(original: PreTrainedModel, converted: PreTrainedModel, rows: Sequence[list[int]], text_is: str) -> Parity:
    """Run two models on the same rows of token ids.

    An encoder-decoder reads padded batches, and scores what the original writes; a decoder reads the rows one by one. Both
    models are float32, and on the CPU.
    """
    parity = Parity(texts=len(rows), text_is=text_is)
    largest = torch.zeros(())
    with torch.no_grad(), _quiet():
        size = _ROWS if converted.config.is_encoder_decoder else 1
        for start in range(0, len(rows), size):
            inputs = padded(rows[start : start + size], converted)
            greedy, same = _generate_both(original, converted, inputs, num_beams=1)
            parity.greedy_identical += same
            parity.beam_4_identical += _generate_both(original, converted, inputs, num_beams=4)[1]
            if converted.config.is_encoder_decoder:
                inputs["decoder_input_ids"] = _without_padding(greedy, converted.config)
            # FSMT's forward leaves the causal mask out where there is a cache.
            theirs, ours = (model(**inputs, use_cache=False).logits for model in (original, converted))
            parity.tokens += theirs.shape[0] * theirs.shape[1]
            parity.largest_logit = max(parity.largest_logit, theirs[theirs.isfinite()].abs().max().item())
            # Where a bias forbids a token, both are minus infinity. What is no number stays so in the maximum.
            largest = torch.maximum(largest, torch.where(theirs == ours, 0.0, (theirs - ours).abs()).max())
    parity.largest_difference = largest.item()
    return parity


def _without_padding(written: torch.Tensor, config: Any) -> torch.Tensor:
    """Repeat the end token where a row ended before the others: models differ in whether padding is looked at."""
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    after_start = written[:, 1:]
    return torch.cat([written[:, :1], after_start.masked_fill(after_start == config.pad_token_id, end)], -1)


def _generate_both(
    original: PreTrainedModel, converted: PreTrainedModel, inputs: dict[str, torch.Tensor], num_beams: int
) -> tuple[torch.Tensor, int]:
    """Let both write with the same settings; return what the original wrote, and how many rows are the same."""
    limit = converted.config.max_position_embeddings
    room = _NEW_TOKENS if converted.config.is_encoder_decoder else limit - inputs["input_ids"].shape[1]
    options = {"num_beams": num_beams, "do_sample": False, "max_new_tokens": max(1, min(_NEW_TOKENS, room, limit - 1))}
    with sized_by_target(original), sized_by_target(converted):
        theirs = original.generate(**inputs, **options, **without_faulty_cache(original))
        ours = converted.generate(**inputs, **options)
    if theirs.shape == ours.shape:
        return theirs, int((theirs == ours).all(-1).sum())
    return theirs, sum(a == b for a, b in zip(*(_trimmed(t, converted) for t in (theirs, ours)), strict=True))


def _trimmed(rows: torch.Tensor, model: PreTrainedModel) -> list[list[int]]:
    """Take padding off the ends of rows, as batches of different lengths have it."""
    trimmed = []
    for row in rows.tolist():
        while row and row[-1] == model.config.pad_token_id:
            row.pop()
        trimmed.append(row)
    return trimmed


def without_faulty_cache(model: PreTrainedModel) -> dict[str, bool]:
    """Give the options of `generate` with which FSMT of transformers 5.4 searches as it should.

    Where it has fewer layers in the decoder than in the encoder, its beams go astray with the cache, and not without it.
    """
    return {"use_cache": False} if model.config.model_type == "fsmt" else {}


@contextlib.contextmanager
def sized_by_target(model: PreTrainedModel) -> Iterator[None]:
    """Help the beam search of transformers 5.4, which takes Marian's `vocab_size`, the source's, for the target's."""
    before = model.config.vocab_size
    model.config.vocab_size = getattr(model.config, "decoder_vocab_size", None) or before
    try:
        yield
    finally:
        model.config.vocab_size = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from telling which settings of generation go unused."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
