"""Energy that a run has taken, in joules, where the machine tells it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch


class ProcessorEnergy:
    """The packages of the machine's processors, by Linux's counters (RAPL), whatever runs on them.

    https://www.kernel.org/doc/html/latest/power/powercap/powercap.html. A counter begins again at 0 where it reaches its range, some
    minutes to an hour of work: read it more often. Since 2020 it takes root to read it, unless the machine allows more.

    Args:
        folder: where the counters are.
    """

    def __init__(self, folder: Path = Path("/sys/class/powercap")):
        self.joules = 0.0
        self._last: dict[Path, int] = {}
        self._range: dict[Path, int] = {}
        # "intel-rapl:0" is a package, on AMD too; "intel-rapl:0:1" a part of it, and "psys" the whole machine once more.
        for domain in sorted(folder.glob("intel-rapl:*")):
            try:
                name = (domain / "name").read_text(encoding="ascii")
                if domain.name.count(":") == 1 and name.startswith("package"):
                    counts_to = int((domain / "max_energy_range_uj").read_text(encoding="ascii"))
                    self._last[domain] = self._microjoules(domain)
                    self._range[domain] = counts_to
            except (OSError, ValueError):
                continue

    @property
    def is_known(self) -> bool:
        """Whether there is a counter that may be read."""
        return bool(self._range)

    @staticmethod
    def _microjoules(domain: Path) -> int:
        return int((domain / "energy_uj").read_text(encoding="ascii"))

    def read(self) -> float | None:
        """Return the joules since this object was made; None from when on a counter cannot be read any more."""
        for domain, counts_to in self._range.items():
            try:
                now = self._microjoules(domain)
            except (OSError, ValueError):
                self._range = {}
                return None
            self.joules += ((now - self._last[domain]) % counts_to) / 1e6
            self._last[domain] = now
        return self.joules


class GpuEnergy:
    """One NVIDIA GPU, by its own counter, which the package `pynvml` (of nvidia-ml-py) reads; Volta and newer have one.

    Args:
        device: a CUDA device; of others nothing is known.
    """

    def __init__(self, device: torch.device):
        self._nvml: Any = None
        self._handle: Any = None
        if device.type != "cuda" or torch.version.cuda is None or find_spec("pynvml") is None:
            return
        import pynvml

        try:
            pynvml.nvmlInit()
            # By its own number: CUDA_VISIBLE_DEVICES renumbers the devices for torch, not for NVML.
            identity = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(identity)
            self._first = pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
            self._nvml = pynvml
        except (pynvml.NVMLError, AttributeError):
            return

    @property
    def is_known(self) -> bool:
        """Whether the GPU has a counter."""
        return self._nvml is not None

    def read(self) -> float | None:
        """Return the joules since this object was made; None from when on the counter cannot be read any more."""
        try:
            now = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except self._nvml.NVMLError:
            self._nvml = None
            return None
        return (now - self._first) / 1000
