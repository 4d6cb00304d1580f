"""Parts of a message's content as Anthropic's blocks: text, images, documents, thoughts, and its own blocks as they are.

Every part is written, left out where the model would not read it (noted once), or refused by its path.

Source:
    https://platform.claude.com/docs/en/api/messages/create (blocks and their sources),
    https://platform.claude.com/docs/en/build-with-claude/vision and
    https://platform.claude.com/docs/en/build-with-claude/pdf-support (media types),
    https://platform.claude.com/docs/en/build-with-claude/thinking (signed thoughts go back unchanged); the OpenAI
    forms are those of https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import binascii
import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from bifrost_core.types import JsonObject

from ._reporter import Reporter

__all__ = ["text_blocks", "write_content", "write_members_of"]

_TEXT: Final = frozenset({"type", "text", "cache_control", "citations"})
_SILENT: Final = frozenset({"annotations", "provider_specific_fields", "logprobs"})  # say nothing to the model
_IMAGES: Final = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
# Anthropic's own; results of server tools and calls of toolsets besides, whose names end alike.
_NATIVE: Final = frozenset(
    {"compaction", "container_upload", "connector_text", "document", "fallback", "image", "mid_conv_system"}
    | {"search_result", "browser_state", "tool_addition", "tool_reference", "tool_removal"}
)
_NATIVE_ENDS: Final = ("tool_use", "tool_result")
_PDF: Final = "JVBERi0"  # base64 of "%PDF-"
_HEAD: Final = re.compile(r"data:(?P<kind>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[^;,]*)*(?P<base64>;base64)?", re.IGNORECASE)


def text_blocks(content: Any) -> list[Any]:
    """The content of a turn as blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)


def write_content(path: str, content: Any, reporter: Reporter) -> Any:
    """A content as Anthropic takes it: text, or blocks; ``""`` or no block where it says nothing but white space.

    Args:
        path: Of the message.
        content: Text or a list of parts; None says nothing.
        reporter: Of the provider.

    Raises:
        BadRequestError: It is neither; ``UnsupportedParameterError`` where a part has a form that Anthropic does
            not take, by its path.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content if content.strip() else ""
    if not isinstance(content, Sequence):
        raise reporter.invalid(f"{path}.content is neither text nor a list of parts")
    blocks: list[Any] = []
    for at, part in enumerate(content):
        block = _block(f"{path}.content[{at}]", part, reporter)
        if block is not None:
            blocks.append(block)
    return blocks


def write_members_of(
    path: str, given: Mapping[str, Any], allowed: frozenset[str], silent: frozenset[str], reporter: Reporter
) -> JsonObject:
    """The members that are set and allowed; others are left out where they are silent or empty, else refused."""
    written: JsonObject = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in allowed:
            written[name] = value
        elif name in silent or value in ([], {}, ""):
            reporter.note(f"the member {name!r} in messages, which Anthropic refuses, is left out")
        else:
            raise reporter.unsupported(f"{path}.{name}", "Anthropic has no such member there")
    return written


def _block(path: str, part: Any, reporter: Reporter) -> Any:
    """One part as a block; None where it holds nothing that could be sent."""
    if isinstance(part, str):
        part = {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise reporter.invalid(f"{path} is neither text nor an object")
    kind = part.get("type", "text" if "text" in part else None)
    if not isinstance(kind, str):
        raise reporter.invalid(f"{path}.type is no text")
    if kind == "text":
        return _text(path, part, reporter)
    if kind in _NATIVE or kind.endswith(_NATIVE_ENDS):
        return part
    write = _WRITERS.get(kind)
    if write is None:
        raise reporter.unsupported(
            f"{path}.type", f"it is text, {', '.join(_WRITERS)}, or a block of Anthropic's own, not {kind[:64]!r}"
        )
    return write(path, part, reporter)


def _text(path: str, part: Mapping[str, Any], reporter: Reporter) -> Any:
    text = part.get("text")
    if not isinstance(text, str):
        raise reporter.invalid(f"{path}.text is no text")
    if not text.strip():  # "text content blocks must contain non-whitespace text"
        reporter.note("texts of nothing but white space, which Anthropic refuses, are left out")
        return None
    if len(part) == 2 and "type" in part:
        return part
    return {"type": "text", **write_members_of(path, part, _TEXT, _SILENT, reporter)}


def _refusal(path: str, part: Mapping[str, Any], reporter: Reporter) -> Any:
    return _text(path, {"type": "text", "text": part.get("refusal") or ""}, reporter)


def _thinking(path: str, part: Mapping[str, Any], reporter: Reporter) -> Any:
    """A thought goes back with its signature; without one, or of another provider, it would be refused."""
    if isinstance(part.get("thinking"), str) and isinstance(part.get("signature"), str) and part["signature"]:
        return write_members_of(path, part, frozenset({"type", "thinking", "signature"}), _SILENT, reporter)
    reporter.note("thoughts without Anthropic's signature are left out")
    return None


def _redacted(path: str, part: Mapping[str, Any], reporter: Reporter) -> Any:
    if not isinstance(part.get("data"), str):
        raise reporter.invalid(f"{path}.data is no text")
    return write_members_of(path, part, frozenset({"type", "data"}), _SILENT, reporter)


# --- images and documents


def _image(path: str, part: Mapping[str, Any], reporter: Reporter) -> JsonObject:
    """OpenAI's and Mistral's images, by URL or as a data URL."""
    image = part.get("image_url")
    if isinstance(image, Mapping):
        image = write_members_of(f"{path}.image_url", image, frozenset({"url", "detail"}), _SILENT, reporter)
        if image.get("detail", "auto") != "auto":
            reporter.note("the detail of images is left out: Anthropic reads them as they are")
        image = image.get("url")
    if not isinstance(image, str):
        raise reporter.invalid(f"{path}.image_url has no url")
    if _is_link(image):
        source: JsonObject = {"type": "url", "url": image}
    else:
        kind, data = _data_of(f"{path}.image_url", image, reporter)
        source = _image_source(f"{path}.image_url", kind, data, reporter)
    return _with_cache("image", path, part, "image_url", reporter) | {"source": source}


def _document_link(path: str, part: Mapping[str, Any], reporter: Reporter) -> JsonObject:
    """Mistral's documents by URL: of a PDF, or a data URL."""
    link, title = part.get("document_url"), part.get("document_name")
    if isinstance(link, Mapping):
        link = link.get("url")
    if not isinstance(link, str):
        raise reporter.invalid(f"{path}.document_url is no text")
    block = _with_cache("document", path, part, "document_url", reporter, "document_name")
    if not _is_link(link):
        return _document(f"{path}.document_url", block, link, title, reporter)
    block["source"] = {"type": "url", "url": link}
    return block if title is None else {**block, "title": title}


