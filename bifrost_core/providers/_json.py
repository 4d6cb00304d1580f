"""JSON of the wire within bounds: what a provider sends can neither exhaust the stack nor smuggle in bad text."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

__all__ = ["MAX_DEPTH", "JsonError", "JsonExtent", "decode", "encode", "unusable_member"]

MAX_DEPTH: Final = 200

_BOM: Final = b"\xef\xbb\xbf"
_ESCAPED: Final = re.compile(rb"\\.", re.DOTALL)
_NO_BRACKETS: Final = bytes(byte for byte in range(256) if byte not in b"[{]}")
_read = msgspec.json.Decoder().decode


class JsonError(ValueError):
    """Bytes that are not JSON, or JSON that is not taken. Says why in words, without quoting."""


def decode(data: bytes) -> Any:
    """Read JSON. Strict: UTF-8, no NaN, no second value, at most ``MAX_DEPTH`` levels; a leading mark is skipped.

    Raises:
        JsonError: It is anything else.

    Source:
        RFC 8259; section 8.1 lets a reader skip a byte-order mark.
    """
    problem = ""
    value: Any = None
    try:
        value = _read(data[3:] if data.startswith(_BOM) else data)
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except RecursionError:
        problem = "it is nested too deeply"
    except msgspec.MsgspecError:
        problem = "it is not JSON"
    if not problem and data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        problem = "it is nested too deeply"
    if problem:
        raise JsonError(problem)
    return value


def _depth(data: bytes) -> int:
    """Greatest depth of valid JSON, brackets inside strings left out; megabytes of numbers take milliseconds."""
    if b"\\" in data:
        data = _ESCAPED.sub(b"", data)
    depth = deepest = 0
    for bracket in b"".join(data.split(b'"')[::2]).translate(None, _NO_BRACKETS):  # every second piece is a string
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _plain(value: Any) -> Any:
    """What stands for values that the encoder does not know: any mapping, and pydantic's models."""
    if isinstance(value, Mapping):
        return dict(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] # any mapping will do
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_none=True)
    raise NotImplementedError(type(value).__name__)  # what msgspec's enc_hook says of a value it can not write


_write = msgspec.json.Encoder(enc_hook=_plain).encode
# What the encoder says of values that have no JSON form; ``NotImplementedError`` is ``_plain``'s.
_UNWRITABLE: Final = (TypeError, ValueError, NotImplementedError, OverflowError, msgspec.MsgspecError)


def encode(payload: dict[str, Any]) -> bytes | None:
    """Write JSON; None where a member has no JSON form (``unusable_member`` says which)."""
    try:
        body = _write(payload)
    except (*_UNWRITABLE, RecursionError):
        return None
    # NaN and the infinities are written as null: without a null there was none of them.
    if b"null" in body and _not_finite(payload):
        return None
    return body


def _not_finite(value: Any, room: int = MAX_DEPTH) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, Mapping):
        return room > 0 and any(_not_finite(member, room - 1) for member in value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] # walks anything
    if isinstance(value, (list, tuple, set, frozenset)):
        return room > 0 and any(_not_finite(member, room - 1) for member in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] # walks anything
    return False


def unusable_member(payload: Mapping[str, Any]) -> tuple[str, str]:
    """Name of the first member that ``encode`` stumbled over, and what is the matter with it (never its value)."""
    for name, value in payload.items():
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
            return type(name).__name__, "is not a name"
        problem = ""
        try:
            _write({name: value})
        except RecursionError:
            problem = "is nested too deeply or holds itself"
        except UnicodeEncodeError:
            problem = "holds half a surrogate pair, which is no text"
        except _UNWRITABLE:
            problem = "holds a value that has no JSON form"
        if not problem and _not_finite(value):
            problem = "holds NaN or an infinity, which JSON does not have"
        if problem:
            return name, problem
    return "body", "has no JSON form"


_MARKS: Final = re.compile(rb'["\\\[{\]}]')


class JsonExtent:
    """Finds the end of one JSON object or array in bytes that arrive piece by piece; scans each byte once."""

    __slots__ = ("_depth", "_escaped", "_in_string")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> bool:
        """Take the next bytes; whether the value is complete."""
        position = 0
        if self._escaped and data:
            self._escaped = False
            position = 1
        while (found := _MARKS.search(data, position)) is not None:
            position = found.end()
            mark = data[found.start()]
            if mark == 0x5C:  # backslash
                if self._in_string:
                    if position == len(data):
                        self._escaped = True
                    position += 1
            elif mark == 0x22:  # quote
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if mark in b"[{" else -1
                if self._depth <= 0:
                    return True
        return False
