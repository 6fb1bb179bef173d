"""What a device could do at most, by the tables of its maker: the denominator of model FLOPs utilisation (MFU)."""

import re
from typing import Any

import torch


_A100 = "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
_H100 = "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
_V100 = "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf"

# Name of the device, as torch has it -> 10^12 operations a second by type, and the source. Matrix units, sums in float32, without
# sparsity: where a table only has the figure with sparsity, half of it. Boards that lower the clock reach less.
_PEAKS: list[tuple[str, dict[str, float], str]] = [
    (r"NVIDIA A100-.*", {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}, _A100),
    (r"NVIDIA H100 80GB HBM3", {"bf16": 989.5, "fp16": 989.5, "tf32": 494.5, "fp32": 67}, _H100),
    (r"NVIDIA H100 PCIe", {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51}, _H100),
    (r"NVIDIA H100 NVL", {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60}, _H100),
    (
        r"NVIDIA H200",
        {"bf16": 989.5, "fp16": 989.5, "tf32": 494.5, "fp32": 67},
        "https://www.nvidia.com/en-us/data-center/h200/",
    ),
    (
        r"NVIDIA L4",
        {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3},
        "https://www.nvidia.com/en-us/data-center/l4/",
    ),
    (
        r"NVIDIA L40S",
        {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6},
        "https://www.nvidia.com/en-us/data-center/l40s/",
    ),
    (
        r"NVIDIA A10",
        {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2},
        "https://www.nvidia.com/en-us/data-center/products/a10-gpu/",
    ),
    (r"Tesla T4", {"fp16": 65, "fp32": 8.1}, "https://www.nvidia.com/en-us/data-center/tesla-t4/"),
    (r"Tesla V100-SXM2-.*", {"fp16": 125, "fp32": 15.7}, _V100),
    (r"Tesla V100-PCIE-.*", {"fp16": 112, "fp32": 14}, _V100),
    (
        r"NVIDIA GeForce RTX 4090",
        {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6},
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    (
        r"NVIDIA GeForce RTX 3090",
        {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6},
        "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf",
    ),
]


def peak_flops(device_name: str, precision: str) -> float | None:
    """Look up the operations a second that a device does at most; None where they are not known.

    They are not known of a share of a device ("MIG"), nor of a CPU: what a test multiplication reaches there depends on what else
    runs, and a share of it would look like a figure that can be compared.

    Args:
        device_name: as `torch.cuda.get_device_name` has it.
        precision: "bf16", "fp16", "tf32" or "fp32".
    """
    for pattern, peaks, _ in _PEAKS:
        if re.fullmatch(pattern, device_name) and "MIG" not in device_name:
            return peaks[precision] * 1e12 if precision in peaks else None
    return None


def precision_of(args: Any, dtype: torch.dtype) -> str:
    """Name the type of number that matrices are multiplied in: what the arguments say, or that of the weights."""
    halves = {torch.bfloat16: "bf16", torch.float16: "fp16"}
    if args.bf16 or args.fp16 or dtype in halves:
        return "bf16" if args.bf16 else "fp16" if args.fp16 else halves[dtype]
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, "fp32_precision"):  # torch 2.9; "none": what holds for all
        own = matmul.fp32_precision
        return "tf32" if (torch.backends.fp32_precision if own == "none" else own) == "tf32" else "fp32"  # type: ignore[attr-defined]
    return "tf32" if matmul.allow_tf32 else "fp32"


def peak_of(args: Any, dtype: torch.dtype) -> float | None:
    """Look up the operations a second that the device of a run does at most; None where they are not known."""
    if args.device.type != "cuda":
        return None
    return peak_flops(torch.cuda.get_device_name(args.device), precision_of(args, dtype))
