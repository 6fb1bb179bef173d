"""The options of `theatre evaluate`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from transformer_theatre.recipes.data_arguments import TEXT_METRICS
from transformer_theatre.recipes.strict_parser import StrictParser, whole_number


DESCRIPTION = """Score a model on a text: how good it is, how sure that is, and where it fails.

  theatre evaluate MODEL RECIPE --data_dir FOLDER            the validation and test text of a recipe, as training measures them
  theatre evaluate MODEL test.de test.en                     a translator on two parallel files (or one .tsv or .jsonl file)
  theatre evaluate MODEL text.txt                            a language model on running text
  ... --baseline OTHER                                       is the difference to another model, or to a file of its outputs, real?

MODEL is the output folder of a run, or a model on the Hub ("user/repository"). RECIPE is a YAML file or the name of a recipe that comes
with the package; further options are then those of the recipe, such as --max_length 100.

Prints one JSON object on stdout, and a table on stderr. Both, the outputs and pictures go into a folder: evaluation.json,
outputs/ and figures/ in --output_dir, or in MODEL where that is a folder; the model card in it is then written again."""

EPILOG = """What is measured:
  translation       BLEU, chrF2, TER (sacrebleu, with signatures), exact match, or what --metrics or the recipe say; negative
                    log-likelihood, perplexity and bits per byte of the references; COMET, if asked
  language models   negative log-likelihood, perplexity and bits per byte
  all               95 % intervals by the bootstrap, speed, peak memory, the worst examples
  --baseline        difference with its 95 % interval, and the p-value of sacrebleu's paired bootstrap test (Koehn, 2004): the
                    probability of a difference as large by chance. Below 0.05, say that it is real.

docs/evaluate.md says what each figure means, and what is in evaluation.json."""


def parser() -> argparse.ArgumentParser:
    """Build the command line."""
    made = StrictParser(
        "theatre evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="theatre evaluate MODEL [RECIPE | FILE [FILE]] [--option value ...]",
        allow_abbrev=False,
    )
    made.add_argument("model", metavar="MODEL", help="output folder of a run, or a model on the Hub")
    made.add_argument(
        "texts", metavar="RECIPE | FILE", nargs="*", help="what to score it on: a recipe, or one or two files"
    )
    text = made.add_argument_group("text")
    text.add_argument("--source", type=Path, help="file of source lines, or a .tsv or .jsonl file with both sides")
    text.add_argument("--target", type=Path, help="file of target lines, parallel to the source")
    text.add_argument("--text", type=Path, help="running text, for a language model")
    text.add_argument("--data_dir", help="folder that the file names of a recipe start from")
    text.add_argument(
        "--stride",
        type=whole_number,
        help="of a file of running text: tokens from one row to the next; fewer than the context give every token more before it",
    )
    how = made.add_argument_group("how")
    how.add_argument(
        "--num_beams", type=whole_number, help="beams of the search (default: the recipe's, or the model's)"
    )
    how.add_argument(
        "--metrics",
        nargs="+",
        choices=TEXT_METRICS,
        help=f"of {', '.join(TEXT_METRICS)} (default: those of the recipe, or bleu, chrf, exact_match; and ter where there is bleu)",
    )
    how.add_argument(
        "--target_language",
        help="code, such as \"en\", for BLEU in Moses' tokens (default: what the run's recipe says)",
    )
    how.add_argument(
        "--baseline", metavar="OTHER", help="model to compare with, or a file of outputs, a line for each text"
    )
    how.add_argument(
        "--comet", type=Path, metavar="CHECKPOINT", help="also score by COMET: file of its model on this machine"
    )
    how.add_argument(
        "--comet_python",
        metavar="PYTHON",
        help="interpreter of an environment with unbabel-comet (default: this one; unbabel-comet 2.2 needs transformers below 5)",
    )
    how.add_argument(
        "--worst", type=whole_number, default=10, metavar="N", help="examples that are shown (default: 10)"
    )
    how.add_argument(
        "--output_dir", type=Path, help="folder for what is written (default: MODEL, where it is a folder)"
    )
    return made


def main(words: Sequence[str]) -> int:
    """Run the command line behind `theatre evaluate`.

    Raises:
        ValueError: an option, the model or the text is wrong.
    """
    from .evaluate import evaluate

    arguments, overrides = parser().parse_known_args(words)
    found, table = evaluate(arguments, overrides)
    print(table, file=sys.stderr)
    if not sys.stdout.isatty():  # who watches has the table
        print(json.dumps(found, indent=2))
    return 0
