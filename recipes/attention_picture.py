"""Pictures of encoder-decoder attention: which pieces of the source each piece of the target looked at.

The large panel is the mean over heads, the small ones, which share one scale of colour, are the heads. Only the font
that comes with matplotlib is used, so the picture is the same on every machine; characters it lacks (Chinese, Thai,
...) are labelled with their code point, "U+5E74", rather than with an empty box.
"""

import functools
import math
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import matplotlib.style
import numpy as np
import torch
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from transformers import PreTrainedTokenizerBase


OPEN_BOX = "\u2423"  # stands for a space
EMPTY = "\u2205"  # stands for a token without text
_FONT = "DejaVu Sans"  # comes with matplotlib
_LABEL_LENGTH = 14  # characters, after which a label is cut
_CELL = 0.26  # inches, at least
_CHARACTER = 0.09  # inches, of a label


def readable_tokens(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int] | torch.Tensor) -> list[str]:
    r"""Decode each id alone, for people.

    Spaces become U+2423, the open box, and special tokens stay as they are. Pieces of a byte-level tokenizer that
    begin or end inside a character show those bytes in hexadecimal, as "\xe5\xb9".

    Args:
        tokenizer: any tokenizer of the library.
        ids: token ids, one-dimensional.
    """
    ids = ids.tolist() if isinstance(ids, torch.Tensor) else list(ids)
    return [_readable_token(tokenizer, token_id) for token_id in ids]


def _readable_token(tokenizer: PreTrainedTokenizerBase, token_id: int) -> str:
    piece = str(tokenizer.convert_ids_to_tokens(token_id))
    if piece in tokenizer.all_special_tokens:
        return piece
    text, twice = (str(tokenizer.decode([token_id] * n, clean_up_tokenization_spaces=False)) for n in (1, 2))
    if "\ufffd" in text:
        alphabet = _byte_level_alphabet()
        if not all(character in alphabet for character in piece):
            return piece
        text = bytes(alphabet[character] for character in piece).decode("utf-8", errors="backslashreplace")
    elif twice.startswith(text):
        text = twice.removeprefix(text)  # the second has the space that many decoders drop from the first
    return text.replace(" ", OPEN_BOX)


