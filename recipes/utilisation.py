"""Model FLOPs utilisation (MFU): the operations that learning needs, of those that the devices could have done."""

from collections.abc import Sequence
from typing import Any

import torch

from .devices import find_device
from .flops import training_flops


def flops_of_tokens(config: Any, sums: Sequence[float], *, projects: bool = True) -> float:
    """Count the operations of learning from tokens, by `training_flops`, for rows of any lengths, to the last token.

    Padding, and what activation checkpointing computes twice, is no work that must be done.

    Args:
        config: of the model.
        sums: over all rows, of s tokens of source and t of target: the sums of s, t, s * s, t * t and s * t, as `TokenCounter`
            keeps them; a causal model has t alone.
        projects: as for `training_flops`.
    """

    def count(source: int, target: int) -> float:
        return training_flops(config, source, target, projects=projects)

    # Each row takes a * s + b * t + c * s * s + d * t * t + e * s * t.
    source_pairs, target_pairs = (count(2, 0) - 2 * count(1, 0)) / 2, (count(0, 2) - 2 * count(0, 1)) / 2
    crossed = count(1, 1) - count(1, 0) - count(0, 1)
    weights = (count(1, 0) - source_pairs, count(0, 1) - target_pairs, source_pairs, target_pairs, crossed)
    return sum(weight * total for weight, total in zip(weights, sums, strict=True))


def precision_of(args: Any, dtype: torch.dtype) -> str:
    """Name the format that matrices are multiplied in: what the arguments say, or that of the weights."""
    halves = {torch.bfloat16: "bfloat16", torch.float16: "float16"}
    if args.bf16 or args.fp16 or dtype in halves:
        return "bfloat16" if args.bf16 else "float16" if args.fp16 else halves[dtype]
    matmul: Any = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch 2.9; "none": what holds for all
        own = matmul.fp32_precision
        general: Any = torch.backends
        return "tf32" if (general.fp32_precision if own == "none" else own) == "tf32" else "float32"
    return "tf32" if matmul.allow_tf32 else "float32"


def peak_flops(device_name: str, precision: str) -> float | None:
    """Look up the operations a second that a device does at most; None where they are not known.

    They are not known of a share of a device ("MIG"), of a laptop's namesake, or of a CPU: what a test multiplication reaches there
    depends on what else runs, and a share of it would look like a figure that can be compared.
    """
    device = None if {"MIG", "Laptop"} & set(device_name.split()) else find_device(device_name)
    return None if device is None else device.peaks.get(precision)


def peak_of(args: Any, dtype: torch.dtype) -> float | None:
    """Look up the operations a second that the device of a run does at most; None where they are not known."""
    if args.device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(args.device), precision_of(args, dtype))
