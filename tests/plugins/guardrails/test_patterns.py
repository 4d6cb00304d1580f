"""Regular expressions are taken when they can not stall, and refused when they could."""

from __future__ import annotations

import importlib
import re

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Regex
from bifrost_plugins.guardrails.detectors import PII
from bifrost_plugins.guardrails.patterns import check

from bifrost_core import ConfigError

# Shapes of published denials of service: OWASP, CVE-2019-16769 and its like, the safe-regex and recheck test sets.
REDOS = [
    r"(a+)+$",
    r"^(\w+\s?)*$",
    r"(a|aa)+$",
    r"(a|a?)+$",
    r"(.*a){11}$",
    r"([a-zA-Z]+)*$",
    r"(a*)*b",
    r"(a+){10}y",
    r"(x+x+)+y",
    r"(.*)*",
    r"^(([a-z])+.)+[A-Z]([a-z])+$",
    r"(\d+)+:",
    r"(?:a|b|ab)*c",
    r"(?:\s|.)*x",
    r"\s+$",
    r"\d+x",
    r"foo.*bar",
    r".*secret",
    r"(\w+)@\1",
    r"(?P<q>['\"]).{0,9}(?P=q)",
    r"(a)?(?(1)b|c)",
    r"\w{0,200}\w{0,200}x",
    r"a{0,50}a{0,50}a{0,50}b",
    r"(?:a{0,9}){0,9}b",
    r"(?:[ab]{1,5}b?){1,20}c",
    r"(?:\w{1,20} ?){1,20}!",
    r"^\s*(\w+\s*=\s*\w+\s*,?)*$",
    r"<[^>]*>",
    r"(?=.*x)y",
    r"(?:a?){30}a{30}",
    r"([a-z]?){9}z",
    r"x*",
    r"(?:)",
    r"",
]


@pytest.mark.parametrize("pattern", REDOS)
def test_a_pattern_that_could_stall_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        Regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        (r"project-\d{4}", 12),
        (r"\bcode ?name\b", 9),
        (r"(?:alpha|beta|gamma) team", 10),
        (r"[A-Z]{2}\d{6,8}", 10),
        (r"key=[^;\s]{1,64};", 69),
        (r"(?i:internal) only", 13),
        (r"ticket-\d+", None),
        (r"(?<!\d)\d{3}-\d{2}(?!\d)", 6),
        (r"(?:[a-f0-9]{2}:){5}[a-f0-9]{2}", 17),
    ],
)
def test_a_safe_pattern_is_taken_and_its_longest_match_known(pattern: str, longest: int | None) -> None:
    assert check(pattern, re.IGNORECASE).longest == longest


@pytest.mark.parametrize("pattern", ["(", "[z-a]", "(?P<1>a)", "a{99999}" * 2], ids=["open", "range", "name", "long"])
def test_what_is_no_pattern_or_endless_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        check(pattern)


def test_a_refusal_names_the_pattern_and_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"without a bound before its end; write \{0,200\}"):
        Regex(r"foo.*bar")
    with pytest.raises(ConfigError, match="refers back"):
        Regex(r"(a|b)\1")


def test_a_pattern_without_a_bound_makes_streams_wait() -> None:
    assert not hasattr(GuardrailPlugin([Regex(r"ticket-\d+")]), "bifrost_stream_filter")
    assert hasattr(GuardrailPlugin([Regex(r"ticket-\d{1,9}")]), "bifrost_stream_filter")


@pytest.mark.parametrize(
    "detector", [pytest.param(each, id=f"{kind}-{n}") for kind, many in PII.items() for n, each in enumerate(many)]
)
def test_the_detectors_own_shapes_are_bounded(detector: object) -> None:
    shape = getattr(detector, "shape")  # noqa: B009
    assert check(shape.pattern, max_steps=200_000).longest is not None


def test_what_is_relied_upon_of_the_parser_is_there() -> None:
    """The names of the standard library's syntax tree that the checker knows."""
    parser = importlib.import_module("re._parser")
    tree = parser.parse(r"(?:ab|cd)(?<!x)e{2,3}?(?>f)g*")
    assert [str(op) for op, _ in tree] == ["BRANCH", "ASSERT_NOT", "MIN_REPEAT", "ATOMIC_GROUP", "MAX_REPEAT"]
    assert tree.getwidth()[0] == 5
    assert tree[-1][1][1] == parser.MAXREPEAT
    with pytest.raises(ConfigError):
        check(r"(a)(?(1)b|c)")