def _file(path: str, part: Mapping[str, Any], reporter: Reporter) -> JsonObject:
    """OpenAI's files: by id, or as a data URL with a name. Mistral's have their id beside the type."""
    file = part.get("file")
    if not isinstance(file, Mapping):
        file = {"file_id": part.get("file_id")}
    file = write_members_of(f"{path}.file", file, frozenset({"file_id", "file_data", "filename"}), _SILENT, reporter)
    block = _with_cache("document", path, part, "file", reporter, "file_id")
    title = file.get("filename")
    if file.get("file_data"):
        return _document(f"{path}.file.file_data", block, file["file_data"], title, reporter)
    if not file.get("file_id"):
        raise reporter.unsupported(f"{path}.file", "it has neither file_id nor file_data")
    block["source"] = {"type": "file", "file_id": file["file_id"]}
    return block if title is None else {**block, "title": title}


def _document(path: str, block: JsonObject, data: Any, title: Any, reporter: Reporter) -> JsonObject:
    """A document of its content: PDF and plain text; an image is an image."""
    if not isinstance(data, str):
        raise reporter.invalid(f"{path} is no text")
    kind, content = ("application/pdf", data) if data.startswith(_PDF) else _data_of(path, data, reporter)
    if kind.startswith("image/"):
        return {**block, "type": "image", "source": _image_source(path, kind, content, reporter)}
    if kind == "application/pdf":
        block["source"] = {"type": "base64", "media_type": kind, "data": content}
    elif kind.startswith("text/"):
        block["source"] = {"type": "text", "media_type": "text/plain", "data": _decoded(path, content, reporter)}
    else:
        raise reporter.unsupported(path, f"Anthropic reads PDF, plain text and images, not {kind[:64]!r}")
    return block if title is None else {**block, "title": title}


def _with_cache(
    kind: str, path: str, part: Mapping[str, Any], own: str, reporter: Reporter, *others: str
) -> JsonObject:
    """A block of this kind with what else may stand beside the source."""
    allowed = frozenset({"type", "cache_control", own, *others})
    kept = write_members_of(path, part, allowed, _SILENT, reporter)
    cache = kept.get("cache_control")
    return {"type": kind} if cache is None else {"type": kind, "cache_control": cache}


def _is_link(url: str) -> bool:
    return url[:8].lower().startswith(("https://", "http://"))


def _data_of(path: str, url: str, reporter: Reporter) -> tuple[str, str]:
    """Media type and base64 of a data URL.

    Source:
        RFC 2397.
    """
    head, comma, data = url.partition(",") if url[:5].lower() == "data:" else ("", "", "")
    found = _HEAD.fullmatch(head) if comma else None
    if found is None:
        raise reporter.invalid(f"{path} is neither a URL (http, https) nor a data URL")
    kind = (found["kind"] or "text/plain").lower()
    if found["base64"] is None:
        data = binascii.b2a_base64(unquote_to_bytes(data), newline=False).decode()
    return kind, data


def _image_source(path: str, kind: str, data: str, reporter: Reporter) -> JsonObject:
    kind = "image/jpeg" if kind == "image/jpg" else kind
    if kind not in _IMAGES:
        raise reporter.unsupported(path, f"Anthropic reads {', '.join(sorted(_IMAGES))}, not {kind[:64]!r}")
    return {"type": "base64", "media_type": kind, "data": data}


def _decoded(path: str, data: str, reporter: Reporter) -> str:
    text: str | None = None
    with contextlib.suppress(ValueError):  # no base64, or not UTF-8
        text = binascii.a2b_base64(data).decode()
    if text is None:
        raise reporter.invalid(f"{path} is no text in UTF-8")
    return text


_WRITERS: Final = {
    "image_url": _image,
    "file": _file,
    "document_url": _document_link,
    "thinking": _thinking,
    "redacted_thinking": _redacted,
    "refusal": _refusal,
}
