"""What an adapter is made of: keys, base URL, options; and that no credential shows."""

from __future__ import annotations

import ssl
import traceback
from typing import Any

import pytest

from bifrost_core.errors import ConfigError, UnsupportedParameterError
from bifrost_core.keys import Key, Secret
from bifrost_core.providers import Mistral
from bifrost_core.providers._urls import base_of
from bifrost_core.types import Operation, Request

CANARY = "sk-canary-0123456789abcdef"


def shown_by(error: BaseException) -> str:
    """All that an error could show: its text, and the locals of our own frames."""
    parts = [str(error), repr(error), repr(error.__cause__), repr(error.__context__), repr(vars(error))]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if "bifrost_core" in frame.f_code.co_filename:
            parts += [repr(value) for value in frame.f_locals.values()]
    return "\n".join(parts)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.mistral.ai", "https://api.mistral.ai"),
        ("https://api.mistral.ai/", "https://api.mistral.ai"),
        ("https://api.mistral.ai/v1", "https://api.mistral.ai"),
        ("https://api.mistral.ai/v1/", "https://api.mistral.ai"),
        ("https://gw.example:8443/llm/mistral/v1/", "https://gw.example:8443/llm/mistral"),
        ("https://gw.example/llm/mistral", "https://gw.example/llm/mistral"),
        ("https://gw.example/av1", "https://gw.example/av1"),
        ("http://127.0.0.1:8099/_fault/cut=60%25/v1", "http://127.0.0.1:8099/_fault/cut=60%25"),
        ("http://localhost:1", "http://localhost:1"),
        ("http://[::1]:80/v1", "http://[::1]:80"),
    ],
)
def test_a_base_url_is_brought_into_one_form(url: str, base: str) -> None:
    assert base_of(url) == base
    call = Mistral(CANARY, base_url=url).encode(Request("chat", "m", {"messages": [{"role": "user", "content": "x"}]}))
    assert call.url == f"{base}/v1/chat/completions"


@pytest.mark.parametrize(
    "url",
    [
        "http://api.mistral.ai",
        "http://10.0.0.1",
        "ftp://api.mistral.ai",
        "api.mistral.ai",
        "https://",
        "https://user:hunter2-hunter2@api.mistral.ai",
        "https://api.mistral.ai?key=1",
        "https://api.mistral.ai#x",
        "https://api.mistral.ai/\r\nx: y",
        "https://exämple.org",
        "https://host:99999",
        "https://[::1",
        "",
    ],
)
def test_a_base_url_that_could_give_a_key_away_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mistral(CANARY, base_url=url)
    assert caught.value.field == "base_url"
    assert "hunter2" not in shown_by(caught.value)


def test_http_to_another_machine_needs_a_word() -> None:
    assert Mistral(CANARY, base_url="http://10.0.0.1/v1", allow_http=True).base_url == "http://10.0.0.1"


def test_keys_are_keys_secrets_or_strings() -> None:
    provider = Mistral([Key("sk-one-0123456789", id="one"), "sk-two-0123456789", Secret("sk-three-0123456789")])
    assert [key.secret.reveal() for key in provider.keys if key.secret] == [
        "sk-one-0123456789",
        "sk-two-0123456789",
        "sk-three-0123456789",
    ]
    assert provider.keys[0].id == "one"
    assert len(Mistral("sk-one-0123456789").keys) == 1


