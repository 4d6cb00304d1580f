"""What Anthropic's SDK sends, as the request that every provider reads.

Forms: https://platform.claude.com/docs/en/api/messages/create.
"""

from __future__ import annotations

import base64
import json
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.dialects import Inbound, Order
from bifrost_core.dialects.anthropic import AnthropicDialect
from bifrost_core.errors import CallError, UnsupportedParameterError
from bifrost_core.providers import Anthropic
from bifrost_core.types import Operation, Request

Json: TypeAlias = dict[str, Any]

MODEL = "mistral/mistral-small-latest"
HELLO: list[Json] = [{"role": "user", "content": "hello"}]
CACHED: Json = {"type": "ephemeral"}
SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PDF = base64.b64encode(b"%PDF-1.7 tiny").decode()


def ordered(body: Json, headers: dict[str, str] | None = None) -> Order:
    written = json.dumps({"model": MODEL, "max_tokens": 64, "messages": HELLO, **body}).encode()
    return AnthropicDialect().parse(Inbound("POST", "messages", headers or {}, written))


def canonical(body: Json, headers: dict[str, str] | None = None) -> Json:
    return dict(ordered(body, headers).request.body)


def turns(*messages: Json, **members: Any) -> list[Json]:
    written: list[Json] = canonical({"messages": list(messages), **members})["messages"]
    return written


def test_a_plain_request_is_a_chat_request() -> None:
    order = ordered({"system": "Be brief.", "temperature": 0.5, "top_k": 5, "metadata": {"user_id": "u"}})
    assert (order.request.operation, order.request.model, order.request.stream) == (Operation.CHAT, MODEL, False)
    assert order.fallbacks is None
    assert order.request.body == {
        "max_tokens": 64,
        "messages": [{"role": "system", "content": "Be brief."}, *HELLO],
        "temperature": 0.5,
        "top_k": 5,
        "metadata": {"user_id": "u"},
    }


def test_a_stream_and_fallbacks_are_the_calls_own() -> None:
    order = ordered({"stream": True, "fallbacks": ["mistral/a", {"model": "anthropic/b"}]})
    assert order.request.stream
    assert order.fallbacks == ("mistral/a", "anthropic/b")
    assert set(order.request.body) == {"max_tokens", "messages"}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        pytest.param({"stop_sequences": ["END"]}, {"stop": ["END"]}, id="stop"),
        pytest.param({"stop_sequences": [], "tools": [], "system": None}, {}, id="nothing-asked"),
        pytest.param({"tool_choice": {"type": "auto"}}, {"tool_choice": "auto"}, id="auto"),
        pytest.param({"tool_choice": {"type": "any"}}, {"tool_choice": "required"}, id="any"),
        pytest.param({"tool_choice": {"type": "none"}}, {"tool_choice": "none"}, id="none"),
        pytest.param(
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": False},
            id="one-tool-alone",
        ),
        pytest.param(
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
            {"tool_choice": "auto"},
            id="parallel",
        ),
        pytest.param(
            {"tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}]},
            {"tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}]},
            id="tool",
        ),
        pytest.param(
            {
                "tools": [
                    {"type": "custom", "name": "f", "input_schema": SCHEMA, "strict": True, "cache_control": CACHED}
                ]
            },
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {"name": "f", "parameters": SCHEMA, "strict": True},
                        "cache_control": CACHED,
                    }
                ]
            },
            id="tool-with-more",
        ),
        pytest.param(
            {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]},
            {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]},
            id="served-tool",
        ),
        pytest.param(
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "high"}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                },
                "output_config": {"effort": "high"},
            },
            id="format-and-effort",
        ),
        pytest.param(
            {"output_format": {"type": "json_schema", "schema": {**SCHEMA, "title": "A place"}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "A_place", "schema": {**SCHEMA, "title": "A place"}, "strict": True},
                }
            },
            id="format-by-itself",
        ),
        pytest.param(
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "service_tier": "auto", "inference_geo": "us"},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "service_tier": "auto", "inference_geo": "us"},
            id="anthropics-own",
        ),
    ],
)
def test_members_are_put_into_the_common_shape(body: Json, wanted: Json) -> None:
    assert canonical(body) == {"max_tokens": 64, "messages": HELLO, **wanted}


