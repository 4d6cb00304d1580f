"""A clock that stands still, and a plugin on it."""

from __future__ import annotations

import pytest
from bifrost_plugins.virtual_keys import VirtualKeyPlugin

PEPPER = "pepper-for-tests-0123456789abcdef"


class StillClock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def plugin(clock: StillClock) -> VirtualKeyPlugin:
    return VirtualKeyPlugin(pepper=PEPPER, clock=clock)
