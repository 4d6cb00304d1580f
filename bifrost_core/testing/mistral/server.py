"""A real HTTP server on loopback that speaks Mistral's API."""

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

from ._answers import AnswerLaw, PageLaw, TranscriptLaw
from ._exchange import Exchange
from ._faults import play
from ._http import BadHttpError, ClientLeftError, Connection, response_head
from ._service import Clock, Service, WallClock
from .catalogue import DEFAULT_MODELS, SimulatedModel
from .journal import KeyCounters, ServedRequest
from .laws import Fault, SimulatedKey

__all__ = ["SimulatedMistral"]

logger = logging.getLogger(__name__)

_STRING_MODEL = frozenset({"completion_chat", "completion_fim", "function_calling"})
_LINGER = 1.0  # seconds to read on after a refusal, so that it reaches the client


@attrs.define(eq=False)
class _Running:
    """What there is while the server runs."""

    stack: contextlib.ExitStack
    portal: anyio.from_thread.BlockingPortal
    scope: anyio.CancelScope
    port: int
    thread: int


class SimulatedMistral:
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
        answer: AnswerLaw | None = None,
        transcript: TranscriptLaw | None = None,
        page: PageLaw | None = None,
        clock: Clock | None = None,
        journal_size: int = 10_000,
        keep_bodies: bool = False,
        max_body: int = 32 * 2**20,
        idle: float | None = None,
    ) -> None:
        listed = [f"sk-simulated-{number}" for number in range(1, keys + 1)] if isinstance(keys, int) else keys
        self._service = Service(
            [SimulatedKey(key) if isinstance(key, str) else key for key in listed],
            [SimulatedModel(model, (), _STRING_MODEL) if isinstance(model, str) else model for model in models],
            seed=seed,
            clock=clock or WallClock(),
            answer=answer,
            transcript=transcript,
            page=page,
            journal_size=journal_size,
            keep_bodies=keep_bodies,
        )
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
                anyio.from_thread.start_blocking_portal(backend="asyncio", name="simulated-mistral")
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
                if not await Exchange(self._service, conn, request, play).run():
                    break
                await anyio.lowlevel.checkpoint()  # a client that is quick to ask again must not shut others out
        except BadHttpError as exc:
            body = b'{"message":"%b"}' % str(exc).encode()
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
