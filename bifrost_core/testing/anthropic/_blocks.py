"""Content blocks and turns: what may stand where, and in which order.

Source:
    https://platform.claude.com/docs/en/api/messages/create (blocks),
    https://platform.claude.com/docs/en/agents-and-tools/tool-use/handle-tool-calls (results right behind their
    calls and in front of text), https://platform.claude.com/docs/en/build-with-claude/extended-thinking, and
    refusals quoted in public reports.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bifrost_core.testing.serving._answers import Json

from ._errors import AnthropicError
from ._members import (
    Check,
    anything,
    boolean,
    check_members,
    choice,
    is_list,
    is_object,
    list_of,
    mapping,
    members,
    optional,
    pattern,
    text,
)

__all__ = ["CACHE", "blocks_of", "check_messages", "check_order", "check_system", "turns_of"]

CACHE: Final[dict[str, Check]] = {
    "cache_control": optional(members({"type": choice("ephemeral"), "ttl": choice("5m", "1h")}, "type"))
}
_CITATIONS: Final[dict[str, Check]] = {"citations": anything}


def _said(path: str, value: object) -> None:
    """A text with something in it."""
    text(path, value)
    if not value:
        raise AnthropicError.bad("messages: text content blocks must be non-empty")


def _source(*kinds: str) -> Check:
    known: dict[str, Check] = {
        "type": choice(*kinds),
        "media_type": text,
        "data": text,
        "url": text,
        "file_id": text,
        "content": anything,
    }
    return members(known, "type")


def _result(path: str, value: object) -> None:
    """What a tool gave: a text, or blocks."""
    if isinstance(value, str):
        return
    list_of(_typed(_RESULT_BLOCKS, frozenset({"tool_reference"})))(path, value)


_TEXT: Final = members({"type": text, "text": _said, **CACHE, **_CITATIONS}, "text")
_IMAGE: Final = members(
    {"type": text, "source": _source("base64", "url", "file"), "transformations": anything, **CACHE}, "source"
)
_DOCUMENT: Final = members(
    {
        "type": text,
        "source": _source("base64", "text", "content", "url", "file"),
        "title": optional(text),
        "context": optional(text),
        **CACHE,
        **_CITATIONS,
    },
    "source",
)
_SEARCH_RESULT: Final = members(
    {"type": text, "source": text, "title": text, "content": list_of(mapping), **CACHE, **_CITATIONS},
    "source",
    "title",
    "content",
)
_RESULT_BLOCKS: Final[dict[str, Check]] = {
    "text": _TEXT,
    "image": _IMAGE,
    "document": _DOCUMENT,
    "search_result": _SEARCH_RESULT,
}
_BLOCKS: Final[dict[str, Check]] = {
    **_RESULT_BLOCKS,
    "tool_use": members(
        {
            "type": text,
            "id": pattern("[a-zA-Z0-9_-]+"),
            "name": pattern("[a-zA-Z0-9_-]{1,200}"),
            "input": mapping,
            "caller": anything,
            "toolset_name": optional(text),
            **CACHE,
        },
        "id",
        "name",
        "input",
    ),
    "tool_result": members(
        {
            "type": text,
            "tool_use_id": pattern("[a-zA-Z0-9_-]+"),
            "content": _result,
            "is_error": boolean,
            "toolset_name": optional(text),
            **CACHE,
        },
        "tool_use_id",
    ),
    "thinking": members({"type": text, "thinking": text, "signature": text}, "thinking", "signature"),
    "redacted_thinking": members({"type": text, "data": text}, "data"),
}
# those of server tools and the like, which are let through as they are
_OTHERS: Final = frozenset(
    {
        "bash_code_execution_tool_result",
        "browser_state",
        "code_execution_tool_result",
        "compaction",
        "container_upload",
        "mcp_tool_result",
        "mcp_tool_use",
        "server_tool_use",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "web_fetch_tool_result",
        "web_search_tool_result",
    }
)


def _typed(kinds: dict[str, Check], others: frozenset[str]) -> Check:
    """An object whose ``type`` says which check holds; others are let through."""

    def check(path: str, value: object) -> None:
        mapping(path, value)
        if not is_object(value):
            return
        if "type" not in value:
            raise AnthropicError.bad(f"{path}.type: Field required")
        kind: object = value["type"]
        if isinstance(kind, str) and kind in kinds:
            kinds[kind](f"{path}.{kind}", value)
        elif not isinstance(kind, str) or kind not in others:
            tags = ", ".join(f"'{tag}'" for tag in sorted({*kinds, *others}))
            raise AnthropicError.bad(
                f"{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags: {tags}"
            )

    return check


def check_system(path: str, value: object) -> None:
    """A text, or blocks of text."""
    if not isinstance(value, str):
        list_of(_typed({"text": _TEXT}, frozenset()))(path, value)


def check_messages(path: str, value: object) -> None:
    """A list of turns.

    Raises:
        AnthropicError: 400.
    """
    list_of(mapping)(path, value)
    turns: list[Json] = [each for each in value if is_object(each)] if is_list(value) else []
    if not turns:
        raise AnthropicError.bad("messages: at least one message is required")
    for index, turn in enumerate(turns):
        where = f"{path}.{index}"
        check_members(
            turn, {"role": choice("user", "assistant", "system"), "content": _content}, ("role", "content"), path=where
        )
        if not turn["content"] and not (turn["role"] == "assistant" and index == len(turns) - 1):
            raise AnthropicError.bad(
                f"{where}: all messages must have non-empty content except for the optional final assistant message"
            )


def _content(path: str, value: object) -> None:
    if not isinstance(value, str):
        list_of(_typed(_BLOCKS, _OTHERS))(path, value)


def blocks_of(content: object) -> list[Json]:
    """Content as blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for block in content if is_object(block)] if is_list(content) else []


