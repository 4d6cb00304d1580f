"""The option ``cache`` of a call."""

from __future__ import annotations

from typing import Any

import pytest

from bifrost_core import ConfigError, RefusedError, Router
from bifrost_core.cache_options import CacheMode, CacheOption, cache_option
from bifrost_core.testing.simulated import Simulated


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, CacheOption(), id="nothing said"),
        pytest.param("bypass", CacheOption(CacheMode.BYPASS), id="a mode"),
        pytest.param(CacheMode.ONLY, CacheOption(CacheMode.ONLY), id="a mode as a member"),
        pytest.param({}, CacheOption(), id="an empty mapping"),
        pytest.param({"ttl": 60}, CacheOption(CacheMode.USE, 60.0), id="a lifetime alone"),
        pytest.param({"mode": "refresh", "ttl": 3600}, CacheOption(CacheMode.REFRESH, 3600.0), id="both"),
    ],
)
def test_every_form_is_understood(value: Any, expected: CacheOption) -> None:
    assert cache_option(value) == expected


@pytest.mark.parametrize(
    ("value", "field"),
    [
        pytest.param("never", "cache", id="an unknown mode"),
        pytest.param(True, "cache", id="a boolean"),
        pytest.param(60, "cache", id="a number"),
        pytest.param({"mode": 1}, "cache.mode", id="a mode that is no text"),
        pytest.param({"mode": "never"}, "cache", id="an unknown mode in a mapping"),
        pytest.param({"tll": 60}, "cache.tll", id="a misspelt member"),
        pytest.param({"ttl": 0}, "cache.ttl", id="no time"),
        pytest.param({"ttl": 3601}, "cache.ttl", id="too long"),
        pytest.param({"ttl": float("nan")}, "cache.ttl", id="NaN"),
        pytest.param({"ttl": True}, "cache.ttl", id="a boolean time"),
        pytest.param({"ttl": "60"}, "cache.ttl", id="a text as time"),
    ],
)
async def test_a_mistake_is_named_before_anything_happens(value: Any, field: str) -> None:
    provider = Simulated(["one"])
    async with Router([provider]) as router:
        with pytest.raises(ConfigError) as caught:
            await router.chat("simulated/m", "hi", cache=value)
        assert caught.value.field == field
        with pytest.raises(ConfigError):
            router.stream("simulated/m", "hi", cache=value)
    assert provider.journal == ()


async def test_only_asks_no_provider_also_where_there_is_no_cache() -> None:
    provider = Simulated(["one"])
    async with Router([provider], fallbacks={"simulated/m": ["simulated/n"]}) as router:
        with pytest.raises(RefusedError) as caught:
            await router.chat("simulated/m", "hi", cache="only")
        with pytest.raises(RefusedError):
            async with router.stream("simulated/m", "hi", cache="only") as stream:
                await stream.__anext__()
    assert (caught.value.http_status, caught.value.attempts) == (504, ())
    assert provider.journal == ()
