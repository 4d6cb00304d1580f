"""The files that clients have uploaded: kept in memory, up to a bound."""

from __future__ import annotations

import hashlib
import random
import re
from typing import Final
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import attrs

from bifrost_core.testing.serving._answers import Json

from ._errors import MistralError

__all__ = ["FileStore", "StoredFile"]

_MAX_FILES: Final = 1_000
_MAX_BYTES: Final = 64 * 2**20
_PATH: Final = re.compile(r"/v1/files/([0-9a-f-]{36})/content")
_SAMPLE: Final = {"ocr": "ocr_input", "batch": "batch_request", "fine-tune": "instruct"}


@attrs.frozen(kw_only=True)
class StoredFile:
    """One uploaded file.

    Attributes:
        id: A UUID.
        owner: The quota group, which stands for the organisation, that may see it.
        filename: As the client named it.
        mimetype: As the client stated it.
        data: The bytes.
        purpose: ``fine-tune``, ``batch`` or ``ocr``.
        visibility: ``workspace`` or ``user``; only repeated.
        created_at: Seconds since 1970-01-01 UTC.
        expires_at: When it is gone, or None.
    """

    id: str
    owner: str
    filename: str
    mimetype: str
    data: bytes = attrs.field(repr=False)
    purpose: str
    visibility: str
    created_at: int
    expires_at: int | None

    def entry(self) -> Json:
        """What the service tells of it.

        Source:
            https://docs.mistral.ai/api/endpoint/files, and uploads as they are answered since 2026, whose
            ``sample_type`` for OCR is not among those that the documentation lists.
        """
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "sample_type": _SAMPLE[self.purpose],
            "num_lines": 0 if self.purpose == "ocr" else self.data.count(b"\n"),
            "mimetype": self.mimetype,
            "source": "upload",
            "signature": hashlib.md5(self.data, usedforsecurity=False).hexdigest(),
            "expires_at": self.expires_at,
            "visibility": self.visibility,
        }


class FileStore:
    """Files by id. Only the server's thread calls it."""

    def __init__(self) -> None:
        self._files: dict[str, StoredFile] = {}

    def add(self, file: StoredFile) -> None:
        """Keep a file.

        Raises:
            MistralError: 400: there is no room left.
        """
        used = sum(len(each.data) for each in self._files.values())
        if len(self._files) >= _MAX_FILES or used + len(file.data) > _MAX_BYTES:
            text = f"The simulated service keeps at most {_MAX_FILES} files of {_MAX_BYTES} bytes in all; delete some."
            raise MistralError.object(400, "invalid_request_file", "3310", text)
        self._files[file.id] = file

    def get(self, file_id: str, owner: str, now: float) -> StoredFile:
        """The file of that id.

        Args:
            file_id: A UUID in any spelling.
            owner: Who asks.
            now: Seconds since 1970-01-01 UTC.

        Raises:
            MistralError: 404: there is none that the owner may see, or it has expired.
        """
        try:
            found = self._files.get(str(UUID(file_id)))
        except ValueError:
            found = None
        if found is None or found.owner != owner or (found.expires_at is not None and found.expires_at <= now):
            raise MistralError.detail(404, "File not found")
        return found

    def remove(self, file: StoredFile) -> None:
        """Forget a file."""
        self._files.pop(file.id, None)

    def of(self, owner: str, now: float) -> list[StoredFile]:
        """All files that somebody may see, the latest first."""
        files = [each for each in self._files.values() if each.owner == owner]
        return [each for each in reversed(files) if each.expires_at is None or each.expires_at > now]

    def clear(self) -> None:
        """Forget all."""
        self._files.clear()

    # -- addresses for a while -------------------------------------------------------------------------------------

    def sign(self, file: StoredFile, base_url: str, expires: int) -> str:
        """An address of the file that this service can read until ``expires`` (seconds since 1970, UTC)."""
        return f"{base_url}/v1/files/{file.id}/content?expires={expires}&signature={_signature(file, expires)}"

    def behind(self, url: str, now: float) -> StoredFile | None:
        """The file behind an address that ``sign`` made; None: it made no such one, or its time is over."""
        parts = urlsplit(url)
        path, query = _PATH.fullmatch(parts.path), parse_qs(parts.query)
        file = self._files.get(path[1]) if path else None
        expires = query.get("expires", [""])[0]
        if file is None or not (expires.isascii() and expires.isdigit()) or int(expires) <= now:
            return None
        return file if query.get("signature") == [_signature(file, int(expires))] else None


def new_id(rng: random.Random) -> str:
    """An id for a file: a random UUID."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def _signature(file: StoredFile, expires: int) -> str:
    return hashlib.sha256(f"{file.id}/{file.owner}/{expires}".encode()).hexdigest()
