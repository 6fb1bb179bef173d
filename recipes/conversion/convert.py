"""The command `theatre convert`: read, translate, compare, and only then write."""

import argparse
import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import PreTrainedTokenizerBase

from transformer_theatre.recipes.models import load_model

from .carried_tokenizer import check_vocabulary, read_tokenizer, save_tokenizer
from .checkpoint import find, model_type
from .conversion_card import write_card
from .exchange import to_ours, to_theirs
from .format import Format, Source
from .fsmt import FSMT
from .gpt2 import GPT2
from .marian import MARIAN
from .nanogpt import NANOGPT, read_characters
from .openai_gpt import OPENAI_GPT
from .parity import TEXTS, compare, random_rows, source_size, token_rows


FORMATS = (MARIAN, FSMT, OPENAI_GPT, GPT2, NANOGPT)
EXPORTS = {entry.name: entry for entry in FORMATS if entry.theirs is not None}


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return 0.

    Raises:
        ValueError: the source cannot be converted, or the target is not empty.
        RuntimeError: the converted model is not the original, or could not be written.
    """
    texts = _texts(arguments.sentences)
    target: Path = arguments.target.expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"The target {target} is not empty. Choose another folder, or delete it.")
    origin = find(arguments.source)
    entry, source = _read_ours(origin, arguments.to) if arguments.to else _read_theirs(origin)
    if arguments.tokenizer:
        source.tokenizer = _given_tokenizer(arguments.tokenizer)
    try:
        converted: Any = to_theirs(entry, source.reference) if arguments.to else to_ours(entry, source)
        ours = source.config if arguments.to else converted.config
        if source.tokenizer is not None:
            check_vocabulary(source.tokenizer, source_size(ours))
    except (ValueError, StrictDataclassError) as error:
        raise ValueError(f"{origin}: {error}") from None

    rows = token_rows(source.tokenizer, texts, ours) if source.tokenizer is not None else []
    text_is = str(arguments.sentences or "built in") if rows else "random tokens"
    parity = compare(source.reference, converted, rows or random_rows(ours), text_is)
    parity.check()
    converted.to(dtype=_dtype(source.tensors))
    with _whole_or_not_at_all(target) as folder:
        converted.save_pretrained(folder)
        if source.tokenizer is not None:
            save_tokenizer(source.tokenizer, folder, texts)
        about = {"source": arguments.source, "format": entry.name, "model_type": converted.config.model_type}
        report = json.dumps({**about, **parity.to_dict()}, indent=2)
        (folder / "parity.json").write_text(report + "\n", encoding="utf-8")
        write_card(folder, arguments.source, origin, converted.config, parity)
    print(f"{arguments.source} -> {target}: {converted.config.model_type}, {converted.num_parameters():,} parameters")
    print(f"{parity}\ntokenizer: {type(source.tokenizer).__name__ if source.tokenizer else 'none'}")
    if source.tokenizer is None:
        print(source.missing_tokenizer or "The source holds no tokenizer: text needs one; give it by --tokenizer.")
    return 0


def _read_theirs(path: Path) -> tuple[Format, Source]:
    """Read a model from elsewhere, whatever its format is."""
    for entry in FORMATS:
        if entry.matches(path):
            return entry, entry.read(path)
    kind = model_type(path)
    known = "; ".join(entry.what for entry in FORMATS)
    if kind in [entry.ours.config_class.model_type for entry in FORMATS]:
        raise ValueError(f"{path} is a model of ours already. `--to` makes it one of: {', '.join(EXPORTS)}.")
    problem = f"a {kind} model" if kind else "no model that is known: it has neither config.json nor ckpt.pt"
    raise ValueError(f"{path} is {problem}. What can be converted: {known}.")


def _read_ours(path: Path, name: str) -> tuple[Format, Source]:
    """Read a model of ours, to be written in the format `name`."""
    entry = EXPORTS[name]
    kind, wanted = model_type(path), entry.ours.config_class.model_type
    if kind != wanted:
        raise ValueError(f"{path} is a {kind or 'folder without a'} model: only a {wanted} model can become {name}.")
    auto_class = "AutoModelForSeq2SeqLM" if entry is MARIAN else "AutoModelForCausalLM"
    model = load_model(str(path), auto_class)
    return entry, Source(model.config, model.state_dict(), model.cpu().float, read_tokenizer(path))


def _given_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Read what `--tokenizer` names.

    Raises:
        ValueError: it is none.
    """
    if name.endswith(".pkl"):
        return read_characters(find(name))
    folder = find(name, weights=False)
    tokenizer = read_tokenizer(folder)
    if tokenizer is None:
        raise ValueError(f"The folder {folder} holds no tokenizer.")
    return tokenizer


def _texts(path: Path | None) -> list[str]:
    """Read the texts to compare on.

    Raises:
        ValueError: there are none.
    """
    if path is None:
        return list(TEXTS)
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"The file of --sentences, {path}, cannot be read: {error}.") from None
    texts = [line for line in lines if line.strip()]
    if not texts:
        raise ValueError(f"The file of --sentences, {path}, holds no text.")
    return texts


def _dtype(tensors: dict[str, torch.Tensor]) -> torch.dtype:
    """Find the one type that all weights have; where they have several, float32."""
    kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
    return kinds.pop() if len(kinds) == 1 else torch.float32


@contextlib.contextmanager
def _whole_or_not_at_all(target: Path) -> Iterator[Path]:
    """Give a folder beside the target to write into, which becomes the target at the end, or disappears.

    Raises:
        ValueError: the target cannot be written.
    """
    partial = target.parent / f".{target.name}-{os.getpid()}"
    missing = [parent for parent in (target.parent, *target.parent.parents) if not parent.exists()]
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise ValueError(f"The target {target} cannot be written: {error.strerror}.") from None
    try:
        yield partial
        if target.exists():
            target.rmdir()  # it is empty
        partial.replace(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
