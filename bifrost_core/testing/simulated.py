"""A provider without a network: scripted keys that answer on the event loop's own time, virtual or real.

It speaks the same wire format as ``SimulatedMistral``, through the adapter for Mistral, but its bytes go
from function to function. With trio's ``MockClock`` an hour of traffic takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import anyio
import attrs

from bifrost_core.clocks import Clock
from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key
from bifrost_core.prices import Price
from bifrost_core.providers.base import Quota, StreamDecoder
from bifrost_core.providers.mistral import Mistral
from bifrost_core.responses import Response
from bifrost_core.types import Operation, Request
from bifrost_core.wire import Auth, HttpCall, HttpReply, Network

from ._simulation import SimulatedEngine
from .mistral._endpoints import find_endpoint
from .mistral._service import MistralService
from .serving._answers import AnswerLaw, PageLaw, TranscriptLaw
from .serving.catalogue import SimulatedModel
from .serving.journal import KeyCounters, Outlook, ServedRequest
from .serving.laws import Fault, SimulatedKey

__all__ = ["Simulated"]

_BASE: Final = "https://simulated.invalid"  # RFC 6761: a name that never resolves
_START: Final = 1_767_225_600.0  # 2026-01-01 00:00:00 UTC, where the wall clock of a simulation begins
_WHERE: Final = {  # each operation in Mistral's API, by name, as an adapter may know fewer or more of them
    "chat": "/v1/chat/completions",
    "responses": "/v1/chat/completions",  # Mistral's own endpoint is in no edition of its documentation
    "fim": "/v1/fim/completions",
    "embeddings": "/v1/embeddings",
    "moderation": "/v1/moderations",
    "classification": "/v1/classifications",
    "transcription": "/v1/audio/transcriptions",
    "speech": "/v1/audio/speech",
    "ocr": "/v1/ocr",
    "files": "/v1/files",
    "models": "/v1/models",
}
_SERVED: Final = frozenset(
    name for name, path in _WHERE.items() if find_endpoint("GET" if name == "models" else "POST", path) is not None
)


class _LoopTime:
    """Seconds on the event loop's clock since the first time that it was read inside one."""

    def __init__(self) -> None:
        self._origin: float | None = None

    def __call__(self) -> float:
        try:
            now = anyio.current_time()
        except anyio.NoEventLoopError:
            return 0.0
        if self._origin is None:
            self._origin = now
        return now - self._origin

    def time(self) -> float:
        return _START + self()

    def restart(self) -> None:
        self._origin = None


