"""What is where in OpenAI's Responses objects and events: which members hold words, and which only name and count.

Source:
    https://platform.openai.com/docs/api-reference/responses/object and
    https://platform.openai.com/docs/api-reference/responses-streaming.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

__all__ = ["begins", "is_response_event", "is_silent_item", "item_of", "said_event", "shell_of", "with_output_text"]

JsonObject = dict[str, Any]

_BEGINNINGS: Final = frozenset({"response.created", "response.queued", "response.in_progress"})
_ITEM_EVENTS: Final = frozenset({"response.output_item.added", "response.output_item.done"})
_WORDY: Final = frozenset({"message", "reasoning", "function_call", "custom_tool_call"})
_SHELL: Final = frozenset({"id", "type", "status", "role", "phase", "call_id", "encrypted_content", "namespace"})


def is_response_event(raw: Mapping[str, Any]) -> bool:
    """Whether a provider's event is one of a Responses stream."""
    kind: Any = raw.get("type")
    return isinstance(kind, str) and kind.startswith("response.")


def begins(raw: Mapping[str, Any]) -> bool:
    """Whether it is the event that such a stream begins with."""
    return raw.get("type") in _BEGINNINGS


def is_silent_item(item: Mapping[str, Any]) -> bool:
    """Whether an output item holds no text, reasoning or call that chunks tell, as those of tools that the provider ran."""
    return item.get("type") not in _WORDY


def item_of(raw: Mapping[str, Any]) -> JsonObject | None:
    """The output item that an event begins or ends; None of other events."""
    item: Any = raw.get("item") if raw.get("type") in _ITEM_EVENTS else None
    return cast("JsonObject", item) if isinstance(item, dict) else None


def shell_of(item: Mapping[str, Any]) -> JsonObject:
    """An output item without its words; of its parts the types stay, which tell that there are words."""
    shell: JsonObject = {name: value for name, value in item.items() if name in _SHELL}
    for name in ("content", "summary"):
        if isinstance(parts := item.get(name), list):
            told = cast("Sequence[object]", parts)
            shell[name] = [{"type": cast("JsonObject", part).get("type")} for part in told if isinstance(part, dict)]
    return shell


def said_event(raw: JsonObject, text: str) -> JsonObject | None:
    """An event as a stream filter may see it; None where all that it has beside names and counts has to go.

    Args:
        raw: The event.
        text: What it brings itself. Events that say again what others have brought are cut: a filter may have
            changed those.
    """
    if raw.get("type") in _BEGINNINGS:
        response: Any = raw.get("response")
        return raw if isinstance(response, dict) and not cast("JsonObject", response).get("output") else None
    item = item_of(raw)
    if item is not None:
        return raw if is_silent_item(item) else {**raw, "item": shell_of(item)}
    return raw if text and raw.get("delta") == text else None


def with_output_text(output: Sequence[JsonObject], text: str, name: str) -> list[JsonObject]:
    """Output items whose first text part says ``text``; all other text parts and refusals go.

    Args:
        output: As they are.
        text: What is said.
        name: Id of the message, where there is none to say it.
    """
    told: list[JsonObject] = []
    new: JsonObject = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    said = False
    for item in output:
        if item.get("type") != "message":
            told.append(item)
            continue
        content: list[JsonObject] = []
        parts: Any = item.get("content") or ()
        for part in cast("Sequence[JsonObject]", parts):
            if part.get("type") not in {"output_text", "refusal"}:
                content.append(part)
            elif not said:
                content.append(new)
                said = True
        told.append({**item, "content": content})
    if not said:
        message: JsonObject = {"id": name, "type": "message", "role": "assistant", "status": "completed"}
        told.append({**message, "content": [new]})
    return told
