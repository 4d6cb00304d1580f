"""What is asked, and a way of asking it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.util import find_spec
from typing import Final

import attrs

__all__ = ["PLAIN_TOKENS", "SECONDS", "Target", "Way", "WayEntry", "chosen"]

SECONDS: Final = 60  # that anything may take: on a busy machine 256 connections need more than the defaults
PLAIN_TOKENS: Final = 20


@attrs.frozen
class Target:
    """Where to send.

    Attributes:
        base_url: Of the server, without ``/v1``.
        secrets: API keys; the Router balances over all of them, the others use the first.
    """

    base_url: str
    secrets: Sequence[str]


@attrs.frozen(eq=False)
class Way:
    """One open way to ask.

    Attributes:
        plain: Makes one call; gives the text of the answer.
        stream: Streams an answer of so many tokens; gives its text.
    """

    plain: Callable[[], Awaitable[str]]
    stream: Callable[[int], Awaitable[str]]


@attrs.frozen(eq=False)
class WayEntry:
    """A way by name.

    Attributes:
        name: As the tables have it.
        base: Name of the way that the ratios are against: the plain client of the same HTTP library.
        needs: Modules that have to be installed.
        open: Makes the way.
    """

    name: str
    base: str
    needs: tuple[str, ...]
    open: Callable[[Target], AbstractAsyncContextManager[Way]]

    @property
    def is_installed(self) -> bool:
        """Whether everything it needs can be imported."""
        return all(find_spec(module) is not None for module in self.needs)


def chosen(entries: Sequence[WayEntry], only: Sequence[str]) -> list[WayEntry]:
    """The ways that can be measured here.

    Args:
        entries: All.
        only: Parts of names; a way is left out when it has none of them and is the base of none that has.
            Empty: all.
    """
    found = [entry for entry in entries if entry.is_installed]
    if not only:
        return found
    named = [entry for entry in found if any(part.lower() in entry.name.lower() for part in only)]
    bases = {entry.base for entry in named}
    return [entry for entry in found if entry in named or entry.name in bases]
