"""A real HTTP server on loopback that speaks OpenAI's API."""

from __future__ import annotations

from collections.abc import Iterable

from bifrost_core.testing.serving._answers import AnswerLaw, TranscriptLaw
from bifrost_core.testing.serving._server import SimulatedServer, to_keys, to_law
from bifrost_core.testing.serving._service import Clock, WallClock
from bifrost_core.testing.serving.catalogue import SimulatedModel
from bifrost_core.testing.serving.laws import SimulatedKey

from ._endpoints import find_endpoint
from ._service import OpenAIService
from .catalogue import DEFAULT_MODELS, capabilities_of

__all__ = ["SimulatedOpenAI"]


class SimulatedOpenAI(SimulatedServer):
    """OpenAI's API on a free port of 127.0.0.1, with scripted latency, limits and faults.

    The laws of keys, faults and the journal are those of ``SimulatedMistral``.

    Example::

        with SimulatedOpenAI(["sk-test"], answer="Bifrost.") as server:
            client = openai.OpenAI(api_key="sk-test", base_url=f"{server.base_url}/v1")
            client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "Hi"}])

    Args:
        keys: The accepted keys: ``SimulatedKey`` objects, plain secrets, or how many to make up.
        seed: Of everything random.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one at each start.
        models: The known models, ``SimulatedModel`` objects or plain names, which say what a model can do:
            ``embed``, ``moderation``, ``transcribe``, ``whisper`` or ``tts`` in it, else chat.
        answer: Gives the answers to chat completions and responses in place of made-up words: a text for
            all, or a function that takes the request's body and returns the text, or a mapping with any of
            ``content``, ``thinking`` (counted, and shown by ``/v1/responses`` where a summary is asked for),
            ``refusal``, ``tool_calls`` and ``finish_reason``. Runs on the server's thread, so it must not wait.
        transcript: Gives the texts of transcriptions in the same way: takes the parts of the form by name.
        clock: Time for limits, faults and the journal, such as a ``FakeClock``; waits are always real.
        journal_size: How many requests the journal keeps; the oldest go first.
        keep_bodies: Whether the journal keeps the requests' bodies; of forms, the parts' names and sizes.
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
        transcript: TranscriptLaw | None = None,
        clock: Clock | None = None,
        journal_size: int = 10_000,
        keep_bodies: bool = False,
        max_body: int = 32 * 2**20,
        idle: float | None = None,
    ) -> None:
        service = OpenAIService(
            to_keys(keys),
            [SimulatedModel(each, (), capabilities_of(each)) if isinstance(each, str) else each for each in models],
            seed=seed,
            clock=clock or WallClock(),
            answer=to_law(answer),
            transcript=transcript,
            journal_size=journal_size,
            keep_bodies=keep_bodies,
        )
        super().__init__(service, find_endpoint, host=host, port=port, max_body=max_body, idle=idle)
