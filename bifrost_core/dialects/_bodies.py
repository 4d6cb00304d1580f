"""What the bodies of all dialects share: JSON objects, forms, and the members that are the Router's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import parse_qsl

import msgspec

from bifrost_core.errors import BadRequestError, CallError, PluginError, UnsupportedParameterError
from bifrost_core.forms import Field, FormError, Upload, read_form
from bifrost_core.kinds import Kind
from bifrost_core.responses import Response
from bifrost_core.types import File, JsonObject

from .base import Inbound

__all__ = [
    "Members",
    "answer_of",
    "check_types",
    "encode",
    "form_of",
    "invalid",
    "members_of",
    "no_endpoint",
    "object_of",
    "unsupported",
]

_R = TypeVar("_R", bound=Response)

_MAX_FALLBACKS: Final = 16
_FORM_OF_TEXTS: Final = "application/x-www-form-urlencoded"

encode = msgspec.json.Encoder(decimal_format="number").encode


def invalid(message: str, parameter: str = "", *, http_status: int = 400) -> CallError:
    """A request that makes no sense; the message says what to do, ``parameter`` names the field at fault."""
    return BadRequestError(message, kind=Kind.INVALID_REQUEST, http_status=http_status, parameter=parameter)


def unsupported(parameter: str, why: str) -> UnsupportedParameterError:
    """A field that can not be carried over."""
    return UnsupportedParameterError(f"{parameter!r} can not be carried over: {why}", parameter=parameter)


def no_endpoint(dialect: str, inbound: Inbound, others: Iterable[str] = ()) -> CallError:
    """There is nothing behind this path, or nothing for this method but for ``others``."""
    what = f"there is no {inbound.method} {inbound.path[:100]!r} in the dialect {dialect}"
    if allowed := ", ".join(sorted(others)):
        return invalid(f"{what}; use {allowed}", http_status=405)
    return invalid(what, http_status=404)


def object_of(inbound: Inbound) -> JsonObject:
    """The body as a JSON object.

    Raises:
        CallError: It is none.
    """
    body: Any = None
    try:
        body = msgspec.json.decode(inbound.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise invalid("the body is no JSON object")
    return cast("JsonObject", body)


class Members:
    """A body's members, with the Router's own taken out.

    Attributes:
        model: What the body names; ``""`` where it names none.
        stream: Whether the answer is to come in pieces.
        fallbacks: Models to try, where the body names some.
        body: All others.
    """

    __slots__ = ("body", "fallbacks", "model", "stream")

    def __init__(self, given: JsonObject) -> None:
        body = dict(given)
        model, stream, fallbacks = body.pop("model", None), body.pop("stream", None), body.pop("fallbacks", None)
        if model is not None and not isinstance(model, str):
            raise invalid("'model' is no string", "model")
        if stream is not None and not isinstance(stream, bool):
            raise invalid("'stream' is no boolean", "stream")
        if "extra_body" in body:  # an option of our own calls, which hooks do not look into
            raise unsupported("extra_body", "write its members into the body itself")
        self.model: str = model or ""
        self.stream: bool = bool(stream)
        self.fallbacks: tuple[str, ...] | None = _fallbacks(fallbacks)
        self.body: JsonObject = body


def members_of(inbound: Inbound) -> Members:
    """The body's members, told apart; ``model`` has to be among them.

    Raises:
        CallError: It is no JSON object, or one of the Router's own members is of a wrong type.
    """
    members = Members(object_of(inbound))
    if not members.model:
        raise invalid("'model' is missing; name one as provider/model", "model")
    return members


_KINDS: Final[Mapping[type, str]] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "whole number",
    list: "list",
}


def check_types(body: Mapping[str, Any], types: Mapping[str, type]) -> None:
    """See that members are of the JSON types that their dialect has for them; null and absent ones are.

    Args:
        body: As it was sent.
        types: By name; ``float`` takes whole numbers too, and no number is a boolean.

    Raises:
        CallError: One is not; names it.
    """
    for name, kind in types.items():
        value = body.get(name)
        if value is None or type(value) is kind or (kind is float and type(value) is int):
            continue
        raise invalid(f"{name!r} is no {_KINDS.get(kind, 'string')}", name)


def answer_of(kind: type[_R], response: Response) -> _R:
    """The answer, which is of one kind.

    Raises:
        PluginError: It is of another: a plugin has made it, as an adapter's answers are of their operation's kind.
    """
    if isinstance(response, kind):
        return response
    raise PluginError(
        f"a plugin answered with {type(response).__name__}; return a {kind.__name__}", call_id=response.call_id
    )


def _fallbacks(given: Any) -> tuple[str, ...] | None:
    """Names of models, or objects with such a name, as some gateways write them."""
    if given is None:
        return None
    names: list[str] = []
    listed: Any = cast("Any", given) if isinstance(given, list) else [None]
    for each in listed:
        name: Any = cast("Mapping[str, Any]", each).get("model") if isinstance(each, dict) else each
        if not isinstance(name, str) or not name:
            raise invalid("'fallbacks' is no list of models; write provider/model for each", "fallbacks")
        names.append(name)
    if len(names) > _MAX_FALLBACKS:
        raise invalid(f"'fallbacks' names more than {_MAX_FALLBACKS} models", "fallbacks")
    return tuple(names)


def form_of(inbound: Inbound) -> tuple[dict[str, list[str]], tuple[File, ...]]:
    """A form's texts by name, in order (``name[]`` as ``name``), and its files.

    Raises:
        CallError: It is no form.
    """
    problem = ""
    texts: dict[str, list[str]] = {}
    files: list[File] = []
    content_type = inbound.headers.get("content-type", "")
    try:
        if content_type.startswith(_FORM_OF_TEXTS):  # what httpx makes of a form without files
            fields: Iterable[Field] = parse_qsl(inbound.body.decode(), keep_blank_values=True, max_num_fields=1_000)
        else:
            fields = read_form(content_type, inbound.body)
        for name, value in fields:
            if isinstance(value, Upload):
                files.append(File(name, value.filename, value.data, value.content_type))
            else:
                texts.setdefault(name.removesuffix("[]"), []).append(value)
    except FormError as exc:
        problem = str(exc)
    except ValueError:
        problem = "it is no UTF-8, or has too many fields"
    if problem:
        raise invalid(f"the body can not be read as a form: {problem}")
    return texts, tuple(files)
