"""Servers that speak like OpenAI: fields pass, no key is needed, any path will do; through a Router as well."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from bifrost_core import (
    ConfigError,
    Key,
    OpenAI,
    OpenAICompatible,
    Price,
    PriceBook,
    Provider,
    ProviderAuthError,
    Request,
    RetryPolicy,
    Router,
    ToolCall,
)
from bifrost_core.config import options_from_config, options_from_env

KEY = "sk-compatible-0123456789"
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]


def server(**options: Any) -> OpenAICompatible:
    return OpenAICompatible("local", base_url="http://127.0.0.1:8000", **options)


def sent(body: dict[str, Any], *, operation: str = "chat", stream: bool = False, **options: Any) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(server(**options).encode(Request(operation, "m", body, stream=stream)).body)
    return members


# -- requests ------------------------------------------------------------------------------------------------------


def test_unknown_fields_and_members_are_sent_as_they_are() -> None:
    body = {
        "messages": [
            {"role": "developer", "content": "d"},
            {"role": "user", "content": [{"type": "video_url", "video_url": {"url": "u"}}], "weight": 1},
            {"role": "assistant", "content": "x", "prefix": True},
        ],
        "max_tokens": 5,
        "top_k": 3,
        "guided_json": {"type": "object"},
        "tools": [{"type": "code_interpreter"}],
    }
    assert sent(body) == {"model": "m", **body}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param({"random_seed": 7}, {"seed": 7}, id="random_seed"),
        pytest.param({"tool_choice": "any"}, {"tool_choice": "required"}, id="any"),
        pytest.param({"extra_body": {"min_p": 0.1}}, {"min_p": 0.1}, id="extra"),
    ],
)
def test_words_with_an_equal_are_rewritten(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent({"messages": HELLO, **given}) == {"model": "m", "messages": HELLO, **wanted}


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        pytest.param(
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                    {"type": "text", "text": "x"},
                ],
            },
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            id="mistrals-thoughts",
        ),
        pytest.param(
            {
                "role": "assistant",
                "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}],
                "tool_calls": [ToolCall("c", "f", "{}")],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                "reasoning_content": "hm",
            },
            id="anthropics-thoughts-and-a-call",
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "d"}]},
            {"role": "assistant", "content": None},
            id="sealed",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "image_url", "image_url": "u"}, {"type": "text", "text": "x"}]},
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "u"}}, {"type": "text", "text": "x"}],
            },
            id="image-as-text",
        ),
        pytest.param(
            {"role": "user", "content": [{"type": "document_url", "document_url": "https://x.y/a.pdf"}]},
            {"role": "user", "content": [{"type": "document_url", "document_url": "https://x.y/a.pdf"}]},
            id="a-document-by-url-stays",
        ),
    ],
)
def test_parts_of_others_are_rewritten(message: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert sent({"messages": [message]})["messages"] == [wanted]


@pytest.mark.parametrize("operation", ["chat", "responses"])
def test_streams_are_asked_for_their_usage_unless_told_otherwise(operation: str) -> None:
    body: dict[str, Any] = {"messages": HELLO} if operation == "chat" else {"input": "x"}
    asked = sent(body, operation=operation, stream=True)
    assert asked["stream_options"] == {"include_usage": True}
    assert "stream_options" not in sent(body, operation=operation, stream=True, stream_usage=False)
    assert "stream_options" not in sent(body, operation=operation)


def test_responses_go_as_chat_with_fields_of_the_servers_own() -> None:
    members = sent({"input": "x", "instructions": "i", "max_output_tokens": 9, "min_p": 0.1}, operation="responses")
    assert members == {
        "model": "m",
        "messages": [{"role": "system", "content": "i"}, {"role": "user", "content": "x"}],
        "max_tokens": 9,
        "min_p": 0.1,
    }


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("http://localhost:11434/v1", "http://localhost:11434/v1/chat/completions"),
        ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
        ("https://api.groq.com/openai/v1/", "https://api.groq.com/openai/v1/chat/completions"),
        ("https://api.groq.com/openai", "https://api.groq.com/openai/v1/chat/completions"),
        ("https://api.z.ai/api/paas/v4", "https://api.z.ai/api/paas/v4/chat/completions"),
        ("https://g.example/v1beta/openai/", "https://g.example/v1beta/openai/chat/completions"),
        ("https://x.example/openai/deployments/vx", "https://x.example/openai/deployments/vx/v1/chat/completions"),
    ],
)
def test_a_base_url_may_have_any_path(base_url: str, url: str) -> None:
    provider = OpenAICompatible("p", KEY, base_url=base_url)
    assert provider.encode(Request("chat", "m", {"messages": HELLO})).url == url
    assert provider.encode(Request("models", "*")).url == url.replace("chat/completions", "models")


def test_an_unencrypted_url_of_another_machine_has_to_be_allowed() -> None:
    with pytest.raises(ConfigError, match="not encrypted"):
        OpenAICompatible("p", base_url="http://10.0.0.7:8000")
    assert OpenAICompatible("p", base_url="http://10.0.0.7:8000", allow_http=True).base_url == "http://10.0.0.7:8000"


def test_no_model_is_known_by_its_name() -> None:
    assert not server().knows("gpt-4o")


# -- keys ----------------------------------------------------------------------------------------------------------


def test_without_keys_there_is_one_that_is_none() -> None:
    (key,) = server().keys
    assert (key.id, key.secret, key.is_anonymous) == ("anonymous", None, True)
    assert not server(keys=KEY).keys[0].is_anonymous
    with pytest.raises(ConfigError, match="no secret"):
        Key(None)
    assert not Key("env:PATH", is_anonymous=True).is_anonymous


CHAT = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}


class Wire:
    """A server that answers from memory and keeps what it was asked."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.seen: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        return httpx.Response(self.status, stream=httpx.ByteStream(json.dumps(CHAT).encode()))

    def router(self, *providers: Provider, **options: Any) -> Router:
        client = httpx.AsyncClient(transport=httpx.MockTransport(self.answer))
        return Router(providers, engine=client, retry=RetryPolicy(max_attempts=2, max_wait=0), **options)


