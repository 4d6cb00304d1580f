"""Streams through a guardrail: wherever they are cut, nothing forbidden comes out."""

# ruff: noqa: RUF001 # characters that look like others are part of it

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from bifrost_plugins.guardrails import Custom, GuardrailPlugin, Length, Literals, Pii, Regex, Rule, Secrets, verdicts
from bifrost_plugins.guardrails.stream import Scanner
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bifrost_core import Call, ChatResponse, Choice, Chunk, GuardrailError, Request, ToolCall


def new_call() -> Call:
    request = Request("chat", "mistral/x", {"messages": [{"role": "user", "content": "hi"}]}, stream=True)
    return Call("c", request.operation, request)


def event(text: str = "", reason: str | None = None, index: int = 0, **delta: Any) -> Chunk:
    """A chunk as a provider's event makes it."""
    raw = {
        "id": "1",
        "model": "m",
        "choices": [{"index": index, "delta": {"content": text, **delta}, "finish_reason": reason}],
    }
    return Chunk(text=text, finish_reason=reason, index=index, raw=raw)


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    places = [0, *cuts, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(places)]


def streamed(plugin: GuardrailPlugin, parts: Sequence[str]) -> list[Chunk]:
    """What a reader gets of a stream of parts, up to where it was blocked."""
    guard = plugin.bifrost_stream_filter(new_call())
    assert guard is not None
    out: list[Chunk] = []
    try:
        for part in parts:
            out += guard.feed(event(part))
        out += guard.feed(event("", "stop"))
        out += guard.finish()
    except GuardrailError:
        out.append(Chunk(text="<blocked>"))
    return out


def guarding(plugin: GuardrailPlugin, call: Call | None = None) -> Any:
    guard = plugin.bifrost_stream_filter(call or new_call())
    assert guard is not None
    return guard


def said(chunks: Iterable[Chunk]) -> str:
    """The text of chunks, which is the same in ``raw``."""
    chunks = list(chunks)
    text = "".join(chunk.text for chunk in chunks)
    raw = "".join(chunk.raw["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk.raw)
    assert raw == text.removesuffix("<blocked>")
    return text


def whole(plugin: GuardrailPlugin, text: str) -> str:
    """What judging the whole answer makes of it."""
    response = ChatResponse(choices=(Choice(text=text, finish_reason="stop"),))
    changed: ChatResponse | None = plugin.bifrost_guard_response(response, new_call())
    return (changed or response).text


SPANS = {
    "literal": (Literals(["odin"], action="redact"), "my odin it", "odin"),
    "zero-width": (Literals(["odin"], action="redact"), "y o\u200bd\u200bin", "o\u200bd\u200bin"),
    "confusable": (Literals(["odin"], action="redact"), "my оdіn.", "оdіn"),
    "marks": (Literals(["odin"], action="redact"), "a o\u0301din\u0308 b", "din"),
    "override": (Literals(["odin"], action="redact"), "a \u202enido\u202c b", "nido"),
    "email": (Pii(["email"], action="redact"), "to a@bc.de ok", "a@bc.de"),
    "ip": (Pii(["ip"], action="redact"), "at 1.2.3.4 ok", "1.2.3.4"),
    "regex": (Regex(r"p-\d{2}", action="redact"), "is p-12 or x", "p-12"),
    "overlapping": (Literals(["abc", "cde"], action="redact"), "x abcde y", "cde"),
}


@pytest.mark.parametrize(("rule", "text", "span"), [pytest.param(*each, id=name) for name, each in SPANS.items()])
def test_no_split_of_a_short_text_lets_anything_out(rule: Rule, text: str, span: str) -> None:
    """All 2**(n - 1) of them."""
    redacting = GuardrailPlugin([rule])
    blocking = GuardrailPlugin([type(rule)(*_arguments(rule))])
    expected = whole(redacting, text)
    assert span not in expected
    start = text.index(span)
    for bits in range(2 ** (len(text) - 1)):
        parts = pieces(text, [place for place in range(1, len(text)) if bits >> (place - 1) & 1])
        assert said(streamed(redacting, parts)) == expected
        if bits % 16 == 0:
            blocked = said(streamed(blocking, parts))
            assert blocked.endswith("<blocked>")
            assert text[:start].startswith(blocked.removesuffix("<blocked>"))


def _arguments(rule: Any) -> tuple[Any, ...]:
    for name in ("words", "kinds", "pattern"):
        if hasattr(rule, name):
            return (getattr(rule, name),)
    raise AssertionError(rule)


FRAGMENTS = [
    "odin", "o\u200bdin", "οdιn", "ODIN  the", "second  word", " ", "  ", "\n", "hello ", "x", ".", "@", "ab@cd.example",
    "4111 1111 1111 1111", "4111111111111112", "DE89 3704 0044 0532 0130 00", "+49 170 1234567", "192.168.1.1", "fe80::1",
    "sk-abcdefghijklmnop1234567890", "ghp_abcdefghijklmnopqrst", "-----BEGIN PRIVATE KEY-----", "QUJD", "p-123", "p-", "\u0301",
    "q7ZkW2mVx9LrT4bNc8JdHs6Gy3FpQa5R", "\u202e", "nido", "ß", "ﬁ", "Ж", "…",
]  # fmt: skip
EVERYTHING = [
    Literals(["odin", "second word", "nword", "din x"], action="redact"),
    Pii(action="redact"),
    Secrets(action="redact"),
    Regex(r"p-\d{1,3}", action="redact"),
    Custom(lambda text: [(n, n + 1) for n, char in enumerate(text) if char == "Ж"], action="redact", window=1),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), min_size=1, max_size=14), st.randoms(use_true_random=False))
