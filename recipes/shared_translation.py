"""Translating a set of texts on all processes together."""

from typing import Any

from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.modeling.progress import progress_bar
from transformer_theatre.modeling.text_batches import MOST_LOGITS, batches_by_length

from .sharding import whole_copy


# Padded source tokens in a batch, times beams: what `model.translate` has unless it is told.
_TOKENS = 8192


def translate_together(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Dataset,
    num_beams: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    shown: bool = True,
) -> list[str]:
    """Translate texts by the model's own `translate`, each on one process, and give all translations to all processes.

    The batches are those of one process, which are dealt out: how many processes there are changes nothing in a translation.

    Args:
        model: encoder-decoder, the same on all processes, or shared by them.
        tokenizer: the model's own.
        texts: columns `source` and `input_ids`, its tokens.
        num_beams: of the search; 1: greedy.
        rank: number of this process.
        world_size: processes.
        shown: show the bar, on the first process.

    Returns:
        A translation of each text, in their order.
    """
    # Sharing processes take every step of a model together; writing texts of its own, each needs one to itself.
    whole: Any = whole_copy(model)
    alone = whole.to(model.device)
    lengths = {row: len(ids) for row, ids in enumerate(texts["input_ids"])}
    sources = texts["source"][:]
    most_rows = MOST_LOGITS // model.config.vocab_size
    mine = list(batches_by_length(lengths, _TOKENS, num_beams, most_rows))[rank::world_size]
    found: list[tuple[int, str]] = []
    total = sum(map(len, mine))
    with progress_bar(total, "translating", "text", shown=shown and rank == 0) as bar:
        for batch in mine:
            written = alone.translate(
                [sources[row] for row in batch],
                tokenizer=tokenizer,
                num_beams=num_beams,
                max_tokens_per_batch=_TOKENS,
                progress=False,
            )
            found += zip(batch, written, strict=True)
            bar.update(len(batch))
    return [text for _, text in sorted(gather_object(found) if world_size > 1 else found)]
