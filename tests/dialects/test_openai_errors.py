"""Errors as OpenAI's SDKs read them: every class with its status, and nothing in them that is secret."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bifrost_core import (
    BadRequestError,
    BudgetExceededError,
    CallError,
    ConfigError,
    ContextLengthError,
    DeadlineExceededError,
    GuardrailError,
    Kind,
    ModelNotFoundError,
    NoKeyAvailableError,
    PluginError,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
    RateLimitError,
    RefusedError,
    Request,
    UnsupportedParameterError,
    VirtualKeyError,
    hookimpl,
)
from bifrost_core.testing import Fault

PATH = "/openai/v1/chat/completions"
BODY = {"model": "mistral/mistral-small-latest", "messages": [{"role": "user", "content": "my-own-words"}]}


class Refuses:
    """Refuses every call with one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    @hookimpl
    def bifrost_authorize(self, request: Request) -> None:
        raise copy.copy(self.error)  # an error belongs to one call


@pytest.mark.parametrize(
    ("error", "status", "named", "code"),
    [
        pytest.param(BadRequestError("x"), 400, "invalid_request_error", "invalid_request", id="invalid"),
        pytest.param(ContextLengthError("x"), 400, "invalid_request_error", "context_too_long", id="too long"),
        pytest.param(
            UnsupportedParameterError("x", parameter="n"), 400, "invalid_request_error", "invalid_request", id="field"
        ),
        pytest.param(VirtualKeyError("x"), 401, "authentication_error", "unauthenticated", id="nobody"),
        pytest.param(BudgetExceededError("x"), 402, "insufficient_quota", "budget_exceeded", id="budget"),
        pytest.param(RefusedError("x"), 403, "permission_error", "refused", id="refused"),
        pytest.param(ModelNotFoundError("x"), 404, "not_found_error", "model_not_found", id="no model"),
        pytest.param(
            BadRequestError("x", kind=Kind.CONFLICT, status=409), 409, "conflict_error", "conflict", id="conflict"
        ),
        pytest.param(
            BadRequestError("x", kind=Kind.REQUEST_TOO_LARGE),
            413,
            "invalid_request_error",
            "request_too_large",
            id="large",
        ),
        pytest.param(BadRequestError("x", status=422), 422, "invalid_request_error", "invalid_request", id="422"),
        pytest.param(RateLimitError("x", retry_after=2.5), 429, "rate_limit_error", "rate_exceeded", id="our limit"),
        pytest.param(
            ProviderRateLimitError("x", retry_after=30), 429, "rate_limit_error", "rate_limited", id="their limit"
        ),
        pytest.param(GuardrailError("x"), 446, "guardrail_error", "guardrail_blocked", id="guardrail"),
        pytest.param(ProviderAuthError("x"), 502, "server_error", "auth", id="our key"),
        pytest.param(ProviderServerError("x"), 502, "server_error", "server_error", id="their fault"),
        pytest.param(ProviderConnectionError("x"), 502, "server_error", "connect_error", id="no way"),
        pytest.param(PluginError("x"), 503, "server_error", "plugin_error", id="plugin"),
        pytest.param(NoKeyAvailableError("x", retry_after=4), 503, "server_error", "no_route", id="no route"),
        pytest.param(ProviderTimeoutError("x"), 504, "server_error", "read_timeout", id="late"),
        pytest.param(DeadlineExceededError("x"), 504, "server_error", "deadline_exceeded", id="deadline"),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_every_error_has_the_status_and_the_words_that_sdks_read(
    opened: Any, error: CallError, status: int, named: str, code: str, stream: bool
) -> None:
    async with opened(plugins=[Refuses(error)]) as (client, provider, _):
        reply = await client.post(PATH, json={**BODY, "stream": stream})
        assert not provider.journal
    assert reply.status_code == status
    assert reply.headers["content-type"] == "application/json"
    param = getattr(error, "parameter", None) or None
    assert reply.json() == {"error": {"message": error.message, "type": named, "param": param, "code": code}}
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-bf-kind"] == code
    waits = {2.5: "2.5", 30: "30", 4: "4"}
    assert reply.headers.get("retry-after") == (None if error.retry_after is None else waits[error.retry_after])
    assert reply.headers["x-request-id"].startswith("call_")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        pytest.param(ConfigError("x", field="tools[0]"), 400, "invalid_request", id="of a field"),
        pytest.param(ConfigError("x"), 500, "server_error", id="of the program"),
    ],
)
async def test_a_mistake_is_the_callers_where_it_names_a_field(
    opened: Any, error: ConfigError, status: int, code: str
) -> None:
    from bifrost_core.dialects.openai import OpenAIDialect  # noqa: PLC0415 # for this test alone

    reply = OpenAIDialect().refusal(error, "call_1")
    assert reply.status == status
    assert f'"code":"{code}"'.encode() in reply.body
    assert (b'"param":"tools[0]"' in reply.body) is (status == 400)
    async with opened() as (client, _, router):
        await router.aclose()
        closed = await client.post(PATH, json=BODY)
    assert closed.status_code == 500


@pytest.mark.parametrize("fault", [Fault("status", status=401), Fault("status", status=500), Fault("html")])
async def test_no_error_repeats_the_prompt_or_a_credential(opened: Any, fault: Fault) -> None:
    headers = {"authorization": "Bearer sk-bf-0123456789abcdef", "x-bf-vk": "sk-bf-fedcba9876543210"}
    async with opened(fault) as (client, provider, _):
        reply = await client.post(PATH, json=BODY, headers=headers)
        secret = provider.keys[0].secret
    assert reply.status_code == 502
    told = reply.text + str(reply.headers)
    for hidden in ("my-own-words", "0123456789abcdef", "fedcba9876543210", secret.reveal()):
        assert hidden not in told
