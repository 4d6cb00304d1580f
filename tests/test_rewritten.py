"""``CallRecord.rewritten``: what plugins changed of a call."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from bifrost_core import (
    Call,
    CallError,
    CallRecord,
    ChatResponse,
    Choice,
    Chunk,
    GuardrailError,
    Request,
    Response,
    Router,
    hookimpl,
)
from bifrost_core.testing.simulated import Simulated


class Records:
    def __init__(self) -> None:
        self.seen: list[CallRecord] = []

    @hookimpl
    def bifrost_call_finished(self, record: CallRecord) -> None:
        self.seen.append(record)


class Looks:
    """Changes nothing."""

    @hookimpl
    def bifrost_guard_request(self, request: Request) -> Request:
        return request

    @hookimpl
    def bifrost_guard_response(self, response: Response) -> Response:
        return response


class ChangesRequests:
    @hookimpl
    def bifrost_guard_request(self, request: Request) -> Request:
        return request.with_body(temperature=0)


class ChangesResponses:
    @hookimpl
    def bifrost_guard_response(self, response: Response) -> Response:
        return response.with_text("changed")


class Filters:
    """A stream filter, which sees streams only."""

    def __init__(self, *, changes: bool) -> None:
        self._changes = changes

    @hookimpl
    def bifrost_stream_filter(self, call: Call) -> Filters:
        return self

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        return [chunk.with_text(chunk.text.upper()) if self._changes and chunk.text else chunk]

    def finish(self) -> Iterable[Chunk]:
        return []


class Recovers:
    @hookimpl
    def bifrost_guard_response(self, response: Response) -> None:
        raise GuardrailError("no")

    @hookimpl
    def bifrost_recover(self, error: CallError) -> ChatResponse:
        return ChatResponse(choices=[Choice(text="instead", finish_reason="stop")])


class Answers:
    """A cache."""

    @hookimpl
    def bifrost_cached_response(self) -> ChatResponse:
        return ChatResponse(choices=[Choice(text="kept", finish_reason="stop")])


@pytest.mark.parametrize(
    ("plugins", "plain", "stream"),
    [
        pytest.param([], set(), set(), id="no plugin"),
        pytest.param([Looks(), Filters(changes=False)], set(), set(), id="nothing changed"),
        pytest.param([ChangesRequests()], {"request"}, {"request"}, id="the request"),
        pytest.param([ChangesResponses()], {"response"}, {"response"}, id="the answer"),
        pytest.param([Filters(changes=True)], set(), {"response"}, id="chunks"),
        pytest.param(
            [ChangesRequests(), ChangesResponses()], {"request", "response"}, {"request", "response"}, id="both"
        ),
        pytest.param([Recovers()], {"recovered"}, {"recovered"}, id="an answer made of an error"),
        pytest.param([Answers(), ChangesResponses()], {"response"}, {"response"}, id="a cached answer"),
        pytest.param([Answers(), Filters(changes=True)], set(), {"response"}, id="a cached answer's chunks"),
    ],
)
async def test_the_record_says_what_plugins_changed(plugins: list[object], plain: set[str], stream: set[str]) -> None:
    records = Records()
    async with Router([Simulated(["one"])], plugins=[*plugins, records]) as router:
        await router.chat("simulated/m", "hi")
        async with router.stream("simulated/m", "hi") as chunks:
            async for _ in chunks:
                pass
    assert [record.rewritten for record in records.seen] == [plain, stream]


async def test_a_cached_answer_has_the_times_of_its_own_call() -> None:
    class Old:
        @hookimpl
        def bifrost_cached_response(self) -> ChatResponse:
            return ChatResponse(choices=[Choice(text="kept")], latency=1e9, time_to_first_token=1e9, call_id="other")

    async with Router([Simulated(["one"])], plugins=[Old()]) as router:
        answer = await router.chat("simulated/m", "hi")
    assert 0 <= answer.latency < 1e6
    assert (answer.time_to_first_token, answer.call_id == "other") == (None, False)
