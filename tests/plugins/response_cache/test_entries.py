"""Answers as bytes: nothing is lost, nothing is shared, and what is not understood is a miss."""

from __future__ import annotations

from array import array
from decimal import Decimal
from typing import Any, TypedDict

import attrs
import pytest
from bifrost_plugins.response_cache._entries import from_bytes, is_whole, to_bytes

from bifrost_core import (
    ChatResponse,
    Choice,
    ClassificationResponse,
    EmbeddingResponse,
    ModelInfo,
    ModelList,
    ModerationResponse,
    ModerationResult,
    OcrPage,
    OcrResponse,
    Operation,
    Request,
    Response,
    ResponsesResponse,
    RouteRef,
    Segment,
    SpeechResponse,
    ToolCall,
    Transcription,
    Usage,
)

COMMON: dict[str, Any] = {
    "model": "small-2506",
    "usage": Usage(input_tokens=3, output_tokens=5, cached_tokens=1, audio_seconds=0.1, pages=2, requests=1),
    "cost": Decimal("0.00000012345678901234567890"),
    "route": RouteRef("mistral", "small", "k_1"),
    "headers": {"content-type": "application/json"},
}
CALL = ToolCall("id1", "find", '{"q": "ü"}')
MESSAGE = {"role": "assistant", "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]}
VECTOR = [0.1, -2.5e-17, 3, 1e300]
ANSWERS: list[Response] = [
    ChatResponse(
        **COMMON,
        choices=[
            Choice(text="hi", reasoning="hm", finish_reason="stop", message=MESSAGE),
            Choice(index=1, tool_calls=[CALL], finish_reason="tool_calls"),
        ],
        raw={"id": "x", "n": 12345678901234567890, "f": 0.1, "none": None, "deep": [{"a": [1.0, 1, True]}]},
    ),
    ResponsesResponse(**COMMON, id="resp_1", output=[{"type": "message", "content": []}], raw={"choices": []}),
    EmbeddingResponse(**COMMON, embeddings=[VECTOR], raw={"data": [{"embedding": VECTOR}]}),
    EmbeddingResponse(
        **COMMON, embeddings=[array("f", [0.1, 2.5]), array("b", [1, -1])], raw={"data": [{"embedding": "zc"}]}
    ),
    EmbeddingResponse(**COMMON, embeddings=[[1, 2.5]], raw={}),
    Transcription(
        **COMMON, text="hello", language="en", segments=[Segment(text="hello", start=0.0, end=1.5, speaker="a")]
    ),
    OcrResponse(
        **COMMON,
        pages=[
            OcrPage(index=0, markdown="# a", images=[{"id": 1}], dimensions={"dpi": 200}),
            OcrPage(index=1, markdown=""),
        ],
        annotation={"a": [1, 2.0]},
    ),
    ModerationResponse(**COMMON, results=[ModerationResult(categories={"sex": True}, scores={"sex": 0.75})]),
    ClassificationResponse(**COMMON, results=[{"intent": {"buy": 0.25}}]),
    SpeechResponse(**COMMON, audio=bytes(range(256)), format="wav"),
    ModelList(**COMMON, models=[ModelInfo(id="m/a", provider="m", name="a", aliases=("b",), capabilities=("chat",))]),
]
REQUEST = Request(Operation.CHAT, "mistral/small")
every_answer = pytest.mark.parametrize(
    "answer", [pytest.param(each, id=f"{number}-{type(each).__name__}") for number, each in enumerate(ANSWERS)]
)


def through(answer: Response, request: Request = REQUEST) -> Any:
    data = to_bytes(answer, at=12.5)
    assert data is not None
    entry = from_bytes(data, request)
    assert entry is not None
    assert entry.stored_at == 12.5
    return attrs.evolve(entry.response, cost=entry.cost)


@every_answer
def test_an_answer_comes_back_the_same(answer: Response) -> None:
    back = through(answer)
    assert type(back) is type(answer)
    assert back == answer
    assert repr(back.raw) == repr(answer.raw)  # 1 is not 1.0 and not True
    assert str(back.cost) == str(answer.cost)


def test_vectors_keep_their_form() -> None:
    plain, packed, odd = (each for each in ANSWERS if isinstance(each, EmbeddingResponse))
    back = through(plain)
    assert back.embeddings[0] is back.raw["data"][0]["embedding"]
    assert repr(back.embeddings[0]) == repr(VECTOR)
    assert [vector.typecode for vector in through(packed).embeddings] == ["f", "b"]
    assert repr(through(odd).embeddings) == repr(odd.embeddings)


@every_answer
def test_a_copy_belongs_to_the_one_who_asked(answer: Response) -> None:
    data = to_bytes(answer, at=0.0)
    assert data is not None
    first = from_bytes(data, REQUEST)
    assert first is not None
    first.response.raw["poison"] = True
    for value in first.response.raw.values():
        if isinstance(value, list):
            value.clear()
    second = from_bytes(data, REQUEST)
    assert second is not None
    assert second.response.raw == answer.raw


def test_what_belongs_to_a_call_or_a_moment_is_not_kept() -> None:
    headers = {"content-type": "x", "x-ratelimit-remaining": "1", "retry-after": "1", "set-cookie": "canary"}
    told = attrs.evolve(ANSWERS[0], headers=headers, call_id="call_1", latency=3.0, time_to_first_token=1.0)
    back = through(told)
    assert (back.headers, back.call_id, back.latency, back.time_to_first_token) == (
        {"content-type": "x"},
        "",
        0.0,
        None,
    )


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: data.replace(b"bifrost-response/2", b"bifrost-response/1"), id="another version"),
        pytest.param(lambda data: data[:-1], id="cut off"),
        pytest.param(lambda data: data[:19], id="nothing but the head"),
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: data.replace(b'"chat"', b'"chit"'), id="an unknown kind"),
        pytest.param(lambda data: data.replace(b'"cost":"1', b'"cost":"x'), id="a cost that is no number"),
        pytest.param(lambda data: b"\x80\x04K\x01.", id="a pickle"),
    ],
)
def test_what_is_not_understood_is_a_miss(damage: Any) -> None:
    data = to_bytes(ANSWERS[0], at=0.0)
    assert data is not None
    assert from_bytes(damage(data), REQUEST) is None


