"""What all tests share: a fixed seed, a Hub that cannot be reached, and the data beside the checkout."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest


# Before anything imports huggingface_hub, which reads them once; child processes inherit them.
_HF_HOME = tempfile.mkdtemp(prefix="transformer-theatre-")
os.environ |= {"HF_HOME": _HF_HOME, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
for _name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE"):
    os.environ.pop(_name, None)

REPOSITORY = Path(__file__).parents[1]
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def pytest_unconfigure():
    shutil.rmtree(_HF_HOME, ignore_errors=True)


@pytest.fixture(autouse=True)
def fixed_seed():
    """Start every test from the same random state, so that none depends on the one before."""
    from transformers import set_seed

    set_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of data sets that lies beside the checkout on the project's own machines."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"No data sets beside the checkout: {SHARED_DATA} is not there.")
    return SHARED_DATA


@pytest.fixture
def hub():
    """A Hub of this test's own on 127.0.0.1; see tests/hub/README.md."""
    from hubserver import LoopbackHub

    with LoopbackHub() as server:
        yield server
