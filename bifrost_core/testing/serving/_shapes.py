"""What a member of a JSON body is, for a type checker too."""

from __future__ import annotations

from typing import TypeGuard

from ._answers import Json

__all__ = ["is_list", "is_object"]


def is_list(value: object) -> TypeGuard[list[object]]:
    """Whether it is a list, of whatever."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[Json]:
    """Whether it is an object, of whatever."""
    return isinstance(value, dict)
