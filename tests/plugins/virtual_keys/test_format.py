"""The text of a virtual key and what is stored of it."""

from __future__ import annotations

import base64
import hmac
import re
import string
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from bifrost_plugins.virtual_keys.format import claimed_id, new_id, new_key, public_id
from bifrost_plugins.virtual_keys.hashing import Peppers, is_digest
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core import ConfigError, Secret

PEPPER = "pepper-for-tests-0123456789abcdef"
PRINTABLE = [chr(code) for code in range(0x21, 0x7F)]
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase


def matches(peppers: Peppers, key: Secret, *stored: str) -> bool:
    return any(peppers.compare(key, peppers.expect(*stored)))


def test_a_key_is_made_of_prefix_id_secret_and_check() -> None:
    identity = new_id()
    text = new_key(identity).reveal()
    found = re.fullmatch(r"sk-bf-([0-9A-Za-z]{12})([0-9A-Za-z_-]{43})([0-9A-Za-z]{6})", text)
    assert found is not None
    assert found[1] == identity
    assert len(base64.urlsafe_b64decode(found[2] + "=")) == 32
    check = 0
    for digit in found[3]:  # base62 by the book: the value of the digits is the CRC-32
        check = check * 62 + ALPHABET.index(digit)
    assert check == zlib.crc32(text[:-6].encode())
    assert public_id(Secret(text)) == identity


def test_a_key_by_hand_is_read() -> None:
    body = "sk-bf-" + "A" * 12 + "b" * 43
    check, digits = zlib.crc32(body.encode()), ""
    while check:
        check, digit = divmod(check, 62)
        digits = ALPHABET[digit] + digits
    assert public_id(Secret(body + digits.rjust(6, "0"))) == "A" * 12


def test_a_thousand_keys_differ() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert len({new_key("A" * 12).reveal() for _ in range(1000)}) == 1000


def test_any_other_character_at_any_place_is_refused() -> None:
    text = new_key(new_id()).reveal()
    survivors = [
        (place, other)
        for place, present in enumerate(text)
        for other in PRINTABLE
        if other != present and public_id(Secret(text[:place] + other + text[place + 1 :])) is not None
    ]
    assert survivors == []


@given(st.integers(0, 65))
def test_two_neighbours_that_change_places_are_refused(place: int) -> None:
    text = new_key(new_id()).reveal()
    swapped = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    assert swapped == text or public_id(Secret(swapped)) is None


@given(st.text(st.sampled_from(PRINTABLE), min_size=8, max_size=80))
def test_any_other_text_is_no_key(text: str) -> None:
    assert public_id(Secret(text)) is None
    assert (claimed_id(Secret(text)) is not None) is text.startswith("sk-bf-")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text[:-1], id="cut"),
        pytest.param(lambda text: text + "0", id="longer"),
        pytest.param(lambda text: text.upper(), id="upper-case"),
        pytest.param(lambda text: text[1:], id="without-its-first"),
        pytest.param(lambda text: f"Bearer:{text}", id="with-something-before"),
    ],
)
def test_a_key_that_is_cut_or_padded_is_none(change: Callable[[str], str]) -> None:
    assert public_id(Secret(change(new_key(new_id()).reveal()))) is None


# -- digests -------------------------------------------------------------------------------------------------------


def test_a_digest_matches_its_key_and_no_other() -> None:
    peppers = Peppers(PEPPER)
    one, two = new_key(new_id()), new_key(new_id())
    stored = peppers.digest(one)
    assert is_digest(stored)
    assert stored.startswith("v1$")
    assert matches(peppers, one, stored)
    assert not matches(peppers, two, stored)
    assert matches(peppers, one, peppers.dummy, stored)
    assert not matches(peppers, one, peppers.dummy)


def test_a_digest_presented_as_a_key_matches_nothing() -> None:
    peppers = Peppers(PEPPER)
    stored = peppers.digest(new_key(new_id()))
    assert not matches(peppers, Secret(stored), stored)


def test_without_the_pepper_a_dump_confirms_nothing() -> None:
    key = new_key(new_id())
    stored = Peppers(PEPPER).digest(key)
    assert not matches(Peppers("another-" + PEPPER), key, stored)
    assert key.reveal() not in stored


def test_an_older_pepper_checks_what_it_made_and_makes_nothing() -> None:
    key = new_key(new_id())
    old, new = Peppers(PEPPER), Peppers(["a-new-" + PEPPER, PEPPER])
    assert matches(new, key, old.digest(key))
    assert not matches(old, key, new.digest(key))
    assert new.pepper_of(new.digest(key)) == new.first != new.pepper_of(old.digest(key)) == old.first
    assert Peppers("a-new-" + PEPPER).pepper_of(old.digest(key)) is None


def test_every_digest_is_compared_whatever_came_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def counted(one: bytes, two: bytes) -> bool:
        seen.append((len(one), len(two)))
        return compare(one, two)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    peppers = Peppers(PEPPER)
    key = new_key(new_id())
    for pair in ((peppers.digest(key), peppers.dummy), (peppers.dummy, peppers.dummy)):
        seen.clear()
        matches(peppers, key, *pair)
        assert seen == [(32, 32), (32, 32)]


@pytest.mark.parametrize(
    ("pepper", "why"),
    [
        pytest.param("short-canary-pepper", "has 19 bytes", id="short"),
        pytest.param(b"short-canary-pepper", "has 19 bytes", id="short-bytes"),
        pytest.param([PEPPER, "short-canary-pepper"], "has 19 bytes", id="the-second"),
        pytest.param([], "need a pepper", id="none"),
        pytest.param("env:BIFROST_NO_SUCH_PEPPER", "BIFROST_NO_SUCH_PEPPER is not set", id="not-set"),
    ],
)
def test_a_pepper_that_is_no_good_is_refused_without_being_shown(pepper: object, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as caught:
        Peppers(pepper)  # type: ignore[arg-type]
    trace = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = "".join(str(frame.locals) for frame in trace.stack if "virtual_keys/hashing" in frame.filename)
    assert "canary" not in frames + str(caught.value)


def test_a_pepper_is_read_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    path.write_text(PEPPER)
    monkeypatch.setenv("BIFROST_TEST_PEPPER", PEPPER)
    key = new_key(new_id())
    stored = Peppers(PEPPER).digest(key)
    for pepper in ("env:BIFROST_TEST_PEPPER", f"file:{path}", PEPPER.encode(), Secret(PEPPER)):
        assert Peppers(pepper).digest(key) == stored
    assert PEPPER not in repr(Peppers(PEPPER))
