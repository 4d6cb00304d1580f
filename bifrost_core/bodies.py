"""Files on their way to a provider: where their bytes are, how many, and the form that carries them."""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final, cast

import attrs

from ._errors import ConfigError

__all__ = ["MAX_JSON", "MAX_UPLOAD", "Content", "Multipart", "Part", "Source", "source_of"]

MAX_JSON: Final = 20_000_000  # bytes of a JSON body
MAX_UPLOAD: Final = 512_000_000  # bytes of a body with files in it

Content = bytes | os.PathLike[str] | IO[bytes]


@attrs.frozen(eq=False)
class Source:
    """Bytes of known number that can be read again for each attempt.

    Attributes:
        content: The bytes, the path of a file, or a file open for reading bytes.
        length: How many bytes there are.
        start: Where an open file stood when it was given; its bytes count from there.
        lock: Held for each read of an open file, whose position all its readers share; None for others.
    """

    content: Content = attrs.field(repr=False)
    length: int
    start: int = 0
    lock: threading.Lock | None = attrs.field(default=None, repr=False)

    def open(self) -> IO[bytes]:
        """A file to ``read`` from: of a path a new one, which is the caller's to close; else the one that was given.

        Raises:
            OSError: The path can not be opened.
            TypeError: The content is bytes.
        """
        if isinstance(self.content, bytes):
            raise TypeError("bytes are read as they are")
        if isinstance(self.content, os.PathLike):
            return Path(self.content).open("rb")
        return self.content

    def read(self, file: IO[bytes], at: int, size: int) -> bytes:
        """At most ``size`` bytes from ``at`` bytes after the start; blocks.

        Args:
            file: What ``open`` gave.
            at: Where to read; of a path the end of the last read.
            size: How many.

        Raises:
            OSError: The file can not be read.
            ValueError: It was closed.
        """
        if self.lock is None:
            return file.read(size)
        with self.lock:
            file.seek(self.start + at)
            return file.read(size)

    def whole(self) -> bytes:
        """All bytes; blocks.

        Raises:
            OSError: The file can not be read, or has become shorter.
            ValueError: It was closed.
        """
        if isinstance(self.content, bytes):
            return self.content
        file = self.open()
        try:
            data = self.read(file, 0, self.length)
        finally:
            if self.lock is None:
                file.close()
        if len(data) != self.length:
            raise OSError("it has become shorter")
        return data

    def head(self, size: int) -> bytes:
        """The first bytes, at most ``size``, to tell what they are; leaves an open file where it stood.

        Raises:
            ConfigError: The file can not be read.
        """
        if isinstance(self.content, bytes):
            return self.content[:size]
        problem = ""
        data = b""
        try:
            file = self.open()
            try:
                data = self.read(file, 0, min(size, self.length))
            finally:
                if self.lock is None:
                    file.close()
                else:
                    file.seek(self.start)
        except (OSError, ValueError) as exc:
            problem = _why(exc)
        if problem:
            raise ConfigError(f"the file can not be read: {problem}", field="file")
        return data


def _why(exc: Exception) -> str:
    return exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else type(exc).__name__


def source_of(content: object) -> Source:
    """Measure what a caller gave as a file.

    Args:
        content: Bytes, the path of a regular file as ``os.PathLike``, or a file open for reading bytes that can be
            sought (a retry reads it again from where it stands now).

    Raises:
        ConfigError: It is none of these, or can not be read.
    """
    if isinstance(content, (bytes, bytearray, memoryview)):
        data = bytes(cast("bytes", content))
        return Source(data, len(data))
    if isinstance(content, os.PathLike):
        return _of_path(Path(os.fsdecode(cast("os.PathLike[str]", content))))
    if callable(getattr(content, "read", None)):
        return _of_file(content)
    raise ConfigError(
        f"a file is {type(content).__name__}; pass bytes, a path, or a file open for reading bytes", field="file"
    )


def _of_path(path: Path) -> Source:
    problem = ""
    length = 0
    try:
        found = path.stat()
        length = found.st_size
        if not stat.S_ISREG(found.st_mode):
            problem = "it is no regular file; pass its bytes"
    except (OSError, ValueError) as exc:
        problem = _why(exc)
    if problem:
        raise ConfigError(f"the file {path.name!r} can not be read: {problem}", field="file")
    return Source(path, length)


def _of_file(file: Any) -> Source:
    problem = ""
    start = length = 0
    try:
        if not file.seekable():
            problem = "it can not be sought, so that a retry could not send it again; pass its bytes or a path"
        elif not isinstance(file.read(0), bytes):
            problem = "it gives text; open it for reading bytes, mode 'rb'"
        else:
            start = file.tell()
            length = max(0, file.seek(0, os.SEEK_END) - start)
            file.seek(start)
    except (OSError, ValueError, AttributeError, TypeError) as exc:
        problem = _why(exc)
    if problem:
        raise ConfigError(f"the open file can not be sent: {problem}", field="file")
    return Source(file, length, start, threading.Lock())


@attrs.frozen
class Part:
    """One field of a form.

    Attributes:
        name: Its name; several parts may have the same.
        content: Text, or the bytes of a file.
        filename: What a file is called; None for text.
        content_type: Media type of a file.
    """

    name: str
    content: str | Source = attrs.field(repr=False)
    filename: str | None = None
    content_type: str = "application/octet-stream"


def _quoted(name: str) -> str:
    """A name between the quotes of a header.

    Source:
        RFC 7578, section 2; WHATWG HTML, "Multipart form data" (https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data).
    """
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


@attrs.frozen(eq=False)
class Multipart:
    """A body of type ``multipart/form-data``, never whole in memory: files are read while they are sent.

    It has a length, as bytes have; ``engines.Upload`` gives its bytes, anew for each attempt.

    Attributes:
        segments: Bytes and files, in the order in which they are sent.
        boundary: What stands between the parts; drawn at random, 128 bits, so that no file holds it.
        text_length: Bytes of all that is not a file.

    Source:
        RFC 7578; RFC 2046, section 5.1.
    """

    segments: tuple[bytes | Source, ...] = attrs.field(repr=False)
    boundary: str
    text_length: int
    _length: int = attrs.field(repr=False)

    @classmethod
    def of(cls, parts: Sequence[Part], boundary: str | None = None) -> Multipart:
        """The form that holds ``parts``, in their order.

        Args:
            parts: The fields.
            boundary: 1 to 70 letters and digits; None: drawn at random.

        Raises:
            UnicodeEncodeError: A name or a text holds half a surrogate pair.
        """
        boundary = secrets.token_hex(16) if boundary is None else boundary
        segments: list[bytes | Source] = []
        text: list[str] = []
        text_length = length = 0

        def flush() -> None:
            nonlocal text_length, length
            written = "".join(text).encode()
            text.clear()
            segments.append(written)
            text_length += len(written)
            length += len(written)

        for part in parts:
            text.append(f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(part.name)}"')
            if isinstance(part.content, str):
                text.append(f"\r\n\r\n{part.content}\r\n")
                continue
            filename = _quoted(part.filename or "file")
            text.append(f'; filename="{filename}"\r\nContent-Type: {part.content_type}\r\n\r\n')
            flush()
            content = part.content.content
            segments.append(content if isinstance(content, bytes) else part.content)
            length += part.content.length
            text.append("\r\n")
        text.append(f"--{boundary}--\r\n")
        flush()
        return cls(tuple(segments), boundary, text_length, length)

    @property
    def content_type(self) -> str:
        """The header that goes with it."""
        return f"multipart/form-data; boundary={self.boundary}"

    def __len__(self) -> int:
        return self._length
