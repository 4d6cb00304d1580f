"""What all decoders of streamed answers share: how a stream goes wrong is told in the same words by each of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from bifrost_core.errors import CallError
from bifrost_core.kinds import Kind
from bifrost_core.providers._anthropic_stream import MessageStreamDecoder
from bifrost_core.providers._chat_stream import ChatStreamDecoder
from bifrost_core.providers._events import EventDecoder, event_type, most_events
from bifrost_core.providers._openai_audio import OpenAITranscriptionDecoder
from bifrost_core.providers._openai_responses import NativeResponsesDecoder
from bifrost_core.providers._reporter import Reporter
from bifrost_core.providers._transcription import TranscriptionStreamDecoder
from bifrost_core.types import Operation, Request

Make: TypeAlias = Callable[[Request, Reporter], EventDecoder[Any]]

DECODERS: tuple[Make, ...] = (
    ChatStreamDecoder,
    MessageStreamDecoder,
    NativeResponsesDecoder,
    OpenAITranscriptionDecoder,
    TranscriptionStreamDecoder,
)
every_decoder = pytest.mark.parametrize("make", [pytest.param(one, id=one.__name__) for one in DECODERS])


def asked(**body: Any) -> Request:
    return Request(operation=Operation.CHAT, model="vendor/any", body=body)


def ended(make: Make, data: bytes, step: int) -> CallError:
    """How a stream of these bytes ends, handed over in pieces."""
    decoder = make(asked(), Reporter("vendor", ()))
    for at in range(0, len(data), step):
        assert decoder.feed(data[at : at + step]) == []
    with pytest.raises(CallError) as caught:
        decoder.finish()
    assert decoder.error in (None, caught.value)
    return caught.value


@every_decoder
@pytest.mark.parametrize("step", [1, 1_000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        pytest.param(b"<html>", Kind.BAD_RESPONSE, "is a page of HTML", id="HTML"),
        pytest.param(b"[1]", Kind.BAD_RESPONSE, "holds a JSON answer that is no object", id="a list"),
        pytest.param(
            b'{"x": NaN}', Kind.BAD_RESPONSE, "holds a JSON answer that can not be read: it is not JSON", id="no JSON"
        ),
        pytest.param(b'{"text": "', Kind.BAD_RESPONSE, "holds a JSON answer that is cut off", id="cut off"),
        pytest.param(b"data: 3\n\n", Kind.STREAM_MALFORMED, "holds an event that is no object", id="a number"),
        pytest.param(
            b"data: {\n\n", Kind.STREAM_MALFORMED, "holds an event that can not be read: it is not JSON", id="half"
        ),
        pytest.param(b": on its way\n\n", Kind.STREAM_TRUNCATED, "ended before its answer did", id="nothing said"),
        pytest.param(b"", Kind.STREAM_TRUNCATED, "ended before its answer did", id="nothing"),
        pytest.param(b"data: {", Kind.STREAM_TRUNCATED, "ended before its answer did", id="half, without its end"),
    ],
)
def test_what_goes_wrong_is_told_alike(make: Make, step: int, data: bytes, kind: Kind, why: str) -> None:
    error = ended(make, data, step)
    assert (error.kind, error.message) == (kind, f"the stream of vendor {why}")


@every_decoder
def test_after_an_error_nothing_is_read(make: Make) -> None:
    decoder = make(asked(), Reporter("vendor", ()))
    decoder.feed(b"data: 3\n\n")
    first = decoder.error
    assert first is not None
    assert decoder.feed(b"<html>") == []
    assert (decoder.error, decoder.done, decoder.partial()) == (first, False, None)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        pytest.param(ChatStreamDecoder, Kind.STREAM_TRUNCATED, id="it ends a chat answer"),
        pytest.param(MessageStreamDecoder, Kind.STREAM_MALFORMED, id="Anthropic has none"),
        pytest.param(NativeResponsesDecoder, Kind.STREAM_TRUNCATED, id="it is left out of a response"),
        pytest.param(TranscriptionStreamDecoder, Kind.STREAM_TRUNCATED, id="it is left out of a transcription"),
    ],
)
def test_a_mark_in_place_of_an_event_is_the_vendors_affair(make: Make, kind: Kind) -> None:
    assert ended(make, b"data: [DONE]\n\n", 1_000).kind is kind


@pytest.mark.parametrize(
    ("body", "choices", "most"),
    [
        pytest.param({}, 1, None, id="no limit"),
        pytest.param({"max_tokens": 10}, 1, 276, id="max_tokens"),
        pytest.param({"max_completion_tokens": 10}, 3, 316, id="three choices"),
        pytest.param({"max_tokens": 0}, 1, 256, id="nothing"),
        pytest.param({"max_tokens": "10"}, 1, None, id="no number"),
        pytest.param({"max_tokens": 10, "extra_body": {"max_tokens": 99}}, 1, None, id="the body may say otherwise"),
    ],
)
def test_an_output_limit_bounds_the_events(body: dict[str, Any], choices: int, most: int | None) -> None:
    assert most_events(asked(**body), choices) == most


@pytest.mark.parametrize(
    ("name", "event", "kind"),
    [
        pytest.param(b"a", {"type": "b"}, "b", id="its own member"),
        pytest.param(b"a", {"type": 3}, "a", id="a number is none"),
        pytest.param(b"\xff", {}, "\ufffd", id="no UTF-8"),
    ],
)
def test_the_type_of_an_event_stands_in_it_or_in_front(name: bytes, event: dict[str, Any], kind: str) -> None:
    assert event_type(name, event) == kind
