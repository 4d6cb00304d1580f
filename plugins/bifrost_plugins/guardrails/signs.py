"""What a text shows at a glance: signs without which a matcher has nothing to find in it, and need not look.

Each is a pass or two of ``bytes.translate`` and a search for fixed bytes, about a nanosecond a character, where
a pattern of classes takes ten. They may say that something is there that is not; never the other way round.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Literal

from .shadow import CASED, FOLDED, seen

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
_BLOCK_LENGTH: Final = 20
_BLOCK: Final = re.compile(b"0{%d,}" % _BLOCK_LENGTH)
_DOTTED: Final = re.compile(rb"[0.]{7,}")
_FOUR: Final = re.compile(rb"0\.00?0?\.00?0?\.0")
_IBAN: Final = re.compile(rb"aa00")
_WORDS: Final = {length: re.compile(b"a" * length) for length in (15, 32)}  # written out: one step per character
_DENSE: Final = 256  # characters that are looked at in the time that one more window takes
_BEFORE: Final = 2  # characters of a match before its first digit: + or (

_NO_FIELDS: Final[frozenset[Field]] = frozenset()

Windows = Sequence[tuple[int, int]]


class Signs:
    """The signs of a text, each found when it is first asked for.

    Args:
        text: The text as it is.
        cased: Its shadow in upper and lower case, where that is known.
    """

    __slots__ = ("_bytes", "_fields", "_folded", "_kinds", "_lower", "_tokens", "_windows", "cased", "text")

    def __init__(self, text: str, cased: str | None = None) -> None:
        self.text = text
        self.cased = seen(text, CASED) if cased is None else cased
        self._bytes: bytes | None = None
        self._kinds = b""
        self._tokens: bytes | None = None
        self._fields: frozenset[Field] | None = None
        self._lower: str | None = None
        self._folded: str | None = None
        self._windows: dict[Field, Windows] = {}

    @property
    def folded(self) -> str:
        """The shadow without upper case."""
        if self._folded is None:
            # Folding comes last, character by character: of a shadow in ASCII it is lower case.
            self._folded = self.lower if self.cased.isascii() else seen(self.text, FOLDED)
        return self._folded

    @property
    def lower(self) -> str:
        """The cased shadow in lower case."""
        if self._lower is None:
            self._lower = self.cased.lower()
        return self._lower

    def has_word(self, length: Literal[15, 32]) -> bool:
        """Whether so many characters of which credentials are made stand together."""
        if self._tokens is None:
            self._tokens = self._ascii().translate(_TOKENS)
        return _WORDS[length].search(self._tokens) is not None

    @property
    def fields(self) -> frozenset[Field]:
        """The fields of which there may be a window."""
        if self._fields is None:
            self._kinds = kinds = self._ascii().translate(_KINDS)
            self._fields = _NO_FIELDS
            if b"0" in kinds:
                found = set[Field]()
                if _SEVEN in kinds.translate(None, _SEPARATORS):
                    found.add("digits")
                if b"0.0" in kinds and _FOUR.search(kinds):
                    found.add("dotted")
                if b"aa00" in kinds:
                    found.add("iban")
                self._fields = frozenset(found)
        return self._fields

    def windows(self, field: Field) -> Windows:
        """Where in the cased shadow matches of a field can begin: ``[start, until)``, in order."""
        found = self._windows.get(field)
        if found is None:
            found = _sparse(self._found(field)) if field in self.fields else ()
            self._windows[field] = found
        return found

    def _found(self, field: Field) -> Windows:
        kinds = self._kinds
        if field == "iban":
            return [(match.start(), match.start() + 1) for match in _IBAN.finditer(kinds)]
        if field == "dotted":
            return [match.span() for match in _DOTTED.finditer(kinds)]
        found: list[tuple[int, int]] = []
        for match in _RUN.finditer(kinds):
            low, high = max(0, match.start() - _BEFORE), match.end()
            if high - low > _BLOCK_LENGTH:
                # Nothing begins behind another digit, and nothing goes on over so many without a separator.
                for block in _BLOCK.finditer(kinds, match.start(), high):
                    found.append((low, block.start() + 1))
                    low = block.end()
            if low < high:
                found.append((low, high))
        return found

    def _ascii(self) -> bytes:
        """One byte for each character of the shadow."""
        if self._bytes is None:
            self._bytes = self.cased.encode("ascii", "replace")
        return self._bytes


def _sparse(windows: Windows) -> Windows:
    """Windows that are worth their number, or one around all of them."""
    if not windows or len(windows) * _DENSE < windows[-1][1] - windows[0][0]:
        return windows
    return [(windows[0][0], windows[-1][1])]
