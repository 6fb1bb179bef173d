"""What a run costs: hours from operations, the speed of a device and assumptions that are stated; no measurement is in it."""

from dataclasses import dataclass

from .devices import Device


# Bytes a second that a device sends while gradients are summed: NVLink within a machine of 8 (A100: 600 GB/s both ways
# together, https://www.nvidia.com/en-us/data-center/a100/), a port of 400 Gb/s for each device between machines.
WITHIN_MACHINE, BETWEEN_MACHINES = 300e9, 50e9
DEVICES_OF_A_MACHINE = 8


@dataclass(frozen=True)
class Assumptions:
    """What has to be assumed.

    Args:
        utilisation: share of its peak that a device reaches; the paper's base model reached some 30 % of a P100's (see
            docs/scaling.md).
        precision: a key of `Device.peaks`.
        price: of a device for an hour, in any currency; None: costs are in device hours.
    """

    utilisation: float = 0.3
    precision: str = "bfloat16"
    price: float | None = None


def communication_seconds(gradient_bytes: float, devices: int) -> float:
    """Time in which devices sum their gradients, in a ring: each sends 2 * (n - 1) / n of them; nothing overlaps."""
    speed = WITHIN_MACHINE if devices <= DEVICES_OF_A_MACHINE else BETWEEN_MACHINES
    return 2 * (devices - 1) / devices * gradient_bytes / speed


def update_seconds(
    operations: float, gradient_bytes: float, device: Device, devices: int, assumed: Assumptions
) -> float:
    """Time of an update.

    Args:
        operations: of an update, on all devices together.
        gradient_bytes: of all gradients.
        device: its kind.
        devices: how many.
        assumed: see `Assumptions`.

    Raises:
        ValueError: the device has no fast units for the precision.
    """
    if assumed.precision not in device.peaks:
        raise ValueError(
            f"{device.name} is not fast in {assumed.precision}: choose --precision of {', '.join(device.peaks)}."
        )
    computing = operations / (devices * device.peaks[assumed.precision] * assumed.utilisation)
    return computing + communication_seconds(gradient_bytes, devices)
