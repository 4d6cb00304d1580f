"""What makes two calls the same: one keyed hash over everything that reaches the provider, and whose call it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import attrs
import msgspec

from bifrost_core import Call, ConfigError, Request, Secret
from bifrost_core.structured import response_format_of

__all__ = ["Keys", "NotComparableError", "canonical", "file_bytes"]

_EXACT: Final = "bifrost-cache-key/1"
_SIMILAR: Final = "bifrost-cache-key/1/similar"
_DIGEST: Final = 32  # bytes


class NotComparableError(ValueError):
    """A request holds what can not be compared by value (NaN, a file on disk); it is not cached."""


def _plain(value: Any) -> Any:
    """What the encoder does not know: other mappings, and classes as schemas, told apart from a schema given as such."""
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    if isinstance(value, type) or hasattr(value, "__annotations__"):
        try:
            return {"class": response_format_of(value)}
        except ConfigError:
            raise NotComparableError("a class without a schema") from None
    raise NotComparableError(type(value).__name__)


_encode: Final = msgspec.json.Encoder(order="deterministic", enc_hook=_plain).encode


def canonical(value: Any) -> bytes:
    """A JSON value as bytes that are equal exactly where the values say the same.

    Members are sorted by name, strings stay untouched, and JSON's own syntax tells ``1``, ``1.0``, ``"1"`` and
    ``true`` apart; floats are written with the digits that read back as the same float.

    Raises:
        NotComparableError: NaN or an infinity is in it, or something that is no JSON.
    """
    try:
        data = _encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise NotComparableError("a value that is no JSON") from None
    # The encoder writes NaN and infinities as null; a null among the bytes is worth a look.
    if b"null" in data and _has_nan(value):
        raise NotComparableError("NaN or an infinity")
    return data


def _has_nan(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return any(map(_has_nan, cast("Mapping[object, object]", value).values()))
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return any(map(_has_nan, cast("Sequence[object]", value)))
    return False


def file_bytes(request: Request, most: int) -> int:
    """How many bytes of files would have to be read for the key of a request.

    Raises:
        NotComparableError: They are more than ``most``, or one is not held in memory: a path or an open file may
            change between two calls.
    """
    size = 0
    for file in request.files:
        if not isinstance(file.content, bytes):
            raise NotComparableError("a file that is not held in memory")
        size += len(file.content)
    if size > most:
        raise NotComparableError("files that are too large to be compared")
    return size


@attrs.frozen(eq=False)
class Keys:
    """Makes keys.

    Nobody without the secret can tell from a key what was asked, or make the key of a guess: a list of keys says
    nothing about prompts.

    Attributes:
        secret: 32 bytes.
        scope: Who shares answers: ``tenant``, ``principal`` or ``router``.
        version: Of guardrails and prompt templates: another one, other keys.

    Source:
        BLAKE2's keyed mode: RFC 7693, section 2.9.
    """

    secret: bytes = attrs.field(repr=False)
    scope: str = "tenant"
    version: str = ""

    def partition(self, call: Call) -> list[str | None]:
        """Whose answers a call may share. Never equal for two parties that nobody has said belong together.

        A principal without a tenant shares with itself alone. Without a principal, calls that present the same
        virtual key share, and so do all that present none: there is nobody to tell them apart.
        """
        principal = call.principal
        if self.scope == "router":
            return ["router"]
        if principal is None:
            return ["nobody"] if call.virtual_key is None else ["key", self._hidden(call.virtual_key)]
        if self.scope == "tenant" and principal.tenant:  # an empty name is nobody's
            return ["tenant", principal.tenant]
        return ["principal", principal.tenant, principal.id]

    def _hidden(self, virtual_key: Secret) -> str:
        return hashlib.blake2b(virtual_key.reveal().encode(), key=self.secret, digest_size=_DIGEST).hexdigest()

    def key(self, request: Request, call: Call) -> str:
        """The key of a request as it stands: 64 hexadecimal digits.

        The whole body is in it, so that a field that is new tomorrow is in it too. A stream has the key of the same
        request asked at once. Of files, name, type and bytes count.

        Raises:
            NotComparableError: The request can not be compared by value.
        """
        return self._digest(call, request, dict(request.body), _EXACT).hex()

    def semantic(self, request: Request, call: Call, body: Mapping[str, Any]) -> bytes:
        """The partition in which a request may be answered by a similar one: all but the text that is compared.

        Raises:
            NotComparableError: The request can not be compared by value.
        """
        return self._digest(call, request, body, _SIMILAR)

    def _digest(self, call: Call, request: Request, body: Mapping[str, Any], use: str) -> bytes:
        # One JSON text, in which no part can be taken for another, then the files, each part behind its length.
        told = canonical([use, self.version, self.partition(call), request.operation, request.model, body])
        if not request.files:
            return hashlib.blake2b(told, key=self.secret, digest_size=_DIGEST).digest()
        digest = hashlib.blake2b(key=self.secret, digest_size=_DIGEST)
        parts = [told]
        for file in request.files:
            content = file.content
            assert isinstance(content, bytes)  # noqa: S101 # ``file_bytes`` has looked
            parts += [canonical([file.name, file.filename, file.content_type]), content]
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()
