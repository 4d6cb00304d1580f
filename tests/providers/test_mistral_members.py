"""No field of any request is lost: it is on the wire, renamed, documented as left out, or refused by its name."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bifrost_core import BadRequestError, Mistral, Request

MISTRAL = Mistral(["sk-canary-aaaaaaaaaaaaaaaa"])


@attrs.frozen
class Case:
    """An operation: a body that it takes, fields to try, new names, and what may be left out (None: any value)."""

    operation: str
    body: dict[str, Any]
    fields: str
    renamed: dict[str, str] = attrs.field(factory=dict[str, str])
    left_out: dict[str, Any] = attrs.field(factory=dict[str, Any])


CASES = [
    Case(
        "embeddings",
        {"input": "a"},
        "dimensions output_dimension output_dtype encoding_format metadata user",
        {"dimensions": "output_dimension"},
        {"user": None},
    ),
    Case("moderation", {"input": ["a"]}, "metadata user", left_out={"user": None}),
    Case("moderation", {"input": [{"role": "user", "content": "a"}]}, "metadata user", left_out={"user": None}),
    Case("classification", {"input": ["a"]}, "metadata user", left_out={"user": None}),
    Case(
        "classification", {"input": {"messages": [{"role": "user", "content": "a"}]}}, "user", left_out={"user": None}
    ),
    Case(
        "speech",
        {"input": "a"},
        "voice voice_id ref_audio response_format speed instructions stream_format expressiveness user",
        left_out={"user": None, "speed": 1, "instructions": "", "stream_format": "audio"},
    ),
]
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.text(max_size=3)
    | st.sampled_from(["audio", 1.0, 1])
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.text(max_size=2), st.integers(), max_size=2)
)


def is_left_out(case: Case, name: str, value: Any) -> bool:
    return name in case.left_out and (case.left_out[name] is None or case.left_out[name] == value)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{case.operation}-{type(case.body['input']).__name__}-{i}")
        for i, case in enumerate(CASES)
    ],
)
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_every_field_is_on_the_wire_or_refused_by_name(case: Case, data: st.DataObject) -> None:
    names = st.sampled_from([*case.fields.split(), "stream", "temperature"]) | st.text(max_size=8)
    given_ = data.draw(st.dictionaries(names, VALUES, max_size=5))
    given_ = {name: value for name, value in given_.items() if name not in {"input", "model", "extra_body"}}
    refusal, wire = "", {}
    try:
        wire = json.loads(MISTRAL.encode(Request(case.operation, "m", {**case.body, **given_})).body)
    except BadRequestError as exc:
        refusal = exc.message
    if refusal:
        assert any(repr(name) in refusal for name, value in given_.items() if value is not None)
        return
    kept = {
        case.renamed.get(name, name): value
        for name, value in given_.items()
        if value is not None and name != "stream" and not is_left_out(case, name, value)
    }
    assert wire == {"model": "m", "input": case.body["input"], **kept}