@pytest.mark.parametrize(
    ("keys", "field"),
    [
        pytest.param([CANARY, CANARY], "keys", id="the-same-twice"),
        pytest.param([Key(CANARY, id="a"), Key("sk-other-0123456789", id="a")], "keys", id="one-id-twice"),
        pytest.param([CANARY + "\u00fc"], "keys[0]", id="not-ascii"),
        pytest.param([CANARY + "\nx"], "keys[0]", id="line-break"),
        pytest.param([CANARY, 7], "keys", id="number"),
        pytest.param(7, "keys", id="no-list"),
        pytest.param([], "keys", id="none"),
    ],
)
def test_unusable_keys_are_refused_without_being_shown(keys: Any, field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mistral(keys)
    assert caught.value.field == field
    assert CANARY not in shown_by(caught.value)


def test_options_make_the_network() -> None:
    context = ssl.create_default_context()
    provider = Mistral(
        CANARY,
        headers={"X-Team": "search"},
        proxy="http://proxy.example:3128",
        verify=context,
        max_in_flight=20,
        max_in_flight_per_key=5,
    )
    network = provider.network
    assert (network.headers, network.proxy, network.verify) == (
        {"x-team": "search"},
        "http://proxy.example:3128",
        context,
    )
    assert (network.max_in_flight, network.max_in_flight_per_key) == (20, 5)


@pytest.mark.parametrize(
    ("options", "field", "said"),
    [
        pytest.param({"retires": 3}, "retires", "retires", id="unknown"),
        pytest.param({"headers": {"x y": "1"}}, "headers", "name", id="header-name"),
        pytest.param({"headers": {"x-a": "a\r\nb: c"}}, "headers", "x-a", id="header-value"),
        pytest.param({"headers": {"Authorization": CANARY}}, "headers", "Authorization", id="header-of-ours"),
        pytest.param({"headers": [("a", "b")]}, "headers", "mapping", id="headers-as-a-list"),
        pytest.param({"proxy": "proxy.example"}, "proxy", "URL", id="proxy"),
        pytest.param({"verify": False}, "verify", "can not be off", id="no-verification"),
        pytest.param({"max_in_flight": 0}, "max_in_flight", "at least 1", id="limit-of-zero"),
        pytest.param({"max_in_flight_per_key": True}, "max_in_flight_per_key", "at least 1", id="boolean-limit"),
    ],
)
def test_options_that_are_not_usable_are_refused_by_name(options: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Mistral(CANARY, **options)
    assert caught.value.field == field
    assert CANARY not in shown_by(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "Mistral", "a b", "-x"])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Mistral(CANARY, name=name)
    assert caught.value.field == "name"


def test_nothing_about_a_provider_shows_its_keys() -> None:
    provider = Mistral(CANARY, name="eu")
    assert "eu" in repr(provider)
    assert CANARY not in repr(provider) + repr(provider.network) + repr(provider.keys)


@pytest.mark.parametrize(
    ("model", "is_known"),
    [
        ("mistral-small-latest", True),
        ("open-mixtral-8x7b", True),
        ("codestral-2508", True),
        ("labs-leanstral-1-5", True),
        ("magistral-small-latest", True),
        ("mistral-medium-3.5", True),
        ("gpt-4o", False),
        ("not-mistral", False),
        ("mistralish", False),
        ("", False),
    ],
)
def test_models_are_known_by_their_family(model: str, is_known: bool) -> None:
    assert Mistral(CANARY).knows(model) is is_known


def test_an_operation_that_is_not_mapped_is_refused_by_name() -> None:
    class ChatOnly(Mistral):
        codecs = {Operation.CHAT: Mistral.codecs[Operation.CHAT]}  # noqa: RUF012 # as the base has it

    provider = ChatOnly(CANARY)
    assert provider.operations == {Operation.CHAT}
    missing = Operation.EMBEDDINGS
    for ask in (provider.encode, provider.decoder):
        with pytest.raises(UnsupportedParameterError) as caught:
            ask(Request(missing, "m", {}))
        assert caught.value.parameter == missing.value


@pytest.mark.parametrize(
    ("headers", "quotas"),
    [
        pytest.param(
            {
                "x-ratelimit-limit-req-minute": "60",
                "x-ratelimit-remaining-req-minute": "45",
                "x-ratelimit-limit-tokens-minute": "100000",
                "x-ratelimit-remaining-tokens-minute": "50000",
                "x-ratelimit-tokens-query-cost": "15",
            },
            [("requests", 45.0, 60.0, 15.0), ("tokens", 50_000.0, 100_000.0, 30.0)],
            id="names-of-2026",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-ocr-pages-minute": "625",
                "x-ratelimit-remaining-ocr-pages-minute": "625",
                "x-ratelimit-ocr-pages-query-cost": "3",
            },
            [("ocr-pages", 625.0, 625.0, 0.0)],
            id="pages",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-req-minute": "360",
                "x-ratelimit-remaining-req-minute": "180",
                "x-ratelimit-limit-audio-seconds-minute": "7200",
                "x-ratelimit-remaining-audio-seconds-minute": "1800",
                "x-ratelimit-audio-seconds-query-cost": "3",
            },
            [("requests", 180.0, 360.0, 30.0), ("audio-seconds", 1800.0, 7200.0, 45.0)],
            id="seconds-of-audio",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-input-characters-minute": "24000",
                "x-ratelimit-remaining-input-characters-minute": "12000",
                "x-ratelimit-input-characters-query-cost": "64",
            },
            [("input-characters", 12_000.0, 24_000.0, 30.0)],
            id="characters",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-req-minute": "500",
                "x-ratelimit-remaining-req-minute": "250",
                "x-ratelimit-tokens-query-cost": "13",
            },
            [("requests", 250.0, 500.0, 30.0)],
            id="embeddings-and-moderations",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-req-10-second": "60",
                "x-ratelimit-remaining-req-10-second": "30",
                "x-ratelimit-limit-tokens-minute": "10",
                "x-ratelimit-remaining-tokens-minute": "10",
                "x-ratelimit-limit-tokens-month": "100",
                "x-ratelimit-remaining-tokens-month": "50",
            },
            [("requests", 30.0, 60.0, 5.0), ("tokens", 10.0, 10.0, 0.0), ("tokens-month", 50.0, 100.0, 1_296_000.0)],
            id="names-of-2025",
        ),
        pytest.param(
            {"ratelimitbysize-limit": "1000", "ratelimitbysize-remaining": "900"},
            [("tokens", 900.0, 1000.0, 6.0)],
            id="names-of-2024",
        ),
        pytest.param(
            {
                "ratelimitbysize-limit": "2000",
                "ratelimitbysize-query-cost": "26",
                "ratelimitbysize-remaining": "500",
                "ratelimitbysize-reset": "48",
                "x-ratelimitbysize-limit-minute": "2000",
                "x-ratelimitbysize-limit-month": "10000",
                "x-ratelimitbysize-remaining-minute": "500",
                "x-ratelimitbysize-remaining-month": "7500",
            },
            [("tokens", 500.0, 2000.0, 48.0), ("tokens-month", 7500.0, 10_000.0, 648_000.0)],
            id="names-of-2024-with-a-reset",
        ),
        pytest.param(
            {
                "x-ratelimitbysize-limit-minute": "2000",
                "x-ratelimitbysize-remaining-minute": "500",
                "ratelimitbysize-reset": "soon",
            },
            [("tokens", 500.0, 2000.0, 45.0)],
            id="the-long-names-of-2024-alone",
        ),
        pytest.param(
            {"x-ratelimit-limit-req-minute": "5", "x-ratelimit-remaining-req-minute": "9"},
            [("requests", 5.0, 5.0, 0.0)],
            id="more-left-than-there-is",
        ),
        pytest.param({"x-ratelimit-limit-req-minute": "60"}, [], id="half-a-pair"),
        pytest.param(
            {"x-ratelimit-limit-req-minute": "0", "x-ratelimit-remaining-req-minute": "0"}, [], id="limit-of-zero"
        ),
        pytest.param(
            {"x-ratelimit-limit-req-minute": "nan", "x-ratelimit-remaining-req-minute": "-1"}, [], id="no-numbers"
        ),
        pytest.param(
            {"x-ratelimit-limit-req-week": "7", "x-ratelimit-remaining-req-week": "7"}, [], id="unknown-window"
        ),
    ],
)
def test_what_is_left_of_the_limits_is_read(
    headers: dict[str, str], quotas: list[tuple[str, float, float, float]]
) -> None:
    found = Mistral(CANARY).quotas(headers)
    assert [(quota.kind, quota.remaining, quota.limit, quota.reset) for quota in found] == quotas


def test_the_reset_gives_the_rate_of_a_sliding_window() -> None:
    (quota,) = Mistral(CANARY).quotas({"x-ratelimit-limit-req-minute": "120", "x-ratelimit-remaining-req-minute": "20"})
    assert (quota.limit - quota.remaining) / quota.reset == pytest.approx(120 / 60)


@pytest.mark.parametrize(
    ("headers", "rest"),
    [
        pytest.param(
            {"ratelimitbysize-limit": "10", "ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "42"},
            42.0,
            id="nothing-left-until-a-stated-reset",
        ),
        pytest.param(
            {"ratelimitbysize-limit": "10", "ratelimitbysize-remaining": "1", "ratelimitbysize-reset": "42"},
            0.0,
            id="something-left",
        ),
        pytest.param(
            {"x-ratelimit-limit-req-minute": "4", "x-ratelimit-remaining-req-minute": "0"}, 0.0, id="no-stated-reset"
        ),
    ],
)
def test_a_limit_with_nothing_left_rests_until_a_reset_that_is_stated(headers: dict[str, str], rest: float) -> None:
    (quota,) = Mistral(CANARY).quotas(headers)
    assert quota.rest == rest
