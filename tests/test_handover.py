"""Batches come out in the order in which they went in; who is too fast waits, who leaves is noticed."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from bifrost_core.handover import Handover, ReaderLeftError
from bifrost_core.types import Chunk


def batch(number: int) -> list[Chunk]:
    return [Chunk(text=str(number))]


async def test_what_is_held_comes_out_in_order_and_then_the_end() -> None:
    handover = Handover(3)
    assert [handover.put(batch(number)) for number in range(4)] == [True, True, True, False]
    handover.end()
    assert [await handover.take() for _ in range(5)] == [batch(0), batch(1), batch(2), None, None]


async def test_who_puts_waits_for_room_and_who_takes_for_a_batch() -> None:
    handover = Handover(2)
    written: list[int] = []

    async def write() -> None:
        for number in range(20):
            await handover.put_when_read(batch(number))
            written.append(number)
        handover.end()

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        assert written == [0, 1]
        taken: list[list[Chunk]] = []
        while (found := await handover.take()) is not None:
            taken.append(found)
    assert taken == [batch(number) for number in range(20)]


async def test_a_reader_that_waits_is_told_of_a_batch_and_of_the_end() -> None:
    handover = Handover(1)
    taken: list[list[Chunk] | None] = []

    async def read() -> None:
        taken.append(await handover.take())
        taken.append(await handover.take())

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await anyio.wait_all_tasks_blocked()
        assert handover.put(batch(1))
        await anyio.wait_all_tasks_blocked()
        assert taken == [batch(1)]
        handover.end()
    assert taken == [batch(1), None]


async def test_a_batch_is_not_lost_with_a_reader_that_is_cancelled_while_it_waits() -> None:
    handover = Handover(1)
    with anyio.move_on_after(0):
        await handover.take()
    async with anyio.create_task_group() as group:
        group.start_soon(handover.take)
        await anyio.wait_all_tasks_blocked()
        assert handover.put(batch(1))
        group.cancel_scope.cancel()
    handover.end()
    left = [await handover.take(), await handover.take()]
    assert left in ([batch(1), None], [None, None])  # taken before the cancellation came, or still there


async def test_leaving_wakes_both_sides_and_drops_what_is_held() -> None:
    handover = Handover(1)
    assert handover.put(batch(1))
    failures: list[type[Exception]] = []

    async def write() -> None:
        try:
            await handover.put_when_read(batch(2))
        except ReaderLeftError as exc:
            failures.append(type(exc))

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        handover.leave()
    assert failures == [ReaderLeftError]
    assert await handover.take() is None
    with pytest.raises(ReaderLeftError):
        handover.put(batch(3))


async def test_two_readers_share_the_batches() -> None:
    handover = Handover(4)
    taken: list[list[Chunk]] = []

    async def read() -> None:
        while (found := await handover.take()) is not None:
            taken.append(found)
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(read)
        for number in range(10):
            await handover.put_when_read(batch(number))
        handover.end()
    assert sorted(taken, key=lambda found: int(found[0].text)) == [batch(number) for number in range(10)]
