"""What every store does alike: one suite for memory, SQLite and Redis."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from bifrost_plugins.stores import (
    MAX_AMOUNT,
    BucketState,
    Claim,
    Crossing,
    Denied,
    Ended,
    Granted,
    Hold,
    HoldState,
    LedgerConflictError,
    OpenHold,
    Store,
    StoreError,
    UsageCell,
)

from bifrost_core import ConfigError
from bifrost_core.testing import FakeClock

from .conftest import Stores

START = 1_767_225_600.0  # FakeClock begins on 2026-01-01 00:00:00 UTC
DAY = 86_400


def money(amount: int, limit: int | None = 100, bucket: str = "team:search", **more: object) -> Claim:
    return Claim.counter(bucket, amount, limit=limit, **more)  # type: ignore[arg-type]


async def state(store: Store, claim: Claim) -> tuple[int, int]:
    (found,) = await store.read([claim])
    return found.spent, found.held


async def test_a_hold_is_held_then_spent(store: Store) -> None:
    async with store:
        assert await store.reserve(Hold("a", [money(60)])) == Granted(START + 120)
        assert await state(store, money(0)) == (0, 60)
        assert await store.settle("a", [45]) == Ended("a", HoldState.SETTLED, (45,))
        assert await state(store, money(0)) == (45, 0)


async def test_a_released_hold_leaves_nothing(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)], call_id="c", labels={"model": "m"}))
        assert await store.release("a") == Ended("a", HoldState.RELEASED, (0,), call_id="c", labels={"model": "m"})
        assert await state(store, money(0)) == (0, 0)


async def test_what_does_not_fit_is_denied_and_changes_nothing(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)]))
        await store.settle("a", [30])
        await store.reserve(Hold("b", [money(40)]))
        claims = [money(31, bucket="other"), money(31), money(1, None, "third")]
        assert await store.reserve(Hold("c", claims)) == Denied(1, "team:search", 100, 30, 40)
        assert await store.read(claims) == [
            BucketState("other", 0, 0),
            BucketState("team:search", 30, 40),
            BucketState("third", 0, 0),
        ]
        assert await store.reserve(Hold("c", [money(30)])) == Granted(START + 120)  # denied ids may try again


async def test_the_last_unit_fits_and_no_more(store: Store) -> None:
    async with store:
        assert isinstance(await store.reserve(Hold("a", [money(100)])), Granted)
        assert isinstance(await store.reserve(Hold("b", [money(1)])), Denied)
        assert isinstance(await store.reserve(Hold("c", [money(0)])), Granted)


async def test_without_a_limit_nothing_is_refused(store: Store) -> None:
    async with store:
        for each in "abc":
            assert isinstance(await store.reserve(Hold(each, [money(10**12, None)])), Granted)
        assert await state(store, money(0)) == (0, 3 * 10**12)


async def test_a_lowered_limit_still_books_what_was_spent(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(90)]))
        assert isinstance(await store.reserve(Hold("b", [money(1, 50)])), Denied)
        await store.settle("a", [120])  # more than was held: booked all the same
        assert await state(store, money(0)) == (120, 0)


async def test_reserving_again_returns_the_first_result(store: Store, clock: FakeClock) -> None:
    async with store:
        hold = Hold("a", [money(60), Claim.places("p", 2, limit=5)])
        first = await store.reserve(hold)
        clock.advance(10)
        assert await store.reserve(hold) == Granted(
            first.expires_at if isinstance(first, Granted) else 0, repeated=True
        )
        assert await state(store, money(0)) == (0, 60)
        with pytest.raises(LedgerConflictError, match="open with other claims"):
            await store.reserve(Hold("a", [money(61)]))
        await store.release("a")
        with pytest.raises(LedgerConflictError, match="has ended"):
            await store.reserve(hold)


ENDS: Sequence[tuple[str, int]] = (("settle", 7), ("settle", 0), ("release", 0))


@pytest.mark.parametrize("first", ENDS, ids=str)
@pytest.mark.parametrize("second", [*ENDS, ("settle", 8)], ids=str)
async def test_a_hold_ends_once_and_further_ends_give_the_first_result(
    store: Store, first: tuple[str, int], second: tuple[str, int]
) -> None:
    async def end(how: str, amount: int) -> Ended:
        return await (store.release("a") if how == "release" else store.settle("a", [amount]))

    async with store:
        await store.reserve(Hold("a", [money(60)]))
        result = await end(*first)
        if second[1] == first[1]:
            again = await end(*second)
            assert again == Ended("a", result.state, result.amounts, repeated=True)
        else:
            with pytest.raises(LedgerConflictError, match="the first result stands"):
                await end(*second)
        assert await state(store, money(0)) == (first[1], 0)


async def test_ends_of_what_never_was(store: Store) -> None:
    async with store:
        with pytest.raises(LedgerConflictError, match="is not known"):
            await store.settle("a", [1])
        with pytest.raises(LedgerConflictError, match="is not known"):
            await store.dispatch("a")
        with pytest.raises(LedgerConflictError, match="is not known"):
            await store.adjust("a", [1], reason="bill")
        assert await store.extend("a", 10) is False
        # A release that overtakes its reservation makes it void.
        assert await store.release("a") == Ended("a", HoldState.RELEASED, ())
        assert await store.release("a") == Ended("a", HoldState.RELEASED, (), repeated=True)
        with pytest.raises(LedgerConflictError, match="has ended"):
            await store.reserve(Hold("a", [money(1)]))
        with pytest.raises(LedgerConflictError, match="has 0 claims"):
            await store.settle("a", [1])
        assert await state(store, money(0)) == (0, 0)


async def test_amounts_are_one_for_each_claim_and_whole(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)]))
        with pytest.raises(LedgerConflictError, match="has 1 claims"):
            await store.settle("a", [1, 2])
        for wrong in (-1, 1.5, True, MAX_AMOUNT + 1):
            with pytest.raises(ConfigError, match="whole number"):
                await store.settle("a", [wrong])  # type: ignore[list-item]
        assert await state(store, money(0)) == (0, 60)


async def test_places_are_given_back_however_the_hold_ends(store: Store, clock: FakeClock) -> None:
    place = Claim.places("team", limit=2)
    async with store:
        for each in "ab":
            assert isinstance(await store.reserve(Hold(each, [place], dispatched=True)), Granted)
        assert await store.reserve(Hold("c", [place])) == Denied(0, "team", 2, 0, 2)
        assert await store.settle("a", [1]) == Ended("a", HoldState.SETTLED, (0,), dispatched=True)
        assert isinstance(await store.reserve(Hold("c", [place])), Granted)
        await store.release("c")
        assert await state(store, place) == (0, 1)
        clock.advance(120)
        await store.expire_due()
        assert await state(store, place) == (0, 0)


async def test_a_window_counts_what_is_younger_and_says_exactly_when_there_is_room(
    store: Store, clock: FakeClock
) -> None:
    def tokens(amount: int) -> Claim:
        return Claim.window("tokens", amount, limit=10, seconds=60)

    async with store:
        for name, amount in (("a", 4), ("b", 3), ("c", 3)):
            assert isinstance(await store.reserve(Hold(name, [tokens(amount)])), Granted)
            clock.advance(7)
        # a at 0, b at 7, c at 14; now 21
        assert await store.reserve(Hold("d", [tokens(4)])) == Denied(0, "tokens", 10, 10, 0, None, 39.0)
        assert await store.reserve(Hold("d", [tokens(5)])) == Denied(0, "tokens", 10, 10, 0, None, 46.0)
        assert await store.reserve(Hold("d", [tokens(11)])) == Denied(0, "tokens", 10, 10, 0, None, None)
        await store.settle("b", [1])  # fewer than held
        assert await state(store, tokens(0)) == (8, 0)
        await store.release("c")
        assert await state(store, tokens(0)) == (5, 0)
        clock.advance(38.5)
        denied = await store.reserve(Hold("d", [tokens(6)]))
        assert denied == Denied(0, "tokens", 10, 5, 0, None, 0.5)
        clock.advance(0.5)
        assert isinstance(await store.reserve(Hold("d", [tokens(6)])), Granted)
        assert await state(store, tokens(0)) == (7, 0)
        assert (await store.settle("a", [400])).amounts == (400,)  # too old to count
        assert await state(store, tokens(0)) == (7, 0)
        clock.advance(60)
        assert await state(store, tokens(0)) == (0, 0)


async def test_a_long_window_finds_the_moment_far_down_its_log(store: Store, clock: FakeClock) -> None:
    async with store:
        for number in range(250):
            await store.reserve(Hold(f"h{number}", [Claim.window("w", 1, limit=250, seconds=1000)]))
            clock.advance(1)
        denied = await store.reserve(Hold("d", [Claim.window("w", 200, limit=250, seconds=1000)]))
        assert denied == Denied(0, "w", 250, 250, 0, None, 199 + 1000 - 250.0)


async def test_time_that_runs_out_before_dispatch_releases(store: Store, clock: FakeClock) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)], estimate=(50,), expires_in=10, usage={"calls": 1}))
        clock.advance(9.999)
        assert await store.expire_due() == []
        clock.advance(0.001)
        (ended,) = await store.expire_due()
        assert (ended, ended.uncertain) == (Ended("a", HoldState.EXPIRED, (0,)), False)
        assert await store.expire_due() == []
        assert await state(store, money(0)) == (0, 0)
        assert await store.usage(START, START + DAY) == []


async def test_time_that_runs_out_after_dispatch_books_the_estimate(store: Store, clock: FakeClock) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)], estimate=(50,), expires_in=10))
        await store.dispatch("a")
        await store.dispatch("a")
        clock.advance(10)
        (ended,) = await store.expire_due()
        assert (ended, ended.uncertain) == (Ended("a", HoldState.EXPIRED, (50,), dispatched=True), True)
        assert await state(store, money(0)) == (50, 0)
        with pytest.raises(LedgerConflictError, match="has ended"):
            await store.dispatch("a")


@pytest.mark.parametrize("late", [("settle", 33), ("settle", 50), ("release", 0)], ids=str)
async def test_one_late_end_adjusts(store: Store, clock: FakeClock, late: tuple[str, int]) -> None:
    hold = Hold(
        "a", [money(60), Claim.window("w", 5, limit=9, seconds=600)], estimate=(50, 5), expires_in=10,
        dispatched=True, labels={"model": "m"}, usage={"pico_usd": 50, "calls": 1},
    )  # fmt: skip

    async def end() -> Ended:
        if late[0] == "release":
            return await store.release("a")
        return await store.settle("a", [late[1], 2], {"pico_usd": late[1], "calls": 1, "tokens": 4})

    async with store:
        await store.reserve(hold)
        clock.advance(10)
        await store.expire_due()
        assert await store.usage(START, START + 1) == [UsageCell({}, {"pico_usd": 50, "calls": 1})]
        clock.advance(3600)  # what is counted later still counts in the hour of the first end
        ended = await end()
        assert (ended.state, ended.amounts[0], ended.repeated) == (HoldState.ADJUSTED, late[1], False)
        assert await state(store, money(0)) == (late[1], 0)
        assert (await end()).repeated is True
        with pytest.raises(LedgerConflictError, match="the first result stands"):
            await store.settle("a", [34, 2])
        expected = (
            {"pico_usd": late[1], "calls": 1, "tokens": 4} if late[0] == "settle" else {"pico_usd": 0, "calls": 0}
        )
        assert await store.usage(START, START + DAY) == [UsageCell({}, expected)]
        assert await store.corrections() == []


async def test_a_hold_can_be_extended_but_not_shortened(store: Store, clock: FakeClock) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)], expires_in=10))
        clock.advance(5)
        assert await store.extend("a", 20) is True
        assert await store.extend("a", 1) is True
        clock.advance(19)
        assert await store.expire_due() == []
        clock.advance(1)
        assert [each.id for each in await store.expire_due()] == ["a"]
        assert await store.extend("a", 20) is False


async def test_expiry_takes_the_longest_overdue_first(store: Store, clock: FakeClock) -> None:
    async with store:
        for name, seconds in (("a", 30), ("b", 10), ("c", 20)):
            await store.reserve(Hold(name, [money(1)], expires_in=seconds))
        clock.advance(60)
        assert [each.id for each in await store.expire_due(2)] == ["b", "c"]
        assert [each.id for each in await store.expire_due(2)] == ["a"]


async def test_open_holds_are_listed(store: Store, clock: FakeClock) -> None:
    async with store:
        hold = Hold(
            "a",
            [money(60), Claim.places("p", limit=1)],
            call_id="c",
            labels={"model": "m"},
            note="prices 3",
            expires_in=9,
        )
        await store.reserve(Hold("b", [money(1)], expires_in=99))
        await store.reserve(hold)
        await store.dispatch("a")
        assert await store.holds() == [
            OpenHold("a", "c", (60, 1), ("team:search", "p"), True, START + 9, {"model": "m"}, "prices 3"),
            OpenHold("b", "", (1,), ("team:search",), False, START + 99, {}),
        ]
        assert [each.id for each in await store.holds(1)] == ["a"]
        await store.settle("a", [1, 1])
        assert [each.id for each in await store.holds()] == ["b"]


async def test_more_holds_than_the_bound_are_refused(stores: Stores) -> None:
    async with stores(max_holds=2) as store:
        await store.reserve(Hold("a", [money(1)]))
        await store.reserve(Hold("b", [money(1)]))
        with pytest.raises(StoreError, match="takes no more"):
            await store.reserve(Hold("c", [money(1)]))
        assert (await store.reserve(Hold("a", [money(1)]))).repeated  # type: ignore[union-attr]
        await store.release("a")
        assert isinstance(await store.reserve(Hold("c", [money(1)])), Granted)


# Periods.


async def test_a_calendar_epoch_turns_and_old_holds_settle_in_their_own(store: Store, clock: FakeClock) -> None:
    def today(amount: int, day: int) -> Claim:
        begin = int(START) + day * DAY
        return money(amount, epoch=begin, ends_at=begin + DAY)

    async with store:
        await store.reserve(Hold("a", [today(70, 0)]))
        denied = await store.reserve(Hold("b", [today(31, 0)]))
        assert denied == Denied(0, "team:search", 100, 0, 70, START + DAY, DAY)
        clock.advance(DAY)
        assert isinstance(await store.reserve(Hold("b", [today(100, 1)], expires_in=1e6)), Granted)
        await store.settle("a", [65])
        (now,) = await store.read([today(0, 1)])
        assert now == BucketState("team:search", 0, 100, int(START) + DAY, START + 2 * DAY)
        # A caller whose clock is behind books into the running epoch: it is never opened again.
        assert isinstance(await store.reserve(Hold("c", [today(1, 0)])), Denied)
        # One whose clock is ahead of the store's does so, too.
        assert isinstance(await store.reserve(Hold("d", [today(1, 2)])), Denied)
        assert isinstance(await store.reserve(Hold("d", [today(0, 2)])), Granted)
        # The turn shows although nobody has reserved.
        clock.advance(DAY)
        assert await store.read([today(0, 2)]) == [
            BucketState("team:search", 0, 0, int(START) + 2 * DAY, START + 3 * DAY)
        ]


async def test_a_period_or_zone_that_is_changed_keeps_what_the_running_epoch_spent(
    store: Store, clock: FakeClock
) -> None:
    begin = int(START)
    async with store:
        await store.reserve(Hold("a", [money(60)]))  # a budget that never turns …
        await store.settle("a", [60])
        clock.advance(DAY / 2)
        daily = money(50, epoch=begin, ends_at=begin + DAY)  # … becomes a daily one
        assert await store.reserve(Hold("b", [daily])) == Denied(0, "team:search", 100, 60, 0, begin + DAY, DAY / 2)
        await store.reserve(Hold("c", [money(1, epoch=begin, ends_at=begin + DAY)]))
        shifted = money(50, epoch=begin + 7200, ends_at=begin + DAY + 7200)  # another zone
        assert await store.reserve(Hold("b", [shifted])) == Denied(
            0, "team:search", 100, 60, 1, begin + DAY + 7200, DAY / 2 + 7200
        )
        clock.advance(DAY)
        assert isinstance(
            await store.reserve(Hold("b", [money(50, epoch=begin + DAY + 7200, ends_at=begin + 2 * DAY + 7200)])),
            Granted,
        )


async def test_a_period_that_becomes_endless_goes_on_with_what_was_spent(store: Store, clock: FakeClock) -> None:
    begin = int(START)
    async with store:
        await store.reserve(Hold("a", [money(60, epoch=begin, ends_at=begin + DAY)]))
        assert await store.reserve(Hold("b", [money(50)])) == Denied(0, "team:search", 100, 0, 60)
        await store.reserve(Hold("c", [money(1)]))
        clock.advance(2 * DAY)
        assert await store.read([money(0)]) == [BucketState("team:search", 0, 61, begin)]
        # And one that becomes rolling begins its period with the change.
        await store.reserve(Hold("d", [money(1, rolling=60)]))
        assert await store.read([money(0, rolling=60)]) == [
            BucketState("team:search", 0, 62, begin, begin + 2 * DAY + 60)
        ]
        clock.advance(60)
        assert isinstance(await store.reserve(Hold("e", [money(100, rolling=60)])), Granted)


async def test_a_rolling_period_begins_with_its_first_use(store: Store, clock: FakeClock) -> None:
    clock.advance(12.75)
    rolling = money(100, rolling=60)
    begin = int(START) + 12
    async with store:
        await store.reserve(Hold("a", [rolling]))
        assert await store.read([rolling]) == [BucketState("team:search", 0, 100, begin, begin + 60)]
        clock.advance(59)
        denied = await store.reserve(Hold("b", [rolling]))
        assert denied == Denied(0, "team:search", 100, 0, 100, begin + 60, 0.25)
        clock.advance(0.25)
        assert isinstance(await store.reserve(Hold("b", [rolling])), Granted)
        assert await store.read([rolling]) == [BucketState("team:search", 0, 100, begin + 60, begin + 120)]


async def test_a_clock_that_steps_back_does_not_turn_time_back(stores: Stores) -> None:
    clock = FakeClock()
    window = Claim.window("w", 1, limit=1, seconds=60)
    async with stores(clock=clock) as store:
        await store.reserve(Hold("a", [window], expires_in=100))
        clock.wall -= 3600
        granted = await store.reserve(Hold("b", [Claim.window("v", 1, limit=1, seconds=60)], expires_in=100))
        assert granted == Granted(START + 100)
        clock.wall += 3600 + 60
        assert isinstance(await store.reserve(Hold("c", [window])), Granted)


async def test_many_epochs_are_not_kept_for_ever_and_late_ends_still_work(store: Store, clock: FakeClock) -> None:
    async with store:
        await store.reserve(Hold("old", [money(7, rolling=60)], expires_in=1e6))
        for number in range(60):
            clock.advance(60)
            await store.reserve(Hold(f"h{number}", [money(10, rolling=60, thresholds=(1,))]))
            await store.settle(f"h{number}", [10])
        assert (await store.settle("old", [6])).amounts == (6,)  # held, so its epoch was kept
        assert await state(store, money(0, rolling=60)) == (10, 0)
        # The epoch of the first ones is forgotten, and what is said of them changes nothing else.
        assert (await store.adjust("h0", [4], reason="bill")).amounts == (4,)
        assert await state(store, money(0, rolling=60)) == (10, 0)


# Thresholds.


async def test_each_threshold_is_announced_once_in_an_epoch(store: Store, clock: FakeClock) -> None:
    claim = money(10, 1000, rolling=3600, thresholds=(15, 30, 50))
    begin = int(START)

    async def spend(name: str, amount: int) -> tuple[Crossing, ...]:
        await store.reserve(Hold(name, [claim]))
        return (await store.settle(name, [amount])).crossings

    async with store:
        assert await spend("a", 14) == ()
        assert await spend("b", 17) == (
            Crossing("team:search", begin, 15, 31),
            Crossing("team:search", begin, 30, 31),
        )
        assert await spend("c", 1) == ()
        assert (await store.settle("b", [17])).crossings == (
            Crossing("team:search", begin, 15, 31),  # the same announcement, for a lost acknowledgement
            Crossing("team:search", begin, 30, 31),
        )
        await store.reserve(Hold("d", [claim], estimate=(20,), expires_in=1, dispatched=True))
        clock.advance(1)
        assert [each.crossings for each in await store.expire_due()] == [(Crossing("team:search", begin, 50, 52),)]
        clock.advance(3600)
        assert await spend("e", 15) == (Crossing("team:search", begin + 3601, 15, 15),)


# Corrections.


async def test_an_adjustment_replaces_what_was_booked_and_leaves_an_entry(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60), Claim.places("p", limit=1)], labels={"model": "m"}))
        with pytest.raises(LedgerConflictError, match="is open"):
            await store.adjust("a", [1, 0], reason="bill")
        await store.settle("a", [50, 0], {"pico_usd": 50})
        ended = await store.adjust("a", [42, 0], reason="bill", usage={"pico_usd": 42})
        assert ended == Ended("a", HoldState.ADJUSTED, (42, 0), labels={"model": "m"})
        assert (await store.adjust("a", [42, 0], reason="bill", usage={"pico_usd": 42})).repeated is True
        assert await state(store, money(0)) == (42, 0)
        assert await store.usage(START, START + 1) == [UsageCell({}, {"pico_usd": 42})]
        (entry,) = await store.corrections()
        assert (entry.id, entry.bucket, entry.epoch, entry.delta, entry.reason, entry.at) == (
            "a", "team:search", 0, -8, "bill", START,
        )  # fmt: skip


async def test_a_correction_is_an_entry_of_its_own(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)]))
        await store.settle("a", [50])
        assert await store.correct(money(0), correction_id="1", reason="refund", delta=-20) == BucketState(
            "team:search", 30, 0
        )
        assert await store.correct(money(0), correction_id="1", reason="refund", delta=-20) == BucketState(
            "team:search", 30, 0
        )
        with pytest.raises(LedgerConflictError, match="negative"):
            await store.correct(money(0), correction_id="2", reason="refund", delta=-31)
        assert await store.correct(money(0), correction_id="3", reason="reset", to=0) == BucketState(
            "team:search", 0, 0
        )
        assert [(each.id, each.delta, each.reason) for each in await store.corrections()] == [
            ("3", -30, "reset"),
            ("1", -20, "refund"),
        ]
        for wrong in ({}, {"delta": 1, "to": 1}):
            with pytest.raises(ConfigError, match="either delta or to"):
                await store.correct(money(0), correction_id="4", reason="", **wrong)
        with pytest.raises(ConfigError, match="only what a counter"):
            await store.correct(Claim.places("p", limit=1), correction_id="4", reason="", delta=1)


async def test_what_is_taken_back_after_a_reset_does_not_make_spending_negative(store: Store, clock: FakeClock) -> None:
    async with store:
        await store.reserve(Hold("a", [money(60)], expires_in=1, dispatched=True))
        clock.advance(1)
        await store.expire_due()
        await store.correct(money(0), correction_id="reset", reason="reset", to=10)
        assert (await store.release("a")).state is HoldState.ADJUSTED  # late, but never refused
        assert await state(store, money(0)) == (0, 0)
        assert [(each.id, each.delta) for each in await store.corrections()] == [("a", 50), ("reset", -50)]


# Exactness.


async def test_amounts_are_exact_where_doubles_are_not(store: Store) -> None:
    big = 10**18
    odds = (1, 2**53 + 1, 10**9 - 1, 10**9, 10**9 + 1)
    for odd in odds:
        bucket = f"b{odd}"
        async with store:
            await store.reserve(Hold(bucket, [money(big + odd, big + odd, bucket)]))
            assert isinstance(await store.reserve(Hold(f"{bucket}-1", [money(1, big + odd, bucket)])), Denied)
            assert isinstance(await store.reserve(Hold(f"{bucket}+1", [money(1, big + odd + 1, bucket)])), Granted)
            assert await state(store, money(0, bucket=bucket)) == (0, big + odd + 1)
            await store.settle(bucket, [big + odd - 1], {"pico_usd": big + odd - 1})
            await store.settle(f"{bucket}+1", [7])
            assert await state(store, money(0, bucket=bucket)) == (big + odd + 6, 0)
    (cell,) = await store.usage(START, START + 1)
    assert cell.values["pico_usd"] == 5 * big + sum(odds) - 5
    await store.aclose()


async def test_counting_stops_before_64_bits_are_full(store: Store) -> None:
    async with store:
        await store.reserve(Hold("a", [money(MAX_AMOUNT, None)]))
        with pytest.raises(StoreError, match="beyond"):
            await store.reserve(Hold("b", [money(1, None)]))
        await store.settle("a", [MAX_AMOUNT - 1])
        await store.reserve(Hold("b", [money(1, None), money(1, None, "other")]))
        with pytest.raises(StoreError, match="beyond"):
            await store.settle("b", [2, 1])
        assert await store.read([money(0), money(0, bucket="other")]) == [
            BucketState("team:search", MAX_AMOUNT - 1, 1),
            BucketState("other", 0, 1),
        ]


# Usage.


async def test_usage_is_summed_by_hour_and_label(store: Store, clock: FakeClock) -> None:
    async def call(name: str, labels: dict[str, str], **values: int) -> None:
        await store.reserve(Hold(name, [money(0, None)], labels=labels))
        await store.settle(name, [0], values)

    async with store:
        await call("1", {"model": "a", "team": "x"}, pico_usd=5, calls=1)
        await call("2", {"model": "b", "team": "x"}, pico_usd=7, calls=1)
        clock.advance(3600)
        await call("3", {"model": "a", "team": "y"}, pico_usd=2**60, calls=1, tokens=9)
        await call("4", {"model": "a"}, calls=1)
        hour = int(START)
        assert await store.usage(START, START + 7200) == [
            UsageCell({}, {"pico_usd": 2**60 + 12, "calls": 4, "tokens": 9})
        ]
        assert await store.usage(START + 1800, START + 3600, by=["model"]) == [
            UsageCell({"model": "a"}, {"pico_usd": 5, "calls": 1}),
            UsageCell({"model": "b"}, {"pico_usd": 7, "calls": 1}),
        ]
        assert await store.usage(START, START + 7200, by=["hour", "team"], where={"model": "a"}) == [
            UsageCell({"hour": str(hour), "team": "x"}, {"pico_usd": 5, "calls": 1}),
            UsageCell({"hour": str(hour + 3600), "team": ""}, {"calls": 1}),
            UsageCell({"hour": str(hour + 3600), "team": "y"}, {"pico_usd": 2**60, "calls": 1, "tokens": 9}),
        ]
        assert await store.usage(START + 7200, START + DAY) == []


async def test_labels_beyond_the_bound_are_counted_together(store: Store) -> None:
    async with store:
        for number in range(1_003):
            await store.reserve(Hold(f"h{number}", [money(0, None)], labels={"user": f"u{number}"}))
            await store.settle(f"h{number}", [0], {"calls": 1})
        cells = await store.usage(START, START + 1, by=["user"])
        assert len(cells) == 1_001
        assert [each.values for each in cells if each.labels["user"] == "other"] == [{"calls": 3}]


# Keys and values.


async def test_values_are_bytes_and_keys_are_listed_in_order(store: Store) -> None:
    value = bytes(range(256))
    async with store:
        assert await store.get("k") is None
        assert await store.put("k", value) is True
        assert await store.get("k") == value
        for key in ("vk:b", "vk:a", "vl", "vk:é", "vk", "vk:"):
            await store.put(key, key.encode())
        assert await store.items("vk:") == [
            ("vk:", b"vk:"),
            ("vk:a", b"vk:a"),
            ("vk:b", b"vk:b"),
            ("vk:é", "vk:é".encode()),
        ]
        assert [key for key, _ in await store.items()] == ["k", "vk", "vk:", "vk:a", "vk:b", "vk:é", "vl"]
        assert await store.delete("k") is True
        assert await store.delete("k") is False
        assert await store.get("k") is None


async def test_a_value_is_gone_when_its_time_has_run_out(store: Store, clock: FakeClock) -> None:
    async with store:
        await store.put("a", b"1", ttl=10)
        await store.put("b", b"1", ttl=10)
        await store.put("b", b"2")  # a new value without a time stays
        clock.advance(9.5)
        assert await store.get("a") == b"1"
        clock.advance(0.5)
        assert (await store.get("a"), await store.get("b")) == (None, b"2")
        assert await store.items() == [("b", b"2")]
        assert await store.delete("a") is False
        assert await store.put("a", b"3", if_absent=True) is True


async def test_conditions_keep_updates_from_being_lost(store: Store) -> None:
    async with store:
        assert await store.put("k", b"1", expect=b"0") is False
        assert await store.put("k", b"1", if_absent=True) is True
        assert await store.put("k", b"2", if_absent=True) is False
        assert await store.put("k", b"2", expect=b"0") is False
        assert await store.put("k", b"", expect=b"1") is True
        assert await store.put("k", b"3", expect=b"") is True
        assert await store.delete("k", expect=b"2") is False
        assert await store.get("k") == b"3"
        assert await store.delete("k", expect=b"3") is True


async def test_odd_names_are_kept_or_refused_alike(store: Store) -> None:
    names = ["", " ", "a\0b", "line\nbreak", "é", "日本", "\U0010ffff", "{x}", "a:b", '"', "\\"]
    async with store:
        for name in names:
            await store.put("k" + name, name.encode())
            await store.reserve(
                Hold("h" + name, [money(3, bucket=name)], labels={"model": name}, note=name, call_id=name)
            )
            await store.settle("h" + name, [3], {"calls": 1})
        assert await store.items("k") == sorted(("k" + name, name.encode()) for name in names)
        assert await store.items("ka\0") == [("ka\0b", b"a\0b")]
        assert [each.spent for each in await store.read([money(0, bucket=name) for name in names])] == [3] * len(names)
        cells = await store.usage(START, START + 1, by=["model"])
        assert [each.labels["model"] for each in cells] == sorted(names)
        for operation in (store.get, store.delete, store.items):
            with pytest.raises(ConfigError, match="surrogate"):
                await operation("\ud800")
        with pytest.raises(ConfigError, match="surrogate"):
            await store.put("\ud800", b"")
        with pytest.raises(ConfigError, match="surrogate"):
            await store.adjust("h", [1], reason="\ud800")
        with pytest.raises(ConfigError, match="surrogate"):
            await store.correct(money(0), correction_id="1", reason="\ud800", to=0)


# Values that are refused before any store sees them.


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Claim.counter("b", -1, limit=1), id="negative amount"),
        pytest.param(lambda: Claim.counter("b", 1.0, limit=1), id="float amount"),  # type: ignore[arg-type]
        pytest.param(lambda: Claim.counter("b", 1, limit=2**63), id="limit beyond 64 bits"),
        pytest.param(lambda: Claim.counter("b", 1, limit=1, epoch=5), id="epoch without end"),
        pytest.param(lambda: Claim.counter("b", 1, limit=1, rolling=0.5), id="rolling below a second"),
        pytest.param(lambda: Claim.counter("b", 1, limit=1, rolling=5, epoch=5, ends_at=9), id="rolling with epoch"),
        pytest.param(lambda: Claim.window("b", 1, limit=1, seconds=0), id="empty window"),
        pytest.param(lambda: Claim.window("b", 1, limit=1, seconds=float("nan")), id="nan window"),
        pytest.param(lambda: Hold("", [money(1)]), id="no id"),
        pytest.param(lambda: Hold("a", [money(1), money(2)]), id="bucket twice"),
        pytest.param(lambda: Hold("a", [money(1)], estimate=(1, 2)), id="estimates"),
        pytest.param(lambda: Hold("a", [money(1)], estimate=(-1,)), id="negative estimate"),
        pytest.param(lambda: Hold("a", [money(1)], expires_in=0), id="no time"),
        pytest.param(lambda: Hold("a", [money(1, bucket="\ud800")]), id="bucket of half a pair"),
        pytest.param(lambda: Hold("a\ud800", [money(1)]), id="id of half a pair"),
        pytest.param(lambda: Hold("a", [money(1)], labels={"user": "\ud800"}), id="label of half a pair"),
        pytest.param(lambda: Hold("a", [money(1)], usage={"usd": 0.5}), id="float usage"),  # type: ignore[dict-item]
    ],
)
def test_values_that_make_no_sense_are_refused(make: object) -> None:
    with pytest.raises(ConfigError):
        make()  # type: ignore[operator]


def test_one_name_may_be_a_counter_a_window_and_places_at_once() -> None:
    hold = Hold(
        "a", [money(1), Claim.window("team:search", 1, limit=1, seconds=1), Claim.places("team:search", limit=1)]
    )
    assert hold.estimate == (1, 1, 1)
