"""What holds for any chat: streamed and plain answers are one, bytes may be cut anywhere, no word is lost on the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.errors import BadRequestError, BifrostError
from bifrost_core.providers import Mistral
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Chunk, Request
from bifrost_core.wire import HttpReply

Draw = Callable[[st.SearchStrategy[Any]], Any]

KEY = "sk-properties-0123456789"
MISTRAL = Mistral(KEY)
ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}

# --- answers of any kind, and the streams that say the same

WORDS = st.text(st.sampled_from('aé東🌈\u2028\n"\\ :{'), max_size=12)
SAID = st.text(st.sampled_from('aé東🌈\u2028\n" '), min_size=1, max_size=12)
ARGUMENTS = st.dictionaries(st.sampled_from("abc"), WORDS | st.integers() | st.none(), max_size=2).map(json.dumps)


@st.composite
def messages(draw: st.DrawFn) -> dict[str, Any]:
    content: Any = draw(WORDS)
    if draw(st.booleans()):
        thought: dict[str, Any] = {
            "type": "thinking",
            "thinking": [{"type": "text", "text": draw(SAID)}],
            "closed": True,
        }
        content = [thought, {"type": "text", "text": draw(SAID)}][: draw(st.integers(1, 2))]
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if calls := draw(st.lists(ARGUMENTS, max_size=3)):
        message["tool_calls"] = [
            {"id": draw(st.sampled_from([f"AAAAAAAA{at}", f"chatcmpl-tool-{at}", "null"])),
             "type": "function", "function": {"name": f"f{at}", "arguments": arguments}, "index": at}
            for at, arguments in enumerate(calls)
        ]  # fmt: skip
    return message


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    choices = [
        {"index": at, "message": message, "finish_reason": draw(st.sampled_from(["stop", "length", "tool_calls", "model_length"]))}
        for at, message in enumerate(draw(st.lists(messages(), min_size=1, max_size=3)))
    ]  # fmt: skip
    counts = st.integers(0, 1 << 40)
    usage = {
        "prompt_tokens": draw(counts),
        "completion_tokens": draw(counts),
        "total_tokens": draw(counts),
        "prompt_tokens_details": {"cached_tokens": draw(counts)},
        "prompt_audio_seconds": draw(st.none() | st.integers(0, 1000)),
    }
    return {"id": "a1", "object": "chat.completion", "created": 1, "model": "m-2", "choices": choices, "usage": usage}


def pieces(draw: Draw, text: str) -> list[str]:
    cuts = sorted(draw(st.sets(st.integers(1, len(text) - 1), max_size=3))) if len(text) > 1 else []
    return [text[begin:end] for begin, end in pairwise([0, *cuts, len(text)])]


def deltas(draw: Draw, message: dict[str, Any]) -> list[dict[str, Any]]:
    """A message in pieces: text as strings or parts, thoughts as parts, calls whole or bit by bit."""
    made: list[dict[str, Any]] = [{"role": "assistant", "content": ""}] if draw(st.booleans()) else []
    content: Any = message["content"]
    parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
    for part in parts:
        if part["type"] == "thinking":
            for thought in pieces(draw, part["thinking"][0]["text"]):
                made.append({"content": [{**part, "thinking": [{"type": "text", "text": thought}]}]})
        else:
            for text in pieces(draw, part["text"]):
                made.append({"content": draw(st.sampled_from([text, [{"type": "text", "text": text}]]))})
    calls = message.get("tool_calls", [])
    if calls and draw(st.booleans()):
        return [*made, {"tool_calls": calls, "content": draw(st.sampled_from([None, ""]))}]
    for call in calls:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        made.append({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        for bit in pieces(draw, arguments):
            made.append({"tool_calls": [{"index": call["index"], "function": {"name": "", "arguments": bit}}]})
    return made


@st.composite
def events(draw: st.DrawFn, answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream that says ``answer``; its choices in any mixture, each in its own order."""
    waiting: list[list[dict[str, Any]]] = []
    for choice in answer["choices"]:
        said = [
            {"index": choice["index"], "delta": one, "finish_reason": None} for one in deltas(draw, choice["message"])
        ]
        if not said or draw(st.booleans()):
            said.append({"index": choice["index"], "delta": {"content": draw(st.sampled_from(["", None]))}})
        said[-1]["finish_reason"] = choice["finish_reason"]
        waiting.append(said)
    made: list[dict[str, Any]] = []
    head = {"id": answer["id"], "object": "chat.completion.chunk", "created": 1, "model": answer["model"]}
    while waiting:
        place = draw(st.integers(0, len(waiting) - 1))
        made.append({**head, "choices": [waiting[place].pop(0)], "p": "abc"})
        waiting = [one for one in waiting if one]
    made[-1]["usage"] = answer["usage"]
    return made