def test_betas_of_the_header_and_of_the_body_are_one_list() -> None:
    body = canonical({"betas": ["c", "a"]}, {"anthropic-beta": "a, b,,a"})
    assert body["betas"] == ["a", "b", "c"]
    assert "betas" not in canonical({}, {"anthropic-beta": " "})


@pytest.mark.parametrize("name", ["anthropic-workspace-id", "anthropic-user-profile-id"])
def test_a_header_that_chooses_within_the_callers_account_is_refused(name: str) -> None:
    with pytest.raises(UnsupportedParameterError) as caught:
        ordered({}, {name: "x"})
    assert caught.value.parameter == name


# --- the conversation


def test_blocks_of_the_system_keep_their_cache_marks() -> None:
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": CACHED}]
    assert turns(*HELLO, system=blocks) == [{"role": "system", "content": blocks}, *HELLO]


@pytest.mark.parametrize(
    ("block", "part"),
    [
        pytest.param({"type": "text", "text": "hi"}, {"type": "text", "text": "hi"}, id="text"),
        pytest.param(
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            id="image",
        ),
        pytest.param(
            {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}, "cache_control": CACHED},
            {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}, "cache_control": CACHED},
            id="image-link",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
            {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
            id="pdf",
        ),
        pytest.param(
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
                "title": "a.txt",
                "cache_control": CACHED,
                "context": None,
            },
            {
                "type": "file",
                "file": {"file_data": "data:text/plain;base64,R3LDvMOfZQ==", "filename": "a.txt"},
                "cache_control": CACHED,
            },
            id="plain-text",
        ),
        pytest.param(
            {"type": "document", "source": {"type": "url", "url": "https://x.test/a.pdf"}, "title": "A"},
            {"type": "document_url", "document_url": "https://x.test/a.pdf", "document_name": "A"},
            id="document-link",
        ),
    ],
)
def test_blocks_become_parts_that_all_providers_know(block: Json, part: Json) -> None:
    assert turns({"role": "user", "content": [block]}) == [{"role": "user", "content": [part]}]


@pytest.mark.parametrize(
    "block",
    [
        pytest.param({"type": "image", "source": {"type": "file", "file_id": "f"}}, id="image-file"),
        pytest.param({"type": "image", "source": {"type": "url", "url": "ftp://x"}}, id="other-link"),
        pytest.param(
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
                "transformations": {},
            },
            id="image-with-more",
        ),
        pytest.param(
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "citations": {"enabled": True},
            },
            id="document-with-citations",
        ),
        pytest.param({"type": "document", "source": {"type": "content", "content": "x"}}, id="document-of-blocks"),
        pytest.param(
            {"type": "document", "source": {"type": "text", "media_type": "text/html", "data": "x"}}, id="no-plain-text"
        ),
        pytest.param(
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": 1}}, id="no-text"
        ),
        pytest.param({"type": "redacted_thinking", "data": "c2VhbGVk"}, id="sealed-thoughts"),
        pytest.param({"type": "search_result", "source": "s", "title": "t", "content": []}, id="search-result"),
    ],
)
def test_blocks_without_an_equal_stay_as_they_are(block: Json) -> None:
    assert turns({"role": "user", "content": [block]}) == [{"role": "user", "content": [block]}]


