"""The `theatre` command."""

import argparse
import gc
import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers.utils import logging

from .line_reader import BYTE_ORDER_MARK
from .signals import StoppedBySignalError
from .stdin_lines import CHUNK, stdin_lines
from .strict_parser import StrictParser, whole_number


DESCRIPTION = """Train the original Transformer and a GPT from scratch on your own text, and use what you trained.

  theatre demo                                    learn to read dates in many languages, in a few minutes
  theatre train RECIPE --data_dir FOLDER          train on your own text
  theatre plan RECIPE --devices 8                 what that takes: memory, hours
  theatre translate MODEL < source.txt            translate lines
  theatre generate MODEL --prompt "Once"          continue a text
  theatre classify MODEL FILE                     label lines, by a fine-tuned model
  theatre evaluate MODEL RECIPE --data_dir FOLDER score a model, and compare it with another
  theatre verify RECIPE --data_dir FOLDER         check that a recipe reaches its published figure
  theatre convert MODEL FOLDER                    make a model from elsewhere ours, such as OPUS-MT or GPT-2
  theatre publish FOLDER user/repository          check a model, and put it on the Hub
  theatre verify-load MODEL --transformers 5.4    check that a model still answers as when it was published

MODEL is the output folder of a run, or a model on the Hub ("user/repository")."""
# Commands that read their own words -> the module of each: the options of most depend on a recipe.
COMMANDS = {
    "train": ".train",
    "verify": ".verify",
    "evaluate": ".scoring.command_line",
    "plan": ".plan",
    "compare": ".compare",
}


def parser() -> argparse.ArgumentParser:
    """Build the command line, but for the options of `COMMANDS`."""
    top = StrictParser("theatre", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--traceback", action="store_true", help="show where an error was raised")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="learn to read dates, and show everything on the way")
    demo.add_argument("--output_dir", default="runs/demo", help="folder of the run; an earlier demo in it is replaced")
    demo.add_argument("--date", help="a date in your language, to be read at the end (default: today, in your locale)")

    commands.add_parser("train", help="train by a recipe; `theatre train --help` lists the recipes", add_help=False)

    commands.add_parser("verify", help="check that a recipe reaches its figure: PASS or FAIL", add_help=False)
    commands.add_parser(
        "plan", help="say what a recipe takes; `theatre plan --help` shows the options", add_help=False
    )

    translate = commands.add_parser("translate", help="translate lines of stdin to lines of stdout, in order")
    translate.add_argument("model", help="output folder of a run, or a model on the Hub")
    translate.add_argument("--num_beams", type=whole_number, help="beams of the search (default: the model's)")
    translate.add_argument(
        "--alpha", type=float, help="of the length penalty ((5 + tokens) / 6) ** alpha (default: the model's)"
    )
    translate.add_argument(
        "--n_best",
        type=whole_number,
        default=1,
        help="translations of each line; above 1 a line of output is: number of the line, tab, score, tab, translation",
    )
    translate.add_argument(
        "--max_tokens_per_batch",
        type=whole_number,
        default=8192,
        help="padded source tokens in a batch, times beams (default: 8192)",
    )

    generate = commands.add_parser("generate", help="continue a text, token by token")
    generate.add_argument("model", help="output folder of a run, or a model on the Hub")
    generate.add_argument(
        "--prompt", help="the text to continue (default: what stdin holds; on a terminal, one line after the other)"
    )
    generate.add_argument("--max_new_tokens", type=whole_number, default=500, help="tokens (default: 500)")
    generate.add_argument(
        "--temperature", type=float, help="0 takes the likeliest token each time (default: the model's, or 0.8)"
    )
    generate.add_argument(
        "--top_k", type=int, help="draw from the likeliest so many; 0: from all (default: the model's, or 200)"
    )
    generate.add_argument(
        "--top_p",
        type=float,
        help="draw from the likeliest tokens that together have this probability (default: the model's, or 1)",
    )
    generate.add_argument("--seed", type=int, help="of the draw (default: another each time)")

    classify = commands.add_parser(
        "classify", help="label lines: a line of output is the label, a tab, its probability"
    )
    classify.add_argument(
        "model", help="output folder of a run of a task such as classification, or a model on the Hub"
    )
    classify.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="a text a line; two texts, or a context and its answers, with tabs between; may end in .gz (default: stdin)",
    )

    commands.add_parser("compare", help="train and compare: `theatre compare --help` shows what", add_help=False)

    commands.add_parser(
        "evaluate", help="score a model on a text; `theatre evaluate --help` shows the options", add_help=False
    )

    from .conversion.command_line import add_parser
    from .hub_commands import add_parsers

    add_parser(commands)
    add_parsers(commands)
    return top


def run_translate(arguments: argparse.Namespace) -> int:
    """Translate lines of stdin to lines of stdout, as many, in the same order; blank lines stay blank."""
    from .models import load

    model, tokenizer = load(arguments.model, "AutoModelForSeq2SeqLM")
    typed = sys.stdin.isatty()
    if typed:
        print("Type a line and press Enter; Ctrl-D ends.", file=sys.stderr)
    options = {name: getattr(arguments, name) for name in ("num_beams", "alpha", "n_best", "max_tokens_per_batch")}
    options |= {"tokenizer": tokenizer, "progress": not typed and sys.stderr.isatty()}
    model.translate([], **options)  # a wrong option is named before a line is read
    for first, lines in _chunks(1 if typed else CHUNK):
        found = model.translate(lines, return_scores=True, first_number=first, **options)
        for number, best in enumerate(found, first):
            for translation in best if arguments.n_best > 1 else [best]:
                # A line in must be a line out, whatever the model wrote.
                text = " ".join(translation.text.splitlines())
                print(f"{number}\t{translation.score:.4f}\t{text}" if arguments.n_best > 1 else text)
        sys.stdout.flush()
    return 0


