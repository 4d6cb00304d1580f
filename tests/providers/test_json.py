"""The bound on nested JSON: brackets count, those inside strings do not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core.providers._json import MAX_DEPTH, JsonError, decode

TRICKY = st.text(alphabet='[]{}"\\,:é\u2028 ', max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.integers(MAX_DEPTH - 2, MAX_DEPTH + 2), st.lists(TRICKY, min_size=1, max_size=4), st.booleans())
def test_two_hundred_levels_are_read_and_one_more_is_not(levels: int, texts: list[str], ascii_only: bool) -> None:
    value: Any = texts
    for level in range(levels - 1):
        text = texts[level % len(texts)]
        value = [text, value, text] if level % 2 else {text: value, "z": text}
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    if levels <= MAX_DEPTH:
        assert decode(data) == value
    else:
        with pytest.raises(JsonError, match="nested too deeply"):
            decode(data)


def test_many_brackets_side_by_side_are_no_depth() -> None:
    value = [{"embedding": [0.5], "text": "[" * 300 + '\\"'} for _ in range(300)]
    assert decode(json.dumps(value).encode()) == value
