"""What a text shows at a glance: signs without which a matcher has nothing to find in it, and need not look.

Each is a pass or two of ``bytes.translate`` and a search for fixed bytes, about a nanosecond a character, where
a pattern of classes takes ten. They may say that something is there that is not; never the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from .shadow import FOLDED, Shadow

__all__ = ["Field", "Signs"]

Field = Literal["digits", "dotted", "iban"]
"""Where a match of digits can begin: seven digits and more, four numbers with dots, two letters and two digits."""

_SEPARATORS: Final = b" .()/-"
_DIGITS: Final = b"0123456789"
_LETTERS: Final = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Digits become 0 and letters a; everything else stays.
_KINDS: Final = bytes(ord("0") if code in _DIGITS else ord("a") if code in _LETTERS else code for code in range(256))
# What credentials are made of becomes a, everything else a space.
_TOKENS: Final = bytes(ord("a" if code in _DIGITS + _LETTERS + b"+/_-" else " ") for code in range(256))

_SEVEN: Final = b"0" * 7
_RUN: Final = re.compile(rb"0(?:[ .()/-]{0,2}0){6,}+")
_DOTTED: Final = re.compile(rb"[0.]{7,}")
_IBAN: Final = re.compile(rb"aa00")
_LONG: Final = re.compile(b"a" * 15)  # written out it is searched for in one step per character
_BEFORE: Final = 2  # characters of a match before its first digit: + or (

Windows = Sequence[tuple[int, int]]


class Signs:
    """The signs of a text, each found when it is first asked for.

    Args:
        text: The text as it is.
        cased: Its shadow in upper and lower case.
    """

    __slots__ = ("_folded", "_kinds", "_lower", "_windows", "cased", "text")

    def __init__(self, text: str, cased: str) -> None:
        self.text = text
        self.cased = cased
        self._lower: str | None = None
        self._folded: str | None = None
        self._kinds: bytes | None = None
        self._windows: dict[Field, Windows] = {}

    @property
    def folded(self) -> str:
        """The shadow without upper case."""
        if self._folded is None:
            self._folded = self.lower if self.text.isascii() else Shadow(self.text, FOLDED).text
        return self._folded

    @property
    def lower(self) -> str:
        """The cased shadow in lower case."""
        if self._lower is None:
            self._lower = self.cased.lower()
        return self._lower

    @property
    def has_long_word(self) -> bool:
        """Whether so many characters stand together as the shortest credential has, or the beginning of a JWT."""
        return "eyJ" in self.cased or _LONG.search(_ascii(self.cased).translate(_TOKENS)) is not None

    def has(self, field: Field) -> bool:
        """Whether there is any window of a field."""
        kinds = self._kinds_of()
        if b"0" not in kinds:
            return False
        if field == "digits":
            return _SEVEN in kinds.translate(None, _SEPARATORS)
        return (b"0.0" if field == "dotted" else b"aa00") in kinds

    def windows(self, field: Field) -> Windows:
        """Where in the cased shadow matches of a field can begin: ``[start, until)``, in order, none touching another."""
        found = self._windows.get(field)
        if found is None:
            found = self._windows[field] = self._found(field) if self.has(field) else ()
        return found

    def _found(self, field: Field) -> Windows:
        kinds = self._kinds_of()
        if field == "iban":
            return [(match.start(), match.start() + 1) for match in _IBAN.finditer(kinds)]
        if field == "dotted":
            return [match.span() for match in _DOTTED.finditer(kinds)]
        return [(max(0, match.start() - _BEFORE), match.end()) for match in _RUN.finditer(kinds)]

    def _kinds_of(self) -> bytes:
        if self._kinds is None:
            self._kinds = _ascii(self.cased).translate(_KINDS)
        return self._kinds


def _ascii(text: str) -> bytes:
    """One byte for each character."""
    return text.encode("ascii", "replace")
