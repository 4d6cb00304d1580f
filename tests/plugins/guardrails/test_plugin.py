"""``GuardrailPlugin`` in a Router: blocked, redacted, put back, flagged, on every operation."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from bifrost_plugins.guardrails import (
    Custom,
    GuardrailPlugin,
    JsonSchema,
    Length,
    Literals,
    Pii,
    Regex,
    Secrets,
    Topics,
    Verdict,
    plugin,
    verdicts,
)

from bifrost_core import (
    Call,
    CallRecord,
    ConfigError,
    GuardrailError,
    Kind,
    Mistral,
    PluginError,
    Request,
    Response,
    Router,
    SyncRouter,
    hookimpl,
)
from bifrost_core.testing import SimulatedMistral
from bifrost_core.testing.plugins import check_plugin

ROOT = Path(__file__).parents[3]
MODEL = "mistral/mistral-small-latest"
MAIL = "odin@valhalla.example"


class World:
    """A provider that answers with what it was last told to, or with the last message."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.server = SimulatedMistral(["sk-simulated-1"], answer=self._answer, keep_bodies=True)

    def _answer(self, body: Any) -> Any:
        if self.answer is not None:
            return self.answer
        return str(body["messages"][-1]["content"]) if "messages" in body else str(body["prompt"])

    @property
    def sent(self) -> str:
        """Everything that the provider was sent."""
        bodies = [each.body for each in self.server.requests]
        return "\n".join(body.decode() for body in bodies if isinstance(body, bytes))

    def router(self, *plugins: object) -> Router:
        return Router([Mistral(["sk-simulated-1"], base_url=self.server.base_url)], plugins=plugins)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with made.server:
        yield made


async def text_of(stream: AsyncIterator[Any]) -> str:
    return "".join([chunk.text async for chunk in stream])


async def test_a_forbidden_word_never_reaches_the_provider(world: World) -> None:
    seen: list[CallRecord] = []

    class Watch:
        @hookimpl
        def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
            seen.append(record)
            found.extend(verdicts(call))

    found: list[Verdict] = []
    guard = GuardrailPlugin([Literals(["codename x"], side="input", name="names")])
    async with world.router(Watch(), guard) as router:
        with pytest.raises(GuardrailError) as caught:
            await router.chat(MODEL, "tell me about CODENAME\u200b  X please")
    error = caught.value
    assert (error.rule, error.side, error.http_status, error.kind) == ("names", "input", 446, Kind.GUARDRAIL_BLOCKED)
    assert "codename" not in str(error).lower()
    assert "codename" not in repr(error).lower()
    assert world.sent == ""
    assert [record.outcome for record in seen] == ["refused"]
    assert found == [Verdict("names", "input", "block", "redacted", 1, "guardrails")]


async def test_what_is_taken_out_of_a_request_comes_back_in_the_answer(world: World) -> None:
    guard = GuardrailPlugin([Pii(["email"], action="redact", reversible=True)])
    async with world.router(guard) as router:
        reply = await router.chat(MODEL, f"write to {MAIL} and {MAIL}")
        assert reply.text == f"write to {MAIL} and {MAIL}"
        assert reply.message["content"] == reply.text
        assert reply.to_openai()["choices"][0]["message"]["content"] == reply.text
        assert reply.raw["choices"][0]["message"]["content"] == reply.text
        async with router.stream(MODEL, f"write to {MAIL} now") as stream:
            assert await text_of(stream) == f"write to {MAIL} now"
            assert stream.response is not None
            assert stream.response.text == f"write to {MAIL} now"
    assert MAIL not in world.sent
    assert "valhalla" not in world.sent
    assert world.sent.count("[EMAIL_") == 3


