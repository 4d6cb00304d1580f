"""A store in Redis or Valkey: shared by many machines."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeVar

import anyio
import anyio.to_thread
import msgspec
from anyio.lowlevel import RunVar

from bifrost_core import Clock, ConfigError

from ._ledger import sum_usage
from .base import (
    HOUR,
    MAX_HOLDS,
    BucketState,
    Claim,
    ClaimKind,
    Correction,
    Crossing,
    Denied,
    Ended,
    Granted,
    Hold,
    HoldState,
    LedgerConflictError,
    OpenHold,
    StoreError,
    UsageCell,
    check_amounts,
    check_text,
)

__all__ = ["RedisStore"]

_T = TypeVar("_T")

_SCRIPT: Final = Path(__file__).with_name("ledger.lua").read_text(encoding="utf-8")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_labels = msgspec.json.Decoder(dict[str, str]).decode


class RedisStore:
    """Keeps everything in one database of Redis (5 or newer) or Valkey, for many machines.

    Each operation is one script that the server runs as one step; amounts are exact up to 2**63 - 1.
    How much survives a crash of the *server* is its own setting: with ``appendonly yes`` and
    ``appendfsync everysec`` at most the last second, with ``always`` nothing is lost; a replica that
    takes over may lack what was acknowledged last
    (https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/). Its
    ``maxmemory-policy`` must be ``noeviction``, or limits are forgotten.

    The client is the synchronous one, in threads of this store: it works alike on asyncio and trio. A
    caller that is cancelled goes on at once, while the thread carries the operation through: release
    the hold then, which is also right when the reservation comes in after the release. All keys share one hash tag and so one slot; the client speaks to one server, though,
    not to a cluster.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database.
        prefix: What keys begin with; stores with other prefixes do not see each other.
        clock: Where the time comes from; the server's own clock by default, so that machines agree.
        timeout: Seconds that connecting and each answer may take.
        connections: Operations under way at once; more wait.
        max_holds: Holds that may be open at once; more are refused with ``StoreError``.

    Raises:
        ConfigError: The package ``redis`` is missing, or the URL or the prefix is unusable. Never
            shows the URL.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "bifrost",
        clock: Clock | None = None,
        timeout: float = 1.0,
        connections: int = 16,
        max_holds: int = MAX_HOLDS,
    ) -> None:
        if not prefix or set(prefix) & set("{}"):
            raise ConfigError("a prefix is not empty and has no braces", field="prefix")
        try:
            library: Any = importlib.import_module("redis")  # its annotations are partial
        except ImportError as exc:
            raise ConfigError("RedisStore needs the package redis; pip install 'bifrost-core[redis]'") from exc
        try:
            pool = library.ConnectionPool.from_url(
                url,
                max_connections=connections + 4,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                socket_keepalive=True,
                health_check_interval=30,
                # Once more on a connection that died while idle: every operation may be repeated.
                retry=importlib.import_module("redis.retry").Retry(
                    importlib.import_module("redis.backoff").NoBackoff(), 1, (library.ConnectionError,)
                ),
            )
        except (ValueError, TypeError):
            raise ConfigError("the URL is unusable; write redis://host:6379/0", field="url") from None
        pool.connection_kwargs["decode_responses"] = False  # whatever the URL says: values are bytes
        self._failures: tuple[type[Exception], ...] = (library.RedisError, OSError)
        self._no_script: type[Exception] = library.exceptions.NoScriptError
        self._client: Any = library.Redis(connection_pool=pool)
        self._where = _place(pool.connection_kwargs)
        self._root = f"{{{prefix}}}"
        self._clock = clock
        self._connections = connections
        self._max_holds = max_holds
        self._limiter: RunVar[anyio.CapacityLimiter] = RunVar("bifrost redis store")
        self._sha = ""
        self._starts = 0

    def __repr__(self) -> str:
        return f"RedisStore({self._where!r})"

    # Opening and closing.

    async def start(self) -> None:
        """Reach the server and load the script.

        Raises:
            StoreError: It can not be reached, refuses us, or does not know scripts.
        """
        await self._in_thread(self._load)
        self._starts += 1

    def _load(self) -> None:
        self._sha = str(self._client.script_load(_SCRIPT))

    async def aclose(self) -> None:
        """Close the connections when everybody who started it has closed it."""
        self._starts = max(0, self._starts - 1)
        if self._starts == 0:
            await anyio.to_thread.run_sync(self._client.connection_pool.disconnect)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    # Running the script.

    async def _in_thread(self, function: Callable[[], _T]) -> _T:
        try:
            limiter = self._limiter.get()
        except LookupError:
            limiter = anyio.CapacityLimiter(self._connections)
            self._limiter.set(limiter)
        try:
            return await anyio.to_thread.run_sync(function, limiter=limiter, abandon_on_cancel=True)
        except self._failures as exc:
            # The client's exceptions may hold arguments and addresses: only their class is told.
            raise StoreError(
                f"{self._where} failed ({type(exc).__name__}); is it up, and are user and password right?"
            ) from None

    async def _script(self, operation: str, arguments: object, *values: bytes) -> Any:
        """Run one operation.

        Raises:
            StoreError: The server can not be reached or failed.
        """
        time = "" if self._clock is None else repr(self._clock.time())
        argv: tuple[str | bytes, ...] = (operation, time, _encode(arguments), *values)

        def run() -> Any:
            if not self._sha:
                self._load()
            try:
                return self._client.evalsha(self._sha, 1, self._root, *argv)
            except self._no_script:  # the server was restarted or flushed its scripts
                self._load()
                return self._client.evalsha(self._sha, 1, self._root, *argv)

        return await self._in_thread(run)

    async def _ask(self, operation: str, arguments: object) -> Any:
        return _decode(await self._script(operation, arguments))

    # The ledger.

    async def reserve(self, hold: Hold) -> Granted | Denied:
        """See ``Store``."""
        answer = await self._ask(
            "reserve",
            {
                "id": hold.id,
                "claims": [
                    {**_claim(claim), "amount": str(amount)}
                    for claim, amount in zip(hold.claims, hold.amounts, strict=True)
                ],
                "call_id": hold.call_id,
                "estimate": _texts(hold.estimate),
                "expires_in": hold.expires_in,
                "dispatched": hold.dispatched,
                "labels": _encode(dict(hold.labels)).decode(),
                "other": _encode(dict.fromkeys(hold.labels, "other")).decode(),
                "usage": _usage(hold.usage),
                "note": hold.note,
                "max_holds": self._max_holds,
            },
        )
        if answer["status"] == "granted":
            return Granted(float(answer["expires_at"]), answer["repeated"])
        if answer["status"] == "denied":
            index: int = answer["index"]
            claim = hold.claims[index]
            return Denied(
                index,
                claim.bucket,
                claim.limit or 0,
                int(answer["spent"]),
                int(answer["held"]),
                _seconds(answer.get("resets_at")),
                _seconds(answer.get("retry_after")),
            )
        if answer["status"] == "full":
            raise StoreError(f"the ledger holds {self._max_holds} open holds and takes no more; settle or expire some")
        return _refuse(hold.id, answer)

    async def dispatch(self, hold_id: str) -> None:
        """See ``Store``."""
        answer = await self._ask("dispatch", {"id": hold_id})
        if answer["status"] != "done":
            _refuse(hold_id, answer)

    async def extend(self, hold_id: str, expires_in: float) -> bool:
        """See ``Store``."""
        answer = await self._ask("extend", {"id": hold_id, "expires_in": expires_in})
        return bool(answer["status"] == "yes")

    async def settle(self, hold_id: str, amounts: Sequence[int], usage: Mapping[str, int] | None = None) -> Ended:
        """See ``Store``."""
        return await self._end("settle", hold_id, amounts, usage)

    async def release(self, hold_id: str) -> Ended:
        """See ``Store``."""
        answer = await self._ask("release", {"id": hold_id})
        return _ended(answer) if answer["status"] == "ended" else _refuse(hold_id, answer)

    async def adjust(
        self, hold_id: str, amounts: Sequence[int], *, reason: str, usage: Mapping[str, int] | None = None
    ) -> Ended:
        """See ``Store``."""
        return await self._end("adjust", hold_id, amounts, usage, reason)

    async def _end(
        self,
        operation: str,
        hold_id: str,
        amounts: Sequence[int],
        usage: Mapping[str, int] | None,
        reason: str = "",
    ) -> Ended:
        arguments: dict[str, object] = {"id": hold_id, "amounts": _texts(check_amounts(amounts, len(amounts)))}
        if usage is not None:
            arguments["usage"] = _usage(usage)
        arguments["reason"] = check_text(reason, "reason")
        answer = await self._ask(operation, arguments)
        return _ended(answer) if answer["status"] == "ended" else _refuse(hold_id, answer, amounts)

    async def expire_due(self, limit: int = 1_000) -> list[Ended]:
        """See ``Store``."""
        return [_ended(each) for each in await self._ask("expire", {"limit": limit})]

    async def read(self, claims: Sequence[Claim]) -> list[BucketState]:
        """See ``Store``."""
        return [_state(each) for each in await self._ask("read", {"claims": [_claim(claim) for claim in claims]})]

    async def correct(
        self, claim: Claim, *, correction_id: str, reason: str, delta: int | None = None, to: int | None = None
    ) -> BucketState:
        """See ``Store``."""
        if claim.kind is not ClaimKind.COUNTER:
            raise ConfigError("only what a counter has spent can be corrected", field="claim")
        if (delta is None) == (to is None):
            raise ConfigError("give either delta or to", field="delta")
        change = {"delta": str(delta)} if delta is not None else {"to": str(to)}
        texts = {"id": check_text(correction_id, "correction_id"), "reason": check_text(reason, "reason")}
        arguments = {"claim": _claim(claim), **texts, **change}
        answer = await self._ask("correct", arguments)
        if answer["status"] == "negative":
            raise LedgerConflictError(f"{claim.bucket!r} has spent {answer['spent']}; {delta} more would be negative")
        return _state(answer["state"]) if answer["status"] == "state" else _refuse(correction_id, answer)

    async def holds(self, limit: int = 1_000) -> list[OpenHold]:
        """See ``Store``."""
        return [
            OpenHold(
                id=each["id"],
                call_id=each["call_id"],
                amounts=tuple(map(int, each["amounts"])),
                buckets=tuple(each["buckets"]),
                dispatched=each["dispatched"],
                expires_at=float(each["expires_at"]),
                labels=_labels(each["labels"]),
                note=each["note"],
            )
            for each in await self._ask("holds", {"limit": limit})
        ]

    async def corrections(self, limit: int = 1_000) -> list[Correction]:
        """See ``Store``."""
        key = f"{self._root}:corrections"
        rows: list[bytes] = await self._in_thread(lambda: self._client.lrange(key, 0, limit - 1))
        entries = [_decode(row) for row in rows]
        return [
            Correction(id_, bucket, int(epoch), int(delta), reason, float(at))
            for id_, bucket, epoch, delta, reason, at in entries
        ]

    # Usage.

    async def usage(
        self, since: float, until: float, *, by: Sequence[str] = (), where: Mapping[str, str] | None = None
    ) -> list[UsageCell]:
        """See ``Store``."""

        def fetch() -> list[UsageCell]:
            first = int(since // HOUR) * HOUR
            hours: list[bytes] = self._client.zrangebyscore(f"{self._root}:uh", first, f"({until!r}")
            cells = list[tuple[int, Mapping[str, str], Mapping[str, int]]]()
            for start in range(0, len(hours), 100):
                some = [int(hour) for hour in hours[start : start + 100]]
                pipeline = self._client.pipeline(transaction=False)
                for hour in some:
                    pipeline.hgetall(f"{self._root}:u:{hour}")
                for hour, found in zip(some, pipeline.execute(), strict=True):
                    for field, value in found.items():
                        labels, _, name = field.decode().partition("\n")
                        cells.append((hour, _labels(labels), {name: int(value)}))
            return sum_usage(cells, by=by, where=where)

        return await self._in_thread(fetch)

    # Keys and values.

    async def get(self, key: str) -> bytes | None:
        """See ``Store``."""
        found: bytes | None = await self._script("get", {"key": check_text(key, "key")})
        return found

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        expect: bytes | None = None,
    ) -> bool:
        """See ``Store``."""
        arguments: dict[str, object] = {
            "key": check_text(key, "key"),
            "if_absent": if_absent,
            "expect": expect is not None,
        }
        if ttl is not None:
            arguments["ttl"] = ttl
        return bool(await self._script("put", arguments, bytes(value), expect or b""))

    async def delete(self, key: str, *, expect: bytes | None = None) -> bool:
        """See ``Store``."""
        return bool(
            await self._script(
                "delete", {"key": check_text(key, "key"), "expect": expect is not None}, b"", expect or b""
            )
        )

    async def items(self, prefix: str = "") -> list[tuple[str, bytes]]:
        """See ``Store``."""
        flat: list[bytes] = await self._script("items", {"prefix": check_text(prefix, "prefix")})
        return [(key.decode(), value) for key, value in zip(flat[::2], flat[1::2], strict=True)]


