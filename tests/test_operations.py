"""Every operation of the Router, from blocking and from async code, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from bifrost_core import ConfigError, Mistral, Operation, PluginError, Response, Router, SyncRouter, hookimpl
from bifrost_core.testing import SimulatedMistral

SECRET = "sk-simulated-1"
MODEL = "mistral/codestral-latest"


@pytest.fixture
async def server() -> AsyncIterator[SimulatedMistral]:
    async with SimulatedMistral([SECRET], keep_bodies=True) as running:
        yield running


async def test_a_gap_is_filled(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        reply = await router.fim(MODEL, "def add(a, b):\n", "\nprint(add(1, 2))", max_tokens=20, temperature=0)
        async with router.stream_fim(MODEL, "def add(a, b):\n") as stream:
            text = "".join([piece async for piece in stream.text()])
    assert reply.text
    assert text == stream.response.text
    first, second = server.requests
    assert [first.path, second.path] == ["/v1/fim/completions"] * 2
    assert msgspec.json.decode(first.body or b"") == {
        "model": "codestral-latest",
        "prompt": "def add(a, b):\n",
        "suffix": "\nprint(add(1, 2))",
        "max_tokens": 20,
        "temperature": 0,
    }
    assert msgspec.json.decode(second.body or b"") == {
        "model": "codestral-latest",
        "prompt": "def add(a, b):\n",
        "stream": True,
    }


def test_a_gap_is_filled_from_blocking_code() -> None:
    with SimulatedMistral([SECRET]) as server, SyncRouter([Mistral([SECRET], base_url=server.base_url)]) as router:
        assert router.fim(MODEL, "def add(a, b):\n", max_tokens=20).usage.output_tokens <= 20
        with router.stream_fim(MODEL, "def add(a, b):\n") as stream:
            text = "".join(stream.text())
        assert text == stream.response.text


async def test_a_prompt_that_is_no_string_is_refused_by_name(server: SimulatedMistral) -> None:
    async with Router([Mistral([SECRET], base_url=server.base_url)]) as router:
        with pytest.raises(ConfigError, match="suffix is int; pass a string"):
            await router.fim(MODEL, "x", 3)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="stream is no parameter"):
            await router.fim(MODEL, "x", stream=True)
    assert server.requests == ()


async def test_an_answer_of_the_wrong_kind_is_the_plugins_fault(server: SimulatedMistral) -> None:
    class Confused:
        @hookimpl
        def bifrost_cached_response(self) -> Response:
            return Response(model="codestral-latest")

    async with Router([Mistral([SECRET], base_url=server.base_url)], plugins=[Confused()]) as router:
        with pytest.raises(PluginError, match="a plugin answered fim with Response; return a ChatResponse"):
            await router.fim(MODEL, "x")
    assert Operation("classification") is Operation.CLASSIFICATION
