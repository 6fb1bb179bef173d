"""Tensors under two names: one table for each format, read in both directions.

A row of the table pairs our tensor with theirs, and lists what happens to it on the way. `*` in a name is a layer's number.
What no row names is refused by name, in either direction; what is known to hold nothing of its own is listed, and verified.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch


Tensors = Mapping[str, torch.Tensor]


class Step(NamedTuple):
    """What happens to a tensor on the way, in both directions."""

    to_ours: Callable[[torch.Tensor], torch.Tensor]
    to_theirs: Callable[[torch.Tensor], torch.Tensor]


# The library's Conv1D holds the transpose of a Linear.
TRANSPOSED = Step(lambda theirs: theirs.mT, lambda ours: ours.mT)
# (1, n) there, (n) here.
FLAT = Step(lambda theirs: theirs[0], lambda ours: ours[None])


def in_turn(dim: int) -> Step:
    """Put the channels of the residual stream in our order: there all sines come first, then all cosines; here in turn.

    A model computes the same whatever the order, if every tensor that touches the stream has it: rows (`dim=0`) of what
    writes into it, columns (`dim=1`) of what reads from it.
    """

    def to_ours(theirs: torch.Tensor) -> torch.Tensor:
        return torch.stack(theirs.chunk(2, dim), dim + 1).flatten(dim, dim + 1)

    def to_theirs(ours: torch.Tensor) -> torch.Tensor:
        return ours.unflatten(dim, (-1, 2)).transpose(dim, dim + 1).flatten(dim, dim + 1)

    return Step(to_ours, to_theirs)


@dataclass(frozen=True)
class Pair:
    """One tensor there, and ours.

    Args:
        ours: name of our tensor; or names of several, which are one there, joined along the first dimension.
        theirs: name of theirs.
        steps: what happens to theirs, in this order, until it is ours.
        copies: further names that theirs may be stored under; what is stored there must be equal.
    """

    ours: str | tuple[str, ...]
    theirs: str
    steps: tuple[Step, ...] = ()
    copies: tuple[str, ...] = ()

    @property
    def our_names(self) -> tuple[str, ...]:
        """Our names, also where there is only one."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours


@dataclass(frozen=True)
class Redundant:
    """A tensor there that says nothing, if it is what `expected` makes of its shape; within a rounding error."""

    theirs: str
    expected: Callable[[torch.Size], torch.Tensor]


class Names:
    """The table of one format.

    Args:
        pairs: every tensor that counts.
        redundant: tensors that need not be there, and say nothing.
    """

    def __init__(self, pairs: Iterable[Pair], redundant: Iterable[Redundant] = ()):
        self.pairs = list(pairs)
        self.redundant = list(redundant)

    def to_ours(self, theirs: Tensors, wanted: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
        """Translate a checkpoint.

        Args:
            theirs: the checkpoint's tensors.
            wanted: names and shapes of our model's, without those that are tied to others.

        Raises:
            ValueError: a tensor has no place, is not what it should be, or is missing; the message names it.
        """
        left = self._without_copies(theirs)
        ours: dict[str, torch.Tensor] = {}
        for pair in self.pairs:
            for number in _numbers(pair.theirs, left):
                value = left.pop(_fill(pair.theirs, number))
                for step in pair.steps:
                    value = step.to_ours(value)
                parts = value.chunk(len(pair.our_names))
                for name, part in zip(pair.our_names, parts, strict=True):
                    # A copy, as parts of one tensor cannot be saved as several.
                    ours[_fill(name, number)] = part.clone(memory_format=torch.contiguous_format)
        for entry in self.redundant:
            for number in _numbers(entry.theirs, left):
                _check_redundant(_fill(entry.theirs, number), left.pop(_fill(entry.theirs, number)), entry)
        _refuse(
            [*left, *(name for name in ours if name not in wanted)],
            "no place in the model that its configuration describes",
        )
        _check_complete(ours, wanted, "no value for it in the checkpoint")
        return ours

    def to_theirs(
        self, ours: Tensors, wanted: Mapping[str, torch.Size], tied: Iterable[str] = ()
    ) -> dict[str, torch.Tensor]:
        """Translate our tensors.

        Args:
            ours: our model's.
            wanted: names and shapes of theirs, without those that are tied to others.
            tied: names of ours that are tied to others, and need no place.

        Raises:
            ValueError: a tensor has no place there, or one of theirs gets no value; the message names it.
        """
        left = dict(ours)
        theirs: dict[str, torch.Tensor] = {}
        for pair in self.pairs:
            for number in _numbers(pair.our_names[0], left):
                value = torch.cat([left.pop(_fill(name, number)) for name in pair.our_names])
                for step in reversed(pair.steps):
                    value = step.to_theirs(value)
                theirs[_fill(pair.theirs, number)] = value.contiguous()
        for name in tied:
            left.pop(name, None)
        _refuse([*left, *(name for name in theirs if name not in wanted)], "no place in a model of that format")
        fixed = {_fill(e.theirs, number) for e in self.redundant for number in _numbers(e.theirs, wanted)}
        _check_complete(theirs, {k: v for k, v in wanted.items() if k not in fixed}, "no value for it in our model")
        return theirs

    def _without_copies(self, theirs: Tensors) -> dict[str, torch.Tensor]:
        left = dict(theirs)
        for pair in self.pairs:
            stored = [name for name in (pair.theirs, *pair.copies) if name in left]
            for copy in stored[1:]:
                if not torch.equal(left[copy], left[stored[0]]):
                    raise ValueError(
                        f"The tensors {copy} and {stored[0]} differ, but the configuration (tie_word_embeddings, "
                        "share_encoder_decoder_embeddings) says that they are one."
                    )
                del left[copy]
            if stored:
                left[pair.theirs] = left.pop(stored[0])
        return left


def _numbers(pattern: str, names: Iterable[str]) -> list[str]:
    """List the layers' numbers for which a name is there; of a pattern without `*`, an empty one."""
    expression = re.compile(re.escape(pattern).replace(r"\*", r"(\d+)"))
    return ["".join(match.groups()) for name in names if (match := expression.fullmatch(name))]


def _fill(pattern: str, number: str) -> str:
    return pattern.replace("*", number)


def _check_redundant(name: str, value: torch.Tensor, entry: Redundant):
    expected = entry.expected(value.shape)
    if expected.shape != value.shape or not torch.allclose(value.float(), expected.float(), atol=5e-3, rtol=0):
        raise ValueError(f"The tensor {name} is not the fixed one that the model computes in its place.")


def _check_complete(given: Tensors, wanted: Mapping[str, torch.Size], problem: str):
    _refuse([name for name in wanted if name not in given], problem)
    for name, shape in wanted.items():
        if given[name].shape != shape:
            raise ValueError(
                f"The tensor for {name} has shape {tuple(given[name].shape)}, and must have {tuple(shape)}."
            )


def _refuse(names: list[str], problem: str):
    if names:
        more = f", and {len(names) - 3} more" if len(names) > 3 else ""
        raise ValueError(f"The tensors do not fit. There is {problem}: {', '.join(names[:3])}{more}.")
