import sys
from types import SimpleNamespace

import pytest
import torch

from transformer_theatre.recipes.energy import GpuEnergy, ProcessorEnergy


def _domain(folder, name, label, microjoules, counts_to=1000_000_000):
    path = folder / name
    path.mkdir()
    for file, value in (("name", label), ("energy_uj", microjoules), ("max_energy_range_uj", counts_to)):
        (path / file).write_text(f"{value}\n", encoding="ascii")
    return path / "energy_uj"


def test_packages_are_added_up_and_their_parts_are_not_counted_twice(tmp_path):
    first = _domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    part = _domain(tmp_path, "intel-rapl:0:0", "core", 1_000_000)
    second = _domain(tmp_path, "intel-rapl:1", "package-1", 0)
    whole = _domain(tmp_path, "intel-rapl:2", "psys", 0)
    energy = ProcessorEnergy(tmp_path)
    assert energy.is_known
    assert energy.read() == 0
    for counter, value in ((first, 7_000_000), (part, 9_000_000), (second, 500_000), (whole, 99_000_000)):
        counter.write_text(str(value), encoding="ascii")
    assert energy.read() == pytest.approx(2.5)


def test_a_counter_that_begins_again_goes_on(tmp_path):
    counter = _domain(tmp_path, "intel-rapl:0", "package-0", 9_000_000, counts_to=10_000_000)
    energy = ProcessorEnergy(tmp_path)
    counter.write_text("2000000", encoding="ascii")
    assert energy.read() == pytest.approx(3.0)
    counter.write_text("1000000", encoding="ascii")
    assert energy.read() == pytest.approx(12.0)


def test_a_counter_that_is_gone_is_not_known_any_more_and_stops_nothing(tmp_path):
    counter = _domain(tmp_path, "intel-rapl:0", "package-0", 5_000_000)
    energy = ProcessorEnergy(tmp_path)
    counter.unlink()
    assert energy.read() is None
    assert not energy.is_known


def test_where_nothing_can_be_read_nothing_is_known(tmp_path):
    (tmp_path / "intel-rapl:0").mkdir()
    (tmp_path / "intel-rapl:0" / "name").write_text("package-0", encoding="ascii")
    assert not ProcessorEnergy(tmp_path).is_known
    assert not ProcessorEnergy(tmp_path / "nowhere").is_known
    assert not GpuEnergy(torch.device("cpu")).is_known


class _Nvml(SimpleNamespace):
    """What is used of NVML: a counter of millijoules for each GPU, found by its own number."""

    class NVMLError(Exception):
        """As NVML's."""

    def __init__(self, counts):
        super().__init__(counts=counts, __spec__=SimpleNamespace())

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, name):
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if self.counts is None:
            raise self.NVMLError("Not Supported")
        return self.counts[handle]


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU of the number "abc", whose NVML is `install`ed."""
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="abc"))
    return lambda nvml: monkeypatch.setitem(sys.modules, "pynvml", nvml)


def test_a_gpu_is_found_by_its_own_number(gpu):
    nvml = _Nvml({"GPU-abc": 5000, "GPU-other": 0})
    gpu(nvml)
    energy = GpuEnergy(torch.device("cuda", 0))
    nvml.counts = {"GPU-abc": 12_500, "GPU-other": 99}
    assert energy.is_known
    assert energy.read() == pytest.approx(7.5)


def test_a_gpu_whose_counter_is_gone_is_not_known_any_more_and_stops_nothing(gpu):
    nvml = _Nvml({"GPU-abc": 5000})
    gpu(nvml)
    energy = GpuEnergy(torch.device("cuda", 0))
    nvml.counts = None
    assert energy.read() is None
    assert not energy.is_known


def test_a_gpu_without_a_counter_is_not_known(gpu):
    gpu(_Nvml(None))
    assert not GpuEnergy(torch.device("cuda", 0)).is_known
