"""Regular expressions are taken when they can not stall, and refused when they could."""

from __future__ import annotations

import importlib
import re

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Regex
from bifrost_plugins.guardrails.detectors import PII
from bifrost_plugins.guardrails.patterns import Checked, check
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bifrost_core import ConfigError

from .backtracking import Counter, StalledError
from .redos import EVIL

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


def test_there_are_two_hundred_and_more_evil_patterns_and_no_two_alike() -> None:
    patterns = [pattern for pattern, _ in EVIL]
    assert len(patterns) == len(set(patterns))
    assert len({*patterns, *REDOS}) >= 200


@pytest.mark.parametrize("pattern", REDOS)
def test_a_pattern_that_could_stall_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError):
        Regex(pattern)


@pytest.mark.parametrize(("pattern", "attack"), EVIL)
def test_a_published_pattern_is_refused_or_takes_few_steps_on_what_stalls_it(
    pattern: str, attack: tuple[str, str, str]
) -> None:
    before, pumped, behind = attack
    try:
        checked = check(pattern)
    except ConfigError:
        return
    text = before + 40 * pumped + behind
    assert most_steps(pattern, text) <= bound(checked, text)


@pytest.mark.parametrize(("pattern", "attack"), [each for each in EVIL if not re.search(r"\\[12]", each[0])])
def test_a_published_pattern_is_evil(pattern: str, attack: tuple[str, str, str]) -> None:
    """Twice the text takes more than twice the steps, or more than anybody wants to count.

    Those that refer back to a group are left out, as the counter keeps none.
    """
    before, pumped, behind = attack
    steps: list[int] = []
    for times in (10, 20):
        counter = Counter(pattern, limit=4_000)
        try:
            counter.search(before + times * pumped + behind)
        except StalledError:
            return
        steps.append(counter.steps)
    assert steps[1] > 2.4 * steps[0]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param(r"(?:a|aa){1,24}b", 50 * "a", id="an optional end"),
        pytest.param(r"(?:a?a){1,20}b", 40 * "a", id="an optional beginning"),
        pytest.param(r"(?:a{1,3}a){1,20}b", 60 * "a", id="ends where more could follow"),
        pytest.param(r"(?:a{1,3}a{1,3}b){1,20}c", 20 * "aaab", id="two ways to one end"),
    ],
)
def test_rounds_that_can_be_come_by_in_several_ways_are_refused_and_would_stall(pattern: str, text: str) -> None:
    with pytest.raises(ConfigError, match="repeat"):
        check(pattern)
    with pytest.raises(StalledError):
        Counter(pattern, limit=20_000).match(text, 0)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        pytest.param(r"(?:ab?){1,20}c", 20 * "ab", id="an end that what follows decides"),
        pytest.param(r"(?:alpha|alphabet){1,3} team", 4 * "alphabet", id="a word and a longer one"),
        pytest.param(r"(?:[a-f0-9]{2}:){5}[a-f0-9]{2}", 12 * "ab:", id="a fixed number"),
        pytest.param(r"(?:\d{1,3}\.){3}\d{1,3}", 12 * "123.", id="runs with something between"),
    ],
)
def test_rounds_that_can_be_come_by_in_one_way_are_taken(pattern: str, text: str) -> None:
    assert most_steps(pattern, text) <= bound(check(pattern), text)


def most_steps(pattern: str, text: str) -> int:
    """Steps at the worst of all places."""
    worst = 0
    for place in range(len(text) + 1):
        counter = Counter(pattern, limit=200_000)
        counter.match(text, place)
        worst = max(worst, counter.steps)
    return worst


def bound(checked: Checked, text: str) -> int:
    """Steps at one place that the checker's count allows: several of the counter's go into one of its."""
    return 10 * checked.steps + (4 * len(text) if checked.longest is None else 0) + 20


ATOMS = st.sampled_from(["a", "b", "[ab]", "[bc]", ".", "\\b", "(?:ab|a)", "(?:a|b)", "(?:|a)"])
REPEATS = st.sampled_from(["", "", "?", "{0,3}", "{1,4}", "{2}", "{1,3}?", "{2,9}"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map("".join),
        st.tuples(several.map("".join), REPEATS).map(lambda each: f"(?:{each[0]}){each[1]}"),
        several.map(lambda options: f"(?:{'|'.join(options)})"),
    )


PATTERNS = st.recursive(st.tuples(ATOMS, REPEATS).map("".join), grown, max_leaves=8)


@settings(max_examples=150, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(pattern=PATTERNS, tail=st.sampled_from(["", "c", "[ab]+"]), pump=st.text("abc", min_size=1, max_size=3))
def test_whatever_pattern_is_taken_takes_no_more_steps_than_it_was_said_to(pattern: str, tail: str, pump: str) -> None:
    try:
        checked = check(pattern + tail)
    except ConfigError:
        assume(False)
        return
    text = (pump * 30)[:30] + "!"
    assert most_steps(pattern + tail, text) <= bound(checked, text)


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(pattern=PATTERNS, text=st.text("abc", max_size=8))
def test_the_counter_of_steps_matches_what_re_matches(pattern: str, text: str) -> None:
    try:
        compiled = re.compile(pattern)
    except re.error:  # a repeat of a border
        assume(False)
        return
    found = compiled.search(text)
    try:
        assert Counter(pattern, limit=20_000).search(text) == (None if found is None else found.span())
    except StalledError:
        assume(False)


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
