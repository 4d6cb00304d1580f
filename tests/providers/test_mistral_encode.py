"""What Mistral is sent: members that it would refuse are renamed, left out or refused by name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bifrost_core.errors import UnsupportedParameterError
from bifrost_core.providers.mistral import Mistral
from bifrost_core.types import Operation, Request

HI = {"role": "user", "content": "Hi"}


def sent(**body: Any) -> Any:
    request = Request(Operation.CHAT, "mistral-small-latest", {"messages": [HI], **body})
    return json.loads(Mistral(["sk-simulated-0001"]).encode(request).body)


@pytest.mark.parametrize("name", ["store", "user", "stream_options", "safety_identifier"])
def test_a_field_without_effect_is_left_out(name: str) -> None:
    assert sent(**{name: "x"}) == {"model": "mistral-small-latest", "messages": [HI]}


@pytest.mark.parametrize(
    ("given", "written"),
    [
        pytest.param({"role": "developer", "content": "Be"}, {"role": "system", "content": "Be"}, id="developer"),
        pytest.param({**HI, "name": "ann"}, HI, id="name-of-a-user"),
        pytest.param(
            {"role": "assistant", "content": "4", "reasoning_content": "2+2"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]},
                    {"type": "text", "text": "4"},
                ],
            },
            id="reasoning",
        ),
    ],
)
def test_a_message_is_brought_into_the_shape(given: dict[str, Any], written: dict[str, Any]) -> None:
    assert sent(messages=[given])["messages"] == [written]


def test_a_foreign_call_id_is_changed_alike_in_call_and_result() -> None:
    call = {"id": "call_far_too_long", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    written = sent(messages=[asked, {"role": "tool", "content": "1", "tool_call_id": call["id"]}])["messages"]
    made = written[0]["tool_calls"][0]["id"]
    assert (len(made), made.isalnum(), written[1]["tool_call_id"]) == (9, True, made)


def test_two_names_for_one_field_must_agree() -> None:
    assert sent(max_tokens=5, max_completion_tokens=5)["max_tokens"] == 5
    with pytest.raises(UnsupportedParameterError) as caught:
        sent(max_tokens=5, max_completion_tokens=6)
    assert caught.value.parameter == "max_completion_tokens"
