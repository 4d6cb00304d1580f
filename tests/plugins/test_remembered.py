"""A dict of bounded size."""

from __future__ import annotations

from bifrost_plugins._remembered import Remembered


def test_what_came_first_goes_when_there_is_no_room() -> None:
    remembered: Remembered[str, int] = Remembered(2)
    assert remembered.keep("a", 1) == 1
    remembered.keep("b", 2)
    remembered.keep("a", 3)  # stays where it was
    assert remembered == {"a": 3, "b": 2}
    remembered.keep("c", 4)
    assert remembered == {"b": 2, "c": 4}
    assert remembered.maxsize == 2