async def test_it_comes_back_in_the_arguments_of_tool_calls_too(world: World) -> None:
    guard = GuardrailPlugin([Literals(['O"din'], action="redact", reversible=True, side="input")])
    tools = [{"type": "function", "function": {"name": "call", "parameters": {"type": "object"}}}]
    async with world.router(guard) as router:
        await router.chat(MODEL, 'about O"din')
        (name,) = {part for part in world.sent.replace('"', " ").split() if part.startswith("[REDACTED_")}
        call = {"name": "call", "arguments": json.dumps({"who": name})}
        world.answer = {"content": "", "tool_calls": [call], "finish_reason": "tool_calls"}
        reply = await router.chat(MODEL, 'about O"din', tools=tools)
        assert reply.tool_calls[0].parsed() == {"who": 'O"din'}
        async with router.stream(MODEL, 'about O"din', tools=tools) as stream:
            calls = [call async for chunk in stream for call in chunk.tool_calls]
        assert [call.parsed() for call in calls] == [{"who": 'O"din'}]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_is_taken_out_of_an_answer_is_nowhere_behind_it(world: World, stream: bool) -> None:
    call = {"name": "mail", "arguments": json.dumps({"to": MAIL, "n": 1})}
    world.answer = {"thinking": f"ask {MAIL}?", "content": f"It is {MAIL}, ok.", "tool_calls": [call]}
    guard = GuardrailPlugin([Pii(["email"], side="output", action="redact")])
    response: Any
    async with world.router(guard) as router:
        if stream:
            async with router.stream(MODEL, "who?") as chunks:
                got = [chunk async for chunk in chunks]
            assert MAIL not in repr([(chunk, chunk.raw) for chunk in got])
            assert "valhalla" not in repr([(chunk, chunk.raw) for chunk in got])
            response = chunks.response
        else:
            response = await router.chat(MODEL, "who?")
    assert response.text == "It is [EMAIL], ok."
    assert response.reasoning == "ask [EMAIL]?"
    assert response.tool_calls[0].parsed() == {"to": "[EMAIL]", "n": 1}
    everything = repr((response, response.raw, response.message, response.to_openai(), response.choices))
    assert "valhalla" not in everything


@pytest.mark.parametrize("operation", ["chat", "responses"])
async def test_a_call_that_was_cut_off_is_not_delivered_unjudged(world: World, operation: str) -> None:
    call = {"name": "mail", "arguments": f'{{"to": "{MAIL}", "body": "cut'}
    world.answer = {"content": "hi", "tool_calls": [call], "finish_reason": "length"}
    stream: Any
    async with world.router(GuardrailPlugin([Pii(["email"], side="output", action="redact")])) as router:
        ask = router.stream if operation == "chat" else router.stream_responses
        async with ask(MODEL, "who?") as stream:
            got = [chunk async for chunk in stream]
        assert "valhalla" not in repr([(chunk, chunk.raw) for chunk in got])
        assert "valhalla" not in repr((stream.response, stream.response.raw, stream.response.tool_calls))
        assert (await router.chat(MODEL, "who?")).tool_calls[0].arguments == '{"to": "[EMAIL]", "body": "cut'


async def test_a_blocked_answer_is_an_error_and_a_blocked_stream_breaks_off(world: World) -> None:
    world.answer = "first " * 60 + "and the key is sk-" + "a1B2" * 8 + " keep it"
    async with world.router(GuardrailPlugin([Secrets(side="output")])) as router:
        with pytest.raises(GuardrailError, match="the answer was blocked by the guardrail 'secrets'"):
            await router.chat(MODEL, "key?")
        got: list[str] = []
        with pytest.raises(GuardrailError) as caught:
            async with router.stream(MODEL, "key?") as stream:
                async for chunk in stream:
                    got.append(chunk.text)
    assert caught.value.side == "output"
    assert "".join(got).startswith("first first")
    assert "sk-" not in "".join(got)


