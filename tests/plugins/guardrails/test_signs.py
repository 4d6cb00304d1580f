"""Signs never say that nothing is there when something is; and where matches may begin, all of them do."""

from __future__ import annotations

import itertools
import re

import pytest
from bifrost_plugins.guardrails.detectors import PII, secret_detectors
from bifrost_plugins.guardrails.judging import Judge, now
from bifrost_plugins.guardrails.matchers import LiteralMatcher, Matcher, RegexMatcher
from bifrost_plugins.guardrails.patterns import check
from bifrost_plugins.guardrails.rules import Literals, Pii, Regex, Rule, Secrets
from bifrost_plugins.guardrails.shadow import CASED, FOLDED, seen
from bifrost_plugins.guardrails.signs import Field, Signs
from hypothesis import example, given, settings
from hypothesis import strategies as st

DETECTORS = [each for kind in PII.values() for each in kind]
SECRETS = secret_detectors(4.2)

PIECES = st.sampled_from(
    [
        *("+49 170 1234567", "0049 (0) 170/12 34 567", "(555) 123-4567", "555-123-4567", "4111 1111 1111 1111", "4111111111111111"),
        *("DE89 3704 0044 0532 0130 00", "MT84MALT011000012345MTLCAST001S", "192.168.0.1", "10.0.0.255", "2001:db8::1", "::1"),
        *("078-05-1120", "a@example.org", "sk-aaaaaaaaaaaaaaaa", "ghp_" + "a1B2" * 9, "AKIAIOSFODNN7EXAMPLE", "eyJabcdefgh.eyJabcd"),
        *("https://ann:secret@host", "-----BEGIN RSA PRIVATE KEY-----", "xoxb-1234567890", "SG." + "a" * 16 + "." + "b" * 16),
        *("rk_live_abcdefghij", "Zm9vYmFyQmF6UXV4MTIzNDU2Nzg5MEFiQ2RFZg", "npm_" + "a" * 36, "1", "12", "3.14", "2019", "12345678901234567890123", "0" * 40, "v1.2.3"),
        *("word", " ", "  ", "\n", "-", ".", "/", "(", ")", "+", "00", "é", "\uff11\uff12\uff13", "\u200b", "\u017f", "\u212a", "DE", "aa11"),
    ]
)  # fmt: skip
TEXTS = st.lists(PIECES | st.text("0123456789 .-/()+:@abAB", max_size=12), max_size=12).map("".join)


def found(matcher: Matcher, text: str) -> list[tuple[int, int]]:
    return [(each.start, each.end) for each in matcher.find(text, 0, len(text))]


@pytest.mark.parametrize(
    "matcher",
    [*DETECTORS, *SECRETS],
    ids=lambda each: f"{getattr(each, 'label', 'token')}-{getattr(getattr(each, 'shape', None), 'pattern', '')[:12]}",
)
@settings(max_examples=100)
@given(text=TEXTS)
def test_a_text_in_which_something_is_found_has_its_signs_and_windows_bring_all_of_it(
    matcher: Matcher, text: str
) -> None:
    cased = seen(text, CASED)
    signs = Signs(text)
    whole = found(matcher, cased)
    if whole:
        assert matcher.sign in cased
        assert matcher.field is None or matcher.field in signs.fields
        assert matcher.may_match(signs)
    if matcher.field is not None:
        pieces: list[tuple[int, int]] = []
        resume = 0
        for low, high in signs.windows(matcher.field):
            for each in matcher.find(cased, max(low, resume), high):
                pieces.append((each.start, each.end))
                resume = each.resume
        assert pieces == whole


@settings(max_examples=300)
@given(text=st.text(max_size=12) | TEXTS)
def test_a_folded_shadow_is_the_fold_of_the_text(text: str) -> None:
    assert Signs(text).folded == seen(text, FOLDED)


