"""Are fine-tuned generators on style? Perplexity of held-back text before and after, and what a judge of style makes of samples.

    python -m transformer_theatre.recipes.compare_styles BASE RUN [RUN ...] --data_dir FOLDER [--output FILE.json]

BASE is the model that the runs started from; each RUN is the folder of a run of task language_modeling, whose recipe.yaml says what
text it learned and what its samples begin with. A naive Bayes classifier learns the styles from pieces of the runs' training text, as
many of each, is tried on pieces of their validation text, and then says of what style the samples are, of which it does not see the
prompt.
"""

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .arguments import parse_recipe, read_recipe
from .data_arguments import TextDataArguments
from .data_folder import data_folder
from .evaluation import negative_log_likelihood
from .likelihood import likelihood
from .models import load
from .naive_bayes import NaiveBayes
from .run_folder import recipe_of, write_json
from .start_arguments import SamplingArguments
from .tokenization import encode_blocks
from .train_language_model import AUTO_CLASS, argument_types, beginning, keeps_apart, read_texts, row_length


TASK = "language_modeling"
# What "on style" means: share that the perplexity loses, and share of samples that are taken for what they should be.
LEAST_DROP = 0.30
LEAST_SHARE = 0.90


@dataclass
class Style:
    """A run, its text, and how its samples begin."""

    name: str
    folder: Path
    data: TextDataArguments
    train: list[str]
    held_back: list[str]
    prompts: list[str]


@dataclass
class StyleFigures:
    """What was measured of a style.

    Args:
        perplexity_before: per token, of the held-back text, under the base model.
        perplexity_after: under the run's.
        drop: share by which it is less.
        judge: share of pieces of held-back text that the classifier knows.
        on_style: share of samples that it takes for this style.
        taken_for: style -> number of samples that it takes for that.
        samples: all of them.
    """

    perplexity_before: float
    perplexity_after: float
    drop: float
    judge: float
    on_style: float
    taken_for: dict[str, int]
    samples: list[str]

    @property
    def passes(self) -> bool:
        """Say whether the generator is on style by both measures."""
        return self.drop >= LEAST_DROP and self.on_style >= LEAST_SHARE


def read_style(folder: Path, data_dir: str | None) -> Style:
    """Read the text that a run has learned, and that it has not.

    Raises:
        ValueError: no run of the task has made the folder, or the text cannot be read.
    """
    if recipe_of(folder) is None:
        raise ValueError(f"{folder} is no folder of a run: it has no recipe.yaml that a run has written.")
    recipe = read_recipe(folder / "recipe.yaml", [TASK])
    words = ["--output_dir", str(folder), "--streaming", "false", "--bf16", "false", "--fp16", "false"]
    words += ["--data_dir", str(data_folder(recipe, Path(data_dir)))] if data_dir else []
    if recipe.values.get("model_name_or_path"):  # its name alone stands there, which is none on the Hub
        words += ["--model_name_or_path", str(folder)]
    (_, _, sampling, data, _), _ = parse_recipe(recipe, words, *argument_types(recipe, words))
    train, held_back = read_texts(data)
    settings: SamplingArguments = sampling
    return Style(folder.resolve().name, folder, data, train["text"][:], held_back["text"][:], settings.sample_prompts)


def perplexity(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, style: Style) -> float:
    """Measure the held-back text of a style, in rows as the style's run has them."""
    texts = Dataset.from_dict({"text": style.held_back})
    length, apart = row_length(style.data, model), keeps_apart(style.data, model)
    rows = encode_blocks(texts, tokenizer, length, stride=style.data.eval_stride, apart=apart)
    return likelihood(negative_log_likelihood(model, tokenizer, rows))["perplexity"]


def pieces_of_words(texts: Iterable[str], words: int, most: int, seed: int) -> list[str]:
    """Cut texts into pieces of so many words, line ends kept, and draw at most so many; a shorter rest of a text is left out."""
    found = []
    for text in texts:
        # White space stays with the word before it.
        parts = [part for part in text.split(" ") if part]
        found += [" ".join(parts[start : start + words]) for start in range(0, len(parts) - words + 1, words)]
    random.Random(seed).shuffle(found)
    return found[:most]