async def test_a_server_without_keys_is_sent_no_credential() -> None:
    wire = Wire()
    async with wire.router(server(headers={"x-own": "1"})) as router:
        reply = await router.chat("local/m", "hi")
        await router.chat("any-name", "hi")  # its only provider
    assert (reply.text, reply.route.key_id) == ("yes", "anonymous")
    for request in wire.seen:
        assert "authorization" not in request.headers
        assert request.headers["x-own"] == "1"


async def test_a_key_that_comes_later_is_sent() -> None:
    wire = Wire()
    async with wire.router(server()) as router:
        router.add_key("local", Key(KEY, id="real"))
        router.remove_key("local", "anonymous")
        reply = await router.chat("local/m", "hi")
    assert reply.route.key_id == "real"
    assert wire.seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_server_that_asks_for_a_key_after_all_says_so() -> None:
    async with Wire(401).router(server()) as router:
        with pytest.raises(ProviderAuthError) as caught:
            await router.chat("local/m", "hi")
    assert caught.value.key_id == "anonymous"


async def test_the_organization_goes_with_every_request_and_the_cost_is_known() -> None:
    wire = Wire()
    prices = PriceBook({"openai/m": Price(input="1", output="2")})
    async with wire.router(OpenAI(KEY, organization="org-1", project="p-1"), prices=prices) as router:
        reply = await router.chat("openai/m", "hi")
    assert (wire.seen[0].headers["openai-organization"], wire.seen[0].headers["openai-project"]) == ("org-1", "p-1")
    assert str(reply.cost) == "0.000009"


async def test_a_bare_name_is_openais_where_a_local_server_is_there_too() -> None:
    wire = Wire()
    async with wire.router(OpenAI(KEY), server()) as router:
        reply = await router.chat("gpt-4o", "hi")
    assert reply.route.provider == "openai"


# -- configuration -------------------------------------------------------------------------------------------------


def test_keys_in_the_environment_make_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("OPENAI_API_KEY", "OPENAI_API_KEY_2", "OPENAI_API_KEY_10")
    for name in names:
        monkeypatch.setenv(name, KEY + name)
    (provider,) = options_from_env(dict.fromkeys((*names, "OPENAI_API_KEY_X"), KEY))["providers"]
    assert isinstance(provider, OpenAI)
    assert [key.id for key in provider.keys] == list(names)


def test_both_types_are_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    entries: list[dict[str, Any]] = [
        {"type": "openai", "keys": ["env:OPENAI_API_KEY"], "organization": "org-1"},
        {"type": "openai_compatible", "name": "local", "base_url": "http://localhost:11434", "stream_usage": False},
    ]
    openai, local = options_from_config({"providers": entries})["providers"]
    assert (openai.name, openai.network.headers) == ("openai", {"openai-organization": "org-1"})
    assert (local.name, local.keys[0].is_anonymous) == ("local", True)


@pytest.mark.parametrize("missing", ["name", "base_url"])
def test_a_compatible_server_needs_a_name_and_an_address(missing: str) -> None:
    entry = {"type": "openai_compatible", "name": "local", "base_url": "http://localhost:11434"}
    del entry[missing]
    with pytest.raises(ConfigError, match=rf"providers\[0\] has no {missing}"):
        options_from_config({"providers": [entry]})
