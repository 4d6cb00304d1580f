"""Embeddings in the shape that OpenAI and Mistral share: texts out, vectors in.

Source:
    https://platform.openai.com/docs/api-reference/embeddings, https://docs.mistral.ai/api/endpoint/embeddings and
    https://docs.mistral.ai/capabilities/embeddings (number formats: ``binary`` and ``ubinary`` hold eight
    dimensions per number).
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import array
import binascii
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from bifrost_core.responses import EmbeddingResponse
from bifrost_core.types import JsonObject, Request
from bifrost_core.wire import HttpReply

from ._chat import MalformedError, read_object, read_usage
from ._reporter import Reporter

__all__ = ["read_embeddings", "sent_value", "write_texts"]

# Number formats that are whole numbers, with their range and the code of ``array`` that holds one in a byte.
_WHOLE: Final[Mapping[str, tuple[int, int, str]]] = {
    "int8": (-128, 127, "b"),
    "binary": (-128, 127, "b"),
    "uint8": (0, 255, "B"),
    "ubinary": (0, 255, "B"),
}


def write_texts(members: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Write a text or a list of texts.

    Raises:
        BadRequestError: It is anything else, such as the arrays of tokens that OpenAI takes.
    """
    if isinstance(value, str):
        members[name] = value
        return
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise reporter.invalid(f"the field {name!r} is neither text nor a list of texts")
    for place, text in enumerate(value):
        if isinstance(text, (int, Sequence)) and not isinstance(text, (str, bytes, bytearray)):
            raise reporter.unsupported(f"{name}[{place}]", "there are no tokens to embed here; send text")
        if not isinstance(text, str):
            raise reporter.invalid(f"{name}[{place}] is no text")
    members[name] = value


def sent_value(request: Request, name: str) -> Any:
    """A field of the request as it went out: ``extra_body`` wins."""
    extra = request.body.get("extra_body")
    return extra[name] if isinstance(extra, Mapping) and name in extra else request.body.get(name)


def read_embeddings(request: Request, reply: HttpReply, reporter: Reporter) -> EmbeddingResponse:
    """Read the vectors, in the order of the inputs.

    Vectors that come as lists are handed out as they are in ``raw``, not copied and not rounded. What
    base64 holds is not documented: it is taken for little-endian float32, as OpenAI's own client does, and
    for one byte a number in the whole-number formats; it becomes an ``array``.

    Raises:
        ProviderServerError: It can not be used (``bad_response``): not one vector for each input, or a vector that
            holds anything but finite numbers of the format that was asked for.
    """
    data = read_object(reply, reporter)
    texts = sent_value(request, "input")
    count = len(texts) if isinstance(texts, Sequence) and not isinstance(texts, str) else 1
    if count and not isinstance(texts, str) and isinstance(texts, Sequence) and isinstance(texts[0], int):
        count = 1  # the tokens of one text
    why = ""
    vectors: tuple[Sequence[float], ...] = ()
    try:
        vectors = _read_vectors(data.get("data"), count, sent_value(request, "output_dtype"))
    except MalformedError as exc:
        why = str(exc)
    if why:
        raise reporter.unusable(reply, why)
    model = data.get("model")
    return EmbeddingResponse(
        model=model if isinstance(model, str) else request.model,
        usage=read_usage(data.get("usage"), reporter),
        raw=data,
        headers=reply.headers,
        embeddings=vectors,
    )


def _read_vectors(items: Any, count: int, form: Any) -> tuple[Sequence[float], ...]:
    """One vector per input, by ``index``."""
    if not isinstance(items, list) or len(items) != count:
        held = len(items) if isinstance(items, list) else "no"
        raise MalformedError(f"there are {held} vectors in it for {count} inputs")
    found: dict[int, Sequence[float]] = {}
    for place, item in enumerate(items):
        index = item.get("index") if isinstance(item, dict) else None
        if type(index) is not int or not 0 <= index < count or index in found:
            raise MalformedError(f"data[{place}].index names no input, or one that has its vector already")
        found[index] = _read_vector(item.get("embedding"), form, f"data[{place}].embedding")
    return tuple(found[index] for index in range(count))


def _read_vector(vector: Any, form: Any, path: str) -> Sequence[float]:
    whole = _WHOLE.get(form) if isinstance(form, str) else None
    if isinstance(vector, str):
        vector = _from_base64(vector, "f" if whole is None else whole[2], path)
    elif not isinstance(vector, list):
        raise MalformedError(f"{path} is neither a list of numbers nor base64")
    if not vector:
        raise MalformedError(f"{path} is empty")
    kinds = set(map(type, vector))
    if not kinds <= ({int} if whole else {int, float}):
        raise MalformedError(f"{path} holds something else than {'whole ' if whole else ''}numbers")
    try:
        is_sound = whole[0] <= min(vector) <= max(vector) <= whole[1] if whole else all(map(math.isfinite, vector))
    except OverflowError:  # a whole number with hundreds of digits
        is_sound = False
    if not is_sound:
        raise MalformedError(f"{path} holds a number that is out of range")
    return cast("Sequence[float]", vector)


def _from_base64(text: str, code: str, path: str) -> array.array[Any]:
    numbers = array.array(code)
    try:
        numbers.frombytes(binascii.a2b_base64(text, strict_mode=True))
    except ValueError:  # no base64, or no whole number of numbers
        raise MalformedError(f"{path} can not be read as base64") from None
    if sys.byteorder == "big" and numbers.itemsize > 1:  # pragma: no cover # no such machine tests this
        numbers.byteswap()
    return numbers
