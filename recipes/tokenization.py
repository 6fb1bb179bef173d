"""Tokenizers trained from the user's text, and text turned into the token ids that the models train on.

Every tokenizer is a plain fast one, which AutoTokenizer loads without this package and without `trust_remote_code`. Text is
only ever text: a `</s>` that someone typed is spelled out, and never becomes the special token.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER
from transformers.utils import logging

from transformer_theatre.modeling.text_batches import encode_targets

from .bad_lines import BadLines
from .document_rows import positions_in_documents
from .first_line import first_line
from .text_data import is_local, near_names


logger = logging.get_logger(__name__)

PAIR_TOKENS = ("<pad>", "<s>", "</s>")  # ids 0, 1, 2: padding, beginning, end
DOCUMENT_TOKENS = ("<pad>", "<|endoftext|>")  # ids 0, 1: padding, and what stands between documents
UNKNOWN_TOKEN = "<unk>"
BYTES = 256
IGNORED = -100  # a label that no loss counts

# GPT-2's pattern with two changes. Digits stand alone, so that a number never seen is spelled like any other; and marks
# belong to the letters before them, so that words of Hindi or decomposed accents stay whole.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+(?!\S)|\s+"
CHARACTERS = r"[\s\S]"
# Where neither pattern can match across: before a space or newline that follows something else.
SEAM = re.compile(r"(?<=\S)[ \n]")
PIECE = 1 << 17  # characters encoded at once; the library needs some 300 bytes for each


def train_bpe_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    *,
    appends_eos: bool = True,
    lowercase: bool = False,
    model_max_length: int | None = None,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: any Unicode text becomes ids, and exactly that text again.

    Args:
        texts: for an encoder-decoder both sides, since source and target share the vocabulary (section 5.1).
        vocab_size: pieces, the 256 bytes and the special tokens included.
        appends_eos: True, for pairs: `<pad>` 0, `<s>` 1, `</s>` 2, and every encoded text ends with `</s>`. A space is
            put before each text, and taken away on decoding: the first word of a sentence is then the same piece as
            elsewhere. False, for language models: `<pad>` 0, `<|endoftext|>` 1, and nothing is added, as a prompt and
            its continuation must be pieces of one text.
        lowercase: drop the case of all text, labels included; decoding then gives lower case.
        model_max_length: tokens, recorded with the tokenizer; None: no limit.

    Raises:
        TypeError: `texts` is one string.
        ValueError: `vocab_size` is too small, or there is no text.
    """
    special_tokens = PAIR_TOKENS if appends_eos else DOCUMENT_TOKENS
    if vocab_size < BYTES + len(special_tokens):
        least = f"{BYTES + len(special_tokens)}: {BYTES} bytes and {len(special_tokens)} special tokens"
        raise ValueError(f"vocab_size={vocab_size} must be at least {least}.")
    backend = _byte_pair_backend(lowercase=lowercase, prefix_space=appends_eos)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair that occurs once teaches nothing about other text
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(chain.from_iterable(map(pieces_of, _stream(texts))), trainer)
    found = backend.get_vocab_size()
    if found < vocab_size:
        logger.warning(f"The text yields {found:,} pieces, fewer than the vocab_size={vocab_size:,} asked for.")
    return fast_tokenizer(backend, special_tokens, appends_eos, model_max_length)