@functools.cache
def _byte_level_alphabet() -> dict[str, int]:
    # GPT-2's: printable bytes stand for themselves, the others for the characters from 256 on, in order.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def draw_attention(
    weights: np.ndarray | torch.Tensor,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    path: str | Path,
    title: str | None = None,
) -> Path:
    """Draw attention weights as a PNG, which appears under its name only when it is complete.

    Args:
        weights: (heads, target, source), or (target, source), each row the weights of one target token.
        source_tokens: what the columns are; see `readable_tokens`.
        target_tokens: what the rows are: the tokens being predicted, or those read, as the caller likes.
        path: ends in ".png"; missing folders are created, an older picture is replaced.
        title: above the picture, such as "Decoder layer 2"; None: "Encoder-decoder attention".

    Returns:
        The path of the picture.

    Raises:
        ValueError: the weights do not have such a shape, the shape is not that of the tokens, a weight is not a
            number, or the path does not end in ".png".
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(f'The picture is a PNG, so path={str(path)!r} must end in ".png".')
    weights_HTS = _checked(weights, source_tokens, target_tokens)
    # The defaults, whatever the user's matplotlibrc says of fonts or TeX.
    with matplotlib.style.context("default"):
        figure = _figure(weights_HTS, [*map(_label, source_tokens)], [*map(_label, target_tokens)])
        figure.suptitle(_drawable(title or "Encoder-decoder attention"), fontsize=11, parse_math=False)
        save_picture(figure, path)
    return path


def _checked(weights, source_tokens: Sequence[str], target_tokens: Sequence[str]) -> np.ndarray:
    if isinstance(weights, torch.Tensor):
        weights = weights.detach().float().cpu().numpy()
    weights = np.asarray(weights, dtype=np.float64)
    shape = weights.shape
    if weights.ndim not in (2, 3) or 0 in shape:
        raise ValueError(
            f"weights of shape {shape} must be (heads, target, source) or (target, source), none of them 0."
        )
    tokens = (len(target_tokens), len(source_tokens))
    if shape[-2:] != tokens:
        raise ValueError(
            f"weights of shape {shape} are for {shape[-2]} target and {shape[-1]} source tokens, "
            f"but there are {tokens[0]} target and {tokens[1]} source tokens."
        )
    if not np.isfinite(weights).all():
        raise ValueError(f"{(~np.isfinite(weights)).sum()} of {weights.size} weights are infinite or not a number.")
    return weights.reshape(-1, *tokens)


def _label(token: str) -> str:
    label = _drawable(token.replace(" ", OPEN_BOX)) or EMPTY
    return label if len(label) <= _LABEL_LENGTH else f"{label[: _LABEL_LENGTH - 1]}\u2026"


def _drawable(text: str) -> str:
    font = font_manager.get_font(font_manager.findfont(_FONT))
    drawable = ""
    for character in text:
        if character == " " or (
            unicodedata.category(character)[0] not in "CZ" and font.get_char_index(ord(character))
        ):
            drawable += character
        else:
            drawable += f"U+{ord(character):04X}"
    return drawable


def _figure(weights_HTS: np.ndarray, source: list[str], target: list[str]) -> Figure:
    heads = len(weights_HTS)
    width, height = max(5.0, len(source) * _CELL), max(1.5, len(target) * _CELL)
    columns, rows = _grid_of_heads(heads, width)
    head_height = max(0.9, height / max(columns, 2))
    around = 1.6 + _CHARACTER * max(map(len, source))  # titles and labels
    figure = Figure(figsize=(width + 2.0, height + around + rows * (head_height + 0.35)), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[height, *[head_height] * rows])

    mean = figure.add_subplot(grid[0, :])
    _draw_panel(mean, weights_HTS.mean(0), f"mean of {heads} heads" if rows else "", 10)
    _write_labels(mean, source, target, room=width / len(source))
    _add_scale(figure, [mean], width)
    if rows:
        panels = [figure.add_subplot(grid[1 + head // columns, head % columns]) for head in range(heads)]
        for head, panel in enumerate(panels):
            _draw_panel(panel, weights_HTS[head], f"head {head + 1}", 8, highest=weights_HTS.max())
            panel.set(xticks=[], yticks=[])
        _add_scale(figure, panels, width)
    return figure


def _grid_of_heads(heads: int, width: float) -> tuple[int, int]:
    if heads == 1:
        return 1, 0
    rows = math.ceil(heads / (4 if width < 10 else 8))
    return math.ceil(heads / rows), rows


def _draw_panel(axes: Axes, weights_TS: np.ndarray, title: str, size: int, highest: float | None = None) -> None:
    highest = weights_TS.max() if highest is None else highest
    axes.imshow(weights_TS, cmap="Blues", vmin=0.0, vmax=max(highest, 1e-12), aspect="auto")
    axes.set_title(title, fontsize=size)


def _add_scale(figure: Figure, panels: list[Axes], width: float) -> None:
    image = panels[0].images[0]
    figure.colorbar(image, ax=panels, label="weight", pad=0.1 / width, fraction=0.3 / width, aspect=20)


def _write_labels(axes: Axes, source: list[str], target: list[str], room: float) -> None:
    axes.set_xticks(range(len(source)), source, fontsize=9, parse_math=False)
    axes.set_yticks(range(len(target)), target, fontsize=9, parse_math=False)
    for label in axes.get_xticklabels():
        label.set_rotation(90 if (len(label.get_text()) + 0.5) * _CHARACTER > room else 0)
    axes.set(xlabel="source", ylabel="target")
    # Thin lines between cells, so that a weight far from the labels can be traced to them.
    axes.set_xticks(np.arange(len(source) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(target) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="lightgrey", linewidth=0.5)
    axes.tick_params(which="both", length=0)


def save_picture(figure: Figure, path: Path) -> None:
    """Write a picture, whole or not at all; missing folders are created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            FigureCanvasAgg(figure).print_figure(file, format="png", dpi=150)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


__all__ = ["draw_attention", "readable_tokens", "save_picture"]
