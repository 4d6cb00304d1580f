"""What the helpers for SDKs say where an SDK is missing; with the SDKs themselves they are tested in ``sdks/``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bifrost_core import ConfigError, Router, SyncRouter, sdks
from bifrost_core.testing import Simulated


@pytest.mark.parametrize(
    ("make", "package"),
    [
        pytest.param(sdks.openai, "openai", id="openai"),
        pytest.param(sdks.async_openai, "openai", id="async_openai"),
        pytest.param(sdks.anthropic, "anthropic", id="anthropic"),
        pytest.param(sdks.async_anthropic, "anthropic", id="async_anthropic"),
        pytest.param(sdks.mistral, "mistralai>=3", id="mistral"),
        pytest.param(sdks.chat_openai, "langchain-openai", id="chat_openai"),
        pytest.param(sdks.chat_mistralai, "langchain-mistralai", id="chat_mistralai"),
        pytest.param(sdks.chat_anthropic, "langchain-anthropic", id="chat_anthropic"),
    ],
)
def test_a_package_that_is_missing_is_named(
    make: Callable[..., Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdks, "find_spec", lambda name: None)
    with SyncRouter([Simulated(["a"])]) as blocking:
        for router in (Router([Simulated(["a"])]), blocking):
            with pytest.raises(ConfigError) as caught:
                make(router, virtual_key="sk-bf-canary-0123456789")
            assert caught.value.message.endswith(f"is not installed; run: pip install '{package}'")
            assert "canary" not in str(caught.value)


def test_every_helper_is_exported() -> None:
    made_here = {name for name, value in vars(sdks).items() if getattr(value, "__module__", "") == sdks.__name__}
    assert {name for name in made_here if not name.startswith("_")} == set(sdks.__all__)