def train_character_tokenizer(
    texts: Iterable[str], *, appends_eos: bool = False, model_max_length: int | None = None
) -> PreTrainedTokenizerFast:
    """Make a tokenizer with one id for each character (code point) of the texts, white space included.

    The special tokens come first, then `<unk>`, for characters that are not in the texts, then the characters in order.

    Args:
        texts: whose characters to take.
        appends_eos: False, for language models: `<pad>` 0, `<|endoftext|>` 1, and nothing is added. True, for pairs:
            `<pad>` 0, `<s>` 1, `</s>` 2, and every encoded text ends with `</s>`.
        model_max_length: tokens, recorded with the tokenizer; None: no limit.

    Raises:
        TypeError: `texts` is one string.
        ValueError: there is no text.
    """
    special_tokens = PAIR_TOKENS if appends_eos else DOCUMENT_TOKENS
    alphabet: set[str] = set()
    for text in _stream(texts):
        alphabet.update(text)
    tokens = [*special_tokens, UNKNOWN_TOKEN, *sorted(alphabet)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN_TOKEN))
    backend.pre_tokenizer = _split_characters()
    backend.decoder = decoders.Fuse()
    return fast_tokenizer(backend, special_tokens, appends_eos, model_max_length, unk_token=UNKNOWN_TOKEN)


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder, such as that of a run, or by its name on the Hub.

    Raises:
        ValueError: there is no such folder, or it holds no tokenizer that can be read.
    """
    path, local = Path(name).expanduser(), is_local(name)
    if local and not path.is_dir():
        problem = "it is a file" if path.exists() else near_names(path).removesuffix(".")
        raise ValueError(f"There is no tokenizer folder {path}: {problem}.")
    if local and not any((path / file).is_file() for file in ("tokenizer.json", "tokenizer_config.json")):
        raise ValueError(f"The folder {path} holds no tokenizer: tokenizer.json is missing.")
    try:
        return AutoTokenizer.from_pretrained(path if local else str(name), trust_remote_code=False)
    except Exception as error:  # the Hub's client and the tokenizers library raise their own
        raise ValueError(f"The tokenizer of {name} cannot be loaded: {first_line(error)}") from error


def note_limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, most: int | None = None):
    """Note in a tokenizer how many tokens its model takes at most, which is by what the library's pipelines cut texts.

    That is where positions are learned; what a tokenizer from elsewhere says of the model that it was made for does not count.

    Args:
        tokenizer: of the model.
        model: has the number of positions.
        most: tokens, where the model has learned from texts that were cut to so many.
    """
    learned = getattr(model.config, "position_embeddings", "learned") == "learned"
    limit = getattr(model.config, "max_position_embeddings", None) if learned else None
    limits = [number for number in (limit, most) if number is not None]
    tokenizer.model_max_length = min(limits, default=VERY_LARGE_INTEGER)


def encode_pairs(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase, max_length: int, bad_lines: str = "error"
) -> Dataset:
    """Turn pairs into token ids.

    Args:
        dataset: columns `source` and `target`, and `origin` for messages.
        tokenizer: for both sides.
        max_length: tokens that a side may have, the end token included.
        bad_lines: what to do with a longer side: "error", or "skip" to leave the pair out and say so.

    Returns:
        The columns of `dataset` and `input_ids`, `attention_mask`, `labels`, `length`: tokens of the longer side.

    Raises:
        ValueError: a side is too long; the message names its origin.
    """
    bad = BadLines(bad_lines, "pairs")
    encoded = dataset.map(encode_batch, batched=True, fn_kwargs={"tokenizer": tokenizer}, desc="encoding pairs")
    too_long = [row for row, length in enumerate(encoded["length"][:]) if length > max_length]
    for row in too_long:
        pair = encoded[row]
        sizes = f"{len(pair['input_ids']):,} source and {len(pair['labels']):,} target tokens"
        problem = f"the pair has {sizes}, more than max_length={max_length} allows on a side"
        bad.report(pair.get("origin", f"pair {row + 1}"), problem)
    bad.close(len(encoded) - len(too_long))
    if too_long:
        encoded = encoded.select(sorted(set(range(len(encoded))).difference(too_long)))
    warn_of_unknown(tokenizer, chain(encoded["input_ids"], encoded["labels"]))
    return encoded


def encode_blocks(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    block_size: int,
    *,
    stride: int | None = None,
    apart: bool = False,
) -> Dataset:
    """Cut documents into blocks of token ids such that each token is predicted exactly once.

    The documents are put in a row. Where there are several, the end token comes before the first and after each, so that
    every document begins and ends alike. Of a single one, nothing comes before its first token, which is therefore the
    only one that is never predicted. The last token of a block predicts the first one of the next, which is therefore its last
    label. All blocks are full, and none is padded: the last one reaches back as far as it needs to. Only a text that is
    shorter than a block makes a shorter one.

    Args:
        dataset: column `text`, and `origin` if there is one.
        tokenizer: its own special tokens are not added.
        block_size: tokens that a model reads of a block: at most its positions.
        stride: tokens from the beginning of one block to that of the next. None: `block_size`, the most there can be. Less
            gives predictions more context: of a block, what its first `block_size - stride` tokens predict was predicted before.
        apart: add `position_ids`, by which the documents of a block do not see one another; see `documents_apart`.

    Returns:
        Columns `input_ids`, `attention_mask`, `labels` and `length` (tokens). The labels are the ids and the token after them, to
        be shifted by the model, see `next_tokens`; -100 where a token is not predicted in this block: those that are not -100
        are all tokens, once. Where the documents have an `origin`, so has a block: that of the document it begins in, and the
        token there.

    Raises:
        ValueError: the sizes do not fit, the text has fewer than two tokens, or several documents meet a tokenizer
            without end token.
    """
    stride = block_size if stride is None else stride
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride={stride} must be at least 1 and at most block_size={block_size} tokens.")
    tokens, begins = _join_documents(dataset["text"], tokenizer)
    if len(tokens) < 2:
        what = f"The text {dataset['origin'][0]}" if len(dataset) and "origin" in dataset.column_names else "The text"
        raise ValueError(f"{what} has {len(tokens)} tokens; at least 2 are needed to predict one from the other.")
    columns, starts = _cut_blocks(tokens, block_size, stride)
    if "origin" in dataset.column_names:
        documents = np.searchsorted(begins, starts, side="right") - 1
        places = zip(documents, starts - begins[documents], strict=True)
        origins = dataset["origin"][:]
        columns["origin"] = [f"{origins[document]} from token {at + 1:,} on" for document, at in places]
    if apart:
        columns["position_ids"] = [positions_in_documents(ids, tokenizer.eos_token_id) for ids in columns["input_ids"]]
    return Dataset.from_dict(columns)


def _byte_pair_backend(*, lowercase: bool, prefix_space: bool) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    steps = [normalizers.Lowercase()] * lowercase + [normalizers.Prepend(" ")] * prefix_space
    if steps:
        backend.normalizer = normalizers.Sequence(steps)
    backend.pre_tokenizer = _split_words()
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), *[decoders.Strip(" ", 1, 0)] * prefix_space])
    return backend


def _split_words() -> pre_tokenizers.PreTokenizer:
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(WORDS), "isolated"), to_bytes])


def _split_characters() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(CHARACTERS), "isolated")


def fast_tokenizer(
    backend: Tokenizer,
    special_tokens: tuple[str, ...],
    appends_eos: bool,
    model_max_length: int | None,
    **more_tokens: str,
) -> PreTrainedTokenizerFast:
    """Wrap a trained tokenizer so that AutoTokenizer loads it; the last special token ends texts if `appends_eos`."""
    pad_token, bos_token, eos_token = special_tokens[0], special_tokens[1], special_tokens[-1]
    if appends_eos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"$A {eos_token}",
            pair=f"$A {eos_token} $B {eos_token}",
            special_tokens=[(eos_token, special_tokens.index(eos_token))],
        )
    limit = {} if model_max_length is None else {"model_max_length": model_max_length}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=pad_token,
        bos_token=bos_token,
        eos_token=eos_token,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        split_special_tokens=True,
        # A decoder goes on from the last token, which must not be padding.
        padding_side="right" if appends_eos else "left",
        **more_tokens,
        **limit,
    )


def _stream(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, str):
        raise TypeError(f"texts={texts[:20]!r}... is one string; give a list of strings, such as [text].")
    stream = iter(texts)
    first = next(stream, None)
    if first is None:
        raise ValueError("There is no text to train a tokenizer on: texts is empty.")
    return chain([first], stream)


def pieces_of(text: str) -> Iterator[str]:
    """Cut a long text where no word of it is cut."""
    start = 0
    while seam := SEAM.search(text, start + PIECE):
        yield text[start : seam.start()]
        start = seam.start()
    yield text[start:]


def can_be_cut(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Tell whether the tokens of pieces are those of the whole, as of the tokenizers made here for language models."""
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        return False
    backend = tokenizer.backend_tokenizer
    if backend.normalizer is not None or backend.pre_tokenizer is None:
        return False
    return backend.pre_tokenizer.__getstate__() in [_split_words().__getstate__(), _split_characters().__getstate__()]


