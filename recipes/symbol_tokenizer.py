"""A tokenizer for sources that are spelled and targets that are rows of symbols, such as words and their phonemes."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .tokenization import PAIR_TOKENS, UNKNOWN_TOKEN, fast_tokenizer


# Before a character that is not the first of its word.
_INSIDE = "##"


def train_symbol_tokenizer(sources: Iterable[str], targets: Iterable[str]) -> PreTrainedTokenizerFast:
    """Make a tokenizer to which each symbol of a target is one token, and each character of a source.

    What white space parts in the targets is a symbol: `HH AH L OW` is four tokens, and decodes to that text again. Words that
    are no symbol are spelled, each character a token, which is another one at the beginning of a word than inside it; so
    every text becomes itself again, but for the width of its white space. A word is read from its left, the longest token
    first: where a symbol of several characters begins a word of the sources, it is found there too.

    The special tokens are those of all pairs: `<pad>` 0, `<s>` 1, `</s>` 2, which ends every encoded text; then comes `<unk>`,
    which a whole word becomes if it is no symbol and has a character that is not in the sources.

    Args:
        sources: whose characters to take.
        targets: whose symbols to take.

    Raises:
        ValueError: a side has no text, or a symbol begins with the mark of what is inside a word.
    """
    words = {word for text in sources for word in text.split()}
    symbols = {symbol for text in targets for symbol in text.split()}
    if not words or not symbols:
        raise ValueError(f"There is no text to make a tokenizer of: {len(words)} words and {len(symbols)} symbols.")
    if marked := [symbol for symbol in sorted(symbols) if symbol.startswith(_INSIDE)]:
        raise ValueError(f"The symbol {marked[0]!r} cannot begin with {_INSIDE}, which marks what is inside a word.")
    characters = {_INSIDE * (place > 0) + character for word in words for place, character in enumerate(word)}
    tokens = [*PAIR_TOKENS, UNKNOWN_TOKEN, *sorted(characters | symbols)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    longest = 1 << 20  # characters in a word, beyond which the library would not look
    backend = Tokenizer(
        models.WordPiece(
            vocabulary,
            unk_token=UNKNOWN_TOKEN,
            continuing_subword_prefix=_INSIDE,
            max_input_chars_per_word=longest,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.decoder = decoders.WordPiece(prefix=_INSIDE, cleanup=False)
    return fast_tokenizer(backend, PAIR_TOKENS, True, None, unk_token=UNKNOWN_TOKEN)
