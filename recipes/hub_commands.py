"""The options of `theatre publish` and `theatre verify-load`; apart from the rest, so that `theatre --help` need not import it."""

import argparse
from pathlib import Path
from typing import Any


PUBLISH = """Put a model folder on the Hub, so that anybody can load it, with this package or without.

  theatre publish runs/de-en user/de-en --dry-run     what would go there, and what would happen; nothing is touched
  theatre publish runs/de-en user/de-en --private

It lets a process without this package load what will be published, and compares its answer to a fixed input, the golden one, with that of
the model here; refuses files that hold a token, a path or a name of this machine; sends weights, configuration, tokenizer, code, card,
figures and recipe in one commit, so that nobody ever loads half of it; and then loads that commit back from the Hub, compares
checksums, and has the process load it once more.

A token with the role write is taken from `hf auth login` or HF_TOKEN. When it fails, the repository is as it was, and the same
command again goes on: what was sent is not sent twice. Exit code 0: published; 1: it failed; 2: the input was wrong."""

VERIFY = """Check that a model still loads and answers as it did when it was published.

  theatre verify-load user/de-en                                      here, in a process without this package
  theatre verify-load runs/de-en --transformers 5.4,5.10,latest       in a fresh environment for each version

The model's golden.safetensors holds an input and the logits, tokens and text that the model made of it. For each version of transformers an
environment is made with `venv` and `pip`, the model is loaded there by its own code, and the answers are compared: PASS where no
logit differs by more than 1e-4 of the largest, and tokens and text are the same. Of a folder that was never published, the golden
answer is made now, by this package. Exit code 0: all PASS; 1: one FAIL; 2: the input was wrong."""


def add_parsers(commands: Any):
    """Add both sub-commands to argparse's sub-parsers."""
    options: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    publish = commands.add_parser(
        "publish", help="check a model folder, and put it on the Hub", description=PUBLISH, **options
    )
    publish.add_argument("folder", metavar="DIR", type=Path, help="output folder of a run, or of `theatre convert`")
    publish.add_argument("name", metavar="REPO_ID", help='repository on the Hub, "user/name"; made if it is not there')
    publish.add_argument("--private", action="store_true", help="make a private repository")
    publish.add_argument("--revision", help="branch to commit to, made if it is not there (default: main)")
    publish.add_argument("--create-pr", "--create_pr", action="store_true", help="propose it as a pull request")
    publish.add_argument("--dry-run", "--dry_run", action="store_true", help="check and list, and touch nothing")
    publish.add_argument("--message", default="Publish the model", help="of the commit (default: Publish the model)")
    publish.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="names and paths that may stand in the files all the same",
    )

    verify = commands.add_parser(
        "verify-load", help="check that a published model still answers as it did", description=VERIFY, **options
    )
    verify.add_argument("model", metavar="MODEL", help="a model on the Hub, or a model folder")
    verify.add_argument("--revision", help="commit, branch or tag of the repository (default: main)")
    verify.add_argument(
        "--transformers",
        metavar="VERSIONS",
        help="versions to check with, by commas: 5.4 is the newest 5.4.x, latest the newest of all (default: the installed one)",
    )
    verify.add_argument(
        "--torch", help='what pip is to install as torch, such as "torch==2.6.*" (default: torch>=2.6)'
    )
    verify.add_argument(
        "--share-torch",
        "--share_torch",
        action="store_true",
        help="use the installed torch, and what else is installed here",
    )
    verify.add_argument(
        "--pip",
        default="",
        metavar="OPTIONS",
        help='more options of pip, in one word: --pip="--index-url https://..."',
    )
    verify.add_argument("--environments", type=Path, help="folder to keep the environments in, and to find them again")