def compare(
    base: str, styles: Sequence[Style], *, samples: int, tokens: int, words: int, pieces: int, seed: int
) -> dict[str, StyleFigures]:
    """Measure all styles.

    Args:
        base: the model that the runs started from.
        styles: two or more, each with a name of its own.
        samples: to write in each style.
        tokens: of a sample, at most.
        words: of a piece of text.
        pieces: of each style that the classifier learns from, and is tried on, at most; it learns from as many of each.
        seed: of all draws.

    Raises:
        ValueError: a model cannot be read, or the styles have too little text, or too few of them are given.
    """
    if len({style.name for style in styles}) < max(2, len(styles)):
        raise ValueError(f"Two or more runs with different names are needed, not {', '.join(s.name for s in styles)}.")
    real = {style.name: pieces_of_words(style.train, words, pieces, seed) for style in styles}
    # As many of each: what the judge has read more of knows more words, and each costs less there.
    fewest = min(map(len, real.values()))
    judge = NaiveBayes({name: found[:fewest] for name, found in real.items()})
    before_model, before_tokenizer = load(base, AUTO_CLASS)
    figures = {}
    for style in styles:
        model, tokenizer = load(str(style.folder), AUTO_CLASS)
        if before_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise ValueError(
                f"{style.folder} has another tokenizer than {base}: their perplexities cannot be compared."
            )
        before, after = perplexity(before_model, before_tokenizer, style), perplexity(model, tokenizer, style)
        prompts = style.prompts or [beginning(style.held_back[0], tokenizer, 16)]
        written = model.continue_text(  # type: ignore[operator]  # a method of our models
            [prompts[number % len(prompts)] for number in range(samples)],
            tokenizer=tokenizer,
            max_new_tokens=tokens,
            seed=seed,
        )
        known = pieces_of_words(style.held_back, words, pieces, seed)
        if not known:
            raise ValueError(f"The held-back text of {style.name} has no piece of {words} words: give fewer --words.")
        taken = [judge.classify(text) for text in written]
        figures[style.name] = StyleFigures(
            perplexity_before=before,
            perplexity_after=after,
            drop=1 - after / before,
            judge=sum(judge.classify(text) == style.name for text in known) / len(known),
            on_style=taken.count(style.name) / len(taken),
            taken_for={other.name: taken.count(other.name) for other in styles},
            samples=written,
        )
    return figures


def table(figures: dict[str, StyleFigures]) -> str:
    """Lay the figures out in Markdown."""
    lines = [
        "| style | perplexity before | after | drop | judge on real text | samples on style | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        lines.append(
            f"| {name} | {found.perplexity_before:.2f} | {found.perplexity_after:.2f} | {100 * found.drop:.1f} % | "
            f"{100 * found.judge:.1f} % | {100 * found.on_style:.1f} % | {'PASS' if found.passes else 'FAIL'} |"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    options = argparse.ArgumentParser(
        "compare_styles", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("base", help="model that the runs started from")
    options.add_argument("runs", nargs="+", type=Path, help="folders of runs, one for each style")
    options.add_argument(
        "--data_dir", help="folder that holds the files of all the runs, each run's in one of its folders"
    )
    options.add_argument("--samples", type=int, default=50, help="to write in each style (default: 50)")
    options.add_argument("--tokens", type=int, default=150, help="of a sample, at most (default: 150)")
    options.add_argument("--words", type=int, default=60, help="of a piece of text for the classifier (default: 60)")
    options.add_argument(
        "--pieces", type=int, default=2000, help="of each style for the classifier, at most (default: 2000)"
    )
    options.add_argument("--seed", type=int, default=1, help="of all draws (default: 1)")
    options.add_argument("--output", type=Path, help="JSON file for figures and samples")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 if all styles pass, 1 if one fails, 2 if the input is wrong."""
    given = vars(parser().parse_args(argv))
    base, runs, data_dir, output = (given.pop(name) for name in ("base", "runs", "data_dir", "output"))
    try:
        for name in ("samples", "tokens", "words", "pieces"):
            if given[name] < 1:
                raise ValueError(f"--{name} {given[name]} must be 1 or more.")
        if given["seed"] < 0:
            raise ValueError(f"--seed {given['seed']} must be 0 or more.")
        if output is not None and not output.parent.is_dir():
            raise ValueError(f"--output {output}: there is no folder {output.parent}.")
        figures = compare(base, [read_style(run, data_dir) for run in runs], **given)
    except ValueError as error:
        print(f"compare_styles: {error}", file=sys.stderr)
        return 2
    print(table(figures))
    if output is not None:
        contents: dict[str, Any] = {name: {**asdict(found), "passes": found.passes} for name, found in figures.items()}
        write_json(output, contents)
    return 0 if all(found.passes for found in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
