"""Every kind has its facts; what the name alone does not settle is settled by three functions."""

from __future__ import annotations

import pytest

from bifrost_core.kinds import FACTS, Cooling, Kind, Scope, Step, outcome_of, scope_of, steps_of

ALL = pytest.mark.parametrize("kind", list(Kind), ids=str)

# design.md, section 3, the table of errors; None: the provider's own status
GATEWAY_STATUS = {
    401: ["unauthenticated"],
    402: ["budget_exceeded"],
    403: ["refused"],
    404: ["model_not_found"],
    413: ["request_too_large"],
    429: ["rate_exceeded", "rate_limited", "quota_exhausted"],
    446: ["guardrail_blocked"],
    499: ["cancelled"],
    502: [
        *("auth", "no_credentials", "payment", "permission"),
        *("server_error", "bad_response", "bad_usage", "response_too_large", "protocol_error", "redirect"),
        *("connect_error", "connection_lost"),
        *("stream_truncated", "stream_error", "stream_malformed", "stream_stalled"),
    ],
    503: ["model_overloaded", "budget_unavailable", "no_route", "plugin_error"],
    504: ["server_timeout", "read_timeout", "deadline_exceeded"],
    None: ["invalid_request", "context_too_long", "content_filtered", "conflict"],
}


def test_every_kind_has_facts() -> None:
    assert set(FACTS) == set(Kind)


def test_a_gateway_answers_with_the_status_that_the_contract_names() -> None:
    found: dict[int | None, set[str]] = {}
    for kind, facts in FACTS.items():
        found.setdefault(facts.http_status, set()).add(str(kind))
    assert found == {status: set(kinds) for status, kinds in GATEWAY_STATUS.items()}


@ALL
def test_what_closes_something_says_what_and_what_closes_nothing_does_not(kind: Kind) -> None:
    facts = FACTS[kind]
    assert (facts.scope is None) == (facts.cooling is Cooling.NOTHING)
    assert (facts.seconds > 0) == (facts.cooling in (Cooling.FIXED, Cooling.REJECTED))


@ALL
def test_the_words_are_the_taxonomys(kind: Kind) -> None:
    facts = FACTS[kind]
    assert facts.processed in {"no", "unknown", "yes"}
    assert facts.billed in {"none", "unknown", "partial", "full"}
    assert facts.balancer in {"ok", "rate_limit", "auth", "error", "client"}


@ALL
def test_what_was_not_processed_is_not_billed(kind: Kind) -> None:
    facts = FACTS[kind]
    assert facts.processed != "no" or facts.billed == "none"


@ALL
def test_a_step_is_named_once(kind: Kind) -> None:
    assert len(set(FACTS[kind].steps)) == len(FACTS[kind].steps)


@pytest.mark.parametrize(
    ("kind", "status", "html", "scope"),
    [
        pytest.param(Kind.SERVER_ERROR, 500, False, Scope.DEPLOYMENT, id="a 500 is the deployment's"),
        pytest.param(Kind.SERVER_ERROR, 502, False, Scope.PROVIDER, id="a 502 is the provider's"),
        pytest.param(Kind.SERVER_ERROR, None, False, Scope.PROVIDER, id="without a status it is the provider's"),
        pytest.param(Kind.SERVER_TIMEOUT, 504, False, Scope.PROVIDER, id="a 504 is the provider's"),
        pytest.param(Kind.BAD_RESPONSE, 200, False, Scope.DEPLOYMENT, id="a garbled answer is the deployment's"),
        pytest.param(Kind.BAD_RESPONSE, 200, True, Scope.PROVIDER, id="a web page is the provider's"),
        pytest.param(Kind.INVALID_REQUEST, 400, False, None, id="a 400 is nobody's"),
    ],
)
def test_a_failure_is_held_against(kind: Kind, status: int | None, html: bool, scope: Scope | None) -> None:
    assert scope_of(kind, status, html=html) is scope


@pytest.mark.parametrize("kind", [Kind.BUDGET_EXCEEDED, Kind.RATE_EXCEEDED], ids=str)
@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        pytest.param(None, (), id="the caller's"),
        pytest.param(Scope.DEPLOYMENT, (Step.DEPLOYMENT,), id="the deployment's"),
        pytest.param(Scope.PROVIDER, (Step.DEPLOYMENT,), id="the provider's"),
        pytest.param(Scope.KEY, (Step.KEY, Step.DEPLOYMENT), id="the key's"),
    ],
)
def test_our_own_limits_send_a_call_on_only_when_they_are_not_the_callers(
    kind: Kind, limit: Scope | None, steps: tuple[Step, ...]
) -> None:
    assert steps_of(kind, limit) == steps


def test_a_limits_owner_means_nothing_for_other_kinds() -> None:
    assert steps_of(Kind.INVALID_REQUEST, Scope.KEY) == ()


@pytest.mark.parametrize(
    ("kind", "status", "retry_after", "outcome"),
    [
        pytest.param(None, 200, None, "ok", id="an answer"),
        pytest.param(Kind.SERVER_ERROR, 503, 2.0, "rate_limit", id="503 with a wait"),
        pytest.param(Kind.SERVER_ERROR, 503, None, "error", id="503 without"),
        pytest.param(Kind.SERVER_ERROR, 503, 0.0, "error", id="503 with a wait of 0"),
        pytest.param(Kind.SERVER_ERROR, 500, 2.0, "error", id="500 with a wait"),
        pytest.param(Kind.MODEL_OVERLOADED, 529, 2.0, "rate_limit", id="529 with a wait"),
        pytest.param(Kind.MODEL_OVERLOADED, 529, None, "client", id="529 without"),
        pytest.param(Kind.MODEL_OVERLOADED, 429, 2.0, "client", id="capacity of the model"),
    ],
)
def test_the_balancer_is_told(kind: Kind | None, status: int, retry_after: float | None, outcome: str) -> None:
    assert outcome_of(kind, status, retry_after) == outcome


def test_a_new_call_may_succeed_after_faults_but_not_after_mistakes_refusals_and_wrong_settings() -> None:
    hopeless = {kind for kind, facts in FACTS.items() if not facts.retryable}
    assert hopeless == {
        *(Kind.INVALID_REQUEST, Kind.CONTEXT_TOO_LONG, Kind.REQUEST_TOO_LARGE, Kind.CONTENT_FILTERED, Kind.BAD_USAGE),
        *(Kind.AUTH, Kind.NO_CREDENTIALS, Kind.PAYMENT, Kind.PERMISSION, Kind.MODEL_NOT_FOUND, Kind.REDIRECT),
        *(Kind.UNAUTHENTICATED, Kind.REFUSED, Kind.BUDGET_EXCEEDED, Kind.GUARDRAIL_BLOCKED, Kind.PLUGIN_ERROR),
    }