REQUESTS: dict[str, Any] = {
    "system": {"messages": [{"role": "system", "content": "odin"}, {"role": "user", "content": "x"}]},
    "parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "od"}, {"type": "text", "text": "in"}]}]
    },
    "image": {
        "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/odin.png"}}]}]
    },
    "document": {
        "messages": [{"role": "user", "content": [{"type": "document_url", "document_url": "https://x/odin"}]}]
    },
    "name": {"messages": [{"role": "user", "name": "odin", "content": "x"}]},
    "tool-result": {
        "messages": [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": [{"id": "abc123456", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "abc123456", "content": "odin"},
        ]
    },
    "tool-arguments": {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"a":"\\u006fdin"}'}}],
            },
        ]
    },
    "tool-arguments-cut-off": {
        "messages": [
            {"role": "user", "content": "x"},
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": '{"a":"\\u006fdin'}}],
            },
        ]
    },
    "tool-description": {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "description": "odin"}}],
    },
    "prefix": {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "odin", "prefix": True}]
    },
    "prediction": {
        "messages": [{"role": "user", "content": "x"}],
        "prediction": {"type": "content", "content": "odin"},
    },
    "extra-body": {"messages": [{"role": "user", "content": "x"}], "extra_body": {"metadata": {"who": "odin"}}},
    "role": {"messages": [{"role": "user odin", "content": "x"}]},
    "data-url-of-text": {
        "messages": [{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain,odin"}}]}]
    },
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in REQUESTS.items()])
async def test_every_text_of_a_request_is_looked_at(world: World, body: dict[str, Any]) -> None:
    messages, params = body["messages"], {name: value for name, value in body.items() if name != "messages"}
    async with world.router(GuardrailPlugin([Literals(["odin"], side="input")])) as router:
        with pytest.raises(GuardrailError):
            await router.chat(MODEL, messages, **params)
    async with world.router(GuardrailPlugin([Literals(["odin"], side="input")])) as router:
        assert (await router.chat(MODEL, "od in")).text == "od in"


async def test_every_operation_is_looked_at(world: World) -> None:
    async with world.router(GuardrailPlugin([Literals(["odin"], side="input")])) as router:
        for ask in (
            lambda: router.embed("mistral/mistral-embed", ["x", "odin"]),
            lambda: router.fim("mistral/codestral-latest", "def f(", "odin"),
            lambda: router.moderate("mistral/mistral-moderation-latest", "odin"),
            lambda: router.ocr("mistral/mistral-ocr-latest", "https://example.com/odin.pdf"),
            lambda: router.responses(MODEL, [{"role": "user", "content": [{"type": "input_text", "text": "odin"}]}]),
            lambda: router.responses(MODEL, [{"type": "function_call_output", "call_id": "c", "output": "odin"}]),
        ):
            with pytest.raises(GuardrailError):
                await ask()
    assert world.sent == ""


async def test_texts_are_rewritten_where_they_stand(world: World) -> None:
    guard = GuardrailPlugin([Literals(["odin"], side="input", action="redact")])
    parts = [{"type": "text", "text": "I am o"}, {"type": "text", "text": "din here"}]
    async with world.router(guard) as router:
        await router.chat(MODEL, [{"role": "user", "content": parts}])
        await router.embed("mistral/mistral-embed", ["x", "a odin b"])
    assert '"I am [REDACTED]"' in world.sent
    assert '" here"' in world.sent
    assert "a [REDACTED] b" in world.sent


async def test_responses_are_judged_in_their_own_shape(world: World) -> None:
    world.answer = f"It is {MAIL}."
    guard = GuardrailPlugin([Pii(["email"], side="output", action="redact")])
    async with world.router(guard) as router:
        reply = await router.responses(MODEL, "who?")
        assert reply.output_text == "It is [EMAIL]."
        assert "valhalla" not in repr((reply.output, reply.raw, reply.to_openai()))
        async with router.stream_responses(MODEL, "who?") as stream:
            events = [event.raw async for event in stream]
        assert "valhalla" not in repr(events)
        assert "[EMAIL]" in repr(events)


