"""One run: a ``Router`` over ``Simulated`` keys on an event loop whose clock jumps over every wait.

Nothing is modelled twice: calls, retries, health, limits and the balancer are the library's own, and so is the
provider, at the bytes. Two runs of a situation with one seed meet the same draws, whoever chooses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import anyio
import attrs
from trio._core import _run as scheduler
from trio.testing import MockClock

from bifrost_core import Attempt, Balancer, CallError, LatencyWeighted, Router, Timeout
from bifrost_core.testing import LoopClock, Simulated

from .choosers import ALL_KNOWING, AllKnowing, find_balancer
from .scenarios import Scenario
from .traffic import Ask

__all__ = ["Served", "Try", "run"]

_PROVIDER: Final = "simulated"
_PATIENCE: Final = Timeout(total=60.0, attempt=30.0, first_token=20.0)


@attrs.frozen
class Try:
    """One attempt.

    Attributes:
        key: Id of the key.
        at: Seconds since the start.
        seconds: How long it took.
        outcome: ``ok``, ``failed``, ``refused`` or ``cancelled``.
    """

    key: str
    at: float
    seconds: float
    outcome: str


@attrs.frozen
class Served:
    """One request, as the caller saw it.

    Attributes:
        at: Seconds since the start.
        seconds: From then to the answer or the error, repeats and pauses included.
        error: Kind of the error that the caller saw; None for an answer.
        tries: Its attempts in order.
    """

    at: float
    seconds: float
    error: str | None
    tries: tuple[Try, ...]


def run(scenario: Scenario, chooser: str, seed: int) -> list[Served]:
    """Run a situation.

    Args:
        scenario: What happens.
        chooser: Name of a balancer, or ``ALL_KNOWING``.
        seed: Of the keys' luck and of the Router's own choices.

    Returns:
        A row per request, in order of arrival.
    """
    factory = LatencyWeighted if chooser == ALL_KNOWING else find_balancer(chooser)

    async def main() -> list[Served]:
        return await _play(scenario, factory, seed, knows_all=chooser == ALL_KNOWING)

    with _repeatable(seed):
        return anyio.run(main, backend="trio", backend_options={"clock": MockClock(autojump_threshold=0)})


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Let trio run tasks that wake at one instant in an order that repeats.

    It shuffles them on purpose and has no public switch; its own plugin for Hypothesis sets the same two names
    (``_hypothesis_plugin_setup`` in ``trio/_core/_run.py``).
    """
    before, state = scheduler._ALLOW_DETERMINISTIC_SCHEDULING, scheduler._r.getstate()  # noqa: SLF001
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]  # noqa: SLF001 # final there, see above
    scheduler._r.seed(seed)  # noqa: SLF001
    try:
        yield
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]  # noqa: SLF001 # final there, see above
        scheduler._r.setstate(state)  # noqa: SLF001


def _words(body: dict[str, Any]) -> str:
    """As many tokens as are asked for."""
    return " a" * int(body["max_tokens"])


async def _play(scenario: Scenario, factory: Callable[..., Balancer], seed: int, *, knows_all: bool) -> list[Served]:
    clock = LoopClock()
    provider = Simulated(
        scenario.script.keys, name=_PROVIDER, seed=seed, paired=True, clock=clock, answer=_words, journal_size=1
    )
    patience = _PATIENCE.attempt or 0.0
    router = Router(
        [provider],
        plugins=[AllKnowing(provider, patience)] if knows_all else [],
        balancer=factory,
        timeout=_PATIENCE,
        clock=clock,
        rng=random.Random(f"{seed}/router"),
    )
    rows: list[Served | None] = [None] * len(scenario.asks)

    async def ask(place: int, what: Ask) -> None:
        rows[place] = await _ask(router, what, place, clock, stream=scenario.script.stream)

    async def join(key_id: str, at: float) -> None:
        await anyio.sleep_until(at)
        router.add_key(_PROVIDER, next(key for key in provider.keys if key.id == key_id))

    async with router, anyio.create_task_group() as group:
        for key_id, at in scenario.script.late.items():
            router.remove_key(_PROVIDER, key_id)
            group.start_soon(join, key_id, at)
        for place, what in enumerate(scenario.asks):
            await anyio.sleep_until(what.at)
            group.start_soon(ask, place, what)
    return [row for row in rows if row is not None]


async def _ask(router: Router, what: Ask, number: int, clock: LoopClock, *, stream: bool) -> Served:
    """Make one call; ``number`` names its draws."""
    began = clock()
    model, text = f"{_PROVIDER}/{what.model}", "to be " * (2 * what.input_tokens // 3)  # four bytes a token
    params: dict[str, Any] = {"max_tokens": what.output_tokens, "random_seed": number}
    if what.session is not None:
        params["prompt_cache_key"] = what.session
    error: str | None = None
    try:
        if stream:
            async with router.stream(model, text, **params) as chunks:
                async for _ in chunks:
                    pass
            attempts = chunks.response.attempts
        else:
            attempts = (await router.chat(model, text, **params)).attempts
    except CallError as exc:
        error, attempts = str(exc.kind), exc.attempts
    return Served(what.at, clock() - began, error, tuple(_try(attempt, clock) for attempt in attempts))


def _try(attempt: Attempt, clock: LoopClock) -> Try:
    return Try(
        attempt.route.key_id, attempt.started_at - clock.wall, attempt.latency or 0.0, attempt.outcome or "cancelled"
    )