def _place(settings: Mapping[str, Any]) -> str:
    """Where the server is, without user and password."""
    if "path" in settings:
        return f"Redis at {settings['path']}"
    return f"Redis at {settings.get('host', 'localhost')}:{settings.get('port', 6379)}"


def _texts(numbers: Sequence[int]) -> list[str]:
    return [str(number) for number in numbers]


def _usage(values: Mapping[str, int]) -> str:
    return _encode({name: str(value) for name, value in values.items()}).decode()


def _seconds(text: str | None) -> float | None:
    return None if text is None else float(text)


def _claim(claim: Claim) -> dict[str, object]:
    fields: dict[str, object] = {
        "kind": claim.kind,
        "bucket": claim.bucket,
        "amount": str(claim.amount),
        "epoch": str(claim.epoch),
        "thresholds": _texts(claim.thresholds),
    }
    if claim.limit is not None:
        fields["limit"] = str(claim.limit)
    if claim.ends_at is not None:
        fields["ends"] = claim.ends_at
    if claim.seconds is not None:
        fields["seconds"] = claim.seconds
    return fields


def _state(row: Sequence[Any]) -> BucketState:
    return BucketState(row[0], int(row[1]), int(row[2]), int(row[3]), float(row[4]) if len(row) > 4 else None)


