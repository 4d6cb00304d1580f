"""Events as the plugin makes them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

NOON = 1_767_268_800.0  # 2026-01-01T12:00:00Z


@pytest.fixture
def an_event() -> Callable[..., dict[str, Any]]:
    """Makes the event of call ``c{number}``, begun ``number`` seconds after noon."""

    def make(number: int = 0, **changes: Any) -> dict[str, Any]:
        attempt = {
            "id": f"c{number}-1",
            "provider": "mistral",
            "model": "mistral-small-latest",
            "key_id": "k1",
            "outcome": "ok",
            "kind": None,
            "status": 200,
            "latency": 0.25,
            "time_to_first_token": None,
            "usage": {"input_tokens": 3, "output_tokens": 5},
            "cost": "0.0000025",
        }
        event = {
            "call_id": f"c{number}",
            "operation": "chat",
            "model": "mistral/mistral-small-latest",
            "principal": "alice",
            "tenant": "acme",
            "virtual_key": None,
            "outcome": "ok",
            "kind": None,
            "started_at": datetime.fromtimestamp(NOON + number, UTC).isoformat(timespec="milliseconds"),
            "latency": 0.5,
            "time_to_first_token": None,
            "cached": False,
            "usage": {"input_tokens": 3, "output_tokens": 5},
            "cost": "0.0000025",
            "attempts": [attempt],
            "verdicts": [],
            "metadata": {"n": number},
        }
        return {**event, **changes}

    return make
