"""How many tokens a prompt has, and how many of them come from the cache.

Source:
    https://platform.claude.com/docs/en/build-with-claude/prompt-caching: tools, system and messages in this order;
    a beginning is kept where a block has ``cache_control``, for five minutes or an hour from its last use on, and
    from 1,024 tokens on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Json
from bifrost_core.testing.serving._prompts import Prefix
from bifrost_core.testing.serving._questions import Question

from ._blocks import blocks_of, turns_of
from ._members import is_object

__all__ = ["PromptTokens", "count_prompt", "read_prompt"]

_BYTES_PER_TOKEN: Final = 4  # of the blocks' JSON, which real prompts stay close to
_LEAST_CACHED: Final = 1024
_SECONDS: Final = {"5m": 300.0, "1h": 3600.0}

_encode = msgspec.json.Encoder().encode


@attrs.frozen(kw_only=True)
class PromptTokens:
    """Input tokens by where they come from.

    Attributes:
        plain: Behind the last breakpoint, or all of them.
        read: From the cache.
        written: To the cache, for five minutes.
        written_longer: To the cache, for an hour.
    """

    plain: int
    read: int = 0
    written: int = 0
    written_longer: int = 0

    @property
    def total(self) -> int:
        """All input tokens."""
        return self.plain + self.read + self.written + self.written_longer

    def usage(self) -> Json:
        """The members of the usage object that tell of the input."""
        return {
            "input_tokens": self.plain,
            "cache_creation_input_tokens": self.written + self.written_longer,
            "cache_read_input_tokens": self.read,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.written,
                "ephemeral_1h_input_tokens": self.written_longer,
            },
        }


def _blocks(body: Json) -> Iterator[tuple[str, Json]]:
    """All blocks of a prompt with the place that they have in it."""
    for tool in body.get("tools") or ():
        yield "tool", tool
    for block in blocks_of(body.get("system") or ""):
        yield "system", block
    for role, blocks in turns_of(body["messages"]):
        for block in blocks:
            yield role, block


def _prefixes(body: Json) -> list[Prefix]:
    """The beginnings of a prompt, one for each block; where one is marked, it is kept."""
    found: list[Prefix] = []
    size = 0
    last: Json | None = body.get("cache_control")
    for place, block in _blocks(body):
        mark = block.get("cache_control")
        # where the marks stand makes no difference to what is in the cache
        data = _encode([place, {name: value for name, value in block.items() if name != "cache_control"}])
        size += len(data)
        seconds = _SECONDS[mark.get("ttl") or "5m"] if is_object(mark) else None
        found.append(Prefix(data, max(1, size // _BYTES_PER_TOKEN), seconds))
    if last is not None and found:
        found[-1] = attrs.evolve(found[-1], seconds=_SECONDS[last.get("ttl") or "5m"])
    return found


def count_prompt(body: Json) -> int:
    """Input tokens of a prompt."""
    return _prefixes(body)[-1].tokens


def read_prompt(question: Question) -> PromptTokens:
    """Look a prompt up in the cache, and keep what it says to keep."""
    prefixes = _prefixes(question.body)
    total = prefixes[-1].tokens
    marked = [prefix for prefix in prefixes if prefix.seconds is not None and prefix.tokens >= _LEAST_CACHED]
    if not marked:
        return PromptTokens(plain=total)
    upto = prefixes[: prefixes.index(marked[-1]) + 1]
    kept = [prefix if prefix in marked else attrs.evolve(prefix, seconds=None) for prefix in upto]
    scope = (question.owner, str(question.body["model"]))
    read = question.service.prompts.read(scope, kept, question.now)
    longer = [prefix.tokens for prefix in marked if prefix.seconds == _SECONDS["1h"]]
    written_longer = max(0, max(longer, default=0) - read)
    written = max(0, marked[-1].tokens - read - written_longer)
    return PromptTokens(plain=total - marked[-1].tokens, read=read, written=written, written_longer=written_longer)
