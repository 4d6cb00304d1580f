"""Answers: what they hold, and that replaced words are nowhere behind them."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from bifrost_core import (
    ChatResponse,
    Choice,
    EmbeddingResponse,
    ModelInfo,
    ModerationResponse,
    ModerationResult,
    OcrPage,
    OcrResponse,
    Response,
    ResponsesResponse,
    Segment,
    ToolCall,
    Transcription,
    Usage,
)

OLD = "the old words"
CALL = ToolCall("abc123def", "add", "{}")


def chat(**changes: Any) -> ChatResponse:
    message = {"role": "assistant", "content": [{"type": "thinking", "thinking": []}, {"type": "text", "text": OLD}]}
    raw = {
        "id": "r1",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": "stop",
                "logprobs": {"content": [{"token": OLD}]},
            }
        ],
        "usage": {"prompt_tokens": 3},
    }
    choice = Choice(text=OLD, reasoning="thought", finish_reason="stop", message=message)
    fields: dict[str, Any] = {
        "model": "m",
        "choices": (choice,),
        "usage": Usage(input_tokens=3, output_tokens=5, cached_tokens=2, reasoning_tokens=1),
        "raw": raw,
        "call_id": "c1",
    }
    return ChatResponse(**{**fields, **changes})


RESPONSES_RAW: dict[str, Any] = {
    "id": "resp_1",
    "output_text": OLD,
    "output": [
        {"type": "reasoning", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "content": [
                {"type": "output_text", "text": OLD, "annotations": [{"quote": OLD}], "logprobs": [OLD]},
                {"type": "output_text", "text": OLD},
                {"type": "refusal", "refusal": "no"},
            ],
        },
        {"type": "message", "id": "msg_2", "content": [{"type": "output_text", "text": OLD}]},
    ],
}

WITH_TEXT: dict[str, Response] = {
    "chat": chat(),
    "chat-without-choices": ChatResponse(),
    "transcription": Transcription(
        text=OLD,
        segments=(Segment(text=OLD, start=0.0, end=1.0),),
        raw={"text": OLD, "segments": [{"text": OLD}], "words": [OLD], "language": "en", "model": "v"},
    ),
    "ocr": OcrResponse(
        pages=(OcrPage(index=0, markdown=OLD, images=[{"image_annotation": OLD}]), OcrPage(index=1, markdown=OLD)),
        annotation={"title": OLD},
        raw={
            "model": "o",
            "pages": [{"markdown": OLD}],
            "document_annotation": OLD,
            "usage_info": {"pages_processed": 2},
        },
    ),
    "responses": ResponsesResponse(output=RESPONSES_RAW["output"], raw=RESPONSES_RAW),
    "responses-without-text": ResponsesResponse(),
}


def text_of(response: Any) -> str:
    text: str = response.output_text if isinstance(response, ResponsesResponse) else response.text
    return text.strip()


@pytest.mark.parametrize("kind", WITH_TEXT)
def test_words_that_are_replaced_are_nowhere_behind_the_answer(kind: str) -> None:
    response = WITH_TEXT[kind]
    changed = response.with_text("new")
    assert type(changed) is type(response)
    assert text_of(changed) == "new"
    assert OLD not in str(attrs.asdict(changed))
    if hasattr(changed, "to_openai"):
        assert OLD not in json.dumps(changed.to_openai())
        assert "new" in json.dumps(changed.to_openai())
    if hasattr(changed, "message"):
        assert "new" in str(changed.message)
    assert response.raw == {} or OLD in str(response.raw)  # the original is what it was


@pytest.mark.parametrize(
    "response", [EmbeddingResponse(), ModerationResponse(), Response()], ids=lambda value: type(value).__name__
)
def test_an_answer_without_text_has_none_to_replace(response: Response) -> None:
    with pytest.raises(TypeError, match=type(response).__name__):
        response.with_text("new")


def test_reasoning_and_other_choices_keep_their_words() -> None:
    both = chat(choices=(*chat().choices, Choice(index=1, text="second")))
    changed = both.with_text("new")
    assert changed.reasoning == "thought"
    assert [choice.text for choice in changed.choices] == ["new", "second"]
    assert changed.message["content"] == [{"type": "thinking", "thinking": []}, {"type": "text", "text": "new"}]


def test_the_first_choice_is_at_hand() -> None:
    response = chat(choices=(Choice(text="a", reasoning="r", tool_calls=(CALL,), finish_reason="tool_calls"),))
    assert (response.text, response.reasoning, response.tool_calls, response.finish_reason) == (
        "a",
        "r",
        (CALL,),
        "tool_calls",
    )
    assert response.message == {"role": "assistant", "content": "a", "tool_calls": [CALL.to_openai()]}


def test_an_answer_without_choices_says_nothing() -> None:
    response = ChatResponse()
    assert (response.text, response.reasoning, response.tool_calls, response.finish_reason) == ("", None, (), None)
    assert response.message == {"role": "assistant", "content": ""}
    assert response.parsed is None


def test_the_openai_shape() -> None:
    assert chat().to_openai() == {
        "id": "r1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": OLD, "reasoning_content": "thought"},
                "finish_reason": "stop",
                "logprobs": None,
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 5,
            "total_tokens": 8,
            "prompt_tokens_details": {"cached_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 1},
        },
    }


def test_tokens_written_to_a_cache_are_in_the_openai_shape_where_there_are_any() -> None:
    made = chat(usage=Usage(input_tokens=9, cached_tokens=2, cache_write_tokens=4)).to_openai()
    assert made["usage"]["prompt_tokens_details"] == {"cached_tokens": 2, "cache_write_tokens": 4}


def test_tool_calls_in_the_openai_shape_have_no_empty_content() -> None:
    made = ChatResponse(choices=(Choice(tool_calls=(CALL,)),), call_id="c1").to_openai()
    assert made["id"] == "c1"
    assert made["choices"][0]["message"] == {"role": "assistant", "content": None, "tool_calls": [CALL.to_openai()]}


def test_a_parser_sees_the_text_as_it_stands() -> None:
    response = chat(choices=(Choice(text='{"n": 1}'),)).with_parser(json.loads)
    assert response.parsed == {"n": 1}
    assert response.with_text('{"n": 2}').parsed == {"n": 2}
    assert attrs.evolve(response, cached=True).parsed == {"n": 1}


def test_pages_are_joined() -> None:
    response = OcrResponse(pages=[OcrPage(index=0, markdown="a"), OcrPage(index=1, markdown="b")])
    assert response.text == "a\n\nb"


def test_text_parts_of_all_messages_are_joined() -> None:
    response = ResponsesResponse(output=RESPONSES_RAW["output"], raw={**RESPONSES_RAW, "status": "completed"})
    assert response.output_text == OLD * 3
    assert response.to_openai()["status"] == "completed"


def test_one_category_flags() -> None:
    assert ModerationResult(categories={"pii": False, "law": True}, scores={}).flagged
    assert not ModerationResult(categories={"pii": False}, scores={"pii": 0.4}).flagged
    assert not ModerationResult(categories={}, scores={}).flagged


def test_lists_become_tuples() -> None:
    assert ModelInfo(id="p/m", provider="p", name="m", aliases=["n"], capabilities=["chat"]) == ModelInfo(
        id="p/m", provider="p", name="m", aliases=("n",), capabilities=frozenset({"chat"})
    )
    assert EmbeddingResponse(embeddings=[[1.0], [2.0]]).embeddings == ([1.0], [2.0])


def test_an_answers_repr_holds_no_raw_json_and_no_headers() -> None:
    response = chat(headers={"x-header": "hidden"}, raw={"hidden": 1})
    assert "hidden" not in repr(response)