async def test_parts_of_unknown_type_are_blocked_unless_they_are_to_be_skipped(world: World) -> None:
    messages = [{"role": "user", "content": [{"type": "hologram", "x": "y"}]}]
    async with world.router(GuardrailPlugin([Literals(["odin"])])) as router:
        with pytest.raises(GuardrailError, match="a part of type hologram"):
            await router.chat(MODEL, messages)
        with pytest.raises(GuardrailError, match="token ids"):
            await router.send(Request("embeddings", "mistral/mistral-embed", {"input": [[1, 2, 3]]}))
    skipping = GuardrailPlugin([Literals(["odin"])], unknown_parts="skip")
    request = Request("chat", MODEL, {"messages": messages})
    assert skipping.bifrost_guard_request(request, Call("c", request.operation, request)) is None


async def test_what_is_too_long_to_be_looked_at_is_blocked(world: World) -> None:
    async with world.router(GuardrailPlugin([Literals(["odin"])])) as router:
        with pytest.raises(GuardrailError, match="more than 1048576 bytes"):
            await router.chat(MODEL, "é" * (512 * 1024 + 1))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_answer_has_to_fit_its_schema(world: World, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"$ref": "#/$defs/age"}},
        "required": ["name"],
        "additionalProperties": False,
        "$defs": {"age": {"type": "integer", "minimum": 0}},
    }
    guard = GuardrailPlugin([JsonSchema(schema)])

    async def ask() -> str:
        got.clear()
        async with world.router(guard) as router:
            if not stream:
                return (await router.chat(MODEL, "who?")).text
            async with router.stream(MODEL, "who?") as chunks:
                async for chunk in chunks:
                    got.append(chunk.text)
                return "".join(got)

    got: list[str] = []
    for good in ('{"name": "Thor", "age": 900}', '{"name":"x"}'):
        world.answer = good
        assert await ask() == good
    for bad in ('{"name": "Thor the god"}', "{}", '{"name": "x", "age": -1}', '{"name": "x", "z": 1}', "Thor", "[]"):
        world.answer = bad
        with pytest.raises(GuardrailError) as caught:
            await ask()
        assert caught.value.rule == "json_schema"
        assert got == []
        assert "Thor" not in str(caught.value)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_topics_are_asked_of_the_moderation_model_with_the_callers_key(world: World, stream: bool) -> None:
    asked: list[tuple[str, str | None]] = []

    class Watch:
        @hookimpl
        def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
            asked.append((str(record.operation), call.virtual_key.reveal() if call.virtual_key else None))

    world.answer = f"fine, {MAIL}"
    guard = GuardrailPlugin(
        [Pii(["email"], action="redact"), Topics("mistral/mistral-moderation-latest", threshold=0.0, action="flag")]
    )
    async with world.router(Watch(), guard) as router:
        if stream:
            async with router.stream(MODEL, f"hello {MAIL}", virtual_key="vk-0123456789abcdefghij") as chunks:
                assert await text_of(chunks) == "fine, [EMAIL]"
        else:
            assert (
                await router.chat(MODEL, f"hello {MAIL}", virtual_key="vk-0123456789abcdefghij")
            ).text == "fine, [EMAIL]"
    assert sorted(asked) == [
        ("chat", "vk-0123456789abcdefghij"),
        ("moderation", "vk-0123456789abcdefghij"),
        ("moderation", "vk-0123456789abcdefghij"),
    ]
    assert "valhalla" not in world.sent


async def test_a_topic_over_its_threshold_is_blocked(world: World) -> None:
    async with world.router(GuardrailPlugin([Topics(threshold=0.0, side="input")])) as router:
        with pytest.raises(GuardrailError, match="topics"):
            await router.chat(MODEL, "hello")
    async with world.router(GuardrailPlugin([Topics(categories=["no_such"], threshold=0.5)])) as router:
        assert (await router.chat(MODEL, "hello")).text == "hello"