def turns_of(messages: list[Json]) -> list[tuple[str, list[Json]]]:
    """Role and blocks of each turn; messages of one role in a row are one turn.

    Source:
        https://platform.claude.com/docs/en/api/messages/create, ``messages``.
    """
    turns: list[tuple[str, list[Json]]] = []
    for message in messages:
        blocks = blocks_of(message["content"])
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(blocks)
        else:
            turns.append((message["role"], blocks))
    return turns


# -- order -------------------------------------------------------------------------------------------------------


def check_order(body: Json, is_signed: Callable[[Json], bool], *, prefill: bool, late_system: bool) -> None:
    """Refuse turns in a wrong order.

    Args:
        body: The request, its members checked.
        is_signed: Whether a block of thinking has its own signature.
        prefill: Whether the last turn may be the assistant's.
        late_system: Whether system messages may follow the user's.

    Raises:
        AnthropicError: 400.
    """
    messages: list[Json] = body["messages"]
    for index, message in enumerate(messages):
        if message["role"] == "system":
            if not late_system:
                raise AnthropicError.bad(f"messages.{index}: role 'system' is not supported on this model")
            if index == 0 or messages[index - 1]["role"] == "assistant":
                raise AnthropicError.bad(
                    f"messages.{index}: a message of the role 'system' must follow one of the user"
                )
    turns = turns_of([message for message in messages if message["role"] != "system"])
    if turns[0][0] != "user":
        raise AnthropicError.bad('messages: first message must use the "user" role')
    owed: list[str] = []
    seen: set[str] = set()
    for index, (role, blocks) in enumerate(turns):
        if role == "user":
            _check_results(index, blocks, owed)
            owed = []
        elif owed:
            raise _unanswered(index - 1, owed)
        else:
            _check_turn(index, blocks, is_signed)
            owed = [block["id"] for block in blocks if block["type"] == "tool_use"]
            if len(set(owed)) < len(owed) or seen & set(owed):
                raise AnthropicError.bad("messages: `tool_use` ids must be unique")
            seen |= set(owed)
    if owed:
        raise _unanswered(len(turns) - 1, owed)
    if seen and not body.get("tools"):
        raise AnthropicError.bad("Requests which include `tool_use` or `tool_result` blocks must define tools.")
    if turns[-1][0] == "assistant":
        _check_prefill(turns[-1][1], prefill=prefill)
    _check_thinking(body, turns)


def _check_results(index: int, blocks: list[Json], owed: list[str]) -> None:
    """Every call has its result, in front of everything else, and every result its call."""
    left = list(owed)
    leading = True
    for at, block in enumerate(blocks):
        if block["type"] != "tool_result":
            leading = False
            continue
        name: str = block["tool_use_id"]
        if name not in owed:
            raise AnthropicError.bad(
                f"messages.{index}.content.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {name}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if name not in left:
            raise AnthropicError.bad(
                f"messages.{index}.content.{at}: each tool_use must have a single result. Found multiple "
                f"`tool_result` blocks with id: {name}"
            )
        if leading:
            left.remove(name)
    if left:
        raise _unanswered(index - 1, left)


def _unanswered(index: int, names: list[str]) -> AnthropicError:
    return AnthropicError.bad(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(names)}. Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _check_turn(index: int, blocks: list[Json], is_signed: Callable[[Json], bool]) -> None:
    """A turn of the assistant: no results, and thinking as it was given."""
    for at, block in enumerate(blocks):
        if block["type"] == "tool_result":
            raise AnthropicError.bad(f"messages.{index}: `tool_result` blocks can only be in `user` messages")
        if block["type"] == "thinking" and not is_signed(block):
            raise AnthropicError.bad(f"messages.{index}.content.{at}: Invalid `signature` in `thinking` block")


def _check_prefill(blocks: list[Json], *, prefill: bool) -> None:
    if not prefill:
        raise AnthropicError.bad(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    words: Any = blocks[-1].get("text") if blocks else None
    if isinstance(words, str) and words != words.rstrip():
        raise AnthropicError.bad("messages: final assistant content cannot end with trailing whitespace")


def _check_thinking(body: Json, turns: list[tuple[str, list[Json]]]) -> None:
    """With thinking, the turn whose calls are answered now begins with thinking."""
    thinking: Any = body.get("thinking") or {}
    if thinking.get("type") != "enabled" or len(turns) < 2:
        return
    (_, blocks), (role, answer) = turns[-2:]
    if role != "user" or not any(block["type"] == "tool_result" for block in answer):
        return
    if blocks[0]["type"] not in {"thinking", "redacted_thinking"}:
        raise AnthropicError.bad(
            f"messages.{len(turns) - 2}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
            f"`{blocks[0]['type']}`. When `thinking` is enabled, a final `assistant` message must start with a "
            "thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
        )
