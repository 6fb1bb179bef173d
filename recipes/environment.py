"""What a figure was measured with: versions and hardware, without the name of the machine or of anybody."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import transformers


def versions() -> dict[str, str]:
    """Versions of what a figure may depend on, by package."""
    found = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    try:
        return {**found, "transformer-theatre": version("transformer-theatre")}
    except PackageNotFoundError:  # a checkout that was never installed
        return found


def hardware(device: torch.device) -> str:
    """Say on what a process computes: the kind of its accelerator, or of its processor with the threads that it uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Name the kind of processor, or its architecture where the system does not tell."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return f"CPU {' '.join(value.split())}"
    return f"CPU {platform.machine()}".strip()


def described(device: torch.device, processes: int = 1) -> dict[str, str | int]:
    """Return versions and hardware as metrics.json has them: `train_torch_version`, ..., `train_hardware`, `train_processes`."""
    named = {f"train_{name.replace('-', '_')}_version": value for name, value in versions().items()}
    return {**named, "train_hardware": hardware(device), "train_processes": processes}