async def test_two_plugins_do_not_ask_about_each_others_questions(world: World) -> None:
    two = [GuardrailPlugin([Topics(threshold=0.0, action="flag", side="input")], name=name) for name in ("a", "b")]
    async with world.router(*two) as router:
        assert (await router.chat(MODEL, "hello")).text == "hello"
    assert [each.path for each in world.server.requests] == [
        "/v1/moderations",
        "/v1/moderations",
        "/v1/chat/completions",
    ]


async def test_a_moderation_model_that_does_not_answer_closes(world: World) -> None:
    async with world.router(GuardrailPlugin([Topics("mistral/no-such-model", side="input")])) as router:
        with pytest.raises(PluginError) as caught:
            await router.chat(MODEL, "hello")
    assert "no-such-model" in str(caught.value.__cause__)
    assert "messages" not in world.sent


async def test_functions_of_ones_own_may_wait_and_see_the_call(world: World) -> None:
    async def long_words(text: str, call: Call) -> bool:
        return call.operation == "chat" and any(len(word) > 20 for word in text.split())

    def vowels(text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place, char in enumerate(text) if char in "ei"]

    rules = [Custom(long_words, side="input"), Custom(vowels, side="output", action="redact", name="vowels")]
    async with world.router(GuardrailPlugin(rules)) as router:
        with pytest.raises(GuardrailError, match="custom"):
            await router.chat(MODEL, "a" * 21)
        assert (await router.chat(MODEL, "thin")).text == "th[REDACTED]n"
        async with router.stream(MODEL, "thin") as stream:
            assert await text_of(stream) == "th[REDACTED]n"


async def test_encoded_text_is_read_where_that_is_asked_for(world: World) -> None:
    for encoded in (base64.b64encode(b"the codename x is").decode(), b"the codename x".hex(), "the%20codename%20x"):
        async with world.router(GuardrailPlugin([Literals(["codename x"])])) as router:
            assert (await router.chat(MODEL, f"read {encoded} now")).text
        async with world.router(GuardrailPlugin([Literals(["codename x"])], decode=True)) as router:
            with pytest.raises(GuardrailError):
                await router.chat(MODEL, f"read {encoded} now")


async def test_a_cached_answer_is_judged_and_restored_once(world: World) -> None:
    class Cache:
        def __init__(self) -> None:
            self.kept: dict[str, Response] = {}

        @hookimpl
        def bifrost_cached_response(self, request: Any) -> Response | None:
            return self.kept.get(repr(request.body))

        @hookimpl
        def bifrost_call_finished(self, record: CallRecord, call: Call) -> None:
            if record.response is not None:
                self.kept[repr(call.request.body)] = record.response

    guard = GuardrailPlugin([Pii(["email"], action="redact", reversible=True)])
    async with world.router(Cache(), guard) as router:
        for _ in range(2):
            assert (await router.chat(MODEL, f"to {MAIL}")).text == f"to {MAIL}"
        other = "loki@asgard.example"
        assert (await router.chat(MODEL, f"to {other}")).text == f"to {other}"
    assert len(world.server.requests) == 2  # the same prompt is one call, another address another prompt


def test_the_same_rules_work_in_blocking_code(world: World) -> None:
    guard = GuardrailPlugin([Pii(["email"], action="redact", reversible=True), Literals(["loki"])])
    with SyncRouter([Mistral(["sk-simulated-1"], base_url=world.server.base_url)], plugins=[guard]) as router:
        with router.stream(MODEL, f"to {MAIL}") as stream:
            assert "".join(chunk.text for chunk in stream) == f"to {MAIL}"
        with pytest.raises(GuardrailError):
            router.chat(MODEL, "loki")


