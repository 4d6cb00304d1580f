"""What a docstring says of a function and of each of its parameters, in the three styles that people write.

Source:
    https://google.github.io/styleguide/pyguide.html#383-functions-and-methods (``Args:``),
    https://numpydoc.readthedocs.io/en/latest/format.html (``Parameters`` underlined),
    https://www.sphinx-doc.org/en/master/usage/domains/python.html#info-field-lists (``:param name:``).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from typing import Final

__all__ = ["described"]

_GOOGLE: Final = re.compile(r"(Args|Arguments|Parameters|Keyword Args|Keyword Arguments):\s*")
_GOOGLE_ENTRY: Final = re.compile(r"(\w+)\s*(?:\([^)]*\))?\s*:\s*(.*)")
_NUMPY: Final = re.compile(r"(Other )?Parameters\s*")
_UNDERLINE: Final = re.compile(r"-{3,}\s*")
_NUMPY_ENTRY: Final = re.compile(r"(\w+(?:\s*,\s*\w+)*)\s*(?::.*)?")
_SPHINX: Final = re.compile(r":(?:param|parameter|arg|argument|key|keyword)\s+(?:[^:]*\s)?(\w+)\s*:\s*(.*)")
_FIELD: Final = re.compile(r":\w[^:]*:")


def described(docstring: str | None, parameters: Collection[str]) -> tuple[str, dict[str, str]]:
    """The first paragraph, and what is said of each parameter, each as one line.

    Args:
        docstring: As it stands in the source; None and blank ones say nothing.
        parameters: Names that count; what is said of others is left out.
    """
    text = docstring or ""
    if _GOOGLE.fullmatch(text.partition("\n")[0]):  # else the section would lose the indentation below it
        text = f"\n{text}"
    lines = inspect.cleandoc(text).splitlines()
    said: dict[str, str] = {}
    for name, words in _entries(lines):
        if name in parameters and (line := _one_line(words)):
            said.setdefault(name, line)
    return _summary(lines), said


def _summary(lines: list[str]) -> str:
    paragraph: list[str] = []
    for at, line in enumerate(lines):
        heading = at + 1 < len(lines) and _UNDERLINE.fullmatch(lines[at + 1])
        if not line.strip() or _GOOGLE.fullmatch(line) or _FIELD.match(line) or heading:
            break
        paragraph.append(line)
    return _one_line(paragraph)


def _one_line(words: list[str]) -> str:
    return " ".join(" ".join(words).split())


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _entries(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Pairs of a parameter's name and the lines that describe it."""
    at = 0
    while at < len(lines):
        line = lines[at]
        if _GOOGLE.fullmatch(line.strip()):
            block = _block(lines, at + 1, deeper_than=_indent(line))
            yield from _google(block)
            at += 1 + len(block)
        elif _NUMPY.fullmatch(line) and at + 1 < len(lines) and _UNDERLINE.fullmatch(lines[at + 1]):
            block = _numpy_block(lines, at + 2)
            yield from _numpy(block)
            at += 2 + len(block)
        elif match := _SPHINX.match(line.strip()):
            block = _block(lines, at + 1, deeper_than=_indent(line))
            yield match[1], [match[2], *block]
            at += 1 + len(block)
        else:
            at += 1


def _block(lines: list[str], start: int, *, deeper_than: int) -> list[str]:
    """The lines from ``start`` on that are indented further, blank ones between them included."""
    end = start
    while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > deeper_than):
        end += 1
    return lines[start:end]


def _google(block: list[str]) -> Iterator[tuple[str, list[str]]]:
    depth = min((_indent(line) for line in block if line.strip()), default=0)
    entry: tuple[str, list[str]] | None = None
    for line in block:
        begins = _GOOGLE_ENTRY.fullmatch(line.strip()) if line.strip() and _indent(line) == depth else None
        if begins is not None:
            if entry is not None:
                yield entry
            entry = begins[1], [begins[2]]
        elif entry is not None:
            entry[1].append(line)
    if entry is not None:
        yield entry


def _numpy_block(lines: list[str], start: int) -> list[str]:
    """The lines up to the next underlined heading."""
    end = start
    while end < len(lines) and not (end + 1 < len(lines) and _UNDERLINE.fullmatch(lines[end + 1])):
        end += 1
    return lines[start:end]


def _numpy(block: list[str]) -> Iterator[tuple[str, list[str]]]:
    at = 0
    while at < len(block):
        line = block[at]
        at += 1
        begins = _NUMPY_ENTRY.fullmatch(line) if line.strip() and not _indent(line) else None
        if begins is not None:
            words = _block(block, at, deeper_than=0)
            at += len(words)
            for name in begins[1].split(","):
                yield name.strip(), words