@example(["192.168.1.1", "ab@cd.example"], random.Random(1))  # two kinds of one rule at one place
def test_any_split_of_any_text_comes_out_as_the_whole_would(fragments: list[str], rng: random.Random) -> None:
    text = "".join(fragments)
    plugin = GuardrailPlugin(EVERYTHING)
    expected = whole(plugin, text)
    for parts in (
        list(text),
        pieces(text, sorted(rng.sample(range(1, len(text)), rng.randint(0, len(text) - 1))))
        if len(text) > 1
        else [text],
    ):
        assert said(streamed(plugin, parts)) == expected


@pytest.mark.parametrize(
    ("rule", "longest"),
    [
        (Literals(["codename x", "odin"], action="redact"), 10),
        (Regex(r"project-\d{1,30}", action="redact"), 38),
        (Pii(["iban"], action="redact"), 66),
        (Pii(["email"], action="redact"), 253),
        (Secrets(action="redact"), 172),
    ],
    ids=["literals", "regex", "iban", "email", "secrets"],
)
def test_no_more_is_held_back_than_the_longest_match_and_64_characters(rule: Rule, longest: int) -> None:
    plugin = GuardrailPlugin([rule])
    call = new_call()
    scanner = Scanner(plugin._output, plugin._state(call), call)  # type: ignore[arg-type]
    most = 0
    for number in range(3000):
        scanner.feed("abcdefghi0123456789"[number % 19])
        most = max(most, scanner.held)
    assert 0 < most <= longest + 64


def test_words_that_are_whole_are_not_held_back_for_what_has_no_space_in_it() -> None:
    plugin = GuardrailPlugin([Pii(["email", "ip"], action="redact")])
    guard = guarding(plugin)
    assert [chunk.text for part in ("Hello there, ", "how ", "are you") for chunk in guard.feed(event(part))] == [
        "Hello there,",
        " how",
        " are",
    ]


def test_a_long_text_gives_way_to_others_while_it_is_judged() -> None:
    plugin = GuardrailPlugin([Pii(), Secrets(), Regex(r"(?:[a-z]{1,40}-){1,3}\d{4}")])
    assert plugin._output is not None
    for text in ("a@" * 100_000, "aaaa" * 50_000, "\u202eab\u202c" * 20_000, "prose 12:30 " * 20_000):
        turns = sum(1 for _ in plugin._output.scan(text))
        assert turns >= 5


def test_a_stream_of_what_can_not_be_seen_is_blocked_in_the_end() -> None:
    guard = guarding(GuardrailPlugin([Literals(["odin"])]))
    guard.feed(event("o"))
    with pytest.raises(GuardrailError, match="too much that can not be seen"):
        for _ in range(80):
            guard.feed(event("\u200b" * 1000))


def test_thoughts_and_choices_are_texts_of_their_own() -> None:
    guard = guarding(GuardrailPlugin([Literals(["odin"], action="redact")]))
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "od"}]}
    first = Chunk(reasoning="od", raw={"choices": [{"index": 0, "delta": {"content": [thought]}}]})
    second = attrs_evolve(first, "in is near ")
    chunks = [*guard.feed(first), *guard.feed(second)]
    chunks += guard.feed(event("od", index=1))
    chunks += guard.feed(event("in", index=0))
    chunks += guard.feed(event("in!", "stop", index=1))
    chunks += guard.feed(event("", "stop", index=0))
    assert "".join(chunk.reasoning or "" for chunk in chunks) == "[REDACTED] is near "
    assert "".join(chunk.text for chunk in chunks if chunk.index == 0) == "in"
    assert "".join(chunk.text for chunk in chunks if chunk.index == 1) == "[REDACTED]!"
    assert "odin" not in repr([chunk.raw for chunk in chunks])