@pytest.mark.parametrize("field", ["digits", "dotted", "iban"])
def test_windows_are_as_few_as_is_worth_it(field: Field) -> None:
    piece = {"digits": "+49 170 1234567 ", "dotted": "10.0.0.1 ", "iban": "DE12 "}[field]
    near, far = Signs(piece * 50), Signs((piece + "word " * 200) * 50)
    assert (len(near.windows(field)), len(far.windows(field))) == (1, 50)


def test_a_long_block_of_digits_has_a_window_at_its_beginning_alone() -> None:
    assert Signs("x " + "1" * 1_000 + " +" + "2" * 1_000).windows("digits") == [(0, 3), (1002, 1005)]


@settings(max_examples=100)
@given(text=TEXTS)
def test_windows_are_in_order(text: str) -> None:
    signs = Signs(text)
    for field in ("digits", "dotted", "iban"):
        windows = signs.windows(field)
        assert all(low < high for low, high in windows)
        assert all(before < after for before, after in itertools.pairwise(windows))


@pytest.mark.parametrize(
    ("pattern", "flags", "needle"),
    [
        pytest.param(r"INV-[0-9]{6}", 0, "INV-", id="in front"),
        pytest.param(r"INV-[0-9]{6}", re.IGNORECASE, "nv-", id="i has other forms"),
        pytest.param(r"[a-z]{1,9}@corp\.example", re.IGNORECASE, "@corp.example", id="the longest run"),
        pytest.param(r"(?:abc|abd)xyz", 0, "xyz", id="no alternatives"),
        pytest.param(r"(?:hello){1,3} world", 0, " world", id="the repeat is broken off"),
        pytest.param(r"(?:optional)?rest", 0, "rest", id="not what may be missing"),
        pytest.param(r"(?!never)a", 0, "a", id="not what must not follow"),
        pytest.param(r"[0-9]{4}", 0, "", id="none"),
        pytest.param(r"(?i:abc)d", 0, "d", id="flags of a group"),
        pytest.param(r"\bcat\b", 0, "cat", id="borders"),
    ],
)
def test_a_pattern_s_needle_is_the_longest_run_that_every_match_holds(pattern: str, flags: int, needle: str) -> None:
    assert check(pattern, flags).needle == needle


@pytest.mark.parametrize(
    "pattern", [r"INV-[0-9]{2}", r"kiss", r"(?:ab|cd)ef{1,3}g", r"a.c", r"\bxyz\b", r"stra(?:ss|ß)e"]
)
@settings(max_examples=100)
@given(text=st.text("INVinvkKs\u017f\u212a\u0131ßSabcdefgxyzre-12 .", max_size=24))
@example(text="\u212ai\u017fs")
def test_where_a_pattern_matches_its_needle_is(pattern: str, text: str) -> None:
    matcher = RegexMatcher(check(pattern, re.IGNORECASE), "x", "cased")
    twin = RegexMatcher(check(pattern, re.IGNORECASE), "x", "plain")
    signs = Signs(text)
    assert matcher.may_match(signs) or not found(matcher, signs.cased)
    assert twin.may_match(signs) or not found(twin, text)


@pytest.mark.parametrize("number", [3, 40], ids=["few words", "many words"])
@settings(max_examples=100)
@given(text=st.text("wW01234 \u200b\uff57", max_size=24))
def test_where_a_word_is_found_it_is_seen(number: int, text: str) -> None:
    matcher = LiteralMatcher([f"w{each}" for each in range(number)], "x", whole_words=False)
    assert matcher.may_match(Signs(text)) == bool(found(matcher, seen(text, FOLDED)))


RULES: list[Rule] = [
    Literals(["word"], action="flag"),
    Regex("é1?", action="flag"),
    Pii(action="flag"),
    Secrets(action="flag"),
]


@settings(max_examples=100)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_matchers_that_are_left_out_for_several_texts_at_once_find_nothing_in_any(texts: list[str]) -> None:
    judge = Judge(RULES, "input", plugin="p", mark="m", decode=False, on_verdict=lambda verdict, call: None)
    plans = judge.promising(" ".join(texts))
    for text in texts:
        assert set(now(judge.scan(text, plans))) == set(now(judge.scan(text)))
