"""A Hub that the test process itself knows; children know it by `hub.env`."""

from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from transformer_theatre.recipes import background_push, hub_errors, hub_upload, publish
from transformer_theatre.recipes.golden import Answer, write_golden


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


@pytest.fixture
def strangers(monkeypatch):
    """Let this process answer in place of strangers, which take seconds to start; tests marked slow ask them."""
    asked = []

    def answer(job):
        asked.append(job["place"])
        write_golden(Path(job["place"]), Path(job["write"]))

    def ask(place, golden, **options):
        return Answer(0.0, 1e-4, [], "", "", "")

    monkeypatch.setattr(background_push, "run_stranger", answer)
    monkeypatch.setattr(publish, "ask_stranger", ask)
    monkeypatch.setattr(hub_upload, "ask_stranger", ask)
    return asked