def test_results_of_tools_are_messages_in_front_of_the_turn() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
    written = turns(
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "7"},
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": [{"type": "text", "text": "x"}, image]},
                {"type": "tool_result", "tool_use_id": "toolu_3", "is_error": True, "cache_control": CACHED},
                {"type": "tool_result", "tool_use_id": "toolu_4", "content": "", "is_error": False},
                {"type": "text", "text": "and now?"},
            ],
        }
    )
    assert written == [
        {"role": "tool", "tool_call_id": "toolu_1", "content": "7"},
        {
            "role": "tool",
            "tool_call_id": "toolu_2",
            "content": [
                {"type": "text", "text": "x"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_3", "content": "", "is_error": True, "cache_control": CACHED},
        {"role": "tool", "tool_call_id": "toolu_4", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "and now?"}]},
    ]


def test_calls_stand_beside_what_an_assistant_says() -> None:
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    said = {"type": "text", "text": "I look."}
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 1, "a": [1.5, None]}}
    other = {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}, "caller": {"type": "direct"}}
    written = turns(*HELLO, {"role": "assistant", "content": [thought, said, call, other]})
    assert written[1] == {
        "role": "assistant",
        "content": [thought, said],
        "tool_calls": [
            {"id": "toolu_1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":[1.5,null]}'}},
            {
                "id": "toolu_2",
                "type": "function",
                "function": {"name": "g", "arguments": "{}"},
                "caller": {"type": "direct"},
            },
        ],
    }
    assert turns(*HELLO, {"role": "assistant", "content": [call]})[1]["content"] is None


def test_calls_in_between_keep_their_places_too() -> None:
    call = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}
    said = {"type": "text", "text": "Looking."}
    written = turns(*HELLO, {"role": "assistant", "content": [call, said]})
    assert written[1]["content"] == [call, said]
    assert [each["id"] for each in written[1]["tool_calls"]] == ["toolu_1"]


def test_an_answer_goes_on_from_the_words_that_an_assistant_ends_on() -> None:
    assert turns(*HELLO, {"role": "assistant", "content": "The answer is ("})[1] == {
        "role": "assistant",
        "content": "The answer is (",
        "prefix": True,
    }
    mixed = [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}]
    assert "prefix" not in turns(*HELLO, {"role": "assistant", "content": mixed})[1]
    assert "prefix" not in turns(*HELLO, {"role": "assistant", "content": "x"}, *HELLO)[1]


def test_a_system_message_between_turns_stays_there() -> None:
    late = {"role": "system", "content": "Now in French."}
    assert turns(*HELLO, late) == [*HELLO, late]