def test_a_plugin_has_the_hooks_that_its_rules_need() -> None:
    word = Literals(["x"], side="input")
    assert check_plugin(GuardrailPlugin([word])) == ["bifrost_guard_request"]
    assert check_plugin(GuardrailPlugin([Literals(["x"], side="output")])) == [
        "bifrost_stream_filter",
        "bifrost_guard_response",
    ]
    assert check_plugin(GuardrailPlugin([JsonSchema({"type": "object"})])) == ["bifrost_guard_response"]
    both = check_plugin(GuardrailPlugin([Literals(["x"], side="input", action="redact", reversible=True)]))
    assert both == ["bifrost_guard_request", "bifrost_stream_filter", "bifrost_guard_response"]


def test_what_loads_by_name_keeps_credentials_in() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]["bifrost"]
    assert entries["guardrails"] == f"{plugin.__module__.rpartition('.')[0]}:{plugin.__name__}"
    assert [type(rule) for rule in plugin().rules] == [Secrets]
    assert len(check_plugin(plugin())) == 3


MISTAKES: list[tuple[Any, str]] = [
    (lambda: GuardrailPlugin([]), "at least one rule"),
    (lambda: GuardrailPlugin(["x"]), "str is no rule"),  # type: ignore[list-item]
    (lambda: GuardrailPlugin([Length(max_characters=1)], unknown_parts="x"), "unknown_parts"),  # type: ignore[arg-type]
    (lambda: Literals([]), "at least one word"),
    (lambda: Literals(["\u200b"]), "no empty one"),
    (lambda: Literals(["x"], side="left"), "say 'input' or 'output' or 'both'"),  # type: ignore[arg-type]
    (lambda: Literals(["x"], action="burn"), "say 'block' or 'redact' or 'flag'"),  # type: ignore[arg-type]
    (lambda: Literals(["x"], reversible=True), "only what is redacted"),
    (lambda: Pii(action="redact", side="output", reversible=True), "only what is redacted"),
    (Length, "max_characters"),
    (lambda: Length(max_characters=1, action="redact"), "no stretch to take out"),
    (lambda: Topics(action="redact"), "no stretch to take out"),
    (lambda: Topics(threshold=2), "from 0 to 1"),
    (lambda: JsonSchema({"patternProperties": {}}), "patternProperties: this keyword is not supported"),
    (lambda: JsonSchema({"$ref": "https://x/y"}), "points outside"),
    (lambda: JsonSchema({"$ref": "#/$defs/x"}), "points at nothing"),
    (lambda: JsonSchema({"pattern": "(a+)+$"}), "repeat"),
    (lambda: Custom(lambda text, call: None, window=3), "takes the text alone"),
    (lambda: Custom(lambda text: None, window=0), "at least 1"),
]


@pytest.mark.parametrize(
    ("make", "message"), [pytest.param(*each, id=f"{number}-{each[1]}") for number, each in enumerate(MISTAKES)]
)
def test_a_mistake_is_told_when_it_is_made(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("$", r"\$")):
        make()


async def test_what_on_verdict_raises_does_no_harm(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def fail(verdict: Verdict, call: Call) -> None:
        raise ValueError("broken")

    async with world.router(GuardrailPlugin([Regex("hello", action="flag")], on_verdict=fail)) as router:
        assert (await router.chat(MODEL, "hello")).text == "hello"
    assert "on_verdict failed" in caplog.text


async def test_no_rule_and_no_state_shows_what_it_is_about(world: World) -> None:
    guard = GuardrailPlugin([Literals(["codename x"]), Pii(["email"], action="redact", reversible=True)])
    states: list[Any] = []

    class Watch:
        @hookimpl
        def bifrost_call_finished(self, call: Call) -> None:
            states.append(call.state[guard])

    async with world.router(Watch(), guard) as router:
        await router.chat(MODEL, f"to {MAIL}")
    assert "valhalla" not in repr(states)
    assert "codename" not in repr([Literals(["codename x"]), guard])