class Simulated:
    """A provider with no network, whose keys have scripted latency, faults, limits and prices.

    For tests, demonstrations and benchmarks of whatever uses a Router. All waiting is ``anyio.sleep``.
    The answer to the n-th request of a key depends on the seed, the key's id and n alone, whatever
    happens on other keys meanwhile.

    Example::

        fast = SimulatedKey("fast", latency=Latency(0.2, sigma=0.3, tokens_per_second=80))
        slow = SimulatedKey("slow", latency=1.0, faults=[Fault("status", status=503, probability=0.1)])
        router = Router([Simulated([fast, slow])])
        reply = await router.chat("simulated/any-model", "hello")

    Args:
        keys: ``SimulatedKey`` objects or plain names. As nothing is sent anywhere, a key's ``secret`` is
            a name, and its id unless ``id`` says otherwise.
        name: First part of its models' names.
        seed: Of everything random.
        paired: Requests that state a ``random_seed`` draw by that in place of their number: such a request
            needs as long, relative to the key's law, and gets the same answer whichever key it comes to and
            whatever came before. So two ways of choosing can be compared on the same draws. Whether a
            fault strikes it depends on the key as well, and a repeat on the same key meets the same fate.
        clock: Time for limits, for when faults hold and for the journal, such as a ``FakeClock``; by
            default the event loop's, from the first request on. Waits are always the event loop's.
        models: The models that exist; None: every model does.
        prices: Prices by model, for ``PriceBook(simulated.prices)``.
        answer: Gives the answers to chat and FIM in place of made-up words: takes the request's body
            and returns the text, or a mapping with any of ``content``, ``thinking``, ``tool_calls``
            and ``finish_reason``.
        transcript: Gives the texts of transcriptions in the same way: takes the parts of the form by
            name (a file has ``filename``, ``content_type`` and ``data``) and returns the text.
        page: Gives the Markdown of pages that OCR reads: takes the request's body and the page's number
            from 0 on.
        journal_size: How many requests the journal keeps; the oldest go first.
        keep_bodies: Whether the journal keeps the requests' bodies; of forms, the parts' names and sizes.

    Raises:
        ConfigError: There is no key, or two of them share a name.
    """

    def __init__(
        self,
        keys: Iterable[SimulatedKey | str],
        *,
        name: str = "simulated",
        seed: int = 0,
        paired: bool = False,
        clock: Clock | None = None,
        models: Iterable[str] | None = None,
        prices: Mapping[str, Price] | None = None,
        answer: AnswerLaw | None = None,
        transcript: TranscriptLaw | None = None,
        page: PageLaw | None = None,
        journal_size: int = 10_000,
        keep_bodies: bool = False,
    ) -> None:
        listed = [_named(key) for key in keys]
        names = [str(key.id) for key in listed]
        if not listed or len(set(names)) < len(names):
            raise ConfigError("a simulated provider has keys, each with a name of its own", field="keys")
        self._models = None if models is None else frozenset(models)
        self._loop_time = _LoopTime()
        known = sorted((prices or {}) if self._models is None else self._models)
        self._service = MistralService(
            listed,
            [SimulatedModel(model) for model in known],
            seed=seed,
            clock=clock or self._loop_time,
            answer=answer,
            transcript=transcript,
            page=page,
            journal_size=journal_size,
            keep_bodies=keep_bodies,
            only_listed=self._models is not None,
            all_capable=True,
            paired=paired,
        )
        made = [Key(_credential(str(key.id)), id=key.id, quota_group=key.quota_group) for key in listed]
        self._adapter = Mistral(made, base_url=_BASE, name=name)
        self._engine = SimulatedEngine(self._service)
        self._prices = MappingProxyType({f"{name}/{model}": price for model, price in (prices or {}).items()})

    # -- what a Router asks ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """First part of its models' names."""
        return self._adapter.name

    @property
    def keys(self) -> tuple[Key, ...]:
        """One per simulated key, with its id and quota group."""
        return self._adapter.keys

    @property
    def operations(self) -> frozenset[Operation]:
        """What it serves: all that the adapter writes and the simulated service answers."""
        return frozenset(operation for operation in self._adapter.operations if operation.value in _SERVED)

    @property
    def auth(self) -> Auth:
        """Where the made-up credential goes."""
        return self._adapter.auth

    @property
    def network(self) -> Network:
        """How it would be reached."""
        return self._adapter.network

    @property
    def engine(self) -> SimulatedEngine:
        """Its own engine: the simulation."""
        return self._engine

    def knows(self, model: str) -> bool:
        """Whether the model exists here; without named models every one without a ``/`` in its name."""
        return "/" not in model if self._models is None else model in self._models

    def encode(self, request: Request, max_output: int | None = None) -> HttpCall:
        """Write a request as for Mistral."""
        return self._adapter.encode(request, max_output)

    def decode(self, request: Request, reply: HttpReply) -> Response:
        """Read an answer as from Mistral."""
        return self._adapter.decode(request, reply)

    def decoder(self, request: Request) -> StreamDecoder:
        """A decoder for one streamed answer."""
        return self._adapter.decoder(request)

    def continued(self, request: Request, text: str, tokens: int) -> Request | None:
        """The request for the rest of an answer that broke off."""
        return self._adapter.continued(request, text, tokens)

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:
        """What the headers say is left of the limits."""
        return self._adapter.quotas(headers)

    # -- what a test asks ------------------------------------------------------------------------------------

    @property
    def prices(self) -> Mapping[str, Price]:
        """Prices by ``"provider/model"``, for a ``PriceBook``."""
        return self._prices

    @property
    def journal(self) -> tuple[ServedRequest, ...]:
        """The requests that came, oldest first. Times are seconds on the event loop's clock."""
        return self._service.journal()

    @property
    def counters(self) -> dict[str, KeyCounters]:
        """Sums by key id, as they are now."""
        return self._service.counters()

    def outlook(
        self,
        key_id: str,
        model: str,
        *,
        output_tokens: float = 100,
        prompt_cache_key: str | None = None,
        stream: bool = False,
    ) -> Outlook:
        """What a request would meet on a key if it came now, chance left out.

        For choosers that know everything, the yardstick of those that have to find out.

        Args:
            key_id: The key.
            model: Its name without the provider's.
            output_tokens: Length of the answer.
            prompt_cache_key: As the request states it.
            stream: Whether it asks for a stream.

        Raises:
            KeyError: There is no such key.
        """
        state = self._service.state(key_id)
        return self._service.outlook(state, model, output_tokens, prompt_cache_key, stream=stream)

    def add_fault(self, key_id: str, fault: Fault) -> None:
        """Put a fault in front of a key's others, from now on.

        Raises:
            KeyError: There is no such key.
        """
        self._service.add_fault(self._service.state(key_id), fault)

    def heal(self, *key_ids: str) -> None:
        """Take all faults from these keys (without any: from all) and let their held requests go on.

        Raises:
            KeyError: There is no such key.
        """
        for key_id in key_ids or tuple(self._service.keys):
            self._service.heal(self._service.state(key_id))

    def reset(self) -> None:
        """Begin anew: journal, counters, request numbers, limits, faults and the start of time."""
        self._loop_time.restart()
        self._service.reset()


def _credential(key_id: str) -> str:
    return f"simulated-{key_id.encode().hex()}"


def _named(key: SimulatedKey | str) -> SimulatedKey:
    made = SimulatedKey(key) if isinstance(key, str) else key
    key_id = made.id or made.secret
    return attrs.evolve(made, id=key_id, secret=_credential(key_id))
