"""A real HTTP server on loopback, whosever API it speaks."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import attrs
import msgspec

from ._answers import AnswerLaw
from ._endpoints import Find
from ._exchange import Exchange
from ._faults import play
from ._http import BadHttpError, ClientLeftError, Connection, response_head
from ._service import Service
from .catalogue import SimulatedModel
from .journal import KeyCounters, ServedRequest
from .laws import Fault, SimulatedKey

__all__ = ["SimulatedServer", "to_keys", "to_law", "to_models"]

logger = logging.getLogger(__name__)

_LINGER = 1.0  # seconds to read on after a refusal, so that it reaches the client


@attrs.define(eq=False)
class _Running:
    """What there is while the server runs."""

    stack: contextlib.ExitStack
    portal: anyio.from_thread.BlockingPortal
    scope: anyio.CancelScope
    port: int
    thread: int


class SimulatedServer:
    """A service on a port of its own, in a thread and an event loop of its own.

    Args:
        service: What is served.
        find: What answers which path.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one at each start.
        max_body: Most bytes of a request body; larger ones are refused with 413.
        idle: Seconds after which a connection without a request is closed; None for never.
    """

    def __init__(
        self, service: Service, find: Find, *, host: str, port: int, max_body: int, idle: float | None
    ) -> None:
        self._service = service
        self._find = find
        self._address = (host, port)
        self._max_body = max_body
        self._idle = float("inf") if idle is None else idle
        self._running: _Running | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start listening; returns when requests are accepted.

        Raises:
            RuntimeError: It runs already.
            OSError: The port is taken.
        """
        if self._running is not None:
            msg = "the simulated server is already running"
            raise RuntimeError(msg)
        with contextlib.ExitStack() as stack:
            listener = stack.enter_context(socket.create_server(self._address, backlog=1024))
            listener.setblocking(False)
            portal = stack.enter_context(
                anyio.from_thread.start_blocking_portal(
                    backend="asyncio", name=f"simulated-{self._service.vendor.name}"
                )
            )
            scope = portal.call(anyio.CancelScope)
            served = portal.start_task_soon(self._serve, listener, scope)
            stack.callback(served.result)
            stack.callback(lambda: portal.call(scope.cancel))
            self._running = _Running(
                stack.pop_all(), portal, scope, listener.getsockname()[1], portal.call(threading.get_ident)
            )

    def stop(self) -> None:
        """Close all connections and stop; requests being served are cut off. Harmless when not running."""
        running, self._running = self._running, None
        if running is not None:
            running.stack.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    async def __aenter__(self) -> Self:
        """Start without blocking the running loop."""
        await anyio.to_thread.run_sync(self.start)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop without blocking the running loop."""
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.stop)

    # -- what tests look at --------------------------------------------------------------------------------------

    @property
    def base_url(self) -> str:
        """Where it listens, without ``/v1``.

        Raises:
            RuntimeError: It is not running.
        """
        if self._running is None:
            msg = "the simulated server is not running: use it in a with block, or call start()"
            raise RuntimeError(msg)
        return f"http://{self._address[0]}:{self._running.port}"

    @property
    def keys(self) -> tuple[SimulatedKey, ...]:
        """The accepted keys, each with its id."""
        return tuple(self._service.keys.values())

    @property
    def requests(self) -> tuple[ServedRequest, ...]:
        """The journal, oldest first. Records of requests being served are still filled in."""
        return self._service.journal()

    @property
    def counters(self) -> dict[str, KeyCounters]:
        """Sums per key id, as they are now."""
        return self._service.counters()

    def wait_idle(self, timeout: float = 5.0) -> bool:
        """Block until no request is being served, so that the journal is complete.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether that came in time.
        """
        return self._service.wait_idle(timeout)

    # -- what tests change ---------------------------------------------------------------------------------------

    def fail(self, key_id: str, fault: Fault) -> None:
        """Give a key a fault from now on, before those it has. From any thread.

        Args:
            key_id: Which key.
            fault: Its times and numbers count from the server's start (or last ``reset()``).

        Raises:
            KeyError: There is no such key.
        """
        self._on_loop(lambda: self._service.add_fault(self._service.state(key_id), fault))

    def heal(self, key_id: str) -> None:
        """Take all faults from a key; held requests go on, other running faults are played to their end.

        Args:
            key_id: Which key.

        Raises:
            KeyError: There is no such key.
        """
        self._on_loop(lambda: self._service.heal(self._service.state(key_id)))

    def reset(self) -> None:
        """Begin anew: journal, counters, request numbers, limits and time; faults as first configured."""
        self._on_loop(self._service.reset)

    def _on_loop(self, change: Callable[[], None]) -> None:
        """Make a change where nothing else happens meanwhile."""
        running = self._running
        if running is None or running.thread == threading.get_ident():
            change()
        else:
            running.portal.call(change)

    # -- the server's own thread ---------------------------------------------------------------------------------

    async def _serve(self, listener: socket.socket, scope: anyio.CancelScope) -> None:
        """Accept connections until the scope is cancelled."""
        with scope:
            async with anyio.create_task_group() as tasks:
                while True:
                    try:
                        sock, _ = listener.accept()
                    except BlockingIOError:
                        await anyio.wait_readable(listener)
                    except OSError:  # no more file descriptors, or a client that left in the queue
                        await anyio.sleep(0.01)
                    else:
                        sock.setblocking(False)
                        tasks.start_soon(self._serve_connection, sock)

    async def _serve_connection(self, sock: socket.socket) -> None:
        """Serve the requests of one connection."""
        conn = Connection(sock, max_body=self._max_body, idle=self._idle)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (request := await conn.receive()) is not None:
                if not await Exchange(self._service, conn, request, self._find, play).run():
                    break
                await anyio.lowlevel.checkpoint()  # a client that is quick to ask again must not shut others out
        except BadHttpError as exc:
            body = msgspec.json.encode(self._service.vendor.bad_http(exc.status, str(exc)))
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ]
            with contextlib.suppress(ClientLeftError):
                await conn.send(response_head(exc.status, headers) + body)
                await conn.linger(_LINGER)
        except ClientLeftError:
            pass
        except Exception:
            logger.exception("the simulated service failed on a connection")
        finally:
            conn.close()


def to_keys(keys: Iterable[SimulatedKey | str] | int) -> list[SimulatedKey]:
    """Keys as they are given: objects, plain secrets, or how many to make up."""
    listed = [f"sk-simulated-{number}" for number in range(1, keys + 1)] if isinstance(keys, int) else keys
    return [SimulatedKey(key) if isinstance(key, str) else key for key in listed]


def to_models(models: Iterable[SimulatedModel | str], *capabilities: str) -> list[SimulatedModel]:
    """Models as they are given; plain names can do what ``capabilities`` says."""
    return [SimulatedModel(model, (), capabilities) if isinstance(model, str) else model for model in models]


def to_law(answer: AnswerLaw | str | None) -> AnswerLaw | None:
    """An answer as it is given: a function, or one text for every request."""
    return (lambda _body: answer) if isinstance(answer, str) else answer