# --- mistakes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param({"messages": None}, "'messages'", id="no-messages"),
        pytest.param({"messages": []}, "'messages'", id="empty"),
        pytest.param({"messages": ["x"]}, "messages[0]", id="no-object"),
        pytest.param({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", id="role"),
        pytest.param({"messages": [{"role": "user"}]}, "messages[0].content", id="no-content"),
        pytest.param({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0]", id="no-type"),
        pytest.param({"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0].name", id="member"),
        pytest.param(
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
            id="result",
        ),
        pytest.param(
            {"messages": [*HELLO, {"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]},
            "messages[1].content[0]",
            id="call-without-name",
        ),
        pytest.param(
            {
                "messages": [
                    *HELLO,
                    {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": "x"}]},
                ]
            },
            "messages[1].content[0].input",
            id="input",
        ),
        pytest.param({"system": 1}, "system", id="system"),
        pytest.param({"stop_sequences": "END"}, "'stop_sequences'", id="stop"),
        pytest.param({"tools": {}}, "'tools'", id="tools"),
        pytest.param({"tools": [1]}, "tools[0]", id="tool"),
        pytest.param({"tools": [{"input_schema": SCHEMA}]}, "tools[0].name", id="tool-without-name"),
        pytest.param({"tool_choice": "auto"}, "tool_choice", id="choice"),
        pytest.param({"tool_choice": {"type": "tool"}}, "tool_choice", id="choice-without-name"),
        pytest.param({"tool_choice": {"type": "auto", "else": 1}}, "tool_choice.else", id="choice-member"),
        pytest.param({"output_config": []}, "'output_config'", id="config"),
        pytest.param({"output_config": {"format": {"type": "json"}}}, "output_config.format", id="format"),
        pytest.param(
            {"output_format": {"type": "json_schema", "schema": {}, "name": "n"}},
            "output_config.format.name",
            id="named",
        ),
        pytest.param({"betas": "a"}, "'betas'", id="betas"),
    ],
)
def test_a_mistake_is_named_by_its_place(body: Json, said: str) -> None:
    with pytest.raises(CallError) as caught:
        ordered(body)
    assert caught.value.http_status == 400
    assert said in caught.value.message


# --- everything that Anthropic's shape can say comes back


def inverse(body: Json) -> Json:
    """The canonical body as Anthropic's again, written without looking at the dialect."""
    told: Json = {name: value for name, value in body.items() if name not in ("messages", "stop", "tools")}
    if "stop" in body:
        told["stop_sequences"] = body["stop"]
    if "tools" in body:
        told["tools"] = [_tool_back(tool) for tool in body["tools"]]
    messages: list[Json] = []
    for message in body["messages"]:
        if message["role"] == "system":
            told["system"] = message["content"]
            continue
        role, content = message["role"], _content_back(message["content"])
        if role == "tool":
            block = {"type": "tool_result", "tool_use_id": message["tool_call_id"], "content": content}
            block.update({name: message[name] for name in ("is_error", "cache_control") if name in message})
            role, content = "user", [block]
        calls = [_call_back(call) for call in message.get("tool_calls", ())]
        if calls and not any(block["type"] == "tool_use" for block in content or ()):
            content = [*(content or ()), *calls]
        if messages and messages[-1]["role"] == role == "user":
            messages[-1]["content"] = [*messages[-1]["content"], *content]
        else:
            messages.append({"role": role, "content": content})
    return {**told, "messages": messages}


def _tool_back(tool: Json) -> Json:
    function = tool["function"]
    told = {name: function[name] for name in ("name", "description", "strict") if name in function}
    others = {name: value for name, value in tool.items() if name not in ("type", "function")}
    return {**told, "input_schema": function["parameters"], **others}


def _call_back(call: Json) -> Json:
    function = call["function"]
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": json.loads(function["arguments"])}


def _content_back(content: Any) -> Any:
    return [_block_back(part) for part in content] if isinstance(content, list) else content


def _block_back(part: Json) -> Json:
    cache = {"cache_control": part["cache_control"]} if "cache_control" in part else {}
    if part["type"] == "image_url":
        return {"type": "image", "source": _source_back(part["image_url"]["url"]), **cache}
    if part["type"] == "document_url":
        named = {"title": part["document_name"]} if "document_name" in part else {}
        return {"type": "document", "source": {"type": "url", "url": part["document_url"]}, **named, **cache}
    if part["type"] == "file":
        named = {"title": part["file"]["filename"]} if "filename" in part["file"] else {}
        return {"type": "document", "source": _source_back(part["file"]["file_data"]), **named, **cache}
    return part


def _source_back(url: str) -> Json:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    if kind == "text/plain":
        return {"type": "text", "media_type": kind, "data": base64.b64decode(data).decode()}
    return {"type": "base64", "media_type": kind, "data": data}


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
names = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
data = st.binary(min_size=1, max_size=12).map(lambda held: base64.b64encode(held).decode())
links = st.just("https://x.test/") | names.map(lambda name: f"https://x.test/{name}")
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def with_some(base: st.SearchStrategy[Json], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    more = st.fixed_dictionaries({}, optional=dict(optional))
    return st.builds(lambda one, other: {**one, **other}, base, more)


def block(kind: str, **members: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries({"type": st.just(kind), **members})


cached = st.just(CACHED)
texts = with_some(block("text", text=words), cache_control=cached)
images = with_some(
    block(
        "image",
        source=block("url", url=links)
        | block("base64", media_type=st.sampled_from(["image/png", "image/jpeg"]), data=data)
        | block("file", file_id=names),
    ),
    cache_control=cached,
)
documents = with_some(
    block(
        "document",
        source=block("url", url=links)
        | block("base64", media_type=st.just("application/pdf"), data=data)
        | block("text", media_type=st.just("text/plain"), data=words)
        | block("content", content=words),
    ),
    title=words,
    cache_control=cached,
    citations=st.just({"enabled": True}),
    context=words,
)
results = with_some(
    block("tool_result", tool_use_id=names, content=words | st.lists(texts | images | documents, max_size=3)),
    is_error=st.just(True),
    cache_control=cached,
)
searches = block("search_result", source=links, title=words, content=st.lists(texts, max_size=2))
user_blocks = st.builds(
    lambda given_results, rest: [*given_results, *rest],
    st.lists(results, max_size=3),
    st.lists(texts | images | documents | searches, max_size=3),
).filter(bool)
thoughts = block("thinking", thinking=words, signature=data) | block("redacted_thinking", data=data)
calls = block("tool_use", id=names, name=names, input=st.dictionaries(words, values, max_size=3))
assistant_blocks = st.lists(thoughts | texts | calls, min_size=1, max_size=5)
tools = with_some(
    st.fixed_dictionaries({"name": names, "input_schema": st.just(SCHEMA)}),
    description=words,
    strict=st.booleans(),
    cache_control=cached,
    defer_loading=st.booleans(),
)


@st.composite
def bodies(draw: st.DrawFn) -> Json:
    count = draw(st.integers(0, 2))
    messages: list[Json] = []
    for _ in range(count):
        messages.append({"role": "user", "content": draw(words | user_blocks)})
        messages.append({"role": "assistant", "content": draw(words | assistant_blocks)})
    messages.append({"role": "user", "content": draw(words | user_blocks)})
    optional = {
        "system": words | st.lists(texts, min_size=1, max_size=2),
        "stop_sequences": st.lists(words, min_size=1, max_size=2),
        "tools": st.lists(tools, min_size=1, max_size=2),
        "temperature": st.floats(0, 1),
        "thinking": st.just({"type": "enabled", "budget_tokens": 1024}),
        "metadata": st.fixed_dictionaries({"user_id": words}),
    }
    return draw(with_some(st.just({"max_tokens": 64, "messages": messages}), **optional))


@settings(deadline=None, max_examples=60)
@given(bodies())
def test_whatever_is_asked_comes_back_as_it_was(body: Json) -> None:
    assert inverse(canonical(body)) == body


@settings(deadline=None, max_examples=60)
@given(bodies())
def test_what_is_asked_of_anthropic_is_what_anthropic_is_asked(body: Json) -> None:
    call = Anthropic(["sk-ant-tests-0123456789"]).encode(Request("chat", "claude-opus-4-8", canonical(body)))
    assert json.loads(call.body) == {"model": "claude-opus-4-8", **body}


TOOLS: list[Json] = [{"name": "f", "input_schema": SCHEMA}, {"type": "web_search_20250305", "name": "web_search"}]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"tools": TOOLS, "tool_choice": {"type": "auto"}}, id="auto"),
        pytest.param({"tools": TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}}, id="any"),
        pytest.param({"tools": TOOLS, "tool_choice": {"type": "tool", "name": "f"}}, id="tool"),
        pytest.param({"tools": TOOLS, "tool_choice": {"type": "none"}}, id="none"),
        pytest.param(
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "high"}}, id="format"
        ),
        pytest.param({"thinking": {"type": "adaptive", "display": "summarized"}}, id="thinking"),
        pytest.param({"context_management": {"edits": []}, "container": "c", "inference_geo": "us"}, id="its-own"),
        pytest.param({"messages": [*HELLO, {"role": "system", "content": "In French."}]}, id="late-system"),
    ],
)
def test_members_come_back_too(body: Json) -> None:
    asked = {"max_tokens": 64, "messages": HELLO, **body}
    call = Anthropic(["sk-ant-tests-0123456789"]).encode(Request("chat", "claude-opus-4-8", canonical(asked)))
    assert json.loads(call.body) == {"model": "claude-opus-4-8", **asked}
