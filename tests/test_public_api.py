"""The public names, the errors as a contract, and secrets that stay inside."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pytest

import bifrost_core
from bifrost_core import (
    Attempt,
    BadRequestError,
    BifrostError,
    BudgetExceededError,
    Call,
    CallError,
    CallRecord,
    ChatResponse,
    Choice,
    ConfigError,
    ContextLengthError,
    DeadlineExceededError,
    GuardrailError,
    Key,
    Kind,
    ModelNotFoundError,
    NoKeyAvailableError,
    Operation,
    PluginError,
    Price,
    Principal,
    ProviderAuthError,
    ProviderConnectionError,
    ProviderError,
    ProviderRateLimitError,
    ProviderServerError,
    ProviderTimeoutError,
    RateLimitError,
    RefusedError,
    Request,
    RouteRef,
    Secret,
    StreamBrokenError,
    StructuredOutputError,
    UnsupportedParameterError,
    Usage,
    VirtualKeyError,
)
from bifrost_core.errors import error_class

CANARY = "sk-canary-4f1d2c3b5a69788796a5b4c3d2e1f0ab"

# The names that the contract promises, by what they are for.
PROMISED = {
    "router": "Router SyncRouter ChatStream ResponseStream RetryPolicy Hedge Timeout RouteHealth Clock SystemClock",
    "values": "Attempt Call CallRecord Choice Chunk Estimate File Key Kind Message Operation Price PriceBook Principal Request "
    "Route RouteRef Secret ToolCall Usage",
    "responses": "ChatResponse ClassificationResponse EmbeddingResponse ModelInfo ModelList ModerationResponse "
    "OcrResponse Response ResponsesResponse SpeechResponse Transcription",
    "errors": "BadRequestError BifrostError BudgetExceededError CallError ConfigError ContextLengthError "
    "DeadlineExceededError GuardrailError ModelNotFoundError NoKeyAvailableError PluginError ProviderAuthError "
    "ProviderConnectionError ProviderError ProviderRateLimitError ProviderServerError ProviderTimeoutError "
    "RateLimitError RefusedError StreamBrokenError UnsupportedParameterError VirtualKeyError",
    "balancers": "Balancer LatencyWeighted LeastBusy LowestLatency RoundRobin WeightedRandom",
    "plugins": "HookOptions StreamFilter hookimpl load_plugins",
    "providers": "Anthropic HttpEngine Mistral OpenAI OpenAICompatible Provider",
}


def every_error(cls: type[BifrostError] = BifrostError) -> list[type[BifrostError]]:
    found = [cls]
    for child in cls.__subclasses__():
        found += every_error(child)
    return [each for each in found if each.__module__.startswith("bifrost_core")]


ERRORS = sorted(set(every_error()), key=lambda cls: cls.__name__)
each_error = pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", PROMISED)
def test_every_promised_name_is_there(group: str) -> None:
    assert set(PROMISED[group].split()) <= set(bifrost_core.__all__)


def test_names_are_sorted_unique_and_exist() -> None:
    names = bifrost_core.__all__
    assert list(names) == sorted(set(names))
    assert all(hasattr(bifrost_core, name) for name in names)


def test_a_star_import_brings_exactly_these() -> None:
    program = "from bifrost_core import *; print(sorted(n for n in globals() if not n.startswith('__')))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(list(bifrost_core.__all__))


def test_every_public_name_says_what_it_is() -> None:
    silent = [name for name in bifrost_core.__all__ if not getattr(bifrost_core, name).__doc__]
    assert silent == []


# -- errors --------------------------------------------------------------------------------------------------------

KINDS_OF: dict[type[CallError], dict[str, int]] = {
    VirtualKeyError: {"unauthenticated": 401},
    RefusedError: {"refused": 403},
    BudgetExceededError: {"budget_exceeded": 402, "budget_unavailable": 503},
    RateLimitError: {"rate_exceeded": 429},
    GuardrailError: {"guardrail_blocked": 446},
    BadRequestError: {"invalid_request": 400, "request_too_large": 413, "content_filtered": 400, "conflict": 400},
    ContextLengthError: {"context_too_long": 400},
    ModelNotFoundError: {"model_not_found": 404},
    ProviderAuthError: {"auth": 502, "no_credentials": 502, "payment": 502, "permission": 502},
    ProviderRateLimitError: {"rate_limited": 429, "quota_exhausted": 429},
    ProviderServerError: {
        "server_error": 502,
        "model_overloaded": 503,
        "bad_response": 502,
        "response_too_large": 502,
        "protocol_error": 502,
        "redirect": 502,
    },
    ProviderConnectionError: {"connect_error": 502, "connection_lost": 502},
    ProviderTimeoutError: {"server_timeout": 504, "read_timeout": 504},
    StreamBrokenError: {"stream_truncated": 502, "stream_error": 502, "stream_malformed": 502, "stream_stalled": 502},
    DeadlineExceededError: {"deadline_exceeded": 504},
    NoKeyAvailableError: {"no_route": 503},
    PluginError: {"plugin_error": 503},
}


@pytest.mark.parametrize(
    ("cls", "kind", "status"),
    [
        pytest.param(cls, kind, status, id=f"{cls.__name__}-{kind}")
        for cls, kinds in KINDS_OF.items()
        for kind, status in kinds.items()
    ],
)
def test_each_kind_has_its_class_and_its_status(cls: type[CallError], kind: str, status: int) -> None:
    error = cls("what happened", kind=Kind(kind))
    assert error.http_status == status
    assert error_class(Kind(kind)) is cls


def test_the_table_of_kinds_is_complete() -> None:
    named = {kind for kinds in KINDS_OF.values() for kind in kinds}
    assert set(Kind) - {Kind(kind) for kind in named} == {Kind.CANCELLED, Kind.BAD_USAGE}  # neither is raised


@pytest.mark.parametrize(
    ("cls", "kind"),
    [
        pytest.param(cls, next(iter(kinds)), id=cls.__name__)
        for cls, kinds in KINDS_OF.items()
        if cls is not ProviderConnectionError
    ],
)
def test_a_class_has_its_first_kind_by_default(cls: type[CallError], kind: str) -> None:
    assert cls("what happened").kind == ("read_timeout" if cls is ProviderTimeoutError else kind)


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        pytest.param(422, Kind.INVALID_REQUEST, 422, id="422"),
        pytest.param(501, Kind.INVALID_REQUEST, 501, id="501"),
        pytest.param(409, Kind.CONFLICT, 409, id="409"),
        pytest.param(400, Kind.REQUEST_TOO_LARGE, 400, id="too-large-as-400"),
        pytest.param(200, Kind.INVALID_REQUEST, 400, id="no-error-status"),
        pytest.param(None, Kind.INVALID_REQUEST, 400, id="found-here"),
        pytest.param(None, Kind.REQUEST_TOO_LARGE, 413, id="too-large-found-here"),
    ],
)
def test_a_bad_request_has_the_providers_status(status: int | None, kind: Kind, expected: int) -> None:
    assert BadRequestError("no", kind=kind, status=status).http_status == expected
    assert UnsupportedParameterError("no", kind=kind, status=status).http_status == expected


def test_a_rejected_key_of_ours_is_not_the_callers_fault() -> None:
    error = ProviderAuthError("no", status=401)
    assert (error.status, error.http_status) == (401, 502)


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        pytest.param(ConfigError, BifrostError, id="ConfigError"),
        pytest.param(PluginError, CallError, id="PluginError"),
        pytest.param(VirtualKeyError, RefusedError, id="VirtualKeyError"),
        pytest.param(BudgetExceededError, RefusedError, id="BudgetExceededError"),
        pytest.param(RateLimitError, RefusedError, id="RateLimitError"),
        pytest.param(GuardrailError, RefusedError, id="GuardrailError"),
        pytest.param(StreamBrokenError, ProviderError, id="StreamBrokenError"),
        pytest.param(BadRequestError, ProviderError, id="BadRequestError"),
        pytest.param(ContextLengthError, BadRequestError, id="ContextLengthError"),
        pytest.param(UnsupportedParameterError, BadRequestError, id="UnsupportedParameterError"),
        pytest.param(ModelNotFoundError, CallError, id="ModelNotFoundError"),
        pytest.param(NoKeyAvailableError, CallError, id="NoKeyAvailableError"),
        pytest.param(DeadlineExceededError, CallError, id="DeadlineExceededError"),
    ],
)
def test_the_tree(cls: type[BifrostError], base: type[BifrostError]) -> None:
    assert cls.__bases__ == (base,)


@each_error
def test_an_error_needs_its_message_only_and_shows_only_that(cls: type[BifrostError]) -> None:
    error = cls("what happened; what to do")
    assert (str(error), repr(error)) == (
        "what happened; what to do",
        f"{cls.__name__}('what happened; what to do')",
    )
    assert cls.__doc__


SAMPLES: dict[str, object] = {
    "call_id": "c1",
    "model": "mistral/small",
    "kind": Kind.RATE_LIMITED,
    "retry_after": 2.5,
    "http_status": 418,
    "status": 429,
    "candidates": ("a", "b"),
    "partial": ChatResponse(choices=(Choice(text="so far"),), usage=Usage(input_tokens=1)),
    "spent": Decimal("1.5"),
    "held": Decimal(0),
    "limit": Decimal(2),
    "resets_in": 60.0,
    "deadline_limited": True,
}


@each_error
def test_an_error_survives_pickling_with_every_field_and_its_cycles(cls: type[BifrostError]) -> None:
    fields = attrs.fields_dict(cls)
    values: dict[str, Any] = {name: SAMPLES.get(name, name) for name in fields if name != "attempts"}
    error = cls(**values)
    error.add_note("a note")
    if isinstance(error, CallError):
        route = RouteRef("mistral", "small", "k1")
        error.attempts = (Attempt("a1", route, price=Price(input="1"), outcome="failed", error=error),)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is cls
        assert str(twin) == str(error)
        assert twin.args[:1] == error.args[:1] == ("message",)
        assert twin.__notes__ == ["a note"]
        for name in fields:
            if name != "attempts":
                assert getattr(twin, name) == getattr(error, name), name
    if isinstance(error, CallError):
        twin = pickle.loads(pickle.dumps(error))
        assert twin.attempts[0].error is twin
        assert attrs.evolve(twin.attempts[0], error=None).route == RouteRef("mistral", "small", "k1")


@each_error
def test_an_error_is_raised_and_caught_like_any_other(cls: type[BifrostError]) -> None:
    with pytest.raises(BifrostError, match="broken") as caught:
        raise cls("broken")
    assert caught.value.message == "broken"


def test_kinds_may_be_given_as_strings() -> None:
    assert RefusedError("no", kind="budget_exceeded").kind is Kind.BUDGET_EXCEEDED
    with pytest.raises(ValueError, match="nonsense"):
        RefusedError("no", kind="nonsense")


def test_structured_output_errors_keep_the_text_out_of_sight() -> None:
    error = StructuredOutputError("does not fit", text="the answer")
    assert error.text == "the answer"
    assert "the answer" not in f"{error} {error!r}"


# -- secrets -------------------------------------------------------------------------------------------------------

TELLERS: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "format": lambda value: f"{value:>60}" if isinstance(value, Secret) else f"{value}",
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031 # one more way in which secrets get out
    "ascii": ascii,
    "asdict": lambda value: attrs.asdict(value) if attrs.has(type(value)) else "",
    "astuple": lambda value: attrs.astuple(value) if attrs.has(type(value)) else "",
    "dir": lambda value: {
        name: repr(getattr(value, name, "")) for name in dir(value) if not name.startswith("_Secret")
    },
}
HOLDERS: dict[str, Callable[[], object]] = {
    "Secret": lambda: Secret(CANARY),
    "Key": lambda: Key(CANARY),
    "named Key": lambda: Key(CANARY, id="k1"),
    "evolved Key": lambda: attrs.evolve(Key(CANARY), weight=2.0),
    "resolved Key": lambda: Key("vault:llm/mistral").resolve(CANARY),
    "Call": lambda: Call(
        "c1", Operation.CHAT, Request(Operation.CHAT, "m"), virtual_key=Secret(CANARY), headers={"x": CANARY}
    ),
}


@pytest.mark.parametrize("holder", HOLDERS)
@pytest.mark.parametrize("teller", TELLERS)
def test_no_way_of_showing_a_holder_shows_its_secret(holder: str, teller: str) -> None:
    value = HOLDERS[holder]()
    if holder == "Call" and teller in {"asdict", "astuple", "dir"}:
        value = attrs.evolve(value, headers={})  # type: ignore[misc] # headers are shown by who asks for them
    assert CANARY not in str(TELLERS[teller](value))


@pytest.mark.parametrize(
    "dump",
    [
        pytest.param(pickle.dumps, id="pickle"),
        pytest.param(json.dumps, id="json"),
        pytest.param(msgspec.json.encode, id="msgspec"),
        pytest.param(lambda value: value.__reduce_ex__(4), id="reduce"),
        pytest.param(
            lambda value: value.__getstate__() if isinstance(value, Secret) else pickle.dumps(value), id="state"
        ),
    ],
)
@pytest.mark.parametrize("holder", ["Secret", "Key"])
def test_a_secret_is_not_serialised(holder: str, dump: Callable[[object], object]) -> None:
    shown = ""
    try:
        shown = str(dump(HOLDERS[holder]()))
    except TypeError as error:
        shown = f"{error} {error!r}"
    assert shown
    assert CANARY not in shown


@pytest.mark.parametrize("holder", ["Secret", "Key"])
def test_pickling_is_refused(holder: str) -> None:
    with pytest.raises(TypeError, match="env:NAME"):
        pickle.dumps(HOLDERS[holder]())


@pytest.mark.parametrize("holder", ["Secret", "Key"])
def test_a_copy_holds_the_same_secret_and_no_copy_of_it(holder: str) -> None:
    value = HOLDERS[holder]()
    for twin in (copy.copy(value), copy.deepcopy(value)):
        assert twin == value
        assert CANARY not in repr(twin)


WRONG: dict[str, Callable[[], object]] = {
    "secret with a line break": lambda: Secret(f"{CANARY}\nx"),
    "secret with a space": lambda: Secret(f"{CANARY} "),
    "secret outside ASCII": lambda: Secret(f"{CANARY}é"),
    "secret too long": lambda: Secret(CANARY * 200),
    "key with a bad secret": lambda: Key(f"{CANARY}\x00", id="k1"),
    "key with a bad weight": lambda: Key(CANARY, weight=-1),
    "key with a bad id": lambda: Key(CANARY, id=""),
    "key resolved badly": lambda: Key("vault:x").resolve(f"{CANARY} x"),
    "key as bytes": lambda: Key(CANARY.encode()),  # type: ignore[arg-type] # wrong on purpose
    "pickled key": lambda: pickle.dumps(Key(CANARY)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_no_error_about_a_secret_holds_it(wrong: str) -> None:
    try:
        WRONG[wrong]()
    except (BifrostError, TypeError) as error:
        caught: BaseException = error
    else:
        pytest.fail("that was accepted")
    texts = ["".join(traceback.format_exception(caught)), repr(caught), str(vars(caught))]
    waiting: list[BaseException | None] = [caught]
    while waiting:
        each = waiting.pop()
        if each is None:
            continue
        waiting += [each.__cause__, each.__context__]
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if frame.f_globals.get("__name__", "").startswith("bifrost_core"):
                texts += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
    if isinstance(caught, BifrostError):
        texts.append(repr(pickle.dumps(caught)))
    assert CANARY not in "\n".join(texts)


def test_the_environment_is_not_quoted_when_it_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIFROST_CANARY", f"{CANARY} with a space")
    with pytest.raises(ConfigError, match="env BIFROST_CANARY") as caught:
        Key.from_env("BIFROST_CANARY")
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert CANARY not in shown


def test_a_record_shows_no_words() -> None:
    record = CallRecord(
        call_id="c1",
        operation=Operation.CHAT,
        model="mistral/small",
        principal=Principal(id="p"),
        outcome="ok",
        kind=None,
        response=ChatResponse(choices=(Choice(text="the answer"),)),
        error=None,
        attempts=(),
        usage=Usage(),
        cost=None,
        cached=False,
        started_at=0.0,
        latency=0.0,
        time_to_first_token=None,
        metadata={"name": "the metadata"},
    )
    assert "the " not in repr(record)