def spelled(draw: Draw, made: list[dict[str, Any]]) -> bytes:
    """Events as bytes, in any way that the standard allows."""
    end: str = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text: str = draw(st.sampled_from(["", "\ufeff"])) + draw(st.sampled_from(["", "", ": hello\n\n", "\n"]))
    for event in [
        *(json.dumps(one, ensure_ascii=False, indent=draw(st.sampled_from([None, 0]))) for one in made),
        "[DONE]",
    ]:
        text += draw(
            st.sampled_from(["", "", "", ": keep-alive\n", ": keep-alive\n\n", "id: 7\n", "retry: 10\n", "event: x\n"])
        )
        blank = draw(st.sampled_from([" ", ""]))
        text += "".join(f"data:{blank}{line}\n" for line in event.split("\n")) + "\n"
    return text.replace("\n", end).encode()


def cut(draw: Draw, stream: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(1, len(stream) - 1), max_size=30)))
    return [stream[begin:end] for begin, end in pairwise([0, *places, len(stream)])]


def read(parts: list[bytes], n: int) -> tuple[list[Chunk], ChatResponse]:
    decoder = MISTRAL.decoder(Request("chat", "m", {**ASK, "n": n}, stream=True))
    chunks = [chunk for part in parts for chunk in decoder.feed(part)]
    response = decoder.finish()
    assert isinstance(response, ChatResponse)
    return chunks, response


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_streamed_answer_is_the_plain_one_however_it_is_cut_and_spelled(data: st.DataObject) -> None:
    answer = data.draw(answers())
    made = data.draw(events(answer))
    stream = spelled(data.draw, made)
    chunks, streamed = read(cut(data.draw, stream), len(answer["choices"]))
    plain = MISTRAL.decode(Request("chat", "m", ASK), HttpReply(200, {}, json.dumps(answer).encode()))
    assert isinstance(plain, ChatResponse)
    assert (streamed.usage, streamed.model) == (plain.usage, plain.model)
    for one, other in zip(streamed.choices, plain.choices, strict=True):
        assert attrs.evolve(one, message={}) == attrs.evolve(other, message={})
        assert one.message["content"] == other.message["content"]
        told = [chunk for chunk in chunks if chunk.index == one.index]
        assert "".join(chunk.text for chunk in told) == one.text
        assert "".join(chunk.reasoning or "" for chunk in told) == (one.reasoning or "")
        assert sorted(call.id for chunk in told for call in chunk.tool_calls) == sorted(
            call.id for call in one.tool_calls
        )
    assert [chunk.usage for chunk in chunks if chunk.usage] == [plain.usage] * bool(made[-1]["usage"])
    assert chunks == read([stream], len(answer["choices"]))[0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_stream_that_ends_early_is_never_a_shorter_answer(data: st.DataObject) -> None:
    answer = data.draw(answers())
    made = data.draw(events(answer))
    kept = made[: data.draw(st.integers(0, len(made) - 1))]
    done = b"data: [DONE]\n\n" if data.draw(st.booleans()) else b""
    stream = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in kept) + done
    decoder = MISTRAL.decoder(Request("chat", "m", {**ASK, "n": len(answer["choices"])}, stream=True))
    chunks = decoder.feed(stream)
    finished = {choice["index"] for event in kept for choice in event["choices"] if choice.get("finish_reason")}
    begun = {choice["index"] for event in kept for choice in event["choices"]}
    if done and begun and begun == finished:  # the provider itself says that this is all
        assert isinstance(decoder.finish(), ChatResponse)
        return
    if not done and len(finished) == len(answer["choices"]):
        assert isinstance(decoder.finish(), ChatResponse)  # nothing is missing but what has no words
        return
    with pytest.raises(BifrostError) as caught:
        decoder.finish()
    assert getattr(caught.value, "kind", None) == "stream_truncated"
    partial = getattr(caught.value, "partial", None)
    assert (partial is not None) >= any(chunk.has_content for chunk in chunks)
    if partial is not None:
        for choice in partial.choices:
            assert choice.text == "".join(chunk.text for chunk in chunks if chunk.index == choice.index)


