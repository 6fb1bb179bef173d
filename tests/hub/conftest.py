"""A Hub that the test process itself knows; children know it by `hub.env`."""

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from transformer_theatre.recipes import hub_errors, hub_upload


@pytest.fixture
def client(hub, monkeypatch, tmp_path):
    """Let this process know the Hub of the test, and wait for nothing."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template.replace(constants.ENDPOINT, hub.url))
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "hf_user_write")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for module in (hub_errors, hub_upload):
        monkeypatch.setattr(module, "WAITS", (0.0, 0.1))
    close_session()
    yield hub
    close_session()
