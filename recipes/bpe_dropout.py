"""BPE-dropout (Provilkov et al., 2020, https://arxiv.org/abs/1910.13267): words in other pieces each time they are read.

The `tokenizers` library has it too, but draws from a random state of its own that cannot be set: a run that goes on would read
other pieces than one that was never stopped.
"""

import itertools
import json
import math
import random
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast


SIDES = ("both", "source", "target")
# Splits of words that are remembered before all are forgotten: some 400 bytes each.
_MOST_SPLITS = 500_000


class _Split:
    """A word in pieces, the merges that are possible, and where they lead as far as that is known."""

    __slots__ = ("children", "merges", "pieces")

    def __init__(self, pieces: tuple[int, ...], merges: list[tuple[int, int, int]]):
        self.pieces = pieces
        self.merges = merges  # (rank, position, merged piece), the highest priority first
        self.children: list[_Split | None] = [None] * len(merges)


class BpeDropout:
    """Split text into the pieces of a byte-pair tokenizer, where each merge is left out with a probability.

    Algorithm 1 of the paper: begin with the characters (here bytes) of a word; of all merges that are possible, drop each with
    probability p, and apply that of the highest priority that is left; end when none is left. With p = 0 these are the
    tokenizer's own pieces, with p = 1 bytes.

    Args:
        tokenizer: whose vocabulary, merges, and frame of special tokens are used.
        p: probability, 0 to 1.

    Raises:
        ValueError: the tokenizer is no byte-pair tokenizer that can be followed, or `p` is no probability.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, p: float):
        if not 0 <= p <= 1:
            raise ValueError(f"bpe_dropout={p} must be between 0 and 1.")
        if not isinstance(tokenizer, PreTrainedTokenizerFast):
            raise ValueError(f"bpe_dropout needs a fast byte-pair tokenizer, not {type(tokenizer).__name__}.")
        self.p = p
        backend: Any = tokenizer.backend_tokenizer
        self._normalizer, self._words = backend.normalizer, backend.pre_tokenizer
        self._read_model(json.loads(backend.to_str())["model"])
        self._added = [str(token) for token in tokenizer.get_added_vocab()]
        self._added = [] if getattr(tokenizer, "split_special_tokens", False) else self._added
        self._splits: dict[str, _Split] = {}
        self._count = 0
        framed, bare = (tokenizer("a", add_special_tokens=framed)["input_ids"] for framed in (True, False))
        start = next(at for at in range(len(framed)) if framed[at : at + len(bare)] == bare)
        self._frame = framed[:start], framed[start + len(bare) :]

    def _read_model(self, model: dict[str, Any]):
        odd = [name for name in ("byte_fallback", "fuse_unk", "ignore_merges") if model.get(name)]
        odd += [name for name in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token") if model.get(name)]
        if model["type"] != "BPE" or odd or self._words is None:
            what = f"with {', '.join(odd)}" if model["type"] == "BPE" else f"of type {model['type']}"
            raise ValueError(f'bpe_dropout needs a byte-level BPE tokenizer (tokenizer: "bpe"), not one {what}.')
        self._vocabulary: dict[str, int] = model["vocab"]
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        self._ranks: dict[tuple[int, ...], tuple[int, int]] = {
            (self._vocabulary[left], self._vocabulary[right]): (rank, self._vocabulary[left + right])
            for rank, (left, right) in enumerate(pairs)
        }

    def encode(self, text: str, draw: random.Random) -> list[int] | None:
        """Split a text, and put the tokenizer's special tokens around it.

        Args:
            text: of one side of a pair.
            draw: where chance comes from.

        Returns:
            Token ids; or None of a text that holds a special token as such, which only the tokenizer itself knows.
        """
        pieces = self.encode_bare(text, draw)
        return None if pieces is None else [*self._frame[0], *pieces, *self._frame[1]]

    def encode_bare(self, text: str, draw: random.Random) -> list[int] | None:
        """Split a text as `encode` does, without special tokens."""
        if any(token in text for token in self._added):
            return None
        if self._normalizer is not None:
            text = self._normalizer.normalize_str(text)
        pieces: list[int] = []
        for word, _ in self._words.pre_tokenize_str(text):
            split = self._splits.get(word)
            pieces += self._walk(split if split is not None else self._begin(word), draw)
        if self._count > _MOST_SPLITS:
            self._splits, self._count = {}, 0
        return pieces

    def _begin(self, word: str) -> _Split:
        pieces = tuple([self._vocabulary[letter] for letter in word])
        found = [(at, self._ranks.get(pair)) for at, pair in enumerate(itertools.pairwise(pieces))]
        merges = sorted([(merge[0], at, merge[1]) for at, merge in found if merge is not None])
        self._count += 1
        split = self._splits[word] = _Split(pieces, merges)
        return split

    def _after(self, split: _Split, chosen: int) -> _Split:
        """Apply one of the possible merges; only those beside it change."""
        _, place, piece = split.merges[chosen]
        pieces = (*split.pieces[:place], piece, *split.pieces[place + 2 :])
        merges = [merge for merge in split.merges if merge[1] < place - 1]
        merges += [(rank, at - 1, merged) for rank, at, merged in split.merges if at > place + 1]
        for at in (place - 1, place):
            new = self._ranks.get(pieces[at : at + 2]) if at >= 0 else None
            if new is not None:
                merges.append((new[0], at, new[1]))
        merges.sort()
        self._count += 1
        split.children[chosen] = child = _Split(pieces, merges)
        return child

    def _walk(self, split: _Split, draw: random.Random) -> Sequence[int]:
        p = self.p
        while split.merges:
            chance = draw.random() if p else 1.0
            # Merges are dropped one after the other, from the highest priority on, until one is not: k are with probability p^k.
            dropped = (
                0 if chance >= p else len(split.merges) if p == 1 else int(math.log(chance or 1e-300) / math.log(p))
            )
            if dropped >= len(split.merges):
                break
            child = split.children[dropped]
            split = self._after(split, dropped) if child is None else child
        return split.pieces


def draw_for(seed: int, epoch: int, row: int) -> random.Random:
    """Make the source of chance of one row in one epoch: the same in a run that goes on, and on every process."""
    return random.Random(f"{seed} {epoch} {row}")
