"""BPE-dropout of pairs, as far as there is room for more pieces."""

import random
from collections.abc import Sequence

from .bpe_dropout import BpeDropout


def drop_pair(
    dropout: BpeDropout,
    sides: str,
    texts: Sequence[str],
    plain: tuple[list[int], list[int]],
    draw: random.Random,
    most: int,
) -> tuple[list[int], list[int]]:
    """Split the words of a pair at random; a side that would have more than `most` tokens stays as it is.

    Args:
        dropout: of the tokenizer that made `plain`.
        sides: "source", "target" or "both".
        texts: source and target.
        plain: their token ids without dropout.
        draw: where chance comes from.
        most: tokens of a side.
    """
    chosen = []
    for side, text, ids in zip(("source", "target"), texts, plain, strict=True):
        pieces = dropout.encode(text, draw) if sides in (side, "both") else None
        chosen.append(ids if pieces is None or len(pieces) > most else pieces)
    return chosen[0], chosen[1]
