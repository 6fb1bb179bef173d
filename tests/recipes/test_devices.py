import pytest

from transformer_theatre.recipes.devices import DEVICES, find_device


# As torch.cuda.get_device_name() reports them.
@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA L40", None),
        ("NVIDIA A10", "A10"),
        ("NVIDIA A10G", None),
        ("Tesla T4", "T4"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"),
        ("Tesla P100-SXM2-16GB", "P100"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 3090 Ti", None),
        ("AMD Instinct MI300X", "MI300X"),
        ("Apple M2", None),
    ],
)
def test_devices_are_found_by_the_name_that_torch_reports(reported, name):
    device = find_device(reported)
    assert (device.name if device else None) == name


def test_every_device_is_found_by_its_own_name_and_has_a_source():
    for device in DEVICES:
        assert find_device(device.name) is device
        assert device.source.startswith("https://")
        assert device.peaks["float16"] > device.peaks["float32"]
