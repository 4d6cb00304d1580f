"""A file of JSON lines, moved aside when it has grown enough."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from bifrost_core import ConfigError

from ._events import Event
from ._sinks import to_line

__all__ = ["JsonlSink", "files_of", "to_path"]


def to_path(path: str | os.PathLike[str]) -> str:
    return os.fspath(path)


@attrs.define(eq=False)
class JsonlSink:
    """Appends events to a file, one line of JSON each.

    The file is opened for each batch, so that it may be renamed or removed at any time (log
    rotation). A new file is readable by its owner only. A line that a crash cut off is ended first.

    Attributes:
        path: Path of the file; its directory exists.
        max_bytes: A file that a line would make longer than this is moved to ``path.1`` (that one to
            ``path.2`` …) and a new one begun; None: it grows, or something else rotates it. With a limit,
            one process writes the file.
        keep: How many moved files are kept, at least 1.

    Raises:
        ConfigError: A limit is no such number.
    """

    path: str = attrs.field(converter=to_path)
    max_bytes: int | None = attrs.field(default=None, kw_only=True)
    keep: int = attrs.field(default=5, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ConfigError(f"max_bytes is at least 1, not {self.max_bytes}", field="max_bytes")
        if self.keep < 1:
            raise ConfigError(f"keep is at least 1 file, not {self.keep}", field="keep")

    def write_events(self, events: Sequence[Event]) -> None:
        """Append all of ``events``, with one write as long as the file is not moved aside in between.

        Raises:
            OSError: The file can not be opened, written or moved.
        """
        lines = [f"{to_line(event)}\n".encode("ascii") for event in events]
        for batch in self._batches(lines):
            self._append(b"".join(batch))

    def _batches(self, lines: list[bytes]) -> Iterator[list[bytes]]:
        """The lines, cut where the file is full; it has been moved aside by the time the next part comes."""
        if self.max_bytes is None:
            yield lines
            return
        size = _size(self.path)
        batch: list[bytes] = []
        for line in lines:
            if size and size + len(line) > self.max_bytes:
                if batch:
                    yield batch
                    batch = []
                self._move()
                size = 0
            batch.append(line)
            size += len(line)
        if batch:
            yield batch

    def _move(self) -> None:
        """Make room for a new file: the oldest goes, each other gets the next number."""
        for number in range(self.keep - 1, 0, -1):
            if os.path.lexists(f"{self.path}.{number}"):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")  # noqa: PTH105 # paths are strings here
        os.replace(self.path, f"{self.path}.1")  # noqa: PTH105

    def _append(self, data: bytes) -> None:
        binary: int = getattr(os, "O_BINARY", 0)  # Windows alone has it
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | binary, 0o600)
        try:
            end = os.lseek(descriptor, 0, os.SEEK_END)
            if end:
                os.lseek(descriptor, end - 1, os.SEEK_SET)
                if os.read(descriptor, 1) != b"\n":
                    data = b"\n" + data
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def files_of(path: str) -> list[str]:
    """The file and those that were moved aside, oldest first, as far as they are there."""
    moved: list[str] = []
    while os.path.lexists(name := f"{path}.{len(moved) + 1}"):
        moved.append(name)
    return [*reversed(moved), *([path] if Path(path).exists() else [])]