def test_what_would_not_come_back_the_same_is_not_kept() -> None:
    class Own(ChatResponse):
        pass

    assert to_bytes(Own(), at=0.0) is None
    assert to_bytes(ChatResponse(raw={"a": object()}), at=0.0) is None


def test_an_annotation_is_read_by_the_class_of_the_one_who_asks() -> None:
    class Invoice(TypedDict):
        total: int

    request = Request(Operation.OCR, "mistral/ocr", {"document_annotation_format": Invoice})
    answer = OcrResponse(annotation='{"total": 3}', parse=lambda text: "of the one who asked first")
    assert through(answer, request).annotation == {"total": 3}


@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        pytest.param(ChatResponse(choices=[Choice(finish_reason="stop")]), True, id="stop"),
        pytest.param(ChatResponse(choices=[Choice(finish_reason="tool_calls")]), True, id="tool calls"),
        pytest.param(ChatResponse(choices=[Choice(finish_reason="length")]), False, id="length"),
        pytest.param(ChatResponse(choices=[Choice(finish_reason="model_length")]), False, id="model_length"),
        pytest.param(ChatResponse(choices=[Choice(finish_reason="content_filter")]), False, id="content filter"),
        pytest.param(ChatResponse(choices=[Choice(finish_reason="error")]), False, id="error"),
        pytest.param(ChatResponse(choices=[Choice()]), False, id="no reason"),
        pytest.param(
            ChatResponse(choices=[Choice(finish_reason="stop"), Choice(index=1, finish_reason="length")]),
            False,
            id="one of two cut off",
        ),
        pytest.param(ChatResponse(), False, id="no choice"),
        pytest.param(ChatResponse(choices=[Choice(finish_reason="stop")], resumed=True), False, id="resumed"),
        pytest.param(ResponsesResponse(status="completed"), True, id="completed"),
        pytest.param(
            ResponsesResponse(status="incomplete", incomplete_reason="max_output_tokens"), False, id="incomplete"
        ),
        pytest.param(EmbeddingResponse(), True, id="vectors"),
    ],
)
def test_what_is_whole(answer: Response, *, whole: bool) -> None:
    assert is_whole(answer) is whole
