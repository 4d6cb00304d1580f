"""``ResponseCachePlugin``: where a call meets the cache, before a provider is asked and when it ends."""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ClassVar, Final, Literal, cast

import anyio
import anyio.to_thread
import attrs

from bifrost_core import (
    Call,
    CallError,
    CallRecord,
    Clock,
    ConfigError,
    HookOptions,
    Operation,
    Request,
    Response,
    Secret,
    SystemClock,
    hookimpl,
)
from bifrost_core.cache_options import CacheMode, CacheOption, cache_option, checked_ttl
from bifrost_plugins.stores import Store

from ._entries import from_bytes, is_whole, to_bytes
from ._flights import Flight, Flights, Ticket, Turn
from ._keys import Keys, NotComparableError, file_bytes
from ._memory import Memory
from ._semantic import Place, Semantic, embedded, question_of, vectors_for
from ._stats import CacheStats

__all__ = ["ResponseCachePlugin"]

_STORE_SECONDS: Final = 1.0  # a store that is slower than this does not speed anything up
_HASHED_INLINE: Final = 1 << 20  # bytes; 1 ms. More is hashed in a worker thread
_MAX_FILES: Final = 32 << 20  # bytes
_PREFIX: Final = "response_cache:"
_SECRET: Final = "response_cache_secret"  # noqa: S105 # a name

_logger = logging.getLogger(__name__)

Scope = Literal["tenant", "principal", "router"]


