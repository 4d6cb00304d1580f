"""The adapter as a whole: where it sends what, what it is called with, its limits, its models, and going on."""

from __future__ import annotations

import json
import traceback
from typing import Any

import pytest

from bifrost_core import Anthropic, ConfigError, Key, ModelInfo, Operation, Request, Router
from bifrost_core.config import options_from_config, options_from_env
from bifrost_core.errors import BadRequestError, ProviderServerError, UnsupportedParameterError
from bifrost_core.providers.base import Continues, Quota
from bifrost_core.responses import ModelList
from bifrost_core.wire import Auth, HttpReply

KEY = "sk-ant-canary-0123456789"
ANTHROPIC = Anthropic(KEY)
HELLO: list[Any] = [{"role": "user", "content": "hi"}]


def request(model: str = "claude-haiku-4-5", **body: Any) -> Request:
    return Request("chat", model, {"messages": HELLO, **body})


def test_the_key_has_a_header_of_its_own() -> None:
    assert ANTHROPIC.auth == Auth(b"x-api-key", b"")
    assert ANTHROPIC.operations == {Operation.CHAT, Operation.RESPONSES, Operation.MODELS}
    assert (ANTHROPIC.name, ANTHROPIC.version, ANTHROPIC.beta) == ("anthropic", "2023-06-01", ())
    assert KEY not in repr(ANTHROPIC)


@pytest.mark.parametrize("beta", [("a-1", "b-2"), ["a-1", "b-2"]], ids=["tuple", "list"])
def test_version_and_beta_features_go_with_every_request(beta: Any) -> None:
    adapter = Anthropic(KEY, version="2026-10-21", beta=beta)
    for made in (request(), Request("models", "", {})):
        headers = dict(adapter.encode(made).headers)
        assert (headers[b"anthropic-version"], headers[b"anthropic-beta"]) == (b"2026-10-21", b"a-1,b-2")
    assert dict(Anthropic(KEY, beta="a-1").encode(request()).headers)[b"anthropic-beta"] == b"a-1"


@pytest.mark.parametrize(
    ("betas", "sent"),
    [(["b-2", "c-3"], b"a-1,b-2,c-3"), ("b-2", b"a-1,b-2"), (["a-1"], b"a-1"), ([], b"a-1"), (None, b"a-1")],
    ids=str,
)
def test_a_requests_own_beta_features_go_beside_those_of_all(betas: Any, sent: bytes) -> None:
    adapter = Anthropic(KEY, beta=["a-1"])
    for made in (request(betas=betas), Request("responses", "claude-opus-5", {"input": HELLO, "betas": betas})):
        call = adapter.encode(made)
        assert [value for name, value in call.headers if name == b"anthropic-beta"] == [sent]
        assert b"beta" not in call.body
        assert dict(call.headers)[b"content-type"] == b"application/json"
    alone = Anthropic(KEY).encode(request(betas=["b-2"])).headers
    assert dict(alone)[b"anthropic-beta"] == b"b-2"


@pytest.mark.parametrize("betas", [[3], ["a b"], {"a": 1}, 3, b"a-1", ["a\r\nx: y"]], ids=repr)
def test_what_is_no_list_of_beta_features_is_refused(betas: Any) -> None:
    with pytest.raises(BadRequestError, match="'betas'"):
        ANTHROPIC.encode(request(betas=betas))


@pytest.mark.parametrize("base", ["http://localhost:1/", "http://localhost:1/v1", "http://localhost:1/v1/", "http://localhost:1"])  # fmt: skip
def test_a_base_url_works_with_and_without_its_version(base: str) -> None:
    adapter = Anthropic(KEY, base_url=base)
    assert adapter.encode(request()).url == "http://localhost:1/v1/messages"
    assert adapter.encode(Request("models", "", {})).url == "http://localhost:1/v1/models?limit=1000"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"keys": []}, "keys"),
        ({"version": "latest"}, "version"),
        ({"version": 3}, "version"),
        ({"beta": ["a b"]}, "beta"),
        ({"beta": [3]}, "beta"),
        ({"beta": 3}, "beta"),
        ({"headers": {"X-API-Key": "k"}}, "headers"),
        ({"headers": {"anthropic-version": "1"}}, "headers"),
        ({"headers": {"anthropic-beta": "x"}}, "headers"),
        ({"colour": "red"}, "colour"),
        ({"name": "No Name"}, "name"),
        ({"base_url": "ftp://x"}, "base_url"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_by_name_without_the_key(arguments: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Anthropic(**{"keys": KEY, **arguments})
    assert caught.value.field == field
    shown = [str(caught.value)]
    for frame, _ in traceback.walk_tb(caught.value.__traceback__):
        if "bifrost_core" in frame.f_code.co_filename:
            shown += [repr(value) for value in frame.f_locals.values()]
    assert KEY not in " ".join(shown)


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-opus-5-5", True), ("claude-3-5-haiku-20241022", True), ("claude-opus-4-1@20250805", True),
        ("claude", False), ("gpt-5", False), ("mistral-small-latest", False), ("anthropic.claude-3", False),
    ],
)  # fmt: skip
def test_a_bare_name_is_known_by_its_beginning(model: str, known: bool) -> None:
    assert ANTHROPIC.knows(model) is known


