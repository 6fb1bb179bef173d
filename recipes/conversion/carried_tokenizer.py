"""Tokenizers that come along with a model, as they are: text must become the ids that the model learned."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerBase

from transformer_theatre.recipes.first_line import first_line
from transformer_theatre.recipes.tokenization import load_tokenizer


# Files by which a tokenizer is known, and the package that it cannot do without, if any.
_FILES = {
    "source.spm": "sentencepiece",
    "vocab-src.json": "sacremoses",
    "tokenizer.json": None,
    "tokenizer_config.json": None,
    "vocab.json": None,
}


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    """Read the tokenizer of a folder; None: it has none.

    Raises:
        ValueError: it needs a package that is not installed, or cannot be read.
    """
    found = [name for name in _FILES if (folder / name).is_file()]
    for name in found:
        package = _FILES[name]
        if package and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"{folder / name} needs the package {package}: pip install 'transformer-theatre[convert]'."
            )
    if not found:
        return None
    try:
        if found == ["vocab.json"] and not (folder / "config.json").is_file():
            return GPT2Tokenizer.from_pretrained(folder)  # as OpenAI published it: vocab.json and merges.txt alone
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises its own
        raise ValueError(f"The tokenizer in {folder} cannot be read: {first_line(error)}") from None


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, texts: Sequence[str]):
    """Save a tokenizer beside its model, and make sure that what is loaded from there does the same.

    Raises:
        RuntimeError: it does not.
    """
    tokenizer.save_pretrained(folder)
    again = load_tokenizer(folder)
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        if again(text)["input_ids"] != ids or again.decode(ids) != tokenizer.decode(ids):
            raise RuntimeError(f"the tokenizer, saved and loaded again, treats {text[:60]!r} differently")


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, vocab_size: int):
    """Make sure that a model has an embedding for every token but the one that stands for unknown ones.

    Raises:
        ValueError: it has not, so the tokenizer is another model's.
    """
    vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if token != tokenizer.unk_token}
    token = max(vocabulary, key=vocabulary.__getitem__)
    if vocabulary[token] >= vocab_size:
        raise ValueError(
            f"The tokenizer is not the model's: its token {token!r} has id {vocabulary[token]}, and the model has "
            f"{vocab_size} tokens, from 0 on."
        )
