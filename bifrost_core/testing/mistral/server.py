"""A real HTTP server on loopback that speaks Mistral's API."""

from __future__ import annotations

from collections.abc import Iterable

from bifrost_core.testing.serving._answers import AnswerLaw, PageLaw, TranscriptLaw
from bifrost_core.testing.serving._server import SimulatedServer, to_keys, to_law, to_models
from bifrost_core.testing.serving._service import Clock, WallClock
from bifrost_core.testing.serving.laws import SimulatedKey

from ._endpoints import find_endpoint
from ._service import MistralService
from .catalogue import DEFAULT_MODELS, SimulatedModel

__all__ = ["SimulatedMistral"]

_STRING_MODEL = ("completion_chat", "completion_fim", "function_calling")


class SimulatedMistral(SimulatedServer):
    """Mistral's API on a free port of 127.0.0.1, with scripted latency, limits and faults.

    The server runs in a thread and an event loop of its own, so blocking code, asyncio and trio can
    all talk to it. The answer to the n-th request of a key depends on the seed, the key's id and n
    alone, whatever happens on other keys meanwhile.

    Example::

        with SimulatedMistral([SimulatedKey("sk-fast"), SimulatedKey("sk-slow", latency=0.2)]) as server:
            reply = httpx.post(
                f"{server.base_url}/v1/chat/completions",
                headers={"authorization": "Bearer sk-fast"},
                json={"model": "mistral-small-latest", "messages": [{"role": "user", "content": "hi"}]},
            )

    Args:
        keys: The accepted keys: ``SimulatedKey`` objects, plain secrets, or how many to make up.
        seed: Of everything random.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one at each start.
        models: The known models, ``SimulatedModel`` objects or plain names.
        answer: Gives the answers to chat and FIM requests in place of made-up words: takes the
            request's body and returns the text, or a mapping with any of ``content``, ``thinking``,
            ``tool_calls`` and ``finish_reason``. Runs on the server's thread, so it must not wait.
            A text in place of the function is the answer to every request.
        transcript: Gives the texts of transcriptions in the same way: takes the parts of the form by
            name (a file has ``filename``, ``content_type`` and ``data``) and returns the text.
        page: Gives the Markdown of pages that OCR reads: takes the request's body and the page's number
            from 0 on.
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
        page: PageLaw | None = None,
        clock: Clock | None = None,
        journal_size: int = 10_000,
        keep_bodies: bool = False,
        max_body: int = 32 * 2**20,
        idle: float | None = None,
    ) -> None:
        service = MistralService(
            to_keys(keys),
            to_models(models, *_STRING_MODEL),
            seed=seed,
            clock=clock or WallClock(),
            answer=to_law(answer),
            transcript=transcript,
            page=page,
            journal_size=journal_size,
            keep_bodies=keep_bodies,
        )
        super().__init__(service, find_endpoint, host=host, port=port, max_body=max_body, idle=idle)
