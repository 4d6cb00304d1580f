"""The stream filters of one call as one filter: the output of each is the input of the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import isawaitable
from typing import Any

import attrs

from bifrost_core.calls import Call
from bifrost_core.hookspecs import StreamFilter
from bifrost_core.types import Chunk

from .accepting import kind_of
from .implementations import Implementation, WrongTypeError, drop

__all__ = ["FilterChain"]


def _chunks(result: Any) -> list[Chunk]:
    if isawaitable(result):
        drop(result)
        raise WrongTypeError("has a stream filter that returned an awaitable but may not wait; return chunks")
    if isinstance(result, (str, bytes)) or not isinstance(result, Iterable):
        raise WrongTypeError(f"has a stream filter that returned {kind_of(result)}; return a list of Chunk")
    chunks: list[Any] = list(result)  # pyright: ignore[reportUnknownArgumentType]
    for chunk in chunks:
        if not isinstance(chunk, Chunk):
            raise WrongTypeError(
                f"has a stream filter that returned {kind_of(chunk)} among its chunks; return a list of Chunk"
            )
    return chunks


@attrs.define(eq=False)
class _Link:
    """One plugin's filter. Once it has failed and is open, chunks pass it by."""

    implementation: Implementation
    stream_filter: StreamFilter
    call: Call
    is_gone: bool = False

    def feed(self, chunk: Chunk) -> list[Chunk]:
        if self.is_gone:
            return [chunk]
        try:
            return _chunks(self.stream_filter.feed(chunk))
        except BaseException as exc:
            if self.implementation.must_raise(exc, self.call):
                raise
        self.is_gone = True
        return [*(self._held() or ()), chunk]  # what it holds of earlier chunks belongs before this one

    def finish(self) -> list[Chunk]:
        if self.is_gone:
            return []
        self.is_gone = True
        chunks = self._held()
        if chunks is None:
            return []
        self.implementation.streak = 0
        return chunks

    def _held(self) -> list[Chunk] | None:
        """What the filter still holds back; None when it fails."""
        try:
            return _chunks(self.stream_filter.finish())
        except BaseException as exc:
            if self.implementation.must_raise(exc, self.call):
                raise
            return None


@attrs.define(eq=False)
class FilterChain:
    """Every filter of a call, in call order, each guarded by its plugin's options.

    When a filter blocks the answer, or fails and is closed, nothing more comes out: ``feed`` and
    ``finish`` raise the same error again.
    """

    _links: tuple[_Link, ...]
    _broken: BaseException | None = None

    @classmethod
    def build(cls, filters: Sequence[tuple[Implementation, StreamFilter]], call: Call) -> FilterChain:
        """Chain the filters of ``call``, the first one nearest to the provider."""
        return cls(tuple(_Link(implementation, each, call) for implementation, each in filters))

    def feed(self, chunk: Chunk) -> list[Chunk]:
        """Take a chunk from the provider; return what may be delivered now.

        Raises:
            CallError: A plugin blocked the rest of the answer, or failed and is closed.
        """
        return self._guarded(lambda: self._through([chunk.as_said()], 0))

    def finish(self) -> list[Chunk]:
        """Return what is still held back, after the provider's last chunk.

        Raises:
            CallError: A plugin blocked the rest of the answer, or failed and is closed.
        """
        return self._guarded(self._finish)

    def _finish(self) -> list[Chunk]:
        delivered: list[Chunk] = []
        for index, link in enumerate(self._links):
            delivered.extend(self._through(link.finish(), index + 1))
        return delivered

    def _through(self, chunks: list[Chunk], start: int) -> list[Chunk]:
        for link in self._links[start:]:
            chunks = [changed for chunk in chunks for changed in link.feed(chunk)]
        return chunks

    def _guarded(self, work: Callable[[], list[Chunk]]) -> list[Chunk]:
        if self._broken is not None:
            raise self._broken
        try:
            return work()
        except BaseException as exc:
            self._broken = exc
            raise
