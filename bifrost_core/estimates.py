"""What a call may cost before anything is sent: bounds of its tokens, and the least and the greatest cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, cast

import attrs
import msgspec

from .prices import Price
from .types import Operation, Request, Usage
from .wire import HttpCall

__all__ = ["Estimate", "choices_of", "estimated", "greatest_cost", "input_bound", "least_cost", "text_bytes"]

# Members that bring what the body does not hold: Anthropic's, then OpenAI's.
_UNSEEN: Final = (
    *("container", "mcp_servers", "thread"),
    *("conversation", "previous_response_id", "web_search_options"),
)
_BESIDE_MESSAGES: Final = frozenset({"extra_body", "input", "tools", *_UNSEEN})
_NO_TEXT: Final = frozenset({"output", "type"})  # members that may make a message something else
_TOKENS_PER_100_BYTES: Final = 35  # of JSON as sent; text exchanges that were looked at had at most 31
_TEXT_PARTS: Final = frozenset(
    {"text", "thinking", "refusal", "reference", "tool_reference"}
    | {"input_text", "output_text", "summary_text", "reasoning_text"}
    | {"message", "function_call", "function_call_output", "reasoning"}  # items that hold parts
    | {"custom_tool_call", "custom_tool_call_output"}
)
_TEXT_TOOLS: Final = frozenset({"function", "namespace", "custom"})  # others read what the body does not hold
_UNBOUNDED: Final = frozenset({Operation.OCR, Operation.TRANSCRIPTION})


@attrs.frozen(kw_only=True)
class Estimate:
    """What a call may use and cost. Nothing was sent to find out.

    Attributes:
        model: ``"provider/model"``.
        input_tokens: Estimate of the input tokens of the text, at least 1; media are not counted.
        input_upper: Upper bound of the input tokens: the bytes of the JSON body as sent. None where
            they do not bound it: images, documents, audio, and tools that the provider runs.
        output_upper: Upper bound of the output tokens over all choices; None when the request sets none.
        least: USD of the estimated input alone, at the price of the provider's cache where that is the
            lower one: what an answered call costs when all of it was cached and the answer is empty.
            None where the price is unknown.
        greatest: USD that one attempt can not go beyond; None when the price or a bound is unknown.
        price: The model's price; None where unknown.
    """

    model: str
    input_tokens: int
    input_upper: int | None
    output_upper: int | None
    least: Decimal | None
    greatest: Decimal | None
    price: Price | None


def estimated(model: str, request: Request, encoded: HttpCall, price: Price | None) -> Estimate:
    """The estimate of a request that an adapter has encoded.

    Args:
        model: ``"provider/model"``.
        request: What was encoded.
        encoded: What would be sent.
        price: The model's price.
    """
    tokens = max(1, -(-text_bytes(request, encoded) * _TOKENS_PER_100_BYTES // 100))
    input_upper = input_bound(request, encoded)
    return Estimate(
        model=model,
        input_tokens=tokens,
        input_upper=input_upper,
        output_upper=encoded.output_upper,
        least=least_cost(price, tokens),
        greatest=greatest_cost(price, input_upper, encoded.output_upper),
        price=price,
    )


def input_bound(request: Request, encoded: HttpCall) -> int | None:
    """Upper bound of the input tokens of a request: the bytes of its body, and what the provider adds to it.

    None where they bound nothing.

    A token of a byte-level vocabulary stands for at least one byte, and the JSON around a text outweighs
    the template that the provider puts around it. An image is the exception, by URL (1,540 tokens for
    861 bytes were seen) as well as inline, where a plain surface compresses to nearly nothing.

    Source:
        https://docs.mistral.ai/guides/tokenization (byte-pair encoding, control tokens of the template).
    """
    if request.files or request.operation in _UNBOUNDED:
        return None
    if not _is_plain(request.body) and next(_beyond_text(request), None) is not None:
        return None
    return len(encoded.body) + encoded.hidden_tokens


def choices_of(request: Request) -> int:
    """How many answers a request asks for at once (``n``); each has an output limit of its own."""
    extra = request.body.get("extra_body")
    stated: Any = request.body.get("n")
    if isinstance(extra, Mapping):
        stated = cast("Mapping[str, Any]", extra).get("n", stated)
    return stated if type(stated) is int and stated >= 1 else 1


def text_bytes(request: Request, encoded: HttpCall) -> int:
    """How many bytes of a body are text and what stands around it, files left out: what token estimates go by."""
    media = sum(len(msgspec.json.encode(part, enc_hook=str)) for part in _beyond_text(request))
    return max(encoded.text_length - media, 0)


def greatest_cost(price: Price | None, input_upper: int | None, output_upper: int | None) -> Decimal | None:
    """USD that one attempt can not go beyond; None when the price or a bound is unknown.

    Pages, seconds of audio and characters are not bounded by tokens: what reads them has no ``input_upper``.
    """
    if price is None or input_upper is None or output_upper is None:
        return None
    costs = _ends(price, input_upper, output_upper)
    if costs is not None and price.long_context_from is not None and input_upper > price.long_context_from:
        within = _ends(price, price.long_context_from, output_upper)  # a shorter prompt may be the dearer one
        costs = None if within is None else costs + within
    return None if costs is None else max(costs)


def least_cost(price: Price | None, input_tokens: int) -> Decimal | None:
    """USD of the input alone, cached where that is cheaper; None when the price is unknown."""
    if price is None:
        return None
    costs = _ends(price, input_tokens, 0)
    return None if costs is None else min(costs)


def _ends(price: Price, input_tokens: int, output_tokens: int) -> list[Decimal] | None:
    """All of the input past the cache, read from it or written to it, for long too: a cost is linear in what is which."""
    usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, requests=1)
    ends = (
        price.cost(usage),
        price.cost(attrs.evolve(usage, cached_tokens=input_tokens)),
        price.cost(attrs.evolve(usage, cache_write_tokens=input_tokens)),
        price.cost(attrs.evolve(usage, cache_write_tokens=input_tokens, long_cache_write_tokens=input_tokens)),
    )
    known = [cost for cost in ends if cost is not None]
    return known if len(known) == len(ends) else None


def _is_plain(body: Mapping[str, Any]) -> bool:
    """Whether it is messages of text alone: seen at a tenth of the cost, and most are."""
    messages: Any = body.get("messages")
    if type(messages) is not list or not _BESIDE_MESSAGES.isdisjoint(body):
        return False
    for message in messages:  # pyright: ignore[reportUnknownVariableType] # a list of anything
        if type(message) is not dict or type(message.get("content")) is not str or not _NO_TEXT.isdisjoint(message):  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            return False
    return True


def _beyond_text(request: Request) -> Iterator[Mapping[str, Any]]:
    """The parts of a request whose tokens its bytes do not bound."""
    extra = request.body.get("extra_body")
    for body in (request.body, extra):
        if not isinstance(body, Mapping):
            continue
        members = cast("Mapping[str, Any]", body)
        for name in _UNSEEN:
            if members.get(name):
                yield {name: members[name]}
        if isinstance(template := members.get("prompt"), Mapping):  # stored at OpenAI; a text of FIM's is no mapping
            yield cast("Mapping[str, Any]", template)
        for name in ("messages", "input"):
            yield from _media(members.get(name))
        for tool in _list(members.get("tools")):
            if isinstance(tool, Mapping):
                spec = cast("Mapping[str, Any]", tool)
                if not _is_one_of(_TEXT_TOOLS, spec.get("type", "function")):
                    yield spec


def _media(value: object) -> Iterator[Mapping[str, Any]]:
    """The parts among messages, items and their contents that are no text; of unknown kinds too."""
    for each in _list(value):
        if isinstance(each, Mapping):
            part = cast("Mapping[str, Any]", each)
            if not _is_one_of(_TEXT_PARTS, part.get("type", "text")):
                yield part
                continue
            yield from _media(part.get("content"))
            yield from _media(part.get("output"))
        else:
            yield from _media(each)


def _is_one_of(kinds: frozenset[str], kind: object) -> bool:
    return isinstance(kind, str) and kind in kinds  # callers may write anything, unhashable things too


def _list(value: object) -> Sequence[object]:
    return cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else ()