class ResponseCachePlugin:
    """Answers calls that were answered before.

    Two calls are the same when everything that reaches the provider is: operation, model, and the whole body as it
    stands behind the request guardrails, files included; and when they belong to the same tenant. A principal without
    a tenant shares with nobody else, and without authentication all calls that present the same virtual key (or none)
    share. Whether the answer comes as a stream makes no difference: each is replayed as the other.

    Authentication, authorisation and request guardrails come before the cache, output guardrails after it, on each
    hit. A hit has no attempt: it costs nothing and takes from no budget and no rate limit.

    What is kept is what the caller got. Never kept are errors; answers that are cut off (``length``), filtered, blocked
    or resumed; those that a plugin made of an error; those of a fallback, which is another model than the one asked
    for; and those that guardrails changed after they had changed the request too, as what they put back in may be
    one caller's alone. Calls with ``effects="possible"`` take no part.

    The temperature plays no role by default: who asks the same again gets the same again, also where the model would
    have said it in other words. ``max_temperature`` restricts that.

    Of identical calls at one time one asks the provider; see ``_flights.py``.

    A call says by ``cache=`` what it wants: ``"bypass"``, ``"refresh"``, ``"only"``, or ``{"mode": …, "ttl": seconds}``.

    Args:
        store: Where answers are kept; None: in memory. The store's own bounds hold then, not ``max_entries`` and
            ``max_bytes``. It is opened and closed with the Router.
        ttl: Seconds that an answer lives, at most 3,600.
        max_entries: Answers in memory; the least recently used goes first.
        max_bytes: What they may take together.
        semantic: A second layer that answers similar questions.
        scope: Who shares answers: each ``"tenant"``, each ``"principal"``, or all (``"router"``).
        version: Of guardrails and prompt templates: with another one, no earlier answer is found.
        secret: Makes keys that nobody else can make. None: random in memory; with a store a random one is put into
            it, for all who share it. Give one where others may read the store.
        operations: Those that take part; all but lists of models by default.
        max_temperature: Chat, FIM and Responses calls with a greater ``temperature``, or with none, take no part;
            None: all do.
        max_waiting: Calls that may wait for identical ones at one time; one more goes on by itself.
        patience: Seconds to wait for an identical call that streams, whose reader may be slow; then a call goes on by
            itself. For one that does not stream a call waits until its own deadline.
        clock: Measures lifetimes.

    Raises:
        ConfigError: An argument is out of range; names it.
    """

    hook_options: ClassVar[Mapping[str, HookOptions]] = {
        "bifrost_cached_response": HookOptions(timeout=None),  # who waits for an identical call has a deadline
        "bifrost_call_finished": HookOptions(timeout=2 * _STORE_SECONDS),
    }

    def __init__(
        self,
        store: Store | None = None,
        *,
        ttl: float = 600.0,
        max_entries: int = 1_024,
        max_bytes: int = 64 << 20,
        semantic: Semantic | None = None,
        scope: Scope = "tenant",
        version: str = "",
        secret: str | Secret | None = None,
        operations: Iterable[Operation | str] | None = None,
        max_temperature: float | None = None,
        max_waiting: int = 10_000,
        patience: float = 10.0,
        clock: Clock | None = None,
    ) -> None:
        checked = checked_ttl(ttl, "ttl")
        if checked is None:
            raise ConfigError("ttl is missing; give the seconds that an answer lives", field="ttl")
        for name, value in (("max_entries", max_entries), ("max_bytes", max_bytes), ("max_waiting", max_waiting)):
            if type(value) is not int or value < 1:
                raise ConfigError(f"{name} is a whole number > 0, not {value!r}", field=name)
        if scope not in ("tenant", "principal", "router"):
            raise ConfigError(f"scope={scope!r} is not known; say tenant, principal or router", field="scope")
        if not patience > 0:
            raise ConfigError(f"patience is a number of seconds > 0, not {patience!r}", field="patience")
        self._store = store
        self._ttl = checked
        self._operations = _operations(operations)
        self._max_temperature = max_temperature
        self._clock: Clock = SystemClock() if clock is None else clock
        given = None if secret is None else Secret(secret, "the response cache's secret").reveal().encode()
        self._keys = Keys(_key_of(given or secrets.token_bytes(32)), scope, version)
        self._shares_secret = store is not None and given is None
        self._memory = Memory(max_entries, max_bytes, self._clock)
        self._flights = Flights(max_waiting, patience)
        self._semantic = semantic
        self._vectors = None if semantic is None else vectors_for(semantic)
        self._stats = CacheStats()

    def stats(self) -> CacheStats:
        """What the cache has done, and what it holds now; a copy."""
        return attrs.evolve(
            self._stats,
            evicted=self._memory.evicted,
            entries=len(self._memory),
            bytes=self._memory.currsize,
            waiting=self._flights.waiting,
            vectors=0 if self._vectors is None else self._vectors.count,
        )

    # -- the hooks ------------------------------------------------------------------------------

    @hookimpl
    def bifrost_lifespan(self) -> AbstractAsyncContextManager[object] | None:
        """Open the store with the Router, and close it."""
        return None if self._store is None else self._opened(self._store)

    @hookimpl
    def bifrost_cached_response(self, request: Request, call: Call) -> Response | Awaitable[Response | None] | None:
        """Answer the call, or let it wait for one that is the same, or let it ask a provider."""
        option = cache_option(call.options.get("cache")) if call.options else cache_option(None)
        if option.mode is CacheMode.BYPASS or not self._takes(request, call):
            return None
        try:
            if request.files and file_bytes(request, _MAX_FILES) > _HASHED_INLINE:
                return self._hashed(request, call, option)
            key = self._keys.key(request, call)
        except NotComparableError:
            self._stats.not_comparable += 1
            return None
        return self._asked(request, call, key, option)

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord, call: Call) -> Awaitable[None] | None:
        """Keep the answer, and let those go on who wait for it."""
        ticket = cast("Ticket | None", call.state.pop(self, None))
        if ticket is None:
            return None
        kept = self._kept(record, ticket)
        if kept is None or self._store is None:
            self._end(ticket, record, kept)
            return None
        return self._put(self._store, ticket, record, kept)

    # -- before a provider is asked -------------------------------------------------------------

    def _takes(self, request: Request, call: Call) -> bool:
        if request.operation not in self._operations or (call.options.get("effects") or "none") != "none":
            return False
        if self._max_temperature is None or request.operation not in _SAMPLED:
            return True
        temperature = request.body.get("temperature")
        return isinstance(temperature, (int, float)) and temperature <= self._max_temperature

    def _ticket(self, key: str, request: Request, call: Call, option: CacheOption) -> Ticket:
        may_lead = option.mode is not CacheMode.ONLY
        ticket = Ticket(key, request.model, option, is_stream=request.stream, may_lead=may_lead)
        call.state[self] = ticket
        return ticket

    async def _hashed(self, request: Request, call: Call, option: CacheOption) -> Response | None:
        """As ``bifrost_cached_response``, of a request with large files."""
        key = await anyio.to_thread.run_sync(self._keys.key, request, call)
        answer = self._asked(request, call, key, option)
        return answer if answer is None or isinstance(answer, Response) else await answer

    def _asked(
        self, request: Request, call: Call, key: str, option: CacheOption
    ) -> Response | Awaitable[Response | None] | None:
        """What to do about a call. Nothing waits between looking and leading, so that one call alone leads."""
        if self._store is None and option.mode is not CacheMode.REFRESH:
            data = self._memory.find(key)
            answer = None if data is None else self._answer(data, request, option)
            if answer is not None:
                return answer
        ticket = self._ticket(key, request, call, option)
        if ticket.option.mode is CacheMode.REFRESH:
            if self._flights.find(ticket.key) is None:
                self._flights.lead(ticket)
            self._stats.misses += 1
            return None
        flight = self._flights.find(ticket.key)
        if flight is not None:
            return self._follow(flight, request, ticket)
        if ticket.may_lead:
            self._flights.lead(ticket)
        if self._store is not None or self._semantic is not None:
            return self._look(request, call, ticket)
        self._stats.misses += 1
        return None

    async def _follow(self, flight: Flight, request: Request, ticket: Ticket) -> Response | None:
        """Wait for the answer of an identical call."""
        turn = await self._flights.follow(flight, ticket)
        if turn is Turn.ANSWER and flight.data is not None:
            answer = self._answer(flight.data, request, ticket.option)
            if answer is not None:
                self._stats.waited += 1
                return answer
        # Who leads now has looked when it came: what it was waiting for is not kept.
        self._stats.misses += 1
        return None

    async def _look(self, request: Request, call: Call, ticket: Ticket) -> Response | None:
        """Look into the store, then for a similar question."""
        if self._store is not None:
            data = await self._get(self._store, ticket.key)
            answer = None if data is None else self._answer(data, request, ticket.option)
            if data is not None and answer is not None:
                self._share(ticket, data)
                return answer
        if self._semantic is not None:
            data = await self._similar(self._semantic, request, call, ticket)
            answer = None if data is None else self._answer(data, request, ticket.option)
            if data is not None and answer is not None:
                self._stats.semantic_hits += 1
                self._share(ticket, data)
                return answer
        self._stats.misses += 1
        return None

    def _answer(self, data: bytes, request: Request, option: CacheOption) -> Response | None:
        """A hit; None where the answer is older than the call takes, or can not be read."""
        entry = from_bytes(data, request)
        if entry is None or (option.ttl is not None and self._clock.time() - entry.stored_at > option.ttl):
            return None
        stats = self._stats
        stats.hits += 1
        if entry.cost is None:
            stats.unpriced_hits += 1
        else:
            stats.saved += entry.cost
        return entry.response

    def _share(self, ticket: Ticket, data: bytes) -> None:
        """Those who wait for the call to find an answer need not wait for its end."""
        flight, ticket.leads = ticket.leads, None
        if flight is not None:
            self._flights.land(flight, data)

    async def _similar(self, semantic: Semantic, request: Request, call: Call, ticket: Ticket) -> bytes | None:
        """The answer to a similar question. Remembers where the call's own question belongs."""
        vectors, question = self._vectors, question_of(request, semantic.max_characters)
        if vectors is None or question is None:
            return None
        try:
            partition = self._keys.semantic(request, call, question.body)
            response = await embedded(semantic, question.text, call)
        except (NotComparableError, CallError, ConfigError) as exc:
            self._stats.embedding_failures += 1
            _logger.warning("the semantic cache could not embed a text: %s", type(exc).__name__)
            return None
        if response is None or len(response.embeddings) != 1:
            self._stats.embedding_failures += 1
            return None
        self._stats.embeddings += 1
        if response.cost is None:
            self._stats.unpriced_embeddings += 1
        else:
            self._stats.embedding_cost += response.cost
        vector = response.embeddings[0]
        ticket.place = Place(partition, vector)
        while (found := vectors.nearest(partition, vector)) is not None and found[1] >= semantic.threshold:
            data = self._memory.find(found[0]) if self._store is None else await self._get(self._store, found[0])
            if data is not None:
                return data
            vectors.remove(partition, found[0])  # its time was up, or there was no room
        return None

    # -- when a call ends -----------------------------------------------------------------------

    def _kept(self, record: CallRecord, ticket: Ticket) -> bytes | None:
        """The answer as bytes; None where it may not be kept, or came from the cache."""
        response = record.response
        if record.outcome != "ok" or response is None or record.cached:
            return None
        rewritten = record.rewritten
        data: bytes | None = None
        if (
            is_whole(response)
            and response.route.deployment == ticket.model
            and "recovered" not in rewritten
            and not {"request", "response"} <= rewritten
        ):
            data = to_bytes(response, at=self._clock.time())
        if data is None:
            self._stats.not_stored += 1
        return data

    def _end(self, ticket: Ticket, record: CallRecord, data: bytes | None) -> None:
        """Keep an answer in memory, and let go on who waits."""
        if data is not None and self._store is None:
            self._note_stored(ticket, kept=self._memory.put(ticket.key, data, ticket.option.ttl or self._ttl))
        flight, ticket.leads = ticket.leads, None
        if flight is None:
            return
        if data is not None:
            self._flights.land(flight, data)
        elif record.outcome == "ok":
            self._flights.scatter(flight)
        else:
            self._flights.hand_over(flight, ticket.place)

    async def _put(self, store: Store, ticket: Ticket, record: CallRecord, data: bytes) -> None:
        kept = False
        try:
            with anyio.move_on_after(_STORE_SECONDS):
                kept = await store.put(_PREFIX + ticket.key, data, ttl=ticket.option.ttl or self._ttl)
        except Exception as exc:  # whatever a store does, those who wait go on
            _logger.warning("the response cache's store failed: %s", type(exc).__name__)
        finally:
            self._stats.store_failures += not kept
            self._note_stored(ticket, kept=kept)
            self._end(ticket, record, data)

    def _note_stored(self, ticket: Ticket, *, kept: bool) -> None:
        if not kept:
            self._stats.not_stored += 1
            return
        self._stats.stored += 1
        if self._vectors is not None and isinstance(ticket.place, Place):
            self._vectors.add(ticket.place.partition, ticket.place.vector, ticket.key)

    # -- the store ------------------------------------------------------------------------------

    async def _get(self, store: Store, key: str) -> bytes | None:
        """What the store has; None too where it fails or is too slow."""
        try:
            with anyio.fail_after(_STORE_SECONDS):
                return await store.get(_PREFIX + key)
        except Exception as exc:  # whatever a store does, the call goes on
            self._stats.store_failures += 1
            _logger.warning("the response cache's store failed: %s", type(exc).__name__)
            return None

    @asynccontextmanager
    async def _opened(self, store: Store) -> AsyncGenerator[None]:
        async with store:
            if self._shares_secret:
                await store.put(_SECRET, secrets.token_bytes(32), if_absent=True)
                shared = await store.get(_SECRET)
                if shared is None:
                    raise ConfigError("the store did not keep the response cache's secret; pass secret=…")
                self._keys = attrs.evolve(self._keys, secret=_key_of(shared))
            yield


_SAMPLED: Final = frozenset({Operation.CHAT, Operation.FIM, Operation.RESPONSES})


def _operations(names: Iterable[Operation | str] | None) -> frozenset[str]:
    if names is None:
        return frozenset(Operation) - {Operation.MODELS}
    given = (names,) if isinstance(names, str) else tuple(names)
    for name in given:
        if name not in tuple(Operation):
            raise ConfigError(f"{name!r} is no operation; known are {', '.join(Operation)}", field="operations")
    return frozenset(given)


def _key_of(secret: bytes) -> bytes:
    """A key of fixed length from a secret of any."""
    return hashlib.blake2b(secret, digest_size=32, person=b"bifrost-cache").digest()
