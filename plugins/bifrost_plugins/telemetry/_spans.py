"""The attributes of spans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast
from urllib.parse import urlsplit

from opentelemetry.util.types import AttributeValue

from bifrost_core import Attempt, Call, CallRecord, ChatResponse, Usage

from . import conventions as names

__all__ = [
    "Attributes",
    "Server",
    "attempt_attributes",
    "end_attributes",
    "first_attributes",
    "request_attributes",
    "server_of",
]

Attributes = dict[str, AttributeValue]
Server = tuple[str, int]

_MAX_NAME: Final = 256


def server_of(provider: object) -> Server | None:
    """Host and port that a provider is asked at; None where it does not say."""
    url = getattr(provider, "base_url", None)
    if not isinstance(url, str):
        return None
    parts = urlsplit(url)
    return (parts.hostname, parts.port or (80 if parts.scheme == "http" else 443)) if parts.hostname else None


def _of_server(server: Server | None) -> Attributes:
    return {} if server is None else {names.SERVER_ADDRESS: server[0], names.SERVER_PORT: server[1]}


def first_attributes(call: Call, provider: str) -> Attributes:
    """What a sampler decides by; ``provider`` is the name in the conventions."""
    model = call.request.model
    return {
        names.OPERATION_NAME: names.operation_name(call.operation),
        names.PROVIDER_NAME: provider,
        names.REQUEST_MODEL: _name(model.partition("/")[2] or model, call),
    }


def request_attributes(call: Call, server: Server | None) -> Attributes:
    """What else is known when a call begins."""
    request = call.request
    found: Attributes = {names.CALL_ID: call.id, **_of_server(server)}
    if request.stream:
        found[names.REQUEST_STREAM] = True
    for parameter, attribute in names.REQUEST_PARAMETERS.items():
        value = request.body.get(parameter)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[attribute] = value
    return found


def end_attributes(record: CallRecord, call: Call, provider: str, error: str | None, *, legacy: bool) -> Attributes:
    """What is known when a call has ended.

    Args:
        record: How.
        call: It.
        provider: The name in the conventions of the provider that answered.
        error: What failed.
        legacy: Whether ``gen_ai.system`` is named, too.
    """
    found: Attributes = {
        names.PROVIDER_NAME: provider,
        names.OUTCOME: record.outcome,
        names.ATTEMPTS: len(record.attempts),
    }
    if legacy:
        found[names.SYSTEM] = provider
    if record.cached:
        found[names.CACHED] = True
    if error is not None:
        found[names.ERROR_TYPE] = error
    if record.time_to_first_token is not None:
        found[names.RESPONSE_TIME_TO_FIRST_CHUNK] = record.time_to_first_token
    if record.cost is not None:
        found[names.COST] = float(record.cost)
    found |= _of_usage(record.usage)
    response = record.response
    if response is not None:
        if response.model:
            found[names.RESPONSE_MODEL] = _name(response.model, call)
        identity = cast("Mapping[str, Any]", response.raw).get("id")
        if isinstance(identity, str):
            found[names.RESPONSE_ID] = identity[:_MAX_NAME]
        if isinstance(response, ChatResponse):
            reasons = [choice.finish_reason for choice in response.choices if choice.finish_reason]
            if reasons:
                found[names.RESPONSE_FINISH_REASONS] = reasons
    principal = record.principal
    if principal is not None:
        who = {
            "principal": principal.id,
            "tenant": principal.tenant,
            "virtual_key": principal.virtual_key_id,
            "team": principal.team,
            "customer": principal.customer,
        }
        found |= {names.PRINCIPAL[each]: value[:_MAX_NAME] for each, value in who.items() if value is not None}
    return found


def _of_usage(usage: Usage) -> Attributes:
    counts = {
        names.USAGE_INPUT_TOKENS: usage.input_tokens,
        names.USAGE_OUTPUT_TOKENS: usage.output_tokens,
        names.USAGE_CACHED_TOKENS: usage.cached_tokens,
        names.USAGE_CACHE_WRITE_TOKENS: usage.cache_write_tokens,
        names.USAGE_LONG_CACHE_WRITE_TOKENS: usage.long_cache_write_tokens,
        names.USAGE_REASONING_TOKENS: usage.reasoning_tokens,
    }
    return {attribute: count for attribute, count in counts.items() if count}


def attempt_attributes(attempt: Attempt, call: Call, server: Server | None) -> Attributes:
    """What an attempt was and how it went."""
    route, usage = attempt.route, attempt.usage
    found: Attributes = {
        names.ATTEMPT_ID: attempt.id,
        names.ATTEMPT_NUMBER: call.attempts.index(attempt) + 1 if attempt in call.attempts else 0,
        names.ROUTE_PROVIDER: route.provider,
        names.ROUTE_MODEL: _name(route.model, call),
        names.ROUTE_KEY_ID: route.key_id,
        **_of_server(server),
    }
    optional: dict[str, AttributeValue | None] = {
        names.OUTCOME: attempt.outcome,
        names.ERROR_TYPE: None if attempt.kind is None else str(attempt.kind),
        names.STATUS_CODE: attempt.status,
        names.ATTEMPT_TIME_TO_FIRST_TOKEN: attempt.time_to_first_token,
        names.COST: None if attempt.cost is None else float(attempt.cost),
        names.ATTEMPT_INPUT_TOKENS: None if usage is None else usage.input_tokens,
        names.ATTEMPT_OUTPUT_TOKENS: None if usage is None else usage.output_tokens,
    }
    return found | {attribute: value for attribute, value in optional.items() if value is not None}


def _name(value: str, call: Call) -> str:
    """A name that the caller or the provider chose: without the caller's key, and not long."""
    return (value if call.virtual_key is None else call.virtual_key.mask(value))[:_MAX_NAME]
