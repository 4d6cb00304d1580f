"""What finds forbidden stretches in a text: the same answer for a text at once, in slices or as a stream.

Whether a match begins at a place depends on at most ``reach`` characters from there on, and on where the
last match of the same matcher ended. So a reader who has ``reach`` characters more knows all there is to
know about a place, and a stream needs to hold back no more than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol

import attrs

from .patterns import Checked
from .signs import Field, Signs

__all__ = ["CallableMatcher", "Found", "LiteralMatcher", "Matcher", "RegexMatcher", "View"]

View = Literal["text", "plain", "cased", "folded"]
"""What a matcher looks at: the text itself (``"plain"``: where it is not its own shadow), or its shadow with or
without upper case."""

MARGIN: Final = 64  # characters behind the longest match that a look-ahead may see
_FEW: Final = 24  # literals for which one ``str.find`` each is faster than one pattern
_DEEP: Final = 40  # levels of a tree of literals, before the parser's recursion becomes a matter


@attrs.frozen
class Found:
    """A stretch of what was looked at.

    Attributes:
        start: Its first character.
        end: The one behind its last.
        label: What it is (``"email"``).
        resume: Where the matcher goes on.
    """

    start: int
    end: int
    label: str
    resume: int


class Matcher(Protocol):
    """Finds stretches of one kind.

    Attributes:
        view: What it wants to look at.
        reach: Characters from a match's start on that decide over it; None: all of them.
        tail: What still belongs to a match when it follows, however long; None: nothing.
        steps: Of one place, at most, about.
        is_word: Whether no match has a space in it, so that what stands before one is decided.
        field: Where its matches can begin; None: anywhere.
        sign: What stands in the cased shadow of every text with a match; empty where nothing does.
    """

    @property
    def view(self) -> View:
        """What it wants to look at."""
        ...

    @property
    def reach(self) -> int | None:
        """Characters that decide over a match."""
        ...

    @property
    def tail(self) -> re.Pattern[str] | None:
        """What goes on with a match."""
        ...

    @property
    def steps(self) -> int:
        """Of one place."""
        ...

    @property
    def is_word(self) -> bool:
        """Whether no match has a space in it."""
        ...

    @property
    def field(self) -> Field | None:
        """Where its matches can begin."""
        ...

    @property
    def sign(self) -> str:
        """What stands in every text with a match."""
        ...

    def may_match(self, signs: Signs) -> bool:
        """Whether it has to look at a text that has its sign and its field; False: it would find nothing."""
        ...

    def find(self, text: str, start: int, until: int) -> Iterator[Found]:
        """The matches that begin in ``[start, until)``, by their start."""
        ...


def _tree(words: Iterable[str]) -> dict[str, Any]:
    root: dict[str, Any] = {}
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}
    return root


def _written(node: dict[str, Any], depth: int) -> str:
    """A tree of literals as a pattern, the longest first: one step per character of the text."""
    stem = ""
    while len(node) == 1 and "" not in node:
        ((char, node),) = node.items()
        stem += re.escape(char)
    options: list[str] = []
    for char, child in node.items():
        if char and depth < _DEEP:
            options.append(re.escape(char) + _written(child, depth + 1))
        elif char:
            options.extend(re.escape(char + rest) for rest in sorted(_words(child), key=len, reverse=True))
    if not options:
        return stem
    return f"{stem}(?:{'|'.join(options)}){'?' if '' in node else ''}"


def _words(node: dict[str, Any]) -> Iterator[str]:
    for char, child in node.items():
        if char:
            for rest in _words(child):
                yield char + rest
        else:
            yield ""


class LiteralMatcher:
    """Finds any of many literals, overlapping ones too.

    Args:
        words: Shadows of the literals, none empty.
        label: What they are.
        whole_words: Whether a letter or digit before or behind makes it another word.
    """

    def __init__(self, words: Sequence[str], label: str, *, whole_words: bool) -> None:
        self._words = sorted(set(words))
        self._label = label
        self._whole = whole_words
        longest = max(map(len, self._words))
        self.view: View = "folded"
        self.reach: int | None = longest + 1
        self.tail: re.Pattern[str] | None = None
        self.steps = longest if len(self._words) > _FEW else 4
        self.is_word = False
        self.field: Field | None = None
        self.sign = ""
        # Whole words: a shorter word may stand where a longer one does not, so one look for each length.
        groups: dict[int, list[str]] = {}
        for word in self._words:
            groups.setdefault(len(word) if whole_words else 0, []).append(word)
        self._patterns = [re.compile(_written(_tree(group), 0)) for group in groups.values()]
        self._is_few = len(self._words) <= _FEW

    def may_match(self, signs: Signs) -> bool:
        """Whether one of the words is in the text."""
        if self._is_few:
            folded = signs.folded
            for word in self._words:  # noqa: SIM110 # a generator costs more than the search
                if word in folded:
                    return True
            return False
        return any(pattern.search(signs.folded) for pattern in self._patterns)

    def find(self, text: str, start: int, until: int) -> Iterator[Found]:
        """The matches that begin in ``[start, until)``."""
        end = min(len(text), until + (self.reach or 0))
        finders: list[Callable[[int], tuple[int, int] | None]]
        if self._is_few:
            finders = [_finder(text, word, end) for word in self._words]
        else:
            finders = [_searcher(text, pattern, end) for pattern in self._patterns]
        ahead = {number: place for number, finder in enumerate(finders) if (place := finder(start)) is not None}
        while ahead:
            number = min(ahead, key=ahead.__getitem__)
            first, last = ahead[number]
            if first >= until:
                return
            if not self._whole or self._is_word(text, first, last):
                yield Found(first, last, self._label, first + 1)
            place = finders[number](first + 1)
            if place is None:
                del ahead[number]
            else:
                ahead[number] = place

    def _is_word(self, text: str, start: int, end: int) -> bool:
        before = text[start - 1] if start else " "
        behind = text[end] if end < len(text) else " "
        return not (before.isalnum() or behind.isalnum())


def _finder(text: str, word: str, end: int) -> Callable[[int], tuple[int, int] | None]:
    def find(start: int) -> tuple[int, int] | None:
        place = text.find(word, start, end)
        return None if place < 0 else (place, place + len(word))

    return find


def _searcher(text: str, pattern: re.Pattern[str], end: int) -> Callable[[int], tuple[int, int] | None]:
    def find(start: int) -> tuple[int, int] | None:
        match = pattern.search(text, start, end)
        return None if match is None else match.span()

    return find


class RegexMatcher:
    """Finds what a checked pattern matches, one match after the other as ``re.finditer`` does.

    Args:
        checked: The pattern.
        label: What it finds.
        view: What it looks at.
    """

    def __init__(self, checked: Checked, label: str, view: View) -> None:
        self._pattern = checked.pattern
        self._needle = checked.needle
        self._folds = bool(checked.pattern.flags & re.IGNORECASE)
        self._label = label
        self.view: View = view
        self.reach: int | None = None if checked.longest is None else checked.longest + MARGIN
        self.tail: re.Pattern[str] | None = None
        self.steps = checked.steps
        self.is_word = False
        self.field: Field | None = None
        self.sign = ""

    def may_match(self, signs: Signs) -> bool:
        """Whether what every match holds is in the text."""
        if not self._needle:
            return True
        if self.view == "plain":
            return self._needle in (signs.text.lower() if self._folds else signs.text)
        return self._needle in (signs.lower if self._folds else signs.cased)

    def find(self, text: str, start: int, until: int) -> Iterator[Found]:
        """The matches that begin in ``[start, until)``."""
        end = len(text) if self.reach is None else min(len(text), until + self.reach)
        while (match := self._pattern.search(text, start, end)) is not None and match.start() < until:
            start = max(match.end(), match.start() + 1)
            if match.end() > match.start():
                yield Found(match.start(), match.end(), self._label, start)


class CallableMatcher:
    """Finds what a user's function finds in a window.

    Args:
        function: Takes a text and gives ``(start, end)`` pairs.
        label: What it finds.
        window: Characters of its longest match.
    """

    def __init__(self, function: Callable[[str], Iterable[tuple[int, int]]], label: str, window: int) -> None:
        self._function = function
        self._label = label
        self._window = window
        self.view: View = "text"
        self.reach: int | None = window + MARGIN
        self.tail: re.Pattern[str] | None = None
        self.steps = 64
        self.is_word = False
        self.field: Field | None = None
        self.sign = ""

    def may_match(self, signs: Signs) -> bool:  # noqa: ARG002
        """Nobody knows but the function."""
        return True

    def find(self, text: str, start: int, until: int) -> Iterator[Found]:
        """The matches that begin in ``[start, until)``."""
        low = max(0, start - self._window)
        seen = text[low : until + self._window + MARGIN]
        for first, last in sorted(self._function(seen)):
            if start <= first + low < until and last > first:
                yield Found(first + low, last + low, self._label, first + low + 1)
