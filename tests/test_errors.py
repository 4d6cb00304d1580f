"""What errors say beside their message; the tree and its statuses are in test_public_api.py."""

from __future__ import annotations

import pytest

from bifrost_core import (
    CallError,
    GuardrailError,
    Kind,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderRateLimitError,
    ProviderServerError,
    RefusedError,
    StreamBrokenError,
)
from bifrost_core.errors import error_class
from bifrost_core.kinds import FACTS, Scope


@pytest.mark.parametrize(
    ("error", "scope", "processed", "billed", "retryable"),
    [
        pytest.param(ProviderAuthError("x"), Scope.KEY, "no", "none", False, id="auth"),
        pytest.param(ProviderRateLimitError("x"), Scope.QUOTA_GROUP, "no", "none", True, id="rate-limited"),
        pytest.param(ProviderServerError("x", status=503), Scope.PROVIDER, "unknown", "unknown", True, id="503"),
        pytest.param(ProviderServerError("x", status=500), Scope.DEPLOYMENT, "unknown", "unknown", True, id="500"),
        pytest.param(ProviderConnectionError("x"), Scope.PROVIDER, "no", "none", True, id="not-connected"),
        pytest.param(StreamBrokenError("x"), Scope.DEPLOYMENT, "yes", "partial", True, id="cut-stream"),
        pytest.param(RefusedError("x"), None, "no", "none", False, id="refused"),
        pytest.param(RefusedError("x", retry_after=3.0), None, "no", "none", True, id="refused-for-now"),
        pytest.param(GuardrailError("x"), None, "no", "none", False, id="guardrail"),
    ],
)
def test_an_error_says_whose_fault_it_is_and_what_it_may_have_cost(
    error: CallError, scope: Scope | None, processed: str, billed: str, retryable: bool
) -> None:
    assert (error.scope_at_fault, error.processed, error.billed, error.retryable) == (
        scope,
        processed,
        billed,
        retryable,
    )


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_raised_as_a_class_that_knows_its_status(kind: Kind) -> None:
    error = error_class(kind)("x", kind=kind)
    assert error.kind is kind
    assert 400 <= error.http_status <= 599
    assert FACTS[kind].http_status in {None, error.http_status}


def test_a_status_that_is_given_stays() -> None:
    assert CallError("x", kind=Kind.NO_ROUTE, http_status=429).http_status == 429


def test_the_router_can_fill_in_what_a_plugin_left_out() -> None:
    error = RefusedError("x")
    error.call_id, error.model = "c1", "mistral/small"
    assert (error.call_id, error.model, error.attempts, error.retry_after) == ("c1", "mistral/small", (), None)
