"""What a model is scored on: the files that are named, or the validation and test text of a recipe."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file, logging

from transformer_theatre.recipes import train_language_model, train_translation
from transformer_theatre.recipes.arguments import Recipe, parse_recipe, shipped_recipes
from transformer_theatre.recipes.card_metadata import name_of_text
from transformer_theatre.recipes.data_arguments import TEXT_METRICS, PairDataArguments
from transformer_theatre.recipes.evaluation import longest_row
from transformer_theatre.recipes.line_reader import LineReader
from transformer_theatre.recipes.nearest import nearest
from transformer_theatre.recipes.references import references_of
from transformer_theatre.recipes.row_parsing import BadLineError, json_object, value_of
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.run_folder import read_recipe_of, recipe_of
from transformer_theatre.recipes.template import template_of
from transformer_theatre.recipes.text_data import document_files, read_documents, read_pairs
from transformer_theatre.recipes.text_metric import References
from transformer_theatre.recipes.tokenization import encode_blocks, encode_pairs
from transformer_theatre.recipes.train import for_text_of, load_recipe, script
from transformer_theatre.recipes.training import AS_SAVED, use_attention


logger = logging.get_logger(__name__)
# Longer than any text: files that somebody names are scored whole.
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class PairText:
    """Pairs to translate, and to find likely.

    Args:
        files: what they are called.
        pairs: source, target and their tokens.
        texts: the same, or one row for each source with all its references.
        metrics: to score by.
        language: code of the references', or None.
        num_beams: of the search; None: the model's.
    """

    files: list[str]
    pairs: Dataset
    texts: Dataset
    metrics: Sequence[str]
    language: str | None
    num_beams: int | None

    @property
    def references(self) -> References:
        """Of each text."""
        return references_of(self.texts)


@dataclass(frozen=True)
class RunningText:
    """Text to find likely.

    Args:
        files: what it is called.
        documents: of the text, in the column `text`.
        cut: `encode_blocks` of these documents, given a tokenizer: rows of the same length, context and masks for any model.
        blocks: what it makes for the model.
    """

    files: list[str]
    documents: Dataset
    cut: partial[Dataset]
    blocks: Dataset

    @property
    def row_length(self) -> int:
        """Tokens of a row, at most."""
        return self.cut.keywords["block_size"]

    @property
    def apart(self) -> bool:
        """Whether the documents of a row do not see one another."""
        return self.cut.keywords.get("apart", False)


def recipe_named(arguments: argparse.Namespace) -> Recipe | None:
    """Read the recipe that the command line names; None where it names files.

    Raises:
        ValueError: it names neither, or both.
    """
    words, options = arguments.texts, [arguments.source, arguments.target, arguments.text]
    if not words:
        if (arguments.source is None) == (arguments.text is None):
            raise ValueError(
                "Say what to score the model on: a recipe; or files, as in `theatre evaluate MODEL test.de test.en`, or by --source "
                "(and --target) for a translation model, or --text for a language model."
            )
        return None
    if any(options):
        raise ValueError(f"Give {' '.join(words)} or --source, --target and --text, not both.")
    if len(words) == 1 and (words[0] in shipped_recipes() or Path(words[0]).suffix in (".yaml", ".yml")):
        return load_recipe(words[0])
    if len(words) > 2:
        raise ValueError(f"{len(words)} files are too many: give one of running text, or source and target.")
    if missing := [word for word in words if not Path(word).is_file() and not Path(f"{word}.gz").is_file()]:
        raise ValueError(f"{missing[0]!r} is neither a file nor a recipe{nearest(missing[0], shipped_recipes())}.")
    continues = len(words) == 1 and not _translates(arguments.model)
    named = ("text",) if continues else ("source", "target")
    for option, word in zip(named, words, strict=False):
        setattr(arguments, option, Path(word))
    return None


def _translates(name: str) -> bool:
    try:
        return transformers.AutoConfig.from_pretrained(name).is_encoder_decoder
    except (OSError, ValueError):
        return True  # `load` will say what is wrong with it


def texts_of_files(
    arguments: argparse.Namespace, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> dict[str, PairText | RunningText]:
    """Read the files that the command line names.

    Raises:
        ValueError: one cannot be read.
    """
    said = said_by_run(arguments.model)
    if arguments.text is not None:
        documents = _documents(said, arguments.text)
        apart = said.get("attend_across_documents") is False
        cut = partial(encode_blocks, documents, block_size=longest_row(model), stride=arguments.stride, apart=apart)
        return {"": RunningText([arguments.text.name], documents, cut, cut(tokenizer))}
    files = [path.name for path in (arguments.source, arguments.target) if path is not None]
    pairs = encode_pairs(read_pairs(arguments.source, arguments.target), tokenizer, max_length=_NO_LIMIT)
    language = arguments.target_language or said.get("target_language")
    metrics = metrics_of(arguments.metrics, list(TEXT_METRICS[:3]))
    return {"": PairText(files, pairs, pairs, metrics, language, arguments.num_beams)}


def _documents(said: dict[str, Any], path: Path) -> Dataset:
    """Read the documents of a file, which are made as the run has made those of its text, where the file is of such a kind."""
    files, of_rows = document_files(path, "text", None)
    if of_rows is not None:
        template = template_of(said.get("template"), said.get("template_words"))
        field = said.get("text_field") or "text"
        if lacks := _lacks(files[0], [field] if template is None else template.fields):
            logger.warning(
                f'{path} has the field "text", and no "{lacks}", of which the model has learned: "text" is scored as it is.'
            )
            return read_documents(path)
        return read_documents(path, template=template, text_field=field)
    documents, separator = read_documents(path), said.get("separator")
    parts = [part for text in documents["text"] for part in text.split(separator) if part.strip()] if separator else []
    return read_documents(path, separator=separator) if len(parts) > len(documents) else documents


def _lacks(path: Path, fields: Sequence[str]) -> str | None:
    """Name a field that the first row of a file lacks, where it has `text` in its place."""
    row, lacks = json_object(next(LineReader(path)), fields[0]), None
    for name in fields:
        try:
            value_of(row, name)
        except BadLineError:
            lacks = lacks or name
    return lacks if "text" in row else None


def said_by_run(model: str) -> dict[str, Any]:
    """Read the recipe that a run has written beside a model, in a folder or on the Hub; nothing, where none has."""
    try:
        found = cached_file(model, "recipe.yaml", _raise_exceptions_for_missing_entries=False)
    except OSError:  # the Hub does not answer, and the model is in the cache without it
        found = None
    if found is None or recipe_of(Path(found).parent) is None:
        return {}
    return read_recipe_of(Path(found).parent)


def metrics_of(wanted: Sequence[str] | None, usual: Sequence[str]) -> list[str]:
    """Say what to score by: what is wanted, or else what is usual, with TER beside BLEU."""
    if wanted:
        return list(dict.fromkeys(wanted))
    return [*usual, "ter"] if "bleu" in usual and "ter" not in usual else list(usual)


def parsed_recipe(recipe: Recipe, arguments: argparse.Namespace, overrides: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Put together the recipe and what the command line says over it, for its text alone."""
    words = [*overrides, *(["--data_dir", arguments.data_dir] if arguments.data_dir else [])]
    return for_text_of(recipe, words), [*words, *AS_SAVED, "--output_dir", "unused"]