def _ended(answer: Mapping[str, Any]) -> Ended:
    if answer["status"] != "ended":
        _refuse(answer.get("id", ""), answer)
    return Ended(
        id=answer["id"],
        state=HoldState(answer["state"]),
        amounts=tuple(map(int, answer["amounts"])),  # Lua writes an empty list as an empty object
        dispatched=answer["dispatched"],
        crossings=tuple(
            Crossing(bucket, int(epoch), int(threshold), int(spent))
            for bucket, epoch, threshold, spent in _decode(answer["crossings"])
        ),
        repeated=answer["repeated"],
        call_id=answer["call_id"],
        labels=_labels(answer["labels"]),
    )


def _refuse(hold_id: str, answer: Mapping[str, Any], amounts: Sequence[int] = ()) -> NoReturn:
    """Raise what the script's refusal means."""
    state = answer.get("state")
    match answer["status"]:
        case "has_ended":
            raise LedgerConflictError(f"hold {hold_id!r} has ended ({state}); reserve with an id of its own")
        case "other_claims":
            raise LedgerConflictError(f"hold {hold_id!r} is open with other claims; reserve with an id of its own")
        case "unknown":
            raise LedgerConflictError(f"hold {hold_id!r} is not known; it never was, or ended too long ago")
        case "is_open":
            raise LedgerConflictError(f"hold {hold_id!r} is open; settle it")
        case "other_amounts":
            raise LedgerConflictError(
                f"hold {hold_id!r} has ended ({state}) with {[int(each) for each in answer['amounts']]}, not"
                f" {list(amounts)}; the first result stands; use adjust to correct it"
            )
        case "claims":
            check_amounts(amounts, answer["claims"])
        case "overflow":
            raise StoreError(
                f"{answer['bucket']!r} would count beyond 2**63 - 1; use a greater unit or a shorter period"
            )
        case _:
            pass
    raise StoreError(f"the script of the store answered {answer['status']!r}, which is not understood")
