"""Regular expressions that can not stall the event loop: only a checked subset is taken.

Python's ``re`` backtracks, and nothing can interrupt it. So a pattern is read as a syntax tree and
refused when one of its attempts could take more than a bounded number of steps: nested variable
repeats, back-references, conditional groups, variable repeats in a row that can share characters, and repeats
without a bound, except as the very last thing in the pattern, where nothing can fail after them.

Source:
    J. Kirrage, A. Rathnayake, H. Thielecke, "Static Analysis for Regular Expression
    Denial-of-Service Attacks", NSS 2013, https://arxiv.org/abs/1301.0849.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# (the syntax tree of ``re`` has no types)
import importlib
import re
from typing import Any, Final

import attrs

from bifrost_core import ConfigError

__all__ = ["Checked", "check"]

# The standard library's own parser: what it reads is what will run. The module has no public name since
# ``sre_parse`` is deprecated; tests/plugins/guardrails/test_patterns.py holds what is relied upon.
_parser: Final[Any] = importlib.import_module("re._parser")

_MAX_STEPS: Final = 4096  # of one attempt at one place
_MAX_LENGTH: Final = 4096  # characters of the longest match that a stream may wait for
_OTHERS: Final = (
    "\u0131\u017f\u212a\u03a9\u03c0\u0416\u0436\u05d0\u0628\u0915\u4e2d\u3042\uac00\u200b\u2028\u20ac\U0001f600"
)
_SAMPLE: Final = [chr(code) for code in range(256)] + list(_OTHERS)
_SINGLE: Final = frozenset({"LITERAL", "NOT_LITERAL", "ANY", "IN"})
_ALL: Final = frozenset(range(len(_SAMPLE)))


@attrs.frozen
class Checked:
    """A pattern that may be used.

    Attributes:
        pattern: Compiled.
        longest: Characters of its longest match; None where the last repeat has no bound.
        steps: The most steps that one attempt at one place takes, about.
        needle: Characters in a row that every match holds, in lower case where case does not count; empty where
            none are known.
    """

    pattern: re.Pattern[str]
    longest: int | None
    steps: int
    needle: str = ""


@attrs.frozen
class _Cost:
    """What matching a part may take.

    ``ways`` counts the ways in which it can match at one place, wherever they end, ``same`` those of them that end at
    the same place at most, and ``work`` the steps of trying all of them. ``first`` are the sample characters that it
    can begin with, ``loose`` those that may follow where it could have gone on: before any other it ends at one place.
    """

    ways: int = 1
    same: int = 1
    work: int = 1
    first: frozenset[int] = frozenset()
    loose: frozenset[int] = frozenset()
    can_be_empty: bool = False
    is_open: bool = False  # ends in a repeat without a bound


def check(pattern: str, flags: int = 0, *, max_steps: int = _MAX_STEPS) -> Checked:
    """Compile a pattern, or say why it is not safe.

    Args:
        pattern: In the language of ``re``.
        flags: Of ``re.compile``.
        max_steps: Most steps of one attempt.

    Raises:
        ConfigError: It is no regular expression, can match nothing at all, or could take too long.
    """
    try:
        compiled = re.compile(pattern, flags)
        tree = _parser.parse(pattern, flags)
    except (re.error, RecursionError, OverflowError) as exc:
        raise ConfigError(f"{pattern!r} is no regular expression: {exc}", field="pattern") from None
    cost = _Reader(pattern, compiled.flags).sequence(list(tree))
    if compiled.match("") is not None or cost.can_be_empty:
        raise ConfigError(f"{pattern!r} matches the empty text; make a part of it required", field="pattern")
    if cost.work > max_steps:
        raise _refusal(pattern, f"may take {cost.work} steps at each place (at most {max_steps}); use smaller bounds")
    longest = None if cost.is_open else int(tree.getwidth()[1])
    if longest is not None and longest > _MAX_LENGTH:
        raise _refusal(pattern, f"can match {longest} characters (at most {_MAX_LENGTH}); use smaller bounds")
    return Checked(compiled, longest, cost.work, _needle(list(tree), compiled.flags))


def _needle(items: list[Any], flags: int) -> str:
    """The longest run of characters that is in every match: of the parts that have to match as they stand."""
    runs = [""]
    for op, argument in items:
        name = str(op)
        if name == "LITERAL" and (char := _plain(argument, flags)):
            runs[-1] += char
        elif name == "SUBPATTERN" and not argument[1] and not argument[2]:
            runs += [_needle(list(argument[3]), flags), ""]
        elif name == "MAX_REPEAT" and argument[0] >= 1:
            runs += [_needle(list(argument[2]), flags), ""]
        elif name != "AT":
            runs.append("")
    return max(runs, key=len)


def _plain(code: int, flags: int) -> str:
    """A character as it stands in a match; empty where another may stand there that looks different in lower case."""
    char = chr(code)
    if not flags & re.IGNORECASE:
        return char
    # Of ASCII, i, s and k are equal to letters outside of it (dotless i, long s, the Kelvin sign) where case does not count.
    return char.lower() if char.isascii() and char not in "iIsSkK" else ""


def _refusal(pattern: str, why: str) -> ConfigError:
    return ConfigError(f"the pattern {pattern!r} {why}", field="pattern")


class _Reader:
    """Finds the cost of a tree, or refuses it."""

    def __init__(self, pattern: str, flags: int) -> None:
        self._pattern = pattern
        self._flags = flags

    def sequence(self, items: list[Any], *, is_last: bool = True) -> _Cost:
        """The cost of parts one after the other."""
        total = _Cost(can_be_empty=True, work=0)
        first: frozenset[int] = frozenset()
        loose: frozenset[int] = frozenset()  # what the variable repeats before can give away
        for number, (kind, argument) in enumerate(items):
            op = str(kind)
            cost = self._part(op, argument, is_last=is_last and number == len(items) - 1)
            if total.can_be_empty:
                first |= cost.first
            if total.is_open:
                raise _refusal(self._pattern, "has a repeat without a bound before its end; write {0,200} or the like")
            shares = bool(loose & (cost.first or _ALL)) or cost.can_be_empty
            # Only ways that end at one place go on where what follows can not be what a repeat before has given back.
            before = total.ways if shares else total.same
            ways, same = before * cost.ways, before * cost.same
            # What follows is tried once for every way in which the part before can match.
            work = total.work + cost.work * total.ways
            if work > 10**9 or ways > 10**9:
                raise _refusal(self._pattern, "backtracks without end (repeats that can share characters)")
            if not shares:
                loose = cost.loose
            elif cost.can_be_empty:
                loose |= cost.loose
            elif total.ways > 1:  # ends as variably as what stands before it
                loose = loose | cost.loose | cost.first if op in _SINGLE else _ALL
            else:
                loose = cost.loose
            total = _Cost(ways, same, work, first, loose, total.can_be_empty and cost.can_be_empty, cost.is_open)
        return total

    def _part(self, op: str, argument: Any, *, is_last: bool) -> _Cost:
        if op in _SINGLE:
            return _Cost(first=self._chars(op, argument))
        if op == "AT":
            return _Cost(can_be_empty=True)
        if op in {"MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"}:
            return self._repeat(*argument, is_last=is_last)
        if op == "SUBPATTERN":
            _, add, remove, body = argument
            before, self._flags = self._flags, (self._flags | add) & ~remove
            try:
                return self.sequence(list(body), is_last=is_last)
            finally:
                self._flags = before
        if op == "ATOMIC_GROUP":
            return self.sequence(list(argument), is_last=is_last)
        if op == "BRANCH":
            return self._branch([list(each) for each in argument[1]], is_last=is_last)
        if op in {"ASSERT", "ASSERT_NOT"}:
            inner = self.sequence(list(argument[1]), is_last=False)
            if inner.is_open:
                raise _refusal(self._pattern, "looks ahead without a bound; write {0,200} or the like")
            return _Cost(work=inner.work, can_be_empty=True)
        raise _refusal(self._pattern, "refers back to a group; write out what it may be")

    def _branch(self, options: list[list[Any]], *, is_last: bool) -> _Cost:
        costs = [self.sequence(option, is_last=is_last) for option in options]
        ways = same = 0
        seen, loose = frozenset[int](), frozenset[int]()
        clashes = is_optional = False
        for cost in costs:
            is_beside = bool(seen & cost.first) or (is_optional and cost.can_be_empty)
            clashes = clashes or is_beside
            # Of options that begin differently one alone can match; one of nothing can always match beside it.
            ways = ways + cost.ways if is_beside or is_optional or cost.can_be_empty else max(ways, cost.ways)
            same = same + cost.same if is_beside else max(same, cost.same)
            is_optional = is_optional or cost.can_be_empty
            seen |= cost.first
            loose |= cost.loose
        return _Cost(
            ways=ways,
            same=same,
            work=sum(cost.work for cost in costs),
            first=seen,
            loose=_ALL if clashes else loose | seen if is_optional else loose,
            can_be_empty=is_optional,
            is_open=any(cost.is_open for cost in costs),
        )

    def _repeat(self, least: int, most: Any, body: Any, *, is_last: bool) -> _Cost:
        inner = self.sequence(list(body), is_last=False)
        is_open = most == _parser.MAXREPEAT
        many = is_open or int(most) > 1
        # Else each round can begin at one place only, and has one way to get to its end.
        if inner.is_open or (many and (inner.loose & inner.first or inner.same > 1)):
            raise _refusal(
                self._pattern,
                "repeats alternatives that can match the same text; make them exclusive"
                if inner.loose == _ALL
                else "has a repeat inside a repeat that can share characters; take one of them",
            )
        if inner.can_be_empty and many:
            raise _refusal(self._pattern, "repeats something that may be empty; make a part of it required")
        if is_open:
            if not is_last:
                raise _refusal(self._pattern, "has a repeat without a bound before its end; write {0,200} or the like")
            return _Cost(
                work=least + inner.work,
                first=inner.first,
                loose=inner.first | inner.loose,
                can_be_empty=least == 0,
                is_open=True,
            )
        rounds = int(most)
        varies = rounds - least + 1
        return _Cost(
            ways=varies * inner.ways,
            same=inner.same + (1 if least == 0 and inner.can_be_empty else 0),
            work=max(rounds, 1) * inner.work,
            first=inner.first,
            loose=inner.first | inner.loose if varies > 1 else inner.loose,
            can_be_empty=least == 0 or inner.can_be_empty,
        )

    def _chars(self, op: str, argument: Any) -> frozenset[int]:
        """The sample characters that a single-character part matches, asked of ``re`` itself by class."""
        if op == "ANY":
            return _ALL
        if op in {"LITERAL", "NOT_LITERAL"}:
            wanted = chr(argument)
            same = (
                {wanted, wanted.lower(), wanted.upper(), wanted.casefold()} if self._flags & re.IGNORECASE else {wanted}
            )
            found = frozenset(number for number, char in enumerate(_SAMPLE) if char in same)
            if op == "NOT_LITERAL":
                return _ALL - found
            return found or _ALL  # a character outside the sample may meet any other: the careful side
        found = frozenset[int]()
        negated = False
        for kind, value in argument:
            name = str(kind)
            if name == "NEGATE":
                negated = True
            elif name == "LITERAL":
                found |= self._chars("LITERAL", value)
            elif name == "RANGE":
                low, high = value
                chars = {chr(code) for code in range(low, min(high, 0xFFFF) + 1)}
                if self._flags & re.IGNORECASE:
                    chars |= {char.swapcase() for char in chars}
                found |= frozenset(number for number, char in enumerate(_SAMPLE) if char in chars)
                if high > 0xFF and low > 0xFF:
                    found |= _ALL
            elif name == "CATEGORY":
                category = re.compile(_CATEGORIES[str(value)])
                found |= frozenset(number for number, char in enumerate(_SAMPLE) if category.match(char))
        return _ALL - found if negated else found


_CATEGORIES: Final = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}
