"""What a file is, told by its first bytes or by its name: the media types of sound and of documents."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["HEAD", "extension_of", "is_image", "is_url", "is_uuid", "media_type_of", "named_type"]

HEAD: Final = 1024  # bytes that tell what a file is

_DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_BY_EXTENSION: Final = {
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "docx": _DOCX,
    "flac": "audio/flac",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "mp4": "audio/mp4",
    "mpga": "audio/mpeg",
    "oga": "audio/ogg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "pptx": _PPTX,
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "webm": "audio/webm",
    "webp": "image/webp",
}
_EXTENSIONS: Final = {
    "audio/flac": "flac",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/wav": "wav",
    "audio/webm": "webm",
}
_MAGIC: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"\x1aE\xdf\xa3", "audio/webm"),
)
_BRANDS: Final = {b"avif": "image/avif", b"avis": "image/avif", b"heic": "image/heic", b"heix": "image/heic"}
_BRANDS_LATER: Final = {b"mif1": "image/heif", b"msf1": "image/heif"}
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_URL: Final = re.compile(r"https?://\S+", re.IGNORECASE)


def media_type_of(data: bytes) -> str | None:
    """The media type by the first bytes; of Office files, which are archives, by the names in all of ``data``.

    Source:
        WHATWG MIME Sniffing (https://mimesniff.spec.whatwg.org/); ISO 32000-1, annex H.3.4 (the mark of PDF
        anywhere in the first 1024 bytes); ISO/IEC 11172-3 (the sync word of MPEG audio); ISO/IEC 14496-12
        (brands of ``ftyp``); ECMA-376, part 2 (Office files are archives whose parts have names).
    """
    for magic, media_type in _MAGIC:
        if data.startswith(magic):
            return media_type
    if data[:4] == b"RIFF":
        return {b"WAVE": "audio/wav", b"WEBP": "image/webp"}.get(data[8:12])
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12]) or _BRANDS_LATER.get(data[8:12]) or "audio/mp4"
    if b"%PDF-" in data[:HEAD]:
        return "application/pdf"
    if data[:4] == b"PK\x03\x04":
        if b"word/document.xml" in data:
            return _DOCX
        return _PPTX if b"ppt/presentation.xml" in data else None
    if len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0 and data[1] & 0x06:
        return "audio/mpeg"  # eleven bits of sync; a layer that is reserved is AAC
    return None


def named_type(name: str) -> str | None:
    """The media type by the ending of a file's name."""
    return _BY_EXTENSION.get(name.rpartition(".")[2].lower()) if "." in name else None


def extension_of(media_type: str) -> str:
    """The usual ending of a file with sound, with its dot; ``""`` where none is known."""
    extension = _EXTENSIONS.get(media_type)
    return "" if extension is None else f".{extension}"


def is_image(url: str) -> bool:
    """Whether a URL leads to an image, as far as it says so: by its media type (``data:``) or its path's ending."""
    if url[:5].lower() == "data:":
        return url[5:11].lower() == "image/"
    try:
        path = urlsplit(url).path
    except ValueError:
        return False
    return (named_type(path) or "").startswith("image/")


def is_url(text: str) -> bool:
    """Whether ``text`` is a URL that a provider may fetch."""
    return _URL.fullmatch(text) is not None


def is_uuid(text: str) -> bool:
    """Whether ``text`` has the form of a file's id.

    Source:
        https://docs.mistral.ai/api/endpoint/files (``id``); RFC 9562, section 4.
    """
    return _UUID.fullmatch(text) is not None
