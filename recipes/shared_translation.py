"""Translating a set of texts on all processes together."""

import copy
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from transformer_theatre.modeling.progress import progress_bar
from transformer_theatre.modeling.text_batches import MOST_LOGITS, batches_by_length


# Padded source tokens in a batch, times beams: what `model.translate` has unless it is told.
_TOKENS = 8192


def whole_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model that each process can use by itself: a copy where they share its weights, else the model.

    Where devices share the weights (FSDP2), all must take every step of the model together, which they do not when each writes
    texts of its own. All processes must call this together.
    """
    if not any(isinstance(weight, DTensor) for weight in model.parameters()):
        return model
    whole = {
        name: value.full_tensor() if isinstance(value, DTensor) else value
        for name, value in model.state_dict().items()
    }
    dtype = next(iter(whole.values())).dtype
    config: Any = copy.deepcopy(model.config)
    config.distributed_config = None
    with torch.random.fork_rng(devices=[]):  # measuring changes nothing of the training that goes on
        # Sharding makes a class of its own, below the model's.
        model_class: Any = next(kind for kind in type(model).__mro__ if not issubclass(kind, FSDPModule))
        alone = model_class(config)
    alone.load_state_dict(whole)
    alone.generation_config = copy.deepcopy(model.generation_config)
    return alone.to(device=model.device, dtype=dtype).eval()


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
    alone: Any = whole_model(model)
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
