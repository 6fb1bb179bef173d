"""Our training beside MarianMT and the library's stock Seq2SeqTrainer: the same sizes, text and tokenizer, in turns in one run.

    python benchmarks/training.py FOLDER [--threads 2] [--rounds 3] [--steps 40]

FOLDER holds Multi30k (train.de.gz, train.en.gz). What is counted is real tokens, source and target, a second, without padding; models
are of `multi30k-de-en/small`, ours by its optimizer, Muon, and by AdamW, which is theirs. Each is timed in a process of its own:
ours with the huge pages that `theatre` asks for (THP_MEM_ALLOC_ENABLE=1), and without; the other without, as it comes. Ratios of
medians over the rounds go to benchmarks/results/training.json.
"""

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    DataCollatorForSeq2Seq,
    MarianConfig,
    MarianMTModel,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from transformer_theatre import TransformerConfig, TransformerForConditionalGeneration
from transformer_theatre.recipes.run_arguments import RunArguments
from transformer_theatre.recipes.text_data import read_pairs
from transformer_theatre.recipes.tokenization import encode_pairs, train_bpe_tokenizer
from transformer_theatre.recipes.trainer import TheatreTrainer


SIDES = {"layers": 3, "attention_heads": 8, "ffn_dim": 512}
SIZES = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in SIDES.items()}
SIZES |= {"d_model": 256, "dropout": 0.15}
WARM_UP = 5
RESULT = Path(__file__).parent / "results" / "training.json"


class Counted:
    """Counts what a trainer is given; the first steps are not timed."""

    def __init__(self, collate):
        self.collate, self.real, self.padded = collate, [], []

    def __call__(self, rows: list[dict[str, Any]]):
        """Make a batch, and count its tokens."""
        batch = self.collate(rows)
        self.real.append(int(batch["attention_mask"].sum() + (batch["labels"] != -100).sum()))
        self.padded.append(batch["input_ids"].numel() + batch["labels"].numel())
        return batch


class Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self):
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        """Note the time."""
        self.ends.append(time.perf_counter())


def train(ours: bool, rows, tokenizer, threads: int, steps: int, **options) -> tuple[float, float]:
    """Train for some steps; return real tokens a second, and the share of padding."""
    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(1)
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if ours:
        config: Any = TransformerConfig(**SIZES, **ids, norm_first=True)
        config._attn_implementation = "eager"
        model: Any = TransformerForConditionalGeneration(config)
    else:
        config = MarianConfig(**SIZES, **ids, decoder_start_token_id=tokenizer.pad_token_id, scale_embedding=True)
        model = MarianMTModel(config)
    collate, clock = Counted(DataCollatorForSeq2Seq(tokenizer, model)), Clock()
    with tempfile.TemporaryDirectory() as folder:
        shared = {
            "output_dir": folder,
            "max_steps": steps,
            "use_cpu": True,
            "save_strategy": "no",
            "disable_tqdm": True,
        }
        shared |= {
            "per_device_train_batch_size": 128,
            "report_to": "none",
            "label_smoothing_factor": 0.1,
            "logging_steps": steps,
        }
        arguments = (RunArguments if ours else Seq2SeqTrainingArguments)(**shared, **options)
        trainer = (TheatreTrainer if ours else Seq2SeqTrainer)(
            model=model,
            args=arguments,
            data_collator=collate,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    seconds = clock.ends[-1] - clock.ends[WARM_UP - 1]
    real, padded = sum(collate.real[WARM_UP:steps]), sum(collate.padded[WARM_UP:steps])
    return real / seconds, 1 - real / padded


def train_apart(huge_pages: bool, **options) -> tuple[float, float]:
    """Train in a new process, with the huge pages that `theatre` asks for or with torch's own setting."""
    os.environ["THP_MEM_ALLOC_ENABLE"] = str(int(huge_pages))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(train, (), options)


def main():
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of Multi30k")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="in which each is timed once (default: 3)")
    parser.add_argument("--steps", type=int, default=40, help=f"the first {WARM_UP} are not timed (default: 40)")
    arguments = parser.parse_args()
    pairs = read_pairs(arguments.folder / "train.de.gz", arguments.folder / "train.en.gz")
    tokenizer = train_bpe_tokenizer([*pairs["source"], *pairs["target"]], 8000)
    rows = encode_pairs(pairs, tokenizer, 256)

    shared = {"rows": rows, "tokenizer": tokenizer, "threads": arguments.threads, "steps": arguments.steps}
    ours = {"ours": True, "max_tokens_per_batch": 4096, "bf16": True, "huge_pages": True}
    other = {"ours": False, "huge_pages": False}
    ways: dict[str, dict[str, Any]] = {
        "ours: 4,096 tokens a batch, bf16, Muon": {**ours, "optimizer": "muon"},
        "ours, AdamW": ours,
        "ours, AdamW, without huge pages": {**ours, "huge_pages": False},
        "MarianMT, Seq2SeqTrainer": other,
        "MarianMT, bf16, group_by_length": {**other, "bf16": True, "train_sampling_strategy": "group_by_length"},
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    padding: dict[str, float] = {}
    for _ in range(arguments.rounds):
        for name, options in ways.items():
            speed, padding[name] = train_apart(**options, **shared)
            speeds[name].append(speed)
            print(f"{name:40} {speed:8,.0f} real tokens/s, {100 * padding[name]:.1f} % padding", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    first = next(iter(ways))
    result = {
        "threads": arguments.threads,
        "steps": arguments.steps,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": platform.machine(),
        "real_tokens_per_second": {name: [round(value) for value in values] for name, values in speeds.items()},
        "padding_share": {name: round(value, 4) for name, value in padding.items()},
        "times_as_fast": {
            name: round(medians[first] / median, 2) for name, median in medians.items() if name != first
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for name, ratio in result["times_as_fast"].items():
        print(f"ours by Muon is {ratio:.2f} times as fast as {name}")


if __name__ == "__main__":
    main()
