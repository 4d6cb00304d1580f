"""Blocks of Anthropic's messages as the parts of a content that every provider reads.

Images and documents that others have an equal for become OpenAI's and Mistral's parts; text and thoughts have one
form with all; every other block stays as it is, for providers to take or to refuse by its name.

Source:
    https://platform.claude.com/docs/en/api/messages/create (blocks and their sources); the parts are those of
    https://platform.openai.com/docs/api-reference/chat/create and https://docs.mistral.ai/api/endpoint/chat.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bifrost_core.types import JsonObject

from ._bodies import invalid

__all__ = ["block_at", "is_text", "parts_of"]

_BESIDE_SOURCE: Final = frozenset({"type", "source", "cache_control"})
_LINKS: Final = ("https://", "http://")


def block_at(path: str, block: Any) -> JsonObject:
    """A block, which is an object with a type.

    Raises:
        CallError: It is none; names its place.
    """
    if not isinstance(block, dict) or not isinstance(block.get("type"), str):
        raise invalid(f"{path} is no content block; write an object with a 'type'")
    return block


def parts_of(path: str, content: Any) -> Any:
    """A content as text or as parts, in their order.

    Args:
        path: Where it stands in the body.
        content: Text, or a list of blocks.

    Raises:
        CallError: It is neither; names the place.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise invalid(f"{path} is neither text nor a list of content blocks")
    return [part_of(block_at(f"{path}[{at}]", block)) for at, block in enumerate(content)]


def part_of(block: JsonObject) -> JsonObject:
    """A block as a part; as it is where no other provider has an equal."""
    kind = block["type"]
    source = block.get("source")
    if isinstance(source, dict):
        if kind == "image":
            return _image(block, source)
        if kind == "document":
            return _document(block, source)
    return block


def is_text(content: Any) -> bool:
    """Whether a content is text alone."""
    if isinstance(content, str):
        return True
    return isinstance(content, Sequence) and all(
        isinstance(part, Mapping) and part.get("type") == "text" for part in content
    )


def _image(block: JsonObject, source: JsonObject) -> JsonObject:
    url = _url_of(source)
    if url is None or not _has_only(block, _BESIDE_SOURCE):
        return block
    return {"type": "image_url", "image_url": {"url": url}, **_cache_of(block)}


def _document(block: JsonObject, source: JsonObject) -> JsonObject:
    """Documents without citations and context: others know neither."""
    if not _has_only(block, _BESIDE_SOURCE | {"title"}):
        return block
    title = block.get("title")
    url = _text_of(source) if source.get("type") == "text" else _url_of(source)
    if url is None or not (title is None or isinstance(title, str)):
        return block
    if source["type"] == "url":
        link: JsonObject = {"type": "document_url", "document_url": url}
        return {**link, **({} if title is None else {"document_name": title}), **_cache_of(block)}
    file: JsonObject = {"file_data": url} if title is None else {"file_data": url, "filename": title}
    return {"type": "file", "file": file, **_cache_of(block)}


def _url_of(source: JsonObject) -> str | None:
    """The URL, or the bytes as a data URL (RFC 2397); None where the source is another one."""
    if source.get("type") == "url" and source.keys() == {"type", "url"}:
        url = source["url"]
        return url if isinstance(url, str) and url[:8].lower().startswith(_LINKS) else None
    if source.get("type") == "base64" and source.keys() == {"type", "media_type", "data"}:
        kind, data = source["media_type"], source["data"]
        return f"data:{kind};base64,{data}" if isinstance(kind, str) and isinstance(data, str) else None
    return None


def _text_of(source: JsonObject) -> str | None:
    """Plain text as a data URL."""
    data = source.get("data")
    if source.keys() != {"type", "media_type", "data"} or source["media_type"] != "text/plain":
        return None
    if not isinstance(data, str):
        return None
    return f"data:text/plain;base64,{binascii.b2a_base64(data.encode(), newline=False).decode()}"


def _has_only(block: JsonObject, allowed: frozenset[str]) -> bool:
    return all(name in allowed for name, value in block.items() if value is not None)


def _cache_of(block: JsonObject) -> JsonObject:
    cache = block.get("cache_control")
    return {} if cache is None else {"cache_control": cache}