def _chunks(size: int) -> Iterator[tuple[int, list[str]]]:
    """Read stdin in chunks of at most `size` lines, each with the number of its first line."""
    lines: list[str] = []
    number = 0
    for number, line in enumerate(stdin_lines(), 1):
        lines.append(line)
        if len(lines) == size:
            yield number - size + 1, lines
            lines = []
    if lines:
        yield number - len(lines) + 1, lines


def run_generate(arguments: argparse.Namespace) -> int:
    """Print a prompt and, as it comes, its continuation; on a terminal, for one line after the other."""
    from .models import load
    from .token_printer import TokenPrinter

    def show(text: str):
        sys.stdout.write(text)
        sys.stdout.flush()

    model, tokenizer = load(arguments.model, "AutoModelForCausalLM")
    printer = TokenPrinter(tokenizer, show)
    options = {name: getattr(arguments, name) for name in ("max_new_tokens", "temperature", "top_k", "top_p", "seed")}
    options |= {"tokenizer": tokenizer, "progress": False, "streamer": printer}
    typed = arguments.prompt is None and sys.stdin.isatty()
    if not typed:
        prompt = _read_prompt() if arguments.prompt is None else arguments.prompt
        printer.before = prompt
        model.continue_text([prompt], **options)
        print()
        return 0
    print("Type a text to continue, and press Enter; Ctrl-D ends.", file=sys.stderr)
    for _, [line] in _chunks(1):
        try:
            printer.before = line
            model.continue_text([line], **options)
        except ValueError as error:  # of this line; the next may be right
            print(f"theatre: {error}", file=sys.stderr)
        print()
    return 0


def _read_prompt() -> str:
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin: byte {error.start + 1} is no UTF-8.") from None
    # The newline that ends the last line, as `echo` writes it, is no part of the text.
    return text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n").removesuffix("\n")


def run_classify(arguments: argparse.Namespace) -> int:
    """Print what a fine-tuned model answers on each line."""
    from .classify import run

    return run(arguments.model, arguments.file)


def run_convert(arguments: argparse.Namespace) -> int:
    """Make a model from elsewhere ours, or ours one of theirs."""
    from .conversion.convert import run

    return run(arguments)


def run_publish(arguments: argparse.Namespace) -> int:
    """Put a model folder on the Hub."""
    from .publish import run

    return run(arguments)


def run_verify_load(arguments: argparse.Namespace) -> int:
    """Check that a published model still answers as it did."""
    from .verify_load import run

    return run(arguments)


def run_demo(arguments: argparse.Namespace) -> int:
    """Run the demo."""
    from .demo import demo

    return demo(Path(arguments.output_dir), arguments.date)


def _as_text(word: str) -> str:
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"The command line: byte {error.start + 1} of {word!r} is no UTF-8.") from None


def leave_processes():
    """Leave the processes of a run on several devices, all of which end here: their threads must not outlive Python.

    To be called where nothing refers to the trainer any more, not even the traceback of an error.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return
    group = distributed.group.WORLD
    backends = [group._get_backend(device) for device in group._device_types]
    distributed.destroy_process_group()
    # The last owner of a backend waits for its threads, which may wait for Python's lock. A Python reference gives the lock up
    # meanwhile; DDP does not (https://github.com/pytorch/pytorch/issues/56297), and so goes first.
    del group
    gc.collect()
    backends.clear()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 (done), 1 (the run failed) or 2 (the input was wrong)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Large tensors of a CPU in huge pages, which on one thread saves up to a quarter of a step: torch reads this before its first tensor.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(encoding="utf-8")  # whatever the locale: text comes in many scripts
    # Our own bars say what takes long; the library's come in between.
    logging.disable_progress_bar()
    shows_traceback = "--traceback" in argv
    try:
        # Where the locale is not UTF-8, Python hands over bytes in disguise.
        words = [_as_text(word) for word in argv if word != "--traceback"]
        if sys.stdin is None or sys.stdout is None:
            raise ValueError("stdin or stdout is closed.")
        if words and words[0] in COMMANDS:
            code = importlib.import_module(COMMANDS[words[0]], __package__).main(words[1:])
        else:
            arguments = parser().parse_args(words)
            code = globals()[f"run_{arguments.command.replace('-', '_')}"](arguments)
    except (ValueError, StrictDataclassError) as error:
        if shows_traceback:
            traceback.print_exc()
        print(f"theatre: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does: nothing is wrong.
        sys.stdout = None
        return 0
    except StoppedBySignalError as error:
        print(f"theatre: {error}", file=sys.stderr)
        code = 128 + error.number
    except Exception as error:  # the run failed: one line for who runs it, the rest for who mends it
        if shows_traceback:
            traceback.print_exc()
        what = " ".join(str(error).split())[:800] or "no message"
        print(f"theatre: failed: {type(error).__name__}: {what} (--traceback shows where)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("theatre: interrupted", file=sys.stderr)
        return 130
    leave_processes()
    return code


if __name__ == "__main__":
    sys.exit(main())
