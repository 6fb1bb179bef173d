"""Our training beside nanoGPT's own loop: the same sizes, text, batch and threads, in turns in one run.

    python benchmarks/nanogpt.py NANOGPT TEXT [--threads 1] [--rounds 3] [--steps 60]

NANOGPT is a checkout of https://github.com/karpathy/nanoGPT, of which nothing is part of this package; TEXT is Tiny Shakespeare. Both
train as `shakespeare-char/cpu` does: 4 layers, 4 heads, width 128, 12 rows of 64 characters, float32, no torch.compile, as nanoGPT's
README says for a CPU. A step is everything from one update to the next: batch, forward, backward, clipping, optimizer, schedule, log.
The medians of all steps but the first ones go to benchmarks/results/nanogpt.json.
"""

import argparse
import json
import os
import pickle
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path

import torch
import transformers
from transformers import TrainerCallback

from transformer_theatre.recipes.arguments import parse_recipe
from transformer_theatre.recipes.full_rows import stack_rows
from transformer_theatre.recipes.tokenization import encode_blocks
from transformer_theatre.recipes.train import load_recipe
from transformer_theatre.recipes.train_language_model import argument_types, make_model, make_tokenizer, read_texts
from transformer_theatre.recipes.trainer import TheatreTrainer


RECIPE = "shakespeare-char/cpu"
WARM_UP = 10
RESULT = Path(__file__).parent / "results" / "nanogpt.json"
# What nanoGPT's README gives for a CPU; its evaluation before the first step is not timed.
OPTIONS = {
    "device": "cpu",
    "compile": False,
    "eval_iters": 1,
    "eval_interval": 1_000_000,
    "log_interval": 1,
    "block_size": 64,
    "batch_size": 12,
    "n_layer": 4,
    "n_head": 4,
    "n_embd": 128,
    "lr_decay_iters": 2000,
    "dropout": 0.0,
}


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        """Note the time."""
        self.ends.append(time.perf_counter())


def ours(text: Path, steps: int) -> list[float]:
    """Train by the recipe for some steps; return the seconds of each but the first ones."""
    recipe, clock = load_recipe(RECIPE), Clock()
    with tempfile.TemporaryDirectory() as folder:
        words = ["--train_text", str(text), "--output_dir", folder, "--max_steps", str(steps), "--use_cpu", "true"]
        words += ["--eval_strategy", "no", "--save_strategy", "no", "--disable_tqdm", "true", "--report_to", "none"]
        (model_args, _, _, data, args), _ = parse_recipe(recipe, words, *argument_types(recipe, words))
        train, _ = read_texts(data)
        tokenizer = make_tokenizer(data, args, train, model_args)
        model = make_model(model_args, tokenizer)
        rows = encode_blocks(train, tokenizer, model.config.max_position_embeddings)
        trainer = TheatreTrainer(
            model=model,
            args=args,
            data_collator=stack_rows,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    return [after - before for before, after in zip(clock.ends[WARM_UP - 1 :], clock.ends[WARM_UP:], strict=False)]


def theirs(checkout: Path, text: Path, steps: int, threads: int) -> list[float]:
    """Run nanoGPT's train.py for some steps, in a copy of its checkout; return the seconds of each but the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "nanoGPT"
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git"))
        prepare(text, copy / "data" / "shakespeare_char")
        words = [f"--{name}={value}" for name, value in {**OPTIONS, "max_iters": steps - 1}.items()]
        command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *words]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"nanoGPT's train.py failed: {done.stderr.strip().splitlines()[-1:]}")
    times = [float(found) / 1000 for found in re.findall(r"^iter \d+: .*time ([\d.]+)ms", done.stdout, re.MULTILINE)]
    return times[WARM_UP:]


def prepare(text: Path, folder: Path):
    """Write what its data/shakespeare_char/prepare.py would, which downloads the text: numbers of characters, 16 bits each."""
    characters = text.read_text(encoding="utf-8")
    known = sorted(set(characters))
    number = {character: place for place, character in enumerate(known)}
    cut = int(len(characters) * 0.9)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", characters[:cut]), ("val", characters[cut:])):
        (folder / f"{name}.bin").write_bytes(array("H", [number[character] for character in part]).tobytes())
    meta = {"vocab_size": len(known), "itos": dict(enumerate(known)), "stoi": number}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))


def main():
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", type=Path, help="checkout of nanoGPT")
    parser.add_argument("text", type=Path, help="Tiny Shakespeare, a text file")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="in which each is timed once (default: 3)")
    parser.add_argument("--steps", type=int, default=60, help=f"the first {WARM_UP} are not timed (default: 60)")
    arguments = parser.parse_args()
    if not (arguments.nanogpt / "train.py").is_file():
        parser.error(f"{arguments.nanogpt} is no checkout of nanoGPT: it has no train.py.")
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    times: dict[str, list[float]] = {"ours": [], "nanoGPT": []}
    for _ in range(arguments.rounds):
        times["ours"] += ours(arguments.text, arguments.steps)
        times["nanoGPT"] += theirs(arguments.nanogpt, arguments.text, arguments.steps, arguments.threads)
        print({name: f"{1000 * statistics.median(found):.1f} ms a step" for name, found in times.items()}, flush=True)
    medians = {name: statistics.median(found) for name, found in times.items()}
    result = {
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "steps": arguments.steps,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": platform.machine(),
        "milliseconds_a_step": {name: round(1000 * value, 2) for name, value in medians.items()},
        "quickest_step_milliseconds": {name: round(1000 * min(found), 2) for name, found in times.items()},
        "ours_over_nanogpt": round(medians["ours"] / medians["nanoGPT"], 3),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
