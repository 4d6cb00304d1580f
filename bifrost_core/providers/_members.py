"""Members of a request's body by table: sent, renamed, left out, or refused by name.

Providers refuse members that they do not know (Mistral with 422, OpenAI with 400). A table says of each
known field how it is written; what is in no table is refused here, with near matches.

Source:
    https://docs.mistral.ai/api and https://platform.openai.com/docs/api-reference; what real servers refuse is
    quoted in public reports (422 ``extra_forbidden``, 400 ``unknown_parameter``).
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import difflib
from collections.abc import Callable, Mapping
from typing import Any

from bifrost_core.errors import BadRequestError
from bifrost_core.types import JsonObject, Request

from ._adapter import Payload
from ._reporter import Reporter

__all__ = ["Writer", "leave_out", "model_name", "refuse", "rename", "same", "stream_flag", "write_members", "writer_of"]

Writer = Callable[[JsonObject, str, Any, Reporter], None]


def rename(to: str) -> Writer:
    """A writer for another name of the field ``to``: both may be given, if they say the same."""

    def write(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
        if members.setdefault(to, value) != value:
            raise reporter.unsupported(name, f"it is {to!r} here, which has another value; give one of them")

    return write


def same(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Write a field that has a second name."""
    if members.setdefault(name, value) != value:
        raise reporter.unsupported(name, "it was given under another name with another value; give one of them")


def leave_out(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
    """Leave out a field that says nothing to the model; noted once."""
    reporter.note(f"the field {name!r}, which it does not take and which does not change the answer, is left out")


def refuse(harmless: Any = None) -> Writer:
    """A writer for a field that the provider has not; ``harmless`` is the value that asks for nothing."""

    def write(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a Writer
        if value != harmless or type(value) is not type(harmless):
            raise reporter.unsupported(name, "it has no such field, and without it the answer would be another")
        reporter.note(f"the field {name!r}, which asks for nothing, is left out")

    return write


def stream_flag(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Take ``stream`` where it agrees with the call; ``write_members`` compares."""
    if not isinstance(value, bool):
        raise reporter.invalid(f"the field {name!r} is a boolean; call stream() for a streamed answer")
    members[name] = value


def model_name(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Take ``model`` where it agrees with the call."""
    if value != members[name]:
        raise reporter.invalid(f"the field {name!r} names another model than the call")


def write_members(
    table: Mapping[str, Writer | None], required: str, request: Request, reporter: Reporter, *, is_open: bool = False
) -> tuple[JsonObject, Mapping[str, Any]]:
    """The members of a body by ``table`` (None: unchanged), and ``extra_body``, which is merged last.

    Args:
        table: Known fields.
        required: A field that has to be there.
        request: The request.
        reporter: Of the provider.
        is_open: Send unknown fields as they are.

    Raises:
        BadRequestError: A member can not be sent; ``UnsupportedParameterError`` where it is unknown.
    """
    members: JsonObject = {"model": request.model}
    extra: Mapping[str, Any] = {}
    for name, value in request.body.items():
        if value is None:  # null and absent mean the same
            continue
        if name in table:
            write = table[name]
            if write is None:
                members[name] = value
            else:
                write(members, name, value, reporter)
        elif name == "extra_body":
            extra = _extra(value, reporter)
        elif is_open:
            members[str(name)] = value
        else:
            raise _unknown(name, table, reporter)
    if members.pop("stream", request.stream) is not request.stream:
        raise reporter.invalid("the field 'stream' says otherwise than the call; use stream() for a streamed answer")
    if required not in members and required not in extra:
        raise reporter.invalid(f"the field {required!r} is missing")
    if request.stream:
        members["stream"] = True
    return members, extra


def writer_of(
    table: Mapping[str, Writer | None], required: str, *, is_open: bool = False
) -> Callable[[Request, int | None, Reporter], Payload]:
    """What writes the requests of an operation that puts out no tokens; arguments as of ``write_members``."""

    def write(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # no tokens
        members, extra = write_members(table, required, request, reporter, is_open=is_open)
        members.update(extra)
        return Payload(members, 0)

    return write


def _extra(value: Any, reporter: Reporter) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise reporter.invalid("extra_body is no mapping of fields")
    for name in ("model", "stream"):
        if name in value:  # routes, prices and permissions hang on them
            raise reporter.invalid(f"extra_body may not set {name!r}; the call does")
    return value


def _unknown(name: str, table: Mapping[str, Any], reporter: Reporter) -> BadRequestError:
    near = difflib.get_close_matches(str(name), list(table), n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return reporter.unsupported(str(name), f"{hint}fields that this version does not know go through extra_body")
