"""What text methods of models share: the tokenizer, batches of texts, and what may be written."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from .decoding import Constraints
from .progress import progress_bar


logger = logging.get_logger(__name__)

# Numbers in the largest tensor of logits, 256 MiB of float32: short texts and a large vocabulary make smaller batches.
MOST_LOGITS = 2**26


def in_evaluation(method: Callable) -> Callable:
    """Run a method without gradients and without dropout, and leave the mode of every part of the model as it was.

    Raises:
        ValueError: the model has no weights.
    """

    @functools.wraps(method)
    def run(self, *args, **kwargs):
        if self.device.type == "meta":
            raise ValueError("The model is on the meta device, without weights: load them first.")
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            with torch.no_grad():
                return method(self, *args, **kwargs)
        finally:
            for module in training:
                module.training = True

    return run


def tokenizer_of(model: Any, given: PreTrainedTokenizerBase | None) -> Any:
    """Return the tokenizer that was given, or the one that was saved beside the model, which is then kept.

    Raises:
        ValueError: what was given is none, or none was given and none can be loaded from where the model came from.
    """
    if given is not None:
        if not isinstance(given, PreTrainedTokenizerBase):
            raise ValueError(
                f"tokenizer={str(given)[:80]!r} must be a tokenizer, and is of type {type(given).__name__}: load it with "
                "AutoTokenizer.from_pretrained."
            )
        return given
    if getattr(model, "_own_tokenizer", None) is None:
        if not model.name_or_path:
            raise ValueError("The model was not loaded from a folder or the Hub: give its tokenizer=.")
        revision = getattr(model.config, "_commit_hash", None)
        try:
            model._own_tokenizer = AutoTokenizer.from_pretrained(
                model.name_or_path, config=model.config, **({"revision": revision} if revision else {})
            )
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(
                f"No tokenizer could be loaded from {model.name_or_path}, where the model came from: give tokenizer=. ({error})"
            ) from error
    return model._own_tokenizer


def list_of_texts(name: str, texts: Iterable[str]) -> list[str]:
    """Read texts, from whatever gives them one by one in an order of its own, once.

    Args:
        name: of the argument, for messages.
        texts: strings.

    Raises:
        ValueError: they are something else, or one is no text that can be encoded; the message says what and which.
    """
    if isinstance(texts, str | bytes | Mapping | Set) or not isinstance(texts, Iterable):
        raise ValueError(
            f"{name} must be a list of strings, and is {str(texts)[:80]!r}, of type {type(texts).__name__}."
        )
    listed = list(texts)
    for number, text in enumerate(listed, 1):
        if not isinstance(text, str):
            raise ValueError(f"{name} must be a list of strings; number {number} is {str(text)[:80]!r}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"Number {number} of {name} has half a surrogate pair, {text[error.start]!r}, at character {error.start + 1}, "
                "which is no text."
            ) from None
    return listed


# Option -> (its type, whether a value fits, what would be right).
_RANGES: dict[str, tuple[type, Callable[[float], bool], str]] = {
    **dict.fromkeys(
        ["num_beams", "n_best", "max_tokens_per_batch", "max_new_tokens"],
        (Integral, lambda value: value >= 1, "a whole number, 1 or more"),
    ),
    **dict.fromkeys(
        ["top_k", "no_repeat_ngram_size"], (Integral, lambda value: value >= 0, "a whole number, 0 or more")
    ),
    "seed": (Integral, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2**63 - 1"),
    "alpha": (Real, lambda value: 0 <= value <= 100, "a number from 0 to 100"),
    "temperature": (
        Real,
        lambda value: value == 0 or 1e-4 <= value <= 1e4,
        "0, for the likeliest token each time, or a number from 0.0001 to 10000",
    ),
    "top_p": (Real, lambda value: 0 < value <= 1, "a number above 0, and at most 1"),
}


def check_options(**options: float | None):
    """Make sure that options of a search are in their ranges; None, for an option that is not given, is in all.

    Raises:
        ValueError: one is not.
    """
    for name, value in options.items():
        kind, fits, right = _RANGES[name]
        if value is not None and (isinstance(value, bool) or not (isinstance(value, kind) and fits(value))):
            raise ValueError(f"{name}={value!r} must be {right}.")


@contextmanager
def _target_vocabulary(tokenizer: Any) -> Iterator[None]:
    """FSMT's tokenizer has two vocabularies and two languages, but encodes with the source's alone."""
    if not hasattr(tokenizer, "tgt_vocab_size"):
        yield
        return
    encoder, language = tokenizer.encoder, tokenizer.src_lang
    tokenizer.encoder = {token: index for index, token in tokenizer.decoder.items()}
    tokenizer.src_lang = tokenizer.tgt_lang
    try:
        yield
    finally:
        tokenizer.encoder, tokenizer.src_lang = encoder, language


def encode_targets(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Encode texts with the vocabulary of what a model writes; with the end token, where the tokenizer puts one."""
    with _target_vocabulary(tokenizer):
        return tokenizer(text_target=list(texts), verbose=False)["input_ids"]


