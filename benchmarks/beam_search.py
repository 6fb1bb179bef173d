"""Our beam search beside the library's `generate`: the same model, beams and texts, in turns in one run.

    python benchmarks/beam_search.py MODEL SOURCE [--threads 2] [--rounds 3]

MODEL is a folder of a trained encoder-decoder, SOURCE a file of source lines. Both search with 4 beams and no length penalty,
where they look for the same thing; the outputs are compared, and each difference is explained by the log-probabilities of the two.
`generate` is timed as people call it, in batches of 32 in the order of the file, and with our batches, sorted by length. Ratios of
medians over the rounds go to benchmarks/results/beam_search.json.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import transformers

from transformer_theatre.modeling.text_batches import batches_by_length
from transformer_theatre.modeling.text_to_text import EXTRA_LENGTH
from transformer_theatre.recipes.models import load


BEAMS = 4
RESULT = Path(__file__).parent / "results" / "beam_search.json"


def generate(model, tokenizer, texts: Sequence[str], batches: Sequence[Sequence[int]]) -> list[str]:
    """Translate by the library's search."""
    found = [""] * len(texts)
    for batch in batches:
        inputs = tokenizer([texts[i] for i in batch], return_tensors="pt", padding=True)
        longest = inputs["input_ids"].shape[1] + EXTRA_LENGTH
        output = model.generate(**inputs, num_beams=BEAMS, length_penalty=0.0, max_new_tokens=longest)
        for i, text in zip(batch, tokenizer.batch_decode(output, skip_special_tokens=True), strict=True):
            found[i] = text
    return found


def explain(model, tokenizer, texts: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> list[dict]:
    """Say, for every text where the two differ, how likely the model finds each."""
    differing = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    scored = [
        [sum(tokens) for tokens in model.score([texts[i] for i in differing], [found[i] for i in differing])]
        for found in (ours, theirs)
    ]
    return [
        {"line": i + 1, "ours": ours[i], "theirs": theirs[i], "log_prob_ours": a, "log_prob_theirs": b}
        for i, a, b in zip(differing, *scored, strict=True)
    ]


def timed(run: Callable[[], list[str]]) -> tuple[list[str], float]:
    """Run, and measure seconds."""
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def main():
    """Measure, print and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a trained encoder-decoder")
    parser.add_argument("source", type=Path, help="file of source lines")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="in which each is timed once (default: 3)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load(arguments.model, "AutoModelForSeq2SeqLM")
    texts = arguments.source.read_text(encoding="utf-8").splitlines()
    lengths = {i: len(ids) for i, ids in enumerate(tokenizer(texts)["input_ids"])}
    in_order = [range(i, min(i + 32, len(texts))) for i in range(0, len(texts), 32)]
    by_length = list(batches_by_length(lengths, 8192, BEAMS))

    ways = {
        "translate, alpha 0": lambda: model.translate(
            texts, tokenizer=tokenizer, num_beams=BEAMS, alpha=0, progress=False
        ),
        "generate, batches of 32 in order": lambda: generate(model, tokenizer, texts, in_order),
        "generate, our batches": lambda: generate(model, tokenizer, texts, by_length),
        "translate, alpha 0.6": lambda: model.translate(texts, tokenizer=tokenizer, num_beams=BEAMS, progress=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, list[str]] = {}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            outputs[name], took = timed(way)
            seconds[name].append(took)
            print(f"{name:34} {took:6.1f} s", flush=True)
    ours = "translate, alpha 0"
    result = {
        "sentences": len(texts),
        "threads": arguments.threads,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "processor": platform.machine(),
        "seconds": {name: [round(value, 2) for value in values] for name, values in seconds.items()},
        "times_as_long": {
            name: round(statistics.median(values) / statistics.median(seconds[ours]), 2)
            for name, values in seconds.items()
        },
        "differences": {
            name: explain(model, tokenizer, texts, outputs[ours], outputs[name]) for name in ways if "generate" in name
        },
    }
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, ratio in result["times_as_long"].items():
        differing = f"{len(result['differences'][name])} outputs differ" if name in result["differences"] else ""
        print(f"{name:34} {ratio:5.2f} times as long   {differing}")


if __name__ == "__main__":
    main()