def _join_documents(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """Encode documents and put them in a row: (tokens,), int32; say where each one begins in it."""
    cut = can_be_cut(tokenizer)
    documents = []
    for text in texts:
        pieces = pieces_of(text) if cut else [text]
        rows = [tokenizer(piece, add_special_tokens=False, verbose=False)["input_ids"] for piece in pieces]
        documents.append(np.array(list(chain.from_iterable(rows)), dtype=np.int32))
    begins = np.cumsum([0, *map(len, documents)])[:-1]
    if len(documents) > 1:
        if tokenizer.eos_token_id is None:
            raise ValueError(f"{len(documents):,} documents need an end token between them; the tokenizer has none.")
        end = np.array([tokenizer.eos_token_id], dtype=np.int32)
        begins += np.arange(len(documents))  # each with the end token before it
        documents = [end, *chain.from_iterable((document, end) for document in documents)]
    tokens = np.concatenate(documents) if documents else np.array([], dtype=np.int32)
    warn_of_unknown(tokenizer, (document.tolist() for document in documents))
    return tokens, begins


def _cut_blocks(tokens: np.ndarray, block_size: int, stride: int) -> tuple[dict[str, list[Any]], np.ndarray]:
    """Cut tokens into the columns of blocks; say at which token each one begins."""
    columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": [], "length": []}
    starts = []
    predicted = 1  # tokens, from the first on, that need no prediction any more
    for start in range(0, len(tokens), stride):
        if predicted == len(tokens):
            break
        start = max(0, min(start, len(tokens) - 1 - block_size))
        row = tokens[start : start + block_size + 1]
        block, labels = row[:-1], row.copy()
        labels[: predicted - start] = IGNORED
        predicted = start + len(row)
        starts.append(start)
        for name, value in zip(columns, (block, np.ones_like(block), labels, len(block)), strict=True):
            columns[name].append(value)
    return columns, np.array(starts)


def encode_batch(batch: Mapping[str, list[str]], tokenizer: PreTrainedTokenizerBase) -> dict[str, list[Any]]:
    """Turn texts of `source` and `target` into token ids, with the `length` of the longer side."""
    sources = tokenizer(batch["source"], verbose=False)
    labels = encode_targets(tokenizer, batch["target"])
    lengths = [max(len(source), len(target)) for source, target in zip(sources["input_ids"], labels, strict=True)]
    return {
        "input_ids": sources["input_ids"],
        "attention_mask": sources["attention_mask"],
        "labels": labels,
        "length": lengths,
    }


def unknown_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Say which token stands for what a tokenizer does not know; None where it knows all."""
    unknown: Any = tokenizer.unk_token_id
    # GPT-2's tokenizer gives that name to its end token, though nothing is unknown to it.
    return None if unknown == tokenizer.eos_token_id else unknown


def warn_of_unknown(tokenizer: PreTrainedTokenizerBase, rows: Iterable[list[int]]):
    """Say how many tokens of rows stand for what a tokenizer does not know, if any do."""
    unknown = unknown_token(tokenizer)
    if unknown is None:
        return
    count = sum(row.count(unknown) for row in rows)
    if count:
        logger.warning(
            f"{count:,} tokens are {tokenizer.unk_token}: characters that the tokenizer was not trained on."
        )