def test_an_operation_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnsupportedParameterError, match="embeddings"):
        ANTHROPIC.encode(Request("embeddings", "claude-opus-5", {"input": "x"}))


# --- configuration


def test_keys_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {
        name: f"sk-{name}"
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_2", "ANTHROPIC_API_KEYS", "MISTRAL_API_KEY")
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    made = {provider.name: [key.id for key in provider.keys] for provider in options_from_env(environ)["providers"]}
    assert made == {"mistral": ["MISTRAL_API_KEY"], "anthropic": ["ANTHROPIC_API_KEY", "ANTHROPIC_API_KEY_2"]}
    (alone,) = options_from_env({"ANTHROPIC_API_KEY": "sk-ant-a"})["providers"]
    assert isinstance(alone, Anthropic)


def test_a_configuration_names_it_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-a")
    table = {
        "type": "anthropic",
        "keys": ["env:ANTHROPIC_API_KEY"],
        "name": "claude",
        "version": "2026-10-21",
        "beta": ["a-1"],
    }
    (made,) = options_from_config({"providers": [table]})["providers"]
    assert isinstance(made, Anthropic)
    assert (made.name, made.version, made.beta) == ("claude", "2026-10-21", ("a-1",))


def test_a_bare_model_name_finds_it_in_a_router() -> None:
    with_both = Router([Anthropic(Key(KEY, id="one"))])
    assert with_both.estimate("claude-haiku-4-5", "hi").model == "anthropic/claude-haiku-4-5"


# --- limits

DATE = {"date": "Tue, 25 Nov 2026 19:00:00 GMT"}


def limits(kind: str, limit: str, remaining: str, reset: str | None = None) -> dict[str, str]:
    stated = {"limit": limit, "remaining": remaining} | ({} if reset is None else {"reset": reset})
    return {f"anthropic-ratelimit-{kind}-{name}": value for name, value in stated.items()}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            DATE | limits("requests", "50", "49", "2026-11-25T19:00:01Z") | limits("tokens", "60000", "50000", "2026-11-25T19:00:10+00:00")
            | limits("input-tokens", "50000", "50000", "2026-11-25T19:00:00Z") | limits("output-tokens", "10000", "0", "2026-11-25T20:01:00+01:00"),
            [Quota("requests", 49, 50, 1), Quota("tokens", 50_000, 60_000, 10), Quota("input-tokens", 50_000, 50_000, 0), Quota("output-tokens", 0, 10_000, 60)],
            id="all",
        ),
        pytest.param(limits("requests", "60", "30", "2026-11-25T19:00:01Z"), [Quota("requests", 30, 60, 30)], id="no-date"),
        pytest.param(DATE | limits("requests", "60", "30"), [Quota("requests", 30, 60, 30)], id="no-reset"),
        pytest.param(DATE | limits("requests", "60", "30", "soon"), [Quota("requests", 30, 60, 30)], id="no-time"),
        pytest.param(DATE | limits("requests", "60", "30", "2026-11-25T19:00:30.000"), [Quota("requests", 30, 60, 30)], id="no-zone"),
        pytest.param(DATE | limits("requests", "60", "30", "in about half a minute"), [Quota("requests", 30, 60, 30)], id="words"),
        pytest.param(DATE | limits("requests", "60", "30", "2027-11-25T19:00:30Z"), [Quota("requests", 30, 60, 30)], id="in-a-year"),
        pytest.param(DATE | limits("requests", "60", "30", "2026-11-25T18:59:00Z"), [Quota("requests", 30, 60, 0)], id="over"),
        pytest.param(DATE | limits("requests", "60", "90", "2026-11-25T19:00:01Z"), [Quota("requests", 60, 60, 1)], id="more-than-all"),
        pytest.param(limits("requests", "0", "0") | limits("tokens", "x", "1") | limits("output-tokens", "5", "-1"), [], id="unreadable"),
        pytest.param({"anthropic-ratelimit-requests-limit": "5"}, [], id="half"),
        pytest.param(limits("colours", "5", "1"), [], id="unknown"),
        pytest.param({"date": "yesterday"} | limits("requests", "60", "0"), [Quota("requests", 0, 60, 60)], id="no-readable-date"),
    ],
)  # fmt: skip
def test_the_headers_say_what_is_left(headers: dict[str, str], expected: list[Quota]) -> None:
    assert list(ANTHROPIC.quotas(headers)) == expected


