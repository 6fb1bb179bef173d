"""What text methods of models share: the tokenizer, batches of texts, and what may be written."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from .decoding import Constraints
from .progress import progress_bar


def in_evaluation(method: Callable) -> Callable:
    """Run a method without gradients and without dropout, and leave the model's mode as it was."""

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return method(self, *args, **kwargs)
        finally:
            self.train(training)

    return run


def tokenizer_of(model: Any, given: PreTrainedTokenizerBase | None) -> Any:
    """Return the tokenizer that was given, or the one that was saved beside the model, which is then kept.

    Raises:
        ValueError: none was given, and the model was not loaded from anywhere.
    """
    if given is not None:
        return given
    if getattr(model, "_own_tokenizer", None) is None:
        if not model.name_or_path:
            raise ValueError("The model was not loaded from a folder or the Hub: give its tokenizer=.")
        revision = getattr(model.config, "_commit_hash", None)
        model._own_tokenizer = AutoTokenizer.from_pretrained(
            model.name_or_path, config=model.config, **({"revision": revision} if revision else {})
        )
    return model._own_tokenizer


def check_texts(name: str, texts: Sequence[str]):
    """Make sure that texts are a list of strings.

    Raises:
        ValueError: they are not; the message names the argument and what is wrong.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        wrong = texts if isinstance(texts, str) else next(text for text in texts if not isinstance(text, str))
        raise ValueError(f"{name} must be a list of strings, and has {str(wrong)[:80]!r}.")


# Option -> (whether a value fits, what would be right).
_RANGES: dict[str, tuple[Callable[[float], bool], str]] = {
    **dict.fromkeys(
        ["num_beams", "n_best", "max_tokens_per_batch", "max_new_tokens"], (lambda value: value >= 1, "1 or more")
    ),
    **dict.fromkeys(
        ["alpha", "temperature", "top_k", "no_repeat_ngram_size"], (lambda value: value >= 0, "0 or more")
    ),
    "top_p": (lambda value: 0 < value <= 1, "above 0, and at most 1"),
}


def check_options(**options: float):
    """Make sure that options of a search are in their ranges.

    Raises:
        ValueError: one is not.
    """
    for name, value in options.items():
        fits, right = _RANGES[name]
        if not fits(value):
            raise ValueError(f"{name}={value} must be {right}.")


def padded(rows: Sequence[Sequence[int]], model: PreTrainedModel, side: str = "right") -> dict[str, torch.Tensor]:
    """Make one tensor of rows of ids, and the mask that is 1 at them and 0 at padding."""
    pad = model.config.pad_token_id or 0
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    masks = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": pad_sequence(ids, True, pad, side).to(model.device),
        "attention_mask": pad_sequence(masks, True, 0, side).to(model.device),
    }


def batches_by_length(lengths: dict[int, int], budget: int, repeats: int = 1) -> Iterator[list[int]]:
    """Sort by length, the longest first, and cut into batches of at most `budget` tokens, padding and repeats counted.

    Args:
        lengths: number of a text -> its tokens, 1 or more.
        budget: tokens; a text that has more is a batch of its own.
        repeats: how many times a text is in its batch, as with beams.
    """
    order = sorted(lengths, key=lambda index: -lengths[index])
    while order:
        size = max(1, budget // repeats // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def batches_with_progress(
    lengths: dict[int, int], budget: int, what: str, progress: bool | None, repeats: int = 1
) -> Iterator[list[int]]:
    """Make the batches of `batches_by_length`, behind a bar that moves when one is done.

    Args:
        lengths: as for `batches_by_length`, and so are `budget` and `repeats`.
        budget: tokens.
        what: what is being done, such as "translating".
        progress: show the bar; None: where there is more than one batch.
        repeats: times.
    """
    batches = list(batches_by_length(lengths, budget, repeats))
    with progress_bar(len(lengths), what, "text", shown=len(batches) > 1 if progress is None else progress) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def generator_of(model: Any, seed: int | None) -> torch.Generator | None:
    """Make the source of randomness of a draw; None, which is torch's own, where there is no seed."""
    return None if seed is None else torch.Generator(model.device).manual_seed(seed)


def constraints_of(
    model: PreTrainedModel, no_repeat_ngram_size: int, prefixes: Sequence[Sequence[int]] = ()
) -> Constraints:
    """Collect what a model's generation configuration says of end tokens and of tokens that are never written.

    Raises:
        ValueError: it bans a word of several tokens, which only `generate` knows how to do.
    """
    config = model.generation_config
    end = config.eos_token_id
    ends = tuple(end) if isinstance(end, list) else () if end is None else (end,)
    bad_words = config.bad_words_ids or []
    if any(len(word) > 1 for word in bad_words):
        raise ValueError(
            "The generation configuration has bad_words_ids of several tokens; only `generate` knows them."
        )
    banned = {word[0] for word in bad_words} | ({config.pad_token_id} - {None, *ends})
    return Constraints(ends, tuple(sorted(banned)), no_repeat_ngram_size, prefixes)


def token_log_probs(
    logits_of: Callable[[list[int]], torch.Tensor],
    targets: Sequence[Sequence[int]],
    lengths: dict[int, int],
    budget: int,
    progress: bool | None,
) -> list[list[float]]:
    """Score texts, sorted by length and in batches, and return the log-probability (nats) of every token of each.

    Args:
        logits_of: numbers of texts -> their logits, (texts, tokens, vocabulary), aligned with the targets.
        targets: ids of every text.
        lengths: tokens that each text takes of a batch's budget.
        budget: padded tokens in a batch.
        progress: show a bar; None: where there is more than one batch.
    """
    scores: list[list[float]] = [[] for _ in targets]
    for batch in batches_with_progress(lengths, budget, "scoring", progress):
        logits = logits_of(batch)
        for row, index in enumerate(batch):
            ids = torch.tensor(targets[index], dtype=torch.long, device=logits.device)[:, None]
            log_probs = logits[row, : len(ids)].float().log_softmax(-1)
            scores[index] = log_probs.gather(1, ids)[:, 0].tolist()
    return scores


__all__ = [
    "batches_by_length",
    "batches_with_progress",
    "check_options",
    "check_texts",
    "constraints_of",
    "generator_of",
    "in_evaluation",
    "padded",
    "token_log_probs",
    "tokenizer_of",
]
