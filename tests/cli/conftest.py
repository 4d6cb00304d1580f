"""A simulated Mistral whose keys are in the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bifrost_core.testing import SimulatedKey, SimulatedMistral

ONE, TWO = "sk-simulated-one-0123456789", "sk-simulated-two-0123456789"


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider's key is in the environment."""
    for name in list(os.environ):
        if "_API_KEY" in name or name == "MISTRAL_BASE_URL":
            monkeypatch.delenv(name)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, no_keys: None) -> Iterator[SimulatedMistral]:
    """Two keys that answer at once; the environment names them and the address."""
    keys = [SimulatedKey(ONE, id="one"), SimulatedKey(TWO, id="two")]
    with SimulatedMistral(keys, seed=7, keep_bodies=True) as running:
        monkeypatch.setenv("MISTRAL_API_KEY", ONE)
        monkeypatch.setenv("MISTRAL_API_KEY_2", TWO)
        monkeypatch.setenv("MISTRAL_BASE_URL", running.base_url)
        yield running
