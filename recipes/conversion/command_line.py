"""The options of `theatre convert`; apart from the rest, so that `theatre --help` need not import every format."""

import argparse
from pathlib import Path
from typing import Any


DESCRIPTION = """Make a model from elsewhere ours, or ours a model of the transformers library.

  theatre convert Helsinki-NLP/opus-mt-de-en models/de-en      from the Hub, or from a folder; then:
  theatre translate models/de-en < source.txt
  theatre convert out-shakespeare-char/ckpt.pt models/play     from nanoGPT; then:
  theatre generate models/play --prompt "ROMEO:"
  theatre convert runs/mine models/mine-marian --to marian     ours, for whoever has transformers alone

SOURCE is one of:
  MarianMT: OPUS-MT and other models of Helsinki-NLP           marian
  FSMT: fairseq's WMT19 models of facebook and allenai         fsmt
  OpenAI GPT, the first of them                                openai-gpt
  GPT-2, and what others trained in its format                 gpt2
  nanoGPT: ckpt.pt, or a folder that holds it                  nanogpt

Both models then read the same texts: where their logits differ by more than 1e-4, nothing is written (exit code 1). What
was compared is shown, and kept in parity.json. What cannot be converted is refused by its name (exit code 2)."""


def add_parser(commands: Any):
    """Add the sub-command to argparse's sub-parsers."""
    convert = commands.add_parser(
        "convert",
        help="make a model from elsewhere ours (Marian, FSMT, GPT, GPT-2, nanoGPT), or ours one of theirs",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    convert.add_argument("source", metavar="SOURCE", help="folder or file of a model, or its name on the Hub")
    convert.add_argument("target", metavar="TARGET_FOLDER", type=Path, help="folder to write, new or empty")
    convert.add_argument(
        "--to", choices=("marian", "openai-gpt", "gpt2"), help="write this format; SOURCE is then a model of ours"
    )
    convert.add_argument(
        "--tokenizer", help="in place of the source's: a folder, a name on the Hub, or nanoGPT's meta.pkl"
    )
    convert.add_argument(
        "--sentences", type=Path, help="file of texts to compare on, one a line (default: eight short ones)"
    )
