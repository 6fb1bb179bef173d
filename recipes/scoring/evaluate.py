"""Score a model on its texts, compare it with another, and write down what was found."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging

from transformer_theatre.recipes.arguments import Recipe
from transformer_theatre.recipes.environment import hardware, versions
from transformer_theatre.recipes.model_card import CARD_FILE, EVALUATION_FILE, read_card, rewrite_model_card
from transformer_theatre.recipes.models import load
from transformer_theatre.recipes.run_folder import check_folder, write_json, write_whole
from transformer_theatre.recipes.text_data import bare_name
from transformer_theatre.recipes.tokenization import unknown_token

from .baseline import Baseline, compared
from .comet import Comet
from .lengths import by_length
from .measure import Measured, measure_pairs, measure_running_text, nats_per_token
from .plots import draw_by_length, draw_difference, draw_texts
from .table import table
from .texts import PairText, RunningText, parsed_recipe, recipe_named, texts_of_files, texts_of_recipe
from .worst import sentence_chrf, worst_outputs, worst_rows_of_text


logger = logging.get_logger(__name__)


def evaluate(arguments: argparse.Namespace, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], str]:
    """Score a model as the command line says, and write evaluation.json, outputs and pictures.

    Args:
        arguments: of `command_line.parser`.
        overrides: options of the recipe.

    Returns:
        What was written into evaluation.json, and a table of it.

    Raises:
        ValueError: an option, a model or a text is wrong, or the folder cannot be written.
    """
    recipe = recipe_named(arguments)
    if recipe is None and overrides:
        raise ValueError(f"{overrides[0]} is no option of `theatre evaluate` where it is given files: see --help.")
    folder = _folder(arguments)
    continues = _is_running_text(recipe, arguments)
    auto_class = "AutoModelForCausalLM" if continues else "AutoModelForSeq2SeqLM"
    model, tokenizer = load(arguments.model, auto_class)
    baseline = Baseline(arguments.baseline, auto_class) if arguments.baseline else None
    if recipe is None:
        texts = texts_of_files(arguments, model, tokenizer)
    else:
        named, words = parsed_recipe(recipe, arguments, overrides)
        texts = texts_of_recipe(named, words, arguments, model, tokenizer)
    found: dict[str, Any] = {"model": bare_name(arguments.model), **({"recipe": recipe.name} if recipe else {})}
    found |= {"versions": versions(), "hardware": hardware(model.device)}
    # What does not fit is refused before the model has written for hours.
    on = baseline.texts_of(texts) if baseline is not None else []
    tables = []
    with tempfile.TemporaryDirectory() as between:
        comet = Comet(arguments.comet, arguments.comet_python, Path(between)) if arguments.comet else None
        for name, text in texts.items():
            other = baseline if name in on else None
            if isinstance(text, PairText):
                record = _pairs(name, text, model, tokenizer, other, comet, arguments, folder)
            else:
                record = _running(name, text, model, tokenizer, other, arguments, folder)
            tables.append(table(name, record))
            found = {**found, **record} if not name else {**found, name: record}
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / EVALUATION_FILE, found)
        if (folder / CARD_FILE).is_file():
            rewrite_model_card(folder, model)
        tables.append(f"Written into {folder}: {EVALUATION_FILE}, outputs, figures.")
    return found, "\n\n".join(tables)


def _is_running_text(recipe: Recipe | None, arguments: argparse.Namespace) -> bool:
    """Say whether a language model is to be scored, and not a translator.

    Raises:
        ValueError: it is neither, or an option is not for it.
    """
    if recipe is not None and recipe.task not in ("translation", "language_modeling"):
        raise ValueError(
            f"{recipe.path}: `theatre evaluate` scores translators and language models; what task {recipe.task} measures, "
            "`theatre train` and `theatre verify` do."
        )
    continues = recipe.task == "language_modeling" if recipe is not None else arguments.text is not None
    if arguments.stride is not None and (recipe is not None or not continues):
        raise ValueError("--stride is for a file of running text; a recipe of a language model has --eval_stride.")
    for name in ("num_beams", "metrics", "target_language", "comet"):
        if continues and getattr(arguments, name) is not None:
            raise ValueError(f"--{name} is for translators: a language model writes nothing that could be scored so.")
    return continues


def _folder(arguments: argparse.Namespace) -> Path | None:
    """Find the folder to write into, and make sure that it can be; None where there is none.

    Raises:
        ValueError: one was named, and cannot be written.
    """
    folder = arguments.output_dir or (Path(arguments.model) if Path(arguments.model).is_dir() else None)
    if folder is None:
        return None
    if (folder / CARD_FILE).is_file():
        if folder.resolve() != Path(arguments.model).resolve():
            raise ValueError(
                f"--output_dir {folder} is the folder of another model than {arguments.model}: choose another."
            )
        read_card(folder)  # it is written again in the end
    try:
        check_folder(folder, resume=True)
    except ValueError as error:
        if arguments.output_dir is not None:
            raise
        logger.warning(f"{error} The figures are printed, and nothing is written.")
        return None
    return folder


def _pairs(
    name: str,
    text: PairText,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    baseline: Baseline | None,
    comet: Comet | None,
    arguments: argparse.Namespace,
    folder: Path | None,
) -> dict[str, Any]:
    measured = measure_pairs(model, tokenizer, text, comet)
    outputs, other = measured.outputs or [], None
    if baseline is not None:
        beams = measured.figures["num_beams"]
        other = baseline.written(text, comet) if baseline.is_file else baseline.on_pairs(text, beams, comet)
    main = "bleu" if "bleu" in measured.statistics else next(iter(measured.statistics))
    chrf = sentence_chrf(outputs, text)
    record = {
        "files": text.files,
        **measured.figures,
        "speed": measured.speed,
        "by_length": by_length(
            main, measured.statistics[main], text.references, None if other is None else other.statistics[main]
        ),
        "worst": worst_outputs(outputs, text, chrf, arguments.worst),
    }
    names, drawn = [bare_name(arguments.model)], dict[str, np.ndarray]()
    if baseline is not None and other is not None:
        record["comparison"], drawn = compared(baseline.name, measured, other)
        names.append(baseline.name)
    if folder is not None:
        write_outputs(folder / "outputs" / f"{name or 'output'}.txt", outputs)
        pictures = _Pictures(folder, name)
        draw_by_length(record["by_length"], names, pictures.path("by-length"))
        draw_texts(chrf, "chrF2 of a text", "left", pictures.path("texts"))
        if drawn:
            draw_difference(
                main, record["comparison"]["figures"][main], drawn[main], names[1], pictures.path("difference")
            )
        record["pictures"] = pictures.names
    return record


def _running(
    name: str,
    text: RunningText,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    baseline: Baseline | None,
    arguments: argparse.Namespace,
    folder: Path | None,
) -> dict[str, Any]:
    measured = measure_running_text(model, tokenizer, text)
    nll = measured.statistics["nll"]
    worst = worst_rows_of_text(text, nll, tokenizer, arguments.worst)
    record = {"files": text.files, **measured.figures, "speed": measured.speed, "worst": worst}
    unknown = unknown_token(tokenizer)
    if count := sum(row.count(unknown) for row in text.blocks["labels"] if unknown is not None):
        record["unknown_tokens"] = count
    drawn: dict[str, np.ndarray] = {}
    if baseline is not None:
        other, same = baseline.on_running_text(text)
        if same:
            record["comparison"], drawn = compared(baseline.name, measured, other)
        else:
            record["comparison"] = _apart(baseline.name, measured, other)
    if folder is not None:
        pictures = _Pictures(folder, name)
        draw_texts(nats_per_token(nll).tolist(), "nats per token of a row", "right", pictures.path("texts"))
        if drawn:
            draw_difference(
                "nll", record["comparison"]["figures"]["nll"], drawn["nll"], baseline.name, pictures.path("difference")
            )  # type: ignore[union-attr]
        record["pictures"] = pictures.names
    return record


def _apart(name: str, measured: Measured, other: Measured) -> dict[str, Any]:
    """Say what can be said of two models that cut a text into other rows: no test, only the figures that tokenizers do not touch."""
    keys = [key for key in ("bits_per_byte", "bits_per_character") if key in measured.figures and key in other.figures]
    return {
        "baseline": name,
        "figures": {},
        "note": "Its tokenizer makes other rows of the text, so there is no paired test. "
        + ", ".join(f"{key}: {measured.figures[key]:.4f} against {other.figures[key]:.4f}" for key in keys),
        "unpaired": {key: {"model": measured.figures[key], "baseline": other.figures[key]} for key in keys},
    }


class _Pictures:
    """Names of the pictures of one text, within the folder."""

    def __init__(self, folder: Path, text: str):
        self.folder, self.text = folder, text
        self.names: list[str] = []

    def path(self, what: str) -> Path:
        self.names.append(f"figures/{f'{self.text}-' if self.text else ''}{what}.png")
        return self.folder / self.names[-1]


def write_outputs(path: Path, outputs: Sequence[str]):
    """Write outputs, a line for each text whatever is in it, as sacrebleu reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(f"{' '.join(output.splitlines())}\n" for output in outputs))
