import pytest

from transformer_theatre.recipes.cost import Assumptions, communication_seconds, update_seconds
from transformer_theatre.recipes.devices import find_device


def test_one_device_computes_and_sends_nothing():
    device = find_device("A100-80GB")
    seconds = update_seconds(312e12, 1e12, device, 1, Assumptions(utilisation=0.5))
    assert seconds == pytest.approx(2)


def test_devices_share_the_computing_and_add_the_sending():
    device = find_device("A100-80GB")
    assumed = Assumptions(utilisation=0.5, precision="float32")
    alone = update_seconds(1e15, 0, device, 1, assumed)
    assert update_seconds(1e15, 0, device, 8, assumed) == pytest.approx(alone / 8)
    with_sending = update_seconds(1e15, 1e9, device, 8, assumed)
    assert with_sending - alone / 8 == pytest.approx(2 * 7 / 8 * 1e9 / 300e9)
    # Between machines there is less room.
    assert communication_seconds(1e9, 16) > 6 * communication_seconds(1e9, 8)


def test_a_precision_without_fast_units_is_refused():
    with pytest.raises(ValueError, match="V100-32GB is not fast in bfloat16: choose --precision of float32, float16"):
        update_seconds(1e12, 0, find_device("V100-32GB"), 1, Assumptions())