def texts_of_recipe(
    recipe: Recipe,
    words: Sequence[str],
    arguments: argparse.Namespace,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, PairText | RunningText]:
    """Read the validation and the test text of a recipe, as training does.

    Args:
        recipe: of the task of the model.
        words: what the command line says over it.
        arguments: of `theatre evaluate`.
        model: to score; the recipe's attention kernel is set.
        tokenizer: its own.

    Raises:
        ValueError: the recipe, an option or a file is wrong, or there is no such text.
    """
    parsed, _ = parse_recipe(recipe, words, *script(recipe.task).argument_types(recipe, words))
    use_attention(model, parsed[0])  # an LSTM is scored on a Transformer's recipe too
    if recipe.task == "language_modeling":
        documents, cut, where = train_language_model.text_to_measure(recipe, words, model)
        name = name_of_text(where.validation_text, where.dataset, where.train_text)
        return {"validation": RunningText([name], documents, cut, cut(tokenizer))}
    data: Any = next(part for part in parsed if isinstance(part, PairDataArguments))
    args: Any = next(part for part in parsed if isinstance(part, RunArguments))
    found: dict[str, PairText | RunningText] = {}
    for split in ("validation", "test"):
        pairs = train_translation.read_split(data, split)
        if pairs is None:
            continue
        encoded = encode_pairs(pairs, tokenizer, data.max_length, data.bad_lines)
        texts = train_translation.as_test_set(encoded, data)
        names = [name for side in ("source", "target") if (name := getattr(data, f"{split}_{side}"))]
        names = names or [data.dataset, f"{split} split"]
        found[split] = PairText(
            [name_of_text(name) for name in names],
            encoded,
            texts or encoded,
            metrics_of(arguments.metrics, data.metrics),
            arguments.target_language or data.target_language,
            arguments.num_beams or args.generation_num_beams,
        )
    if not found:
        raise ValueError(
            f"{recipe.path} names no validation and no test text: give --test_source (and --test_target)."
        )
    return found