# --- models


def test_models_have_capabilities_and_a_context() -> None:
    entry = {
        "type": "model", "id": "claude-opus-5-5", "display_name": "Claude Opus 5.5", "created_at": "2026-09-22T00:00:00Z",
        "lifecycle": "active", "max_input_tokens": 1_000_000, "max_tokens": 128_000, "retires_at": "2027-09-22T00:00:00Z",
        "capabilities": {"batch": {"supported": True}, "citations": {"supported": False},
                         "effort": {"supported": True, "low": {"supported": True}, "xhigh": None},
                         "thinking": {"supported": True, "types": {"adaptive": {"supported": True}, "enabled": {"supported": False}}}},
    }  # fmt: skip
    old = {"type": "model", "id": "claude-3-haiku-20240307", "display_name": "Claude Haiku 3", "capabilities": None}
    body = {"data": [entry, old], "has_more": False, "first_id": "a", "last_id": "b"}
    listed = ANTHROPIC.decode(Request("models", "", {}), HttpReply(200, {}, json.dumps(body).encode()))
    assert isinstance(listed, ModelList)
    assert list(listed.models) == [
        ModelInfo(
            id="anthropic/claude-opus-5-5",
            provider="anthropic",
            name="claude-opus-5-5",
            capabilities={"batch", "effort", "effort.low", "thinking", "thinking.types.adaptive"},
            context_length=1_000_000,
            deprecation="2027-09-22T00:00:00Z",
            raw=entry,
        ),
        ModelInfo(
            id="anthropic/claude-3-haiku-20240307", provider="anthropic", name="claude-3-haiku-20240307", raw=old
        ),
    ]
    assert listed.raw == body


@pytest.mark.parametrize(
    "body", [{}, {"data": [{"type": "model"}]}, {"data": [3]}], ids=["no-list", "no-id", "no-entry"]
)
def test_a_list_that_can_not_be_read_is_refused(body: Any) -> None:
    with pytest.raises(ProviderServerError):
        ANTHROPIC.decode(Request("models", "", {}), HttpReply(200, {}, json.dumps(body).encode()))


def test_a_list_that_goes_on_is_noted() -> None:
    adapter = Anthropic(KEY)
    adapter.decode(Request("models", "", {}), HttpReply(200, {}, b'{"data":[],"has_more":true}'))
    assert list(adapter.reporter.counts) == ["the list of models has more than 1000 entries; the others are left out"]


# --- going on with an answer that broke off


def test_an_answer_goes_on_from_the_assistants_turn_where_the_model_takes_one() -> None:
    assert isinstance(ANTHROPIC, Continues)
    rest = ANTHROPIC.continued(request(max_tokens=50), "Once upon", 3)
    assert rest == Request(
        "chat",
        "claude-haiku-4-5",
        {"messages": [*HELLO, {"role": "assistant", "content": "Once upon"}], "max_tokens": 47},
    )
    assert rest is not None
    assert json.loads(ANTHROPIC.encode(rest).body)["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    asked = Request("responses", "claude-haiku-4-5", {"input": HELLO})
    other = ANTHROPIC.continued(asked, "Once upon", 3)
    assert other is not None
    assert other.body["messages"][-1] == {"role": "assistant", "content": "Once upon"}
    assert ANTHROPIC.continued(Request("models", "", {}), "x", 1) is None


@pytest.mark.parametrize(
    "asked",
    [
        request("claude-opus-5-5"), request("claude-sonnet-4-6"), request("claude-nobody-knows"),
        request(tools=[{"name": "f"}]), request(thinking={"type": "enabled", "budget_tokens": 2_000}),
        request(reasoning_effort="low"), request(output_config={"effort": "low"}),
        request(response_format={"type": "json_schema", "json_schema": {"schema": {}}}), request(extra_body={"x": 1}),
        request(messages=[*HELLO, {"role": "assistant", "content": "So"}]), request(messages=[]), request(messages="hi"),
    ],
    ids=["opus-5.5", "sonnet-4.6", "unknown", "tools", "thinking", "effort", "own-effort", "schema", "extra", "begun", "empty", "text"],
)  # fmt: skip
def test_an_answer_does_not_go_on_where_its_text_does_not_say_how(asked: Request) -> None:
    assert ANTHROPIC.continued(asked, "Once upon", 3) is None


def test_an_answer_that_ends_in_white_space_does_not_go_on() -> None:
    assert ANTHROPIC.continued(request(), "Once upon ", 3) is None
    assert (
        ANTHROPIC.continued(request(thinking={"type": "disabled"}, response_format={"type": "text"}), "Once", 3)
        is not None
    )
