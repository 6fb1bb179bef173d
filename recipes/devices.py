"""Accelerators: how much memory they have, and how fast they multiply matrices at best, by their makers' data sheets.

All figures are "dense": makers also print twice as much, for matrices half of which are zeros. For GeForce cards the figure
of half precision is that with sums in float32, as torch computes; it is twice the one of float32.
"""

from dataclasses import dataclass


_NVIDIA = "https://www.nvidia.com/en-us/data-center"
_AMD = "https://www.amd.com/en/products/accelerators/instinct"


@dataclass(frozen=True)
class Device:
    """An accelerator.

    Args:
        name: short, as `find_device` takes it.
        reported: words that all stand in the name by which torch reports it, in lower case.
        memory_gb: 10^9 bytes.
        peaks: operations a second, by the format of the factors: "float32", "tf32" (float32 with fewer bits, where torch is
            told to), "float16", "bfloat16"; a format that is missing has no fast units.
        source: where the figures are from.
    """

    name: str
    reported: tuple[str, ...]
    memory_gb: float
    peaks: dict[str, float]
    source: str


def _peaks(float32: float, tf32: float | None, float16: float, bfloat16: float | None) -> dict[str, float]:
    """Of figures in 10^12 operations a second."""
    given = {"float32": float32, "tf32": tf32, "float16": float16, "bfloat16": bfloat16}
    return {name: value * 1e12 for name, value in given.items() if value is not None}


_ADA = "https://images.nvidia.com/aem-dam/Solutions/Data-Center/l4/nvidia-ada-gpu-architecture-whitepaper-v2.1.pdf"
_GA102 = "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf"
_A100 = _peaks(19.5, 156, 312, 312)
_HOPPER = _peaks(66.9, 494.7, 989.4, 989.4)

# Those whose reported name holds another's come first.
DEVICES = [
    Device("P100", ("p100",), 16, _peaks(10.6, None, 21.2, None), f"{_NVIDIA}/tesla-p100 (SXM2)"),
    Device("V100-16GB", ("v100", "16gb"), 16, _peaks(15.7, None, 125, None), f"{_NVIDIA}/v100 (SXM2)"),
    Device("V100-32GB", ("v100", "32gb"), 32, _peaks(15.7, None, 125, None), f"{_NVIDIA}/v100 (SXM2)"),
    Device("T4", ("tesla t4",), 16, _peaks(8.1, None, 65, None), f"{_NVIDIA}/tesla-t4"),
    Device("RTX 3090", ("rtx 3090",), 24, _peaks(35.6, 35.6, 71.2, 71.2), _GA102),
    Device("RTX 4090", ("rtx 4090",), 24, _peaks(82.6, 82.6, 165.2, 165.2), _ADA),
    Device("A10", ("a10",), 24, _peaks(31.2, 62.5, 125, 125), f"{_NVIDIA}/products/a10-gpu"),
    Device("L4", ("l4",), 24, _peaks(30.3, 60, 121, 121), f"{_NVIDIA}/l4"),
    Device("L40S", ("l40s",), 48, _peaks(91.6, 183, 362, 362), f"{_NVIDIA}/l40s"),
    Device("A100-40GB", ("a100", "40gb"), 40, _A100, f"{_NVIDIA}/a100"),
    Device("A100-80GB", ("a100", "80gb"), 80, _A100, f"{_NVIDIA}/a100"),
    Device("H100 NVL", ("h100", "nvl"), 94, _peaks(60, 417.5, 835, 835), f"{_NVIDIA}/h100"),
    Device("H100 PCIe", ("h100", "pcie"), 80, _peaks(51.2, 378, 756, 756), f"{_NVIDIA}/h100"),
    Device("H100", ("h100",), 80, _HOPPER, f"{_NVIDIA}/h100 (SXM)"),
    Device("H200", ("h200",), 141, _HOPPER, f"{_NVIDIA}/h200"),
    Device("B200", ("b200",), 180, _peaks(75, 1100, 2250, 2250), f"{_NVIDIA}/hgx (HGX B200, an eighth)"),
    Device("MI250X", ("mi250x",), 64, _peaks(47.9 / 2, None, 191.5, 191.5), f"{_AMD}/mi200/mi250x.html (one of its two dies)"),
    Device("MI300X", ("mi300x",), 192, _peaks(163.4, 653.7, 1307.4, 1307.4), f"{_AMD}/mi300/mi300x.html"),
]  # fmt: skip


def find_device(name: str) -> Device | None:
    """Find an accelerator by its short name ("H100"), or by the one that `torch.cuda.get_device_name()` reports.

    Returns:
        None, where it is not listed.
    """
    wanted = name.lower()
    for device in DEVICES:
        if device.name.lower() == wanted:
            return device
    words = wanted.replace("-", " ").split()
    for device in DEVICES:
        if all(_stands_in(part, words, wanted) for part in device.reported):
            return device
    return None


def _stands_in(part: str, words: list[str], name: str) -> bool:
    """A word must be there as it is, an "L4" is no "L40"; what two words name, alone: an "RTX 4090" is no "RTX 4090 D"."""
    return name.endswith(part) if " " in part else part in words
