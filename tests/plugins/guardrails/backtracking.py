"""A matcher that backtracks as ``re`` does and counts its steps: what a pattern costs, without a clock.

It reads the same syntax tree and tries the same things in the same order; tests hold its matches to those of ``re``.
Groups are not kept, so that patterns which refer back to one are not for it.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
import importlib
import re
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Counter", "StalledError"]

_parser: Final[Any] = importlib.import_module("re._parser")
_ONE: Final = {"LITERAL", "NOT_LITERAL", "ANY", "IN"}
_CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "CATEGORY_DIGIT": str.isdigit,
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_WORD": lambda char: char.isalnum() or char == "_",
}

Next = Callable[[int], int | None]


class StalledError(Exception):
    """More steps than allowed, or too many that wait for each other."""


class Counter:
    """Matches a pattern at places of a text.

    Args:
        pattern: In the language of ``re``.
        flags: ``re.IGNORECASE`` or none.
        limit: Steps after which it gives up.

    Attributes:
        steps: Taken so far.
    """

    def __init__(self, pattern: str, flags: int = 0, *, limit: int = 10**6) -> None:
        self._tree = list(_parser.parse(pattern, flags))
        self._folds = bool(re.compile(pattern, flags).flags & re.IGNORECASE)
        self._limit = limit
        self.steps = 0

    def match(self, text: str, place: int) -> int | None:
        """Where the match at ``place`` ends; None without one.

        Raises:
            StalledError: It takes too many steps.
        """
        try:
            return self._sequence(self._tree, 0, text, place, lambda end: end)
        except RecursionError:
            raise StalledError from None

    def search(self, text: str) -> tuple[int, int] | None:
        """The first match."""
        for place in range(len(text) + 1):
            end = self.match(text, place)
            if end is not None:
                return place, end
        return None

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self._limit:
            raise StalledError

    def _sequence(self, items: list[Any], number: int, text: str, place: int, then: Next) -> int | None:
        if number == len(items):
            return then(place)
        op, argument = items[number]

        def rest(end: int) -> int | None:
            return self._sequence(items, number + 1, text, end, then)

        return self._part(str(op), argument, text, place, rest)

    def _part(self, op: str, argument: Any, text: str, place: int, then: Next) -> int | None:
        self._step()
        if op in _ONE:
            return then(place + 1) if place < len(text) and self._is(op, argument, text[place]) else None
        if op == "AT":
            return then(place) if _at(str(argument), text, place) else None
        if op == "SUBPATTERN":
            return self._sequence(list(argument[3]), 0, text, place, then)
        if op == "BRANCH":
            for option in argument[1]:
                end = self._sequence(list(option), 0, text, place, then)
                if end is not None:
                    return end
            return None
        if op in {"ASSERT", "ASSERT_NOT"}:
            direction, body = argument
            begin = place if direction > 0 else place - body.getwidth()[0]
            found = None if begin < 0 else self._sequence(list(body), 0, text, begin, lambda end: end)
            return then(place) if (found is not None) == (op == "ASSERT") else None
        if op == "ATOMIC_GROUP":
            end = self._sequence(list(argument), 0, text, place, lambda end: end)
            return None if end is None else then(end)
        least, most, body = argument
        body = list(body)
        if op == "POSSESSIVE_REPEAT":
            end = self._greedy(body, 0, least, most, text, place, lambda end: end)
            return None if end is None else then(end)
        if len(body) == 1 and str(body[0][0]) in _ONE:
            return self._run(body[0], least, most, text, place, then, is_lazy=op == "MIN_REPEAT")
        repeat = self._lazy if op == "MIN_REPEAT" else self._greedy
        return repeat(body, 0, least, most, text, place, then)

    def _run(self, item: Any, least: int, most: Any, text: str, place: int, then: Next, *, is_lazy: bool) -> int | None:
        """A repeat of one character, without recursion."""
        op, argument = item
        count = 0
        while place + count < len(text) and (most == _parser.MAXREPEAT or count < int(most)):
            self._step()
            if not self._is(str(op), argument, text[place + count]):
                break
            count += 1
        lengths = range(least, count + 1) if is_lazy else range(count, least - 1, -1)
        for length in lengths:
            self._step()
            end = then(place + length)
            if end is not None:
                return end
        return None

    def _greedy(
        self, body: list[Any], count: int, least: int, most: Any, text: str, place: int, then: Next
    ) -> int | None:
        self._step()
        if most == _parser.MAXREPEAT or count < int(most):

            def again(end: int) -> int | None:
                if end == place and count >= least:  # an empty round is the last
                    return then(end)
                return self._greedy(body, count + 1, least, most, text, end, then)

            end = self._sequence(body, 0, text, place, again)
            if end is not None:
                return end
        return then(place) if count >= least else None

    def _lazy(
        self, body: list[Any], count: int, least: int, most: Any, text: str, place: int, then: Next
    ) -> int | None:
        self._step()
        if count >= least:
            end = then(place)
            if end is not None:
                return end
        if most != _parser.MAXREPEAT and count >= int(most):
            return None

        def again(end: int) -> int | None:
            if end == place and count >= least:
                return then(end)
            return self._lazy(body, count + 1, least, most, text, end, then)

        return self._sequence(body, 0, text, place, again)

    def _is(self, op: str, argument: Any, char: str) -> bool:
        if op == "ANY":
            return char != "\n"
        if op == "LITERAL":
            return self._same(char, argument)
        if op == "NOT_LITERAL":
            return not self._same(char, argument)
        negated = found = False
        for kind, value in argument:
            name = str(kind)
            if name == "NEGATE":
                negated = True
            elif name == "LITERAL":
                found = found or self._same(char, value)
            elif name == "RANGE":
                found = found or any(value[0] <= ord(each) <= value[1] for each in self._forms(char))
            else:
                category = str(value)
                is_not = "_NOT_" in category
                found = found or _CATEGORIES[category.replace("_NOT_", "_")](char) != is_not
        return found != negated

    def _forms(self, char: str) -> set[str]:
        return {char, char.lower(), char.upper()} if self._folds else {char}

    def _same(self, char: str, code: int) -> bool:
        return chr(code) in self._forms(char)


def _at(kind: str, text: str, place: int) -> bool:
    if kind in {"AT_BEGINNING", "AT_BEGINNING_STRING"}:
        return place == 0
    if kind in {"AT_END", "AT_END_STRING"}:
        return place == len(text) or (kind == "AT_END" and place == len(text) - 1 and text[place] == "\n")
    is_word = _CATEGORIES["CATEGORY_WORD"]
    before = place > 0 and is_word(text[place - 1])
    behind = place < len(text) and is_word(text[place])
    return (before != behind) == (kind == "AT_BOUNDARY")
