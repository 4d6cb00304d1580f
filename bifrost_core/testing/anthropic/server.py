"""A real HTTP server on loopback that speaks Anthropic's API."""

from __future__ import annotations

from collections.abc import Iterable

from bifrost_core.testing.serving._answers import AnswerLaw
from bifrost_core.testing.serving._server import SimulatedServer, to_keys, to_law, to_models
from bifrost_core.testing.serving._service import Clock, WallClock
from bifrost_core.testing.serving.catalogue import SimulatedModel
from bifrost_core.testing.serving.laws import SimulatedKey

from ._endpoints import find_endpoint
from ._service import AnthropicService
from .catalogue import CAPABILITIES, DEFAULT_MODELS

__all__ = ["SimulatedAnthropic"]


class SimulatedAnthropic(SimulatedServer):
    """Anthropic's API on a free port of 127.0.0.1, with scripted latency, limits and faults.

    The laws of keys, faults and the journal are those of ``SimulatedMistral``.

    Example::

        with SimulatedAnthropic(["sk-ant-test"], answer="Bifrost.") as server:
            client = anthropic.Anthropic(api_key="sk-ant-test", base_url=server.base_url)
            client.messages.create(
                model="claude-haiku-4-5", max_tokens=64, messages=[{"role": "user", "content": "Hi"}]
            )

    Args:
        keys: The accepted keys: ``SimulatedKey`` objects, plain secrets, or how many to make up.
        seed: Of everything random.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one at each start.
        models: The known models, ``SimulatedModel`` objects or plain names.
        answer: Gives the answers to messages in place of made-up words: a text for all, or a function that
            takes the request's body and returns the text, or a mapping with any of ``content``, ``thinking``,
            ``tool_calls`` and ``finish_reason``. Runs on the server's thread, so it must not wait.
        clock: Time for limits, faults, the cache of prompts and the journal, such as a ``FakeClock``; waits are
            always real.
        journal_size: How many requests the journal keeps; the oldest go first.
        keep_bodies: Whether the journal keeps the requests' bodies.
        max_body: Most bytes of a request body; larger ones are refused with 413.
        idle: Seconds after which a connection without a request is closed; None for never.
    """

    def __init__(
        self,
        keys: Iterable[SimulatedKey | str] | int = 1,
        *,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Iterable[SimulatedModel | str] = DEFAULT_MODELS,
        answer: AnswerLaw | str | None = None,
        clock: Clock | None = None,
        journal_size: int = 10_000,
        keep_bodies: bool = False,
        max_body: int = 32 * 2**20,
        idle: float | None = None,
    ) -> None:
        service = AnthropicService(
            to_keys(keys),
            to_models(models, *CAPABILITIES),
            seed=seed,
            clock=clock or WallClock(),
            answer=to_law(answer),
            journal_size=journal_size,
            keep_bodies=keep_bodies,
        )
        super().__init__(service, find_endpoint, host=host, port=port, max_body=max_body, idle=idle)
