"""What is found out once and used again: a dict of bounded size."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["Remembered"]

_K = TypeVar("_K")
_V = TypeVar("_V")


class Remembered(dict[_K, _V]):
    """A dict for what can be found out again; when it is full, what came first goes.

    Looking something up is the dict's own, which costs a tenth of an order of use. Put things in with ``keep``.

    Args:
        maxsize: How many things it holds.
    """

    __slots__ = ("maxsize",)

    def __init__(self, maxsize: int) -> None:
        super().__init__()
        self.maxsize = maxsize

    def keep(self, key: _K, value: _V) -> _V:
        """Put ``value`` in, in place of what was there, and give it back."""
        if key not in self and len(self) >= self.maxsize:
            del self[next(iter(self))]
        self[key] = value
        return value