def names_of_source(tokenizer: Any, text: str, ids: Sequence[int]) -> list[str]:
    """Name the tokens of a source; where there are two vocabularies, tokenizers name ids by that of the target."""
    if tokenizer.is_fast:
        return tokenizer.convert_ids_to_tokens(ids)
    pieces = tokenizer.tokenize(text)
    names = dict(zip(tokenizer.convert_tokens_to_ids(pieces), pieces, strict=True))
    names.pop(tokenizer.unk_token_id, None)
    return [names.get(index) or tokenizer.convert_ids_to_tokens(index) for index in ids]


def check_known(ids: Sequence[int], size: int, what: str, tokenizer: Any):
    """Make sure that a model has an embedding for every token of a text; an accelerator would not recover from one that has none.

    Args:
        ids: of the text.
        size: tokens that the model knows, from 0 on.
        what: the text, for the message.
        tokenizer: which names the token there.

    Raises:
        ValueError: it has not.
    """
    highest = max(ids, default=0)
    if highest >= size:
        name = tokenizer.convert_ids_to_tokens(highest)
        raise ValueError(
            f"{what} has the token {name!r}, number {highest}; the model has {size} tokens, from 0 on. Is the tokenizer its own?"
        )


def padded(rows: Sequence[Sequence[int]], model: PreTrainedModel, side: str = "right") -> dict[str, torch.Tensor]:
    """Make one tensor of rows of ids, and the mask that is 1 at them and 0 at padding."""
    pad = model.config.pad_token_id or 0
    ids = [torch.tensor(row, dtype=torch.long) for row in rows]
    masks = [torch.ones_like(row) for row in ids]
    return {
        "input_ids": pad_sequence(ids, True, pad, side).to(model.device),
        "attention_mask": pad_sequence(masks, True, 0, side).to(model.device),
    }


def batches_by_length(
    lengths: dict[int, int], budget: int, repeats: int = 1, most_rows: int | None = None
) -> Iterator[list[int]]:
    """Sort by length, the longest first, and cut into batches of at most `budget` tokens, padding and repeats counted.

    Args:
        lengths: number of a text -> its tokens, 1 or more.
        budget: tokens; a text that has more is a batch of its own.
        repeats: how many times a text is in its batch, as with beams.
        most_rows: texts, repeats counted, that a batch has at most, however short they are.
    """
    order = sorted(lengths, key=lambda index: -lengths[index])
    while order:
        rows = min(budget // lengths[order[0]], most_rows or budget)
        size = max(1, rows // repeats)
        yield order[:size]
        order = order[size:]


def batches_with_progress(
    lengths: dict[int, int],
    budget: int,
    what: str,
    progress: bool | None,
    repeats: int = 1,
    most_rows: int | None = None,
) -> Iterator[list[int]]:
    """Make the batches of `batches_by_length`, behind a bar that moves when one is done.

    Args:
        lengths: as for `batches_by_length`, and so are `budget`, `repeats` and `most_rows`.
        budget: tokens.
        what: what is being done, such as "translating".
        progress: show the bar; None: where there is more than one batch.
        repeats: times.
        most_rows: texts.
    """
    batches = list(batches_by_length(lengths, budget, repeats, most_rows))
    with progress_bar(len(lengths), what, "text", shown=len(batches) > 1 if progress is None else progress) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def generator_of(model: Any, seed: int | None) -> torch.Generator | None:
    """Make the source of randomness of a draw; None, which is torch's own, where there is no seed."""
    return None if seed is None else torch.Generator(model.device).manual_seed(int(seed))


# What `generate` does with these is not done here -> the values that ask for nothing.
_ONLY_IN_GENERATE: dict[str, tuple[Any, ...]] = {
    "begin_suppress_tokens": (None, []),
    "encoder_no_repeat_ngram_size": (None, 0),
    "encoder_repetition_penalty": (None, 1.0),
    "exponential_decay_length_penalty": (None,),
    "force_words_ids": (None, []),
    "guidance_scale": (None, 1.0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "repetition_penalty": (None, 1.0),
    "sequence_bias": (None, {}),
    "stop_strings": (None, []),
}


def constraints_of(
    model: PreTrainedModel, no_repeat_ngram_size: int | None, prefixes: Sequence[Sequence[int]] = ()
) -> Constraints:
    """Collect what a model's generation configuration says of end tokens and of tokens that are never written.

    Args:
        model: its `bad_words_ids`, `suppress_tokens` and `pad_token_id` are never written; a warning names settings that
            only `generate` knows. Lengths and their penalty are not settings but arguments here.
        no_repeat_ngram_size: None: what the generation configuration says.
        prefixes: see `Constraints`.

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
    ignored = [name for name, nothing in _ONLY_IN_GENERATE.items() if getattr(config, name, None) not in nothing]
    if ignored:
        logger.warning_once(
            f"Only `generate` knows these settings of the generation configuration: {', '.join(ignored)}."
        )
    banned = (
        {word[0] for word in bad_words} | set(config.suppress_tokens or ()) | ({config.pad_token_id} - {None, *ends})
    )
    size = (config.no_repeat_ngram_size or 0) if no_repeat_ngram_size is None else no_repeat_ngram_size
    return Constraints(ends, tuple(sorted(banned)), size, prefixes)


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
    "MOST_LOGITS",
    "batches_by_length",
    "batches_with_progress",
    "check_known",
    "check_options",
    "constraints_of",
    "encode_targets",
    "generator_of",
    "in_evaluation",
    "list_of_texts",
    "names_of_source",
    "padded",
    "token_log_probs",
    "tokenizer_of",
]
