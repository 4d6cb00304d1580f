"""What was taken out of a request, kept for as long as the call lasts, to be put back into the answer."""

from __future__ import annotations

import hashlib
import re
from typing import Final

__all__ = ["Restorer", "Vault", "irreversible"]

_PLACEHOLDER: Final = re.compile(r"\[[A-Z_]{1,32}_[0-9A-F]{12}\]")
_BEGUN: Final = re.compile(r"\[[A-Z_]{0,32}(?:_[0-9A-F]{0,12})?\Z")
_NO_NAME: Final = re.compile(r"[^A-Z]+")


def _upper(label: str) -> str:
    return (_NO_NAME.sub("_", label.upper()).strip("_") or "REDACTED")[:24]


def irreversible(label: str) -> str:
    """What stands in the place of something that does not come back."""
    return f"[{_upper(label)}]"


class Vault:
    """The placeholders of one call.

    A placeholder is a keyed hash of what it stands for, so that one value has one placeholder, also in a
    later turn of a conversation; that a prompt with another value is another prompt (for caches); and that
    nobody who sees it can tell or check the value.

    Args:
        key: Of the hash; never leaves the process.
        scope: Whose values these are: placeholders of different scopes have nothing to do with each other.
    """

    __slots__ = ("_by_placeholder", "_key", "_scope")

    def __init__(self, key: bytes, scope: str) -> None:
        self._key = key
        self._scope = scope
        self._by_placeholder: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Vault of {len(self._by_placeholder)}>"

    def __contains__(self, value: str) -> bool:
        """Whether the value was taken out of this call's request."""
        return value in self._by_placeholder.values()

    def __bool__(self) -> bool:
        return bool(self._by_placeholder)

    def placeholder(self, label: str, value: str) -> str:
        """What stands for ``value`` from now on."""
        salt = 0
        while True:
            subject = f"{self._scope}\0{label}\0{salt}\0{value}".encode("utf-8", "surrogatepass")
            digest = hashlib.blake2b(subject, key=self._key, digest_size=6).hexdigest().upper()
            name = f"[{_upper(label)}_{digest}]"
            if self._by_placeholder.setdefault(name, value) == value:
                return name
            salt += 1  # two values with one hash: 1 in 2**48 for a pair

    def restore(self, text: str) -> str:
        """The text with what its placeholders stand for."""
        if "[" not in text:
            return text
        return _PLACEHOLDER.sub(lambda match: self._by_placeholder.get(match[0], match[0]), text)


class Restorer:
    """Puts back in a stream what a vault has, wherever the stream is cut.

    Args:
        vault: What may come back.
    """

    __slots__ = ("_held", "_vault")

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._held = ""

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """Take text; return what can be delivered: all but a placeholder that has only begun (47 characters)."""
        text = self._held + text
        begun = None if is_last else _BEGUN.search(text, max(0, text.rfind("[")))
        cut = len(text) if begun is None else begun.start()
        self._held = text[cut:]
        return self._vault.restore(text[:cut])
