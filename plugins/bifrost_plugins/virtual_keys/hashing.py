"""What is stored of a key: a digest that means nothing without the pepper.

A key has 256 random bits, so nobody finds it from its digest, and no slow hash is needed. The pepper,
which is in no store, keeps a stolen dump from confirming a key that somebody has got elsewhere.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from typing import Final

from bifrost_core import ConfigError, Secret

__all__ = ["MIN_PEPPER", "Expected", "Pepper", "Peppers", "is_digest"]

Pepper = str | bytes | Secret
"""A pepper's text or bytes, or a reference to it: ``env:NAME``, ``file:PATH``."""

Expected = tuple[tuple[str, bytes], ...]
"""Stored digests taken apart: which pepper, and the HMAC."""

MIN_PEPPER: Final = 32  # bytes, the size of the digest: RFC 2104, 3

_VERSION: Final = "v1"  # HMAC-SHA-256 over the whole key
_ABOUT: Final = b"bifrost virtual keys: which pepper this is"


class Peppers:
    """Makes and checks digests: ``v1$`` + which pepper (8 hex digits) + ``$`` + HMAC-SHA-256 (64 hex digits).

    Args:
        peppers: One or several, of at least 32 bytes each. New digests are made with the first; the
            others are for digests that an earlier first one made.

    Raises:
        ConfigError: There is none, or one is too short or not to be had. Never shows one.

    Source:
        RFC 2104 (HMAC), FIPS 180-4 (SHA-256).
    """

    __slots__ = ("__by_name", "__dummy", "__own", "first")

    def __init__(self, peppers: Pepper | Iterable[Pepper]) -> None:
        listed = (peppers,) if isinstance(peppers, (str, bytes, Secret)) else tuple(peppers)
        by_name: dict[str, hmac.HMAC] = {}
        problem: ConfigError | None = None
        try:
            for value in map(_bytes, listed):
                by_name[hmac.digest(value, _ABOUT, "sha256")[:4].hex()] = hmac.new(value, digestmod="sha256")
        except ConfigError as exc:
            problem, by_name = exc, {}
        value = b""
        del peppers, listed, value  # the frame of an error must not hold one
        if problem is not None:
            raise problem.with_traceback(None)
        if not by_name:
            raise ConfigError("virtual keys need a pepper; pass pepper=… or leave it out", field="pepper")
        self.__by_name = by_name
        self.__own = secrets.token_bytes(32)
        self.first = next(iter(by_name))
        self.__dummy = f"{_VERSION}${self.first}${secrets.token_hex(32)}"

    @property
    def dummy(self) -> str:
        """A digest that no key has, to compare with where there is none."""
        return self.__dummy

    def digest(self, key: Secret, pepper: str | None = None) -> str:
        """What to store of ``key``; made with the pepper of that name, or the first."""
        name = self.first if pepper is None else pepper
        return f"{_VERSION}${name}${self._mac(key, name).hex()}"

    def expect(self, *stored: str) -> Expected:
        """Digests as ``compare`` takes them. One of a pepper that is not among these is like no key's."""
        return tuple(
            (pepper, bytes.fromhex(digest[-64:])) if pepper is not None else self._dummy()
            for digest in stored
            for pepper in (self.pepper_of(digest),)
        )

    def compare(self, key: Secret, expected: Expected) -> list[bool]:
        """Whether each of ``expected`` is the digest of ``key``; all are compared, whatever comes of it."""
        presented: dict[str, bytes] = {}
        found: list[bool] = []
        for pepper, digest in expected:
            if pepper not in presented:
                presented[pepper] = self._mac(key, pepper)
            found.append(hmac.compare_digest(presented[pepper], digest))
        return found

    def proof(self, key: Secret) -> bytes:
        """What tells this key again, in this process only: keyed by bytes that nobody else has.

        Source:
            BLAKE2's keyed mode, a fifth of the time of HMAC: RFC 7693, section 2.9.
        """
        return hashlib.blake2b(key.reveal().encode(), key=self.__own, digest_size=32).digest()

    def is_same(self, key: Secret, proof: bytes) -> bool:
        """Whether ``proof`` was made of this key; takes as long for any other."""
        return hmac.compare_digest(self.proof(key), proof)

    def _mac(self, key: Secret, pepper: str) -> bytes:
        mac = self.__by_name[pepper].copy()  # keyed already, which is half of the work
        mac.update(key.reveal().encode())
        return mac.digest()

    def _dummy(self) -> tuple[str, bytes]:
        return self.first, bytes.fromhex(self.__dummy[-64:])

    def pepper_of(self, stored: str) -> str | None:
        """The name of the pepper that a digest was made with; None when it is not among these."""
        version, _, rest = stored.partition("$")
        name = rest.partition("$")[0]
        return name if version == _VERSION and name in self.__by_name and is_digest(stored) else None

    def __repr__(self) -> str:
        names: dict[str, hmac.HMAC] = getattr(self, "_Peppers__by_name", {})  # absent in the frame of an error about it
        return f"Peppers({', '.join(names)})"


def is_digest(text: str) -> bool:
    """Whether a text has the form of a digest."""
    version, _, rest = text.partition("$")
    name, _, digest = rest.partition("$")
    return version == _VERSION and _is_hex(name, 8) and _is_hex(digest, 64)


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and set(text) <= set("0123456789abcdef")


def _bytes(pepper: Pepper) -> bytes:
    """The bytes of a pepper, long enough."""
    if isinstance(pepper, str) and pepper.startswith(("env:", "file:")):
        pepper = Secret.read(pepper)
    text = pepper.reveal() if isinstance(pepper, Secret) else pepper
    value = text.encode() if isinstance(text, str) else bytes(text)
    if len(value) >= MIN_PEPPER:
        return value
    size = len(value)
    del pepper, text, value  # the frame of an error must not hold it
    raise ConfigError(
        f"the pepper has {size} bytes; take {MIN_PEPPER} random ones or more, such as from secrets.token_urlsafe(32)",
        field="pepper",
    )
