"""Keys and secrets: what is accepted, what a key may be used for, what it is called."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import ConfigError, Key, Secret
from bifrost_core.keys import Masks, read_reference

GOOD = "sk-0123456789abcdefghij"


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("x" * 8, id="shortest"),
        pytest.param("x" * 4096, id="longest"),
        pytest.param("!~" * 10, id="borders-of-the-alphabet"),
        pytest.param(GOOD, id="usual"),
    ],
)
def test_a_usable_credential_is_kept_as_it_is(value: str) -> None:
    assert Secret(value).reveal() == value


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="empty"),
        pytest.param("x" * 7, id="too-short"),
        pytest.param("x" * 4097, id="too-long"),
        pytest.param(f"{GOOD} ", id="space"),
        pytest.param(f" {GOOD}", id="space-in-front"),
        pytest.param(f"{GOOD}\n\n", id="two-line-breaks"),
        pytest.param(f"{GOOD}\r\nx-evil: 1", id="header-injection"),
        pytest.param(f"{GOOD}\r", id="carriage-return"),
        pytest.param(f"{GOOD}\x00", id="nul"),
        pytest.param(f"{GOOD}\x7f", id="del"),
        pytest.param(f"{GOOD}é", id="latin"),
        pytest.param(f"{GOOD}\u200b", id="invisible"),
        pytest.param(GOOD.encode(), id="bytes"),
        pytest.param(123456789, id="number"),
        pytest.param(None, id="none"),
    ],
)
def test_an_unusable_credential_is_refused_by_the_name_of_its_source(value: Any) -> None:
    with pytest.raises(ConfigError, match="env MISTRAL_API_KEY"):
        Secret(value, "env MISTRAL_API_KEY")


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_one_line_break_at_the_end_is_dropped_with_a_warning(end: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert Secret(f"{GOOD}{end}", "key k1") == Secret(GOOD)
    assert "key k1" in caplog.text
    assert GOOD not in caplog.text


def test_a_secret_compares_by_value_and_hashes_alike() -> None:
    assert Secret(GOOD) == Secret(GOOD)
    assert Secret(GOOD) != Secret(GOOD[:-1])
    assert Secret(GOOD) != GOOD
    assert hash(Secret(GOOD)) == hash(Secret(Secret(GOOD)))
    assert hash(Secret(GOOD)) != hash(GOOD)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param("x" * 16 + "abcd", "Secret(…abcd)", id="long"),
        pytest.param("x" * 15 + "abcd", "****", id="short"),
    ],
)
def test_the_mask(value: str, shown: str) -> None:
    assert (repr(Secret(value)), str(Secret(value)), f"{Secret(value):>20}") == (shown, shown, shown.rjust(20))


def test_masking_a_text_takes_out_every_occurrence() -> None:
    assert Secret(GOOD).mask(f"{GOOD} and {GOOD}!") == "Secret(…ghij) and Secret(…ghij)!"
    assert Secret(GOOD).mask("nothing here") == "nothing here"


# -- references ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("env:MISTRAL_API_KEY", ("env", "MISTRAL_API_KEY"), id="env"),
        pytest.param("file:/run/secrets/key", ("file", "/run/secrets/key"), id="file"),
        pytest.param("vault:llm/mistral#key", ("vault", "llm/mistral#key"), id="vault"),
        pytest.param("aws-sm:a:b", ("aws-sm", "a:b"), id="aws"),
        pytest.param(GOOD, None, id="plain"),
        pytest.param("http://x", None, id="url"),
        pytest.param("env:", None, id="empty"),
    ],
)
def test_references(text: str, parts: tuple[str, str] | None) -> None:
    assert read_reference(text) == parts


def test_a_key_from_the_environment_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISTRAL_API_KEY_2", GOOD)
    key = Key.from_env("MISTRAL_API_KEY_2", weight=2)
    assert (key.id, key.secret, key.reference, key.weight) == (
        "MISTRAL_API_KEY_2",
        Secret(GOOD),
        "env:MISTRAL_API_KEY_2",
        2.0,
    )
    assert Key("env:MISTRAL_API_KEY_2", weight=2) == key


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    if value is not None:
        monkeypatch.setenv("NOT_SET", value)
    with pytest.raises(ConfigError, match="NOT_SET"):
        Key.from_env("NOT_SET")


def test_a_key_from_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "key"
    path.write_text(f"{GOOD}\n")
    key = Key(f"file:{path}")
    assert key.secret == Secret(GOOD)
    assert re.fullmatch(r"k_[0-9a-f]{8}", key.id)
    assert GOOD not in caplog.text


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"], ids=["missing", "no-text"])
def test_a_file_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        Key(f"file:{path}")


def test_a_vaults_key_waits_for_its_answer() -> None:
    key = Key("vault:llm/mistral", weight=3, models="small", quota_group="org")
    assert (key.secret, key.reference) == (None, "vault:llm/mistral")
    assert re.fullmatch(r"k_[0-9a-f]{8}", key.id)
    resolved = key.resolve(GOOD)
    assert resolved.secret == Secret(GOOD)
    assert attrs.evolve(resolved, secret=None) == key


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_without_a_name_has_one_that_tells_nothing() -> None:
    first, again, other = Key(GOOD), Key(GOOD), Key(f"{GOOD}x")
    assert re.fullmatch(r"k_[0-9a-f]{8}", first.id)
    assert first == again
    assert first.id != other.id
    assert first.id[2:] not in GOOD


@pytest.mark.parametrize(
    ("options", "model", "serves"),
    [
        pytest.param({}, "anything", True, id="by-default-all"),
        pytest.param({"models": ["small", "large"]}, "small", True, id="named"),
        pytest.param({"models": ["small", "large"]}, "smaller", False, id="not-a-prefix"),
        pytest.param({"models": "mistral-*"}, "mistral-small", True, id="wildcard"),
        pytest.param({"models": "mistral-*"}, "Mistral-small", False, id="case-counts"),
        pytest.param({"models": ()}, "small", False, id="empty-is-nothing"),
        pytest.param({"models": ()}, "*", True, id="no-model-any-key"),
        pytest.param({"exclude_models": "*"}, "*", True, id="no-model-nothing-to-exclude"),
        pytest.param({"enabled": False}, "*", False, id="no-model-but-disabled"),
        pytest.param({"exclude_models": "large"}, "large", False, id="excluded"),
        pytest.param({"models": "large", "exclude_models": "lar*"}, "large", False, id="exclusion-wins"),
        pytest.param({"enabled": False}, "small", False, id="disabled"),
        pytest.param({"weight": 0}, "small", True, id="weight-0-is-for-need"),
    ],
)
def test_what_a_key_may_be_used_for(options: dict[str, Any], model: str, serves: bool) -> None:
    assert Key(GOOD, **options).serves(model) is serves


@pytest.mark.parametrize(
    ("options", "field"),
    [
        pytest.param({"weight": -1}, "weight", id="negative"),
        pytest.param({"weight": float("nan")}, "weight", id="nan"),
        pytest.param({"weight": float("inf")}, "weight", id="infinite"),
        pytest.param({"weight": "2"}, "weight", id="text"),
        pytest.param({"id": ""}, "id", id="empty-id"),
        pytest.param({"id": "a\nb"}, "id", id="id-of-two-lines"),
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Key(GOOD, **options)
    assert caught.value.field == field


def test_a_key_without_a_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="no secret"):
        Key(None, id="k1")


def test_a_key_is_a_value() -> None:
    key = Key(GOOD, id="k1", models=["a"])
    assert attrs.evolve(key, weight=2).weight == 2
    assert attrs.evolve(key, weight=2).secret == key.secret
    assert len({key, Key(GOOD, id="k1", models=("a",))}) == 1
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        key.weight = 3  # type: ignore[misc] # that is the point
    assert repr(key).startswith("Key(id='k1', reference=None, weight=1.0, models=('a',)")


@settings(max_examples=200)
@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60))
def test_whatever_a_credential_is_its_key_does_not_show_it(value: str) -> None:
    if read_reference(value) or value in repr(Key(GOOD)):  # a word of every key's repr (``reference``) is no secret
        return
    key = Key(value)
    assert key.secret is not None
    assert key.secret.reveal() == value
    assert value not in repr(key)
    assert value not in repr(key.secret)


def test_a_secret_is_read_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIFROST_TEST_SECRET", GOOD)
    (tmp_path / "secret").write_text(GOOD)
    assert Secret.read("env:BIFROST_TEST_SECRET").reveal() == GOOD
    assert Secret.read(f"file:{tmp_path / 'secret'}").reveal() == GOOD


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        pytest.param("env:BIFROST_NO_SUCH_SECRET", "BIFROST_NO_SUCH_SECRET is not set", id="not-set"),
        pytest.param("file:/no/such/file", "can not be read", id="no-file"),
        pytest.param(GOOD, "env:NAME or file:PATH", id="the-secret-itself"),
        pytest.param("vault:secret/key", "env:NAME or file:PATH", id="for-a-plugin"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_without_being_quoted(reference: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Secret.read(reference)
    assert GOOD not in str(caught.value)


@settings(max_examples=200)
@given(
    secrets=st.lists(st.text("abc-", min_size=8, max_size=14), max_size=60),
    pieces=st.lists(st.integers(0, 59) | st.text("abc- é", max_size=12), max_size=8),
)
def test_many_secrets_are_masked_as_they_are_one_after_the_other(secrets: list[str], pieces: list[int | str]) -> None:
    """However many there are beside the length of the text, and though one may be part of another."""
    kept = [Secret(text) for text in secrets]
    text = "".join(
        piece if isinstance(piece, str) else secrets[piece % len(secrets)] if secrets else "" for piece in pieces
    )
    expected = text
    for secret in kept:
        expected = secret.mask(expected)
    masked = Masks(kept).mask(text)
    assert masked == expected
    assert all(secret not in masked for secret in secrets)
