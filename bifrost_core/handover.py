"""Chunks on their way from the task that reads the provider to the task of the stream's reader.

anyio's memory stream does the same for many on both ends, but each time it has to wait it first lets the
event loop go round once, and the reader of a live stream waits for almost every chunk.
"""

from __future__ import annotations

import anyio

from .types import Chunk

__all__ = ["Handover", "ReaderLeftError"]


class ReaderLeftError(Exception):
    """Nobody will take what is put."""


class Handover:
    """Holds a few batches of chunks; then who puts waits for who takes. Belongs to one event loop.

    Args:
        room: Batches that are held.
    """

    __slots__ = ("_arrival", "_batches", "_departure", "_is_ended", "_is_left", "_room")

    def __init__(self, room: int) -> None:
        self._room = room
        self._batches: list[list[Chunk]] = []  # so few that a deque would only be larger
        self._is_ended = False
        self._is_left = False
        self._arrival: anyio.Event | None = None  # there while a reader waits
        self._departure: anyio.Event | None = None  # there while the other side does

    def put(self, batch: list[Chunk]) -> bool:
        """Hand on a batch; False, and it is not, where there is no room.

        Raises:
            ReaderLeftError: The reader has left.
        """
        if self._is_left:
            raise ReaderLeftError
        if len(self._batches) >= self._room:
            return False
        self._batches.append(batch)
        self._tell_reader()
        return True

    async def put_when_read(self, batch: list[Chunk]) -> None:
        """Hand on a batch as soon as there is room.

        Raises:
            ReaderLeftError: The reader has left.
        """
        while not self.put(batch):
            if self._departure is None:
                self._departure = anyio.Event()
            await self._departure.wait()

    async def take(self) -> list[Chunk] | None:
        """The next batch, waiting for it; None after the last one, and once the reader has left."""
        while True:
            if self._is_left:
                return None
            if self._batches:
                batch = self._batches.pop(0)
                self._tell_writer()
                return batch
            if self._is_ended:
                return None
            if self._arrival is None:
                self._arrival = anyio.Event()
            await self._arrival.wait()

    def end(self) -> None:
        """Nothing more is put. What is held can still be taken."""
        self._is_ended = True
        self._tell_reader()

    def leave(self) -> None:
        """Nothing more is taken; what is held is dropped."""
        self._is_left = True
        self._batches.clear()
        self._tell_reader()
        self._tell_writer()

    def _tell_reader(self) -> None:
        if self._arrival is not None:
            self._arrival.set()
            self._arrival = None

    def _tell_writer(self) -> None:
        if self._departure is not None:
            self._departure.set()
            self._departure = None
