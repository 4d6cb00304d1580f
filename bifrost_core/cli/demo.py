"""The main job on real input: chats from many callers at once, over several keys that differ."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from typing import Any, Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs

from bifrost_core.balancing import KeySnapshot, LatencyWeighted
from bifrost_core.errors import (
    BadRequestError,
    CallError,
    ConfigError,
    ModelNotFoundError,
    PluginError,
    ProviderAuthError,
)
from bifrost_core.keys import Key
from bifrost_core.prices import PriceBook
from bifrost_core.providers.base import Provider
from bifrost_core.providers.mistral import Mistral
from bifrost_core.retries import RetryPolicy
from bifrost_core.router import Router
from bifrost_core.testing import Fault, Latency, SimulatedKey, SimulatedMistral
from bifrost_core.types import Usage

from .scoreboard import Scoreboard

__all__ = ["MAX_TOKENS", "Chat", "Traffic", "dearest", "neighbour", "play", "prompts", "simulated", "simulation"]

MAX_TOKENS: Final = 64
"""Longest answer that the demo asks for."""

_TEMPLATE: Final = 32  # tokens that the model's chat template may add to a prompt
_FIRST: Final = 0.35  # median seconds to the first token of a quick key
_BREAKS_AT, _HEALS_AT = 0.3, 0.42  # parts of the calls after which the key ``breaks`` fails and answers again
_STRUGGLE: Final = 0.5  # seconds after which the key ``breaks`` gives up on a request
_LIMIT: Final = 60  # requests per minute of the key ``limited``, a minute's worth at once
_PAUSE: Final = 0.2  # seconds between the requests of the other service on that key
_HOPELESS: Final = (BadRequestError, ModelNotFoundError, ProviderAuthError, PluginError, ConfigError)


@attrs.frozen
class Chat:
    """One question, and whether its answer is streamed."""

    prompt: str
    stream: bool


@cache
def prompts() -> tuple[str, ...]:
    """The prompts that ship with the package, one per line of their file."""
    text = resources.files("bifrost_core.cli").joinpath("prompts.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line)


def chats(count: int, rng: random.Random) -> Iterator[Chat]:
    """``count`` chats, every second one streamed."""
    return (Chat(rng.choice(prompts()), stream=bool(number % 2)) for number in range(count))


def dearest(model: str, calls: int) -> str | None:
    """What ``calls`` chats can cost at most, in USD; None where the price is unknown. Retries are not counted."""
    provider, _, name = model.partition("/")
    price = PriceBook().find(provider, name)
    if price is None:
        return None
    longest = _TEMPLATE + max(len(prompt.encode()) for prompt in prompts())  # a token is at least one byte
    cost = price.cost(Usage(input_tokens=calls * longest, output_tokens=calls * MAX_TOKENS))
    return None if cost is None else f"{cost:.4f}"


# The simulated provider.


def simulation(seed: int) -> SimulatedMistral:
    """A service with four keys: a fast one, a slow one, one with a small quota, one that can be broken."""
    quick = Latency(_FIRST, sigma=0.3, tokens_per_second=75)
    return SimulatedMistral(
        [
            SimulatedKey("sk-simulated-fast", id="fast", latency=quick),
            SimulatedKey("sk-simulated-slow", id="slow", latency=Latency(3 * _FIRST, sigma=0.3, tokens_per_second=25)),
            SimulatedKey("sk-simulated-limited", id="limited", latency=quick, requests_per_minute=_LIMIT),
            SimulatedKey("sk-simulated-breaks", id="breaks", latency=quick),
        ],
        seed=seed,
    )


def simulated(server: SimulatedMistral) -> Mistral:
    """The provider for a simulated service, with all of its keys."""
    return Mistral([Key(key.secret, id=key.id) for key in server.keys], base_url=server.base_url)


def script(server: SimulatedMistral, calls: int) -> list[tuple[int, Callable[[], None]]]:
    """What happens to the simulated service, by the number of calls that have ended."""
    return [
        (int(_BREAKS_AT * calls), lambda: server.fail("breaks", Fault("status", status=500, delay=_STRUGGLE))),
        (int(_HEALS_AT * calls), lambda: server.heal("breaks")),
    ]


async def neighbour(server: SimulatedMistral, model: str) -> None:
    """Another service on the key ``limited``: its requests use up the quota too, which no header foretells."""
    keys = [Key(key.secret) for key in server.keys if key.id == "limited"]
    async with Router([Mistral(keys, base_url=server.base_url)], retry=RetryPolicy(max_wait=0)) as router:
        while True:
            with suppress(CallError):
                await router.chat(model, prompts()[0], max_tokens=1)
            await anyio.sleep(_PAUSE)


# The callers.


@attrs.define(eq=False)
class Traffic:
    """Callers that ask one question after another.

    Attributes:
        router: What they ask.
        model: The model.
        events: What happens once so many calls have ended, in that order.
        received: Characters of answers so far.
        hopeless: Why asking on makes no sense, if it does not.
    """

    router: Router
    model: str
    board: Scoreboard
    events: list[tuple[int, Callable[[], None]]] = attrs.field(factory=list[tuple[int, Callable[[], None]]])
    received: int = 0
    hopeless: Exception | None = None

    async def run(self, questions: Iterable[Chat], *, callers: int) -> None:
        """Have ``callers`` ask all of ``questions``; raises what makes asking on hopeless."""
        remaining = iter(questions)
        async with anyio.create_task_group() as tasks:
            for _ in range(callers):
                tasks.start_soon(self._caller, remaining, tasks.cancel_scope)
        if self.hopeless is not None:
            raise self.hopeless

    async def _caller(self, questions: Iterator[Chat], all_callers: anyio.CancelScope) -> None:
        for chat in questions:
            try:
                await self.ask(chat)
            except _HOPELESS as exc:
                self.hopeless = exc
                all_callers.cancel()
            except CallError:  # counted by the scoreboard
                await anyio.lowlevel.checkpoint()
            while self.events and self.board.calls >= self.events[0][0]:
                _, action = self.events.pop(0)
                await anyio.to_thread.run_sync(action)

    async def ask(self, chat: Chat) -> None:
        """Ask one question and read the whole answer."""
        if not chat.stream:
            response = await self.router.chat(self.model, chat.prompt, max_tokens=MAX_TOKENS)
            self.received += len(response.text)
            return
        async with self.router.stream(self.model, chat.prompt, max_tokens=MAX_TOKENS) as stream:
            async for text in stream.text():
                self.received += len(text)


async def play(
    provider: Provider,
    board: Scoreboard,
    *,
    model: str,
    calls: int,
    callers: int,
    seed: int,
    show: Callable[[Scoreboard], None],
    every: float,
    events: Sequence[tuple[int, Callable[[], None]]] = (),
) -> None:
    """Route ``calls`` chats and show how it goes.

    Args:
        provider: Whose keys are used.
        board: Counts; also registered as a plugin.
        model: ``"provider/model"``.
        calls: How many chats.
        callers: How many ask at the same time.
        seed: Of the choice of prompts and keys.
        show: Called every ``every`` seconds.
        every: Seconds.
        events: What happens once so many calls have ended.
    """
    balancers: list[LatencyWeighted] = []

    def balancer(clock: Callable[[], float], rng: random.Random) -> LatencyWeighted:
        made = LatencyWeighted(clock=clock, rng=rng)
        balancers.append(made)
        return made

    async def watch(router: Router) -> None:
        while True:
            look(router)
            show(board)
            await anyio.sleep(every)

    def look(router: Router) -> None:
        board.watch(router.health(), snapshots(balancers))

    rng = random.Random(seed)
    async with Router([provider], plugins=[board], balancer=balancer, rng=random.Random(seed)) as router:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(watch, router)
                await Traffic(router, model, board, list(events)).run(chats(calls, rng), callers=callers)
                tasks.cancel_scope.cancel()
        finally:
            board.stop()
            look(router)


def snapshots(balancers: Iterable[Any]) -> Iterator[KeySnapshot]:
    """What balancers know about their keys."""
    for balancer in balancers:
        yield from balancer.snapshot().values()