def attrs_evolve(chunk: Chunk, reasoning: str) -> Chunk:
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}
    return Chunk(reasoning=reasoning, raw={"choices": [{"index": chunk.index, "delta": {"content": [thought]}}]})


def thinking(text: str) -> Chunk:
    """A piece of a thought as Anthropic's event makes it."""
    delta = {"type": "thinking_delta", "thinking": text}
    return Chunk(reasoning=text, raw={"type": "content_block_delta", "index": 0, "delta": delta})


SEAL = Chunk(
    raw={"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2VhbA=="}}
)


def test_a_sealed_thought_goes_out_whole_in_front_of_its_seal() -> None:
    guard = guarding(GuardrailPlugin([Literals(["odin"], action="redact")]))
    chunks = [*guard.feed(thinking("near o")), *guard.feed(thinking("d")), *guard.feed(SEAL)]
    assert ("".join(chunk.reasoning or "" for chunk in chunks), chunks[-1]) == ("near od", SEAL)
    # the next thought is a text of its own
    chunks = [*guard.feed(thinking("in ")), *guard.feed(SEAL), *guard.feed(event("", "stop"))]
    assert "".join(chunk.reasoning or "" for chunk in chunks) == "in "
    assert SEAL in chunks
    assert guard.finish() == []


def test_a_thought_that_was_changed_loses_its_seal() -> None:
    guard = guarding(GuardrailPlugin([Literals(["odin"], action="redact")]))
    chunks = [*guard.feed(thinking("my od")), *guard.feed(thinking("in it")), *guard.feed(SEAL)]
    assert "".join(chunk.reasoning or "" for chunk in chunks) == "my [REDACTED] it"
    assert "signature" not in repr(chunks)


def test_a_tool_call_is_judged_whole_and_its_pieces_do_not_go_out() -> None:
    guard = guarding(GuardrailPlugin([Pii(["email"], action="redact")]))
    piece = event(tool_calls=[{"index": 0, "id": "a", "function": {"name": "mail", "arguments": '{"to": "o\\u0040'}}])
    assert guard.feed(piece) == []
    rest = event(tool_calls=[{"index": 0, "function": {"arguments": 'x.example"}'}}])
    call = ToolCall("a", "mail", '{"to": "o\\u0040x.example"}')
    (told,) = guard.feed(Chunk(tool_calls=(call,), raw=rest.raw))
    assert told.tool_calls == (ToolCall("a", "mail", '{"to":"[EMAIL]"}'),)
    assert told.raw["choices"][0]["delta"]["tool_calls"] == [{"index": 0, **told.tool_calls[0].to_openai()}]
    assert "example" not in repr(told.raw)


def test_log_probabilities_of_what_is_held_back_do_not_go_out() -> None:
    guard = guarding(GuardrailPlugin([Literals(["odin"], action="redact")]))
    chunk = event("the od")
    chunk.raw["choices"][0]["logprobs"] = {"content": [{"token": "od"}]}
    assert "od" not in repr(guard.feed(chunk))


def test_a_part_of_unknown_type_ends_the_stream() -> None:
    guard = guarding(GuardrailPlugin([Literals(["odin"])]))
    strange = Chunk(raw={"choices": [{"index": 0, "delta": {"content": [{"type": "hologram", "x": "odin"}]}}]})
    with pytest.raises(GuardrailError, match="hologram"):
        guard.feed(strange)


def test_a_stream_that_is_too_long_ends_where_it_is() -> None:
    plugin = GuardrailPlugin([Length(max_characters=10, side="output")])
    assert said(streamed(plugin, ["12345", "67890", "1"])) == "1234567890<blocked>"


def test_a_flag_is_told_once_and_changes_nothing() -> None:
    told: list[Any] = []
    plugin = GuardrailPlugin([Literals(["odin"], action="flag")], on_verdict=lambda verdict, call: told.append(verdict))
    call = new_call()
    guard = guarding(plugin, call)
    chunks = [chunk for part in ("od", "in and ", "more") for chunk in guard.feed(event(part))]
    chunks += guard.feed(event("", "stop"))
    assert said(chunks) == "odin and more"
    assert [(each.rule, each.side, each.action, each.count) for each in told] == [("literals", "output", "flag", 1)]
    assert verdicts(call) == tuple(told)
