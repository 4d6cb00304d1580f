"""The names of OpenTelemetry's conventions for generative AI, and our own beside them.

All of them stand here, because the conventions are still in development and have changed names before
(``gen_ai.system`` became ``gen_ai.provider.name`` in version 1.37).

Sources:
    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
    https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/
    https://opentelemetry.io/docs/specs/semconv/registry/attributes/server/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bifrost_core import Operation

# Attributes of the conventions.
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
SYSTEM: Final = "gen_ai.system"  # its name until 1.36
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
REQUEST_PARAMETERS: Final[Mapping[str, str]] = {  # by the request's own names
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "seed": "gen_ai.request.seed",
    "random_seed": "gen_ai.request.seed",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "n": "gen_ai.request.choice.count",
}
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
USAGE_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
USAGE_CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
USAGE_REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 # the name of an attribute
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
STATUS_CODE: Final = "http.response.status_code"

# Metrics of the conventions, and the buckets that they recommend.
OPERATION_DURATION: Final = "gen_ai.client.operation.duration"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 # the name of a metric
SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS: Final = tuple(float(4**power) for power in range(14))

# Our own attributes.
CALL_ID: Final = "bifrost.call.id"
OUTCOME: Final = "bifrost.outcome"
CACHED: Final = "bifrost.cached"
COST: Final = "bifrost.cost"
ATTEMPTS: Final = "bifrost.attempts"
USAGE_LONG_CACHE_WRITE_TOKENS: Final = "bifrost.usage.long_cache_write_tokens"  # the conventions know one lifetime
PRINCIPAL: Final[Mapping[str, str]] = {  # by the names that ``labels`` takes
    "principal": "bifrost.principal",
    "tenant": "bifrost.tenant",
    "virtual_key": "bifrost.virtual_key",
    "team": "bifrost.team",
    "customer": "bifrost.customer",
}
ATTEMPT_ID: Final = "bifrost.attempt.id"
ATTEMPT_NUMBER: Final = "bifrost.attempt.number"
ATTEMPT_INPUT_TOKENS: Final = "bifrost.attempt.input_tokens"  # not the convention's: the call's span has those
ATTEMPT_OUTPUT_TOKENS: Final = "bifrost.attempt.output_tokens"
ATTEMPT_TIME_TO_FIRST_TOKEN: Final = "bifrost.attempt.time_to_first_token"  # noqa: S105 # the name of an attribute
ROUTE_PROVIDER: Final = "bifrost.route.provider"
ROUTE_MODEL: Final = "bifrost.route.model"
ROUTE_KEY_ID: Final = "bifrost.route.key_id"

# Our own metrics.
CALLS: Final = "bifrost.client.calls"
IN_FLIGHT: Final = "bifrost.client.calls.in_flight"
RETRIES: Final = "bifrost.client.retries"
TOTAL_COST: Final = "bifrost.client.cost"
ATTEMPT_DURATION: Final = "bifrost.client.attempt.duration"
KEY_HEALTH: Final = "bifrost.client.key.health"

ATTEMPT_SPAN: Final = "bifrost.attempt"
OTHER: Final = "other"
"""What stands for the values that a metric has no room for."""

_OPERATIONS: Final[Mapping[Operation, str]] = {
    **{operation: str(operation) for operation in Operation},
    Operation.RESPONSES: "chat",
    Operation.FIM: "text_completion",
}
_PROVIDERS: Final[Mapping[str, str]] = {"mistral": "mistral_ai"}


def operation_name(operation: Operation) -> str:
    """An operation's name in the conventions; its own where they have none."""
    return _OPERATIONS[operation]


def provider_name(provider: str) -> str:
    """A provider's name in the conventions; its own where they have none."""
    return _PROVIDERS.get(provider, provider)