# --- no word of a request is lost

SILENT = {"name", "metadata", "annotations", "provider_specific_fields", "cache_control", "extra_content"}
MEMBERS = st.sampled_from(
    ["role", "content", "name", "type", "text", "image_url", "url", "detail", "file", "file_id", "file_data", "filename",
     "thinking", "signature", "closed", "refusal", "reasoning_content", "tool_calls", "tool_call_id", "id", "function",
     "arguments", "prefix", "input_audio", "data", "format", "document_url", "document_name", "weight", *SILENT]
)  # fmt: skip
KINDS = st.sampled_from(
    ["text", "image_url", "input_audio", "document_url", "file", "thinking", "reference", "function"]
)


@st.composite
def marked(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, str]]:
    """A message of any members with a word of its own in every place, and the member in which each word stands."""
    marks: dict[str, str] = {}

    def value(member: str, room: int) -> Any:
        shape = draw(st.integers(0, 3 if room else 1))
        if member == "type":
            return draw(KINDS)
        if shape == 2:
            return [value(member, room - 1) for _ in range(draw(st.integers(0, 2)))]
        if shape == 3:
            return {name: value(name, room - 1) for name in draw(st.lists(MEMBERS, max_size=4, unique=True))}
        mark = f"word-{len(marks)}-"
        marks[mark] = member
        return mark

    message = {name: value(name, 3) for name in draw(st.lists(MEMBERS, max_size=5, unique=True))}
    message["role"] = draw(st.sampled_from(["system", "user", "assistant", "tool", "developer"]))
    return message, {mark: member for mark, member in marks.items() if mark in json.dumps(message)}


def under_silence(message: Any, mark: str) -> bool:
    """Whether the word stands somewhere inside a member that says nothing to the model."""
    if isinstance(message, dict):
        return any(
            mark in json.dumps(value) and (name in SILENT or under_silence(value, mark))
            for name, value in message.items()
        )
    return isinstance(message, list) and any(under_silence(one, mark) for one in message)


@settings(max_examples=250, deadline=None)
@given(given_=marked())
def test_every_word_of_a_message_is_sent_or_its_place_refused(given_: tuple[dict[str, Any], dict[str, str]]) -> None:
    message, marks = given_
    before = json.dumps(message)
    written = refused = ""
    try:
        written = MISTRAL.encode(Request("chat", "m", {"messages": [message]})).body.decode()
    except BadRequestError as refusal:
        refused = str(refusal)
    assert json.dumps(message) == before
    assert written or "messages[0]" in refused
    if not written:
        return
    for mark, member in marks.items():
        # An id in another form is written anew; a foreign signature proves nothing; of two reasonings one is said.
        if mark not in written and member not in {"id", "tool_call_id", "signature", "refusal", "reasoning_content"}:
            assert under_silence(message, mark), (mark, member)


# --- anything on the wire


@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"data: ", b"data: {", b'data: {"choices":[{"delta":{"content":"\\ud8', b"event: error\ndata:"]),
    rest=st.lists(st.binary(max_size=20) | st.sampled_from([b"\n\n", b'"}', b"[" * 300, b"\xed\xa0\x80", b"00"]), max_size=6),
    status=st.sampled_from([200, 400, 403, 429, 503]),
)  # fmt: skip
def test_no_bytes_raise_anything_but_our_own_errors(start: bytes, rest: list[bytes], status: int) -> None:
    decoder = MISTRAL.decoder(Request("chat", "m", ASK, stream=True))
    with pytest.raises(BifrostError):
        for part in [start, *rest]:
            for chunk in decoder.feed(part):
                chunk.text.encode()
        decoder.finish()
    with pytest.raises(BifrostError) as caught:
        MISTRAL.decode(Request("chat", "m", ASK), HttpReply(status, {}, b"".join([start, *rest])))
    str(caught.value).encode()
