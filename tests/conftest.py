"""What every test may use."""

from __future__ import annotations

import signal
from collections import Counter

import anyio
import pytest

from bifrost_core import Attempt, CallRecord, hookimpl


class Books:
    """A plugin that counts what begins and what ends, with a checkpoint at each where a call may be cancelled.

    Attributes:
        begun: By attempt how often it began.
        settled: By attempt how often it ended.
        finished: By call how often it ended.
        outcomes: How many calls ended in which way.
    """

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.settled: Counter[str] = Counter()
        self.finished: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()

    @hookimpl
    async def bifrost_reserve(self, attempt: Attempt) -> None:
        self.begun[attempt.id] += 1
        await anyio.lowlevel.checkpoint()

    @hookimpl
    async def bifrost_attempt_finished(self, attempt: Attempt) -> None:
        await anyio.lowlevel.checkpoint()
        self.settled[attempt.id] += 1

    @hookimpl
    async def bifrost_call_finished(self, record: CallRecord) -> None:
        await anyio.lowlevel.checkpoint()
        self.finished[record.call_id] += 1
        self.outcomes[record.outcome] += 1


@pytest.fixture
def books() -> Books:
    """Empty ones."""
    return Books()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Async tests run on both event loops."""
    return str(request.param)


# A shell has background jobs ignore interrupts, and what they start inherits that: tests interrupt programs of ours.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
