"""Personal data and credentials: what is real is found, what only looks like it is not."""

from __future__ import annotations

import random
import string

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Pii, Secrets
from bifrost_plugins.guardrails.detectors import is_iban, is_luhn

from bifrost_core import Call, ConfigError, Request

RNG = random.Random(20)


def found(rule: Pii | Secrets, text: str) -> str:
    """The text as it goes out."""
    plugin = GuardrailPlugin([rule])
    request = Request("chat", "mistral/x", {"messages": [{"role": "user", "content": text}]})
    changed = plugin.bifrost_guard_request(request, Call("c", request.operation, request))
    out: str = (changed or request).body["messages"][0]["content"]
    return out


def card(prefix: str, length: int) -> str:
    body = prefix + "".join(RNG.choice(string.digits) for _ in range(length - len(prefix) - 1))
    return next(body + digit for digit in string.digits if is_luhn(body + digit))


def iban(country: str, length: int) -> str:
    account = "".join(RNG.choice(string.digits) for _ in range(length - 4))
    return next(made for n in range(2, 99) if is_iban(made := f"{country}{n:02d}{account}"))


def drawn(alphabet: str, length: int) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(length))


ALNUM = string.ascii_letters + string.digits


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "odin@valhalla.example"),
        ("email", "first.last+tag@mail.sub-domain.co.uk"),
        ("email", "o'neil_99@x.org"),
        ("phone", "+49 170 1234567"),
        ("phone", "+1 (212) 555-0123"),
        ("phone", "0044 20 7946 0958"),
        ("phone", "(212) 555-0123"),
        ("phone", "212-555-0123"),
        ("iban", "DE89 3704 0044 0532 0130 00"),
        ("iban", "GB82WEST12345698765432"),
        ("iban", "fr1420041010050500013m02606"),
        *(("iban", iban(*each)) for each in [("DE", 22), ("NO", 15), ("MT", 31), ("PL", 28)]),
        ("card", "4111 1111 1111 1111"),
        ("card", "5555-5555-5555-4444"),
        ("card", "378282246310005"),
        *(("card", card(*each)) for each in [("4", 16), ("51", 16), ("2221", 16), ("34", 15), ("6011", 16), ("4", 13)]),
        ("ip", "192.168.1.1"),
        ("ip", "8.8.8.8"),
        ("ip", "2001:db8::8a2e:370:7334"),
        ("ip", "fe80::1"),
        ("ip", "::ffff:192.0.2.1"),
        ("ssn", "123-45-6789"),
    ],
)
@pytest.mark.parametrize("frame", ["{}", "it is {}, they said", "({})", "{}\nnext line"])
def test_real_data_is_found(kind: str, text: str, frame: str) -> None:
    whole = frame.format(text)
    assert found(Pii([kind], action="redact"), whole) == frame.format(f"[{kind.upper()}]")


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "at @home or me@localhost"),
        ("email", "a @ b . c"),
        ("phone", "2 + 2 = 4, 1+1, version 12.345.678"),
        ("phone", "123456789012 items"),
        ("iban", "DE88 3704 0044 0532 0130 00"),
        ("iban", "XX89370400440532013000"),
        ("iban", "DE8937040044053201300"),
        ("card", "4111 1111 1111 1112"),
        ("card", "1234567890123456"),
        ("card", "order 99999999999999999999"),
        ("ip", "999.1.1.1"),
        ("ip", "1.2.3"),
        ("ip", "1.2.3.4.5"),
        ("ip", "std::vector at 12:30:45"),
        ("ssn", "000-45-6789"),
        ("ssn", "666-45-6789"),
        ("ssn", "123-00-6789"),
    ],
)
def test_what_only_looks_like_data_is_left_alone(kind: str, text: str) -> None:
    assert found(Pii([kind], action="redact"), text) == text


@pytest.mark.parametrize("wrong", range(1, 10))
def test_one_wrong_digit_is_no_card_and_no_account(wrong: int) -> None:
    number, account = card("4", 16), iban("DE", 22)
    bad = number[:7] + str((int(number[7]) + wrong) % 10) + number[8:]
    assert found(Pii(["card"], action="redact"), bad) == bad
    bad = account[:9] + str((int(account[9]) + wrong) % 10) + account[10:]
    assert found(Pii(["iban"], action="redact"), bad) == bad


@pytest.mark.parametrize(
    ("label", "secret"),
    [
        ("api_key", f"sk-{drawn(ALNUM, 48)}"),
        ("api_key", f"sk-proj-{drawn(ALNUM, 120)}"),
        ("api_key", f"sk-bf-{drawn(ALNUM, 32)}"),
        ("api_key", f"sk-ant-api03-{drawn(ALNUM + '-_', 90)}"),
        ("api_key", f"AIza{drawn(ALNUM, 35)}"),
        ("api_key", f"gsk_{drawn(ALNUM, 52)}"),
        ("github_token", f"ghp_{drawn(ALNUM, 36)}"),
        ("github_token", f"github_pat_{drawn(ALNUM, 82)}"),
        ("gitlab_token", f"glpat-{drawn(ALNUM, 20)}"),
        ("aws_key", f"AKIA{drawn(string.ascii_uppercase + string.digits, 16)}"),
        ("slack_token", f"xoxb-{drawn(string.digits, 12)}-{drawn(ALNUM, 24)}"),
        ("stripe_key", f"sk_live_{drawn(ALNUM, 24)}"),
        ("npm_token", f"npm_{drawn(ALNUM, 36)}"),
        ("jwt", f"eyJhbGciOiJIUzI1NiJ9.eyJ{drawn(ALNUM, 40)}.{drawn(ALNUM + '-_', 43)}"),
        ("high_entropy", "q7Z" + drawn(ALNUM, 45)),
        ("password_in_url", "://odin:gungnir99@"),
    ],
)
@pytest.mark.parametrize("frame", ["{}", "use {} now", 'key="{}"', "a\n{}\nb"])
def test_a_credential_is_taken_out_to_its_last_character(label: str, secret: str, frame: str) -> None:
    assert found(Secrets(action="redact"), frame.format(secret)) == frame.format(f"[{label.upper()}]")


def test_a_private_key_goes_with_its_body() -> None:
    body = "\n".join(drawn(ALNUM + "+/", 64) for _ in range(20))
    text = f"here:\n-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----\nbye"
    assert found(Secrets(action="redact"), text) == "here:\n[PRIVATE_KEY]-----END RSA PRIVATE KEY-----\nbye"


@pytest.mark.parametrize(
    "text",
    [
        "risk-based-approach-to-everything-else",
        "3f786850e387550fdab836ed7e6dc881de23001b3f786850e387550fdab836ed",
        "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "a-very-long-but-quite-ordinary-sentence-with-dashes-in-it",
        "https://example.com/some/path/index.html",
        "sk-short",
    ],
    ids=["word", "sha", "uuid", "slug", "url", "short"],
)
def test_long_words_that_are_no_credentials_stay(text: str) -> None:
    assert found(Secrets(action="redact"), text) == text


def test_entropy_can_be_left_out() -> None:
    text = "q7Z" + drawn(ALNUM, 45)
    assert found(Secrets(action="redact", entropy=None), text) == text


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="'shoe_size' is no kind of data; known are email, phone"):
        Pii(["shoe_size"])
