"""Periods of budgets: right to the second, against an oracle that walks through the minutes."""

from __future__ import annotations

import zoneinfo
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from bifrost_plugins.budgets import Budget, periods
from bifrost_plugins.budgets.periods import CalendarPeriod, RollingPeriod, first_instant, make_period, zone_of

from bifrost_core import ConfigError

ZONES = (
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Asuncion",
    "America/Coyhaique",
    "America/Havana",
    "America/New_York",
    "America/Nuuk",
    "America/Santiago",
    "America/Scoresbysund",
    "America/St_Johns",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Tokyo",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Easter",
)
MINUTE = timedelta(minutes=1)


def month(first: date, months: int) -> date:
    return date(first.year + (first.month - 1 + months) // 12, (first.month - 1 + months) % 12 + 1, 1)


# The oracle: which period a date is in, by counting, and every minute's date, by zoneinfo alone.

KEYS: dict[str, Callable[[date], date]] = {
    "d": lambda day: day,
    "w": lambda day: max(
        day - timedelta(days=back) for back in range(7) if (day - timedelta(days=back)).weekday() == 0
    ),
    "M": lambda day: day.replace(day=1),
    "Q": lambda day: max(
        first
        for year in (day.year - 1, day.year)
        for first in (date(year, m, 1) for m in (2, 5, 8, 11))
        if first <= day
    ),
    "Y": lambda day: max(first for first in (date(day.year - 1, 2, 1), date(day.year, 2, 1)) if first <= day),
}
FISCAL = 2  # quarters and years of the table begin in February


@cache
def changes(name: str) -> tuple[datetime, ...]:
    """Every minute of 2024 to 2030 at which a zone's clocks change."""
    zone = ZoneInfo(name)
    hour, found = datetime(2024, 1, 1, tzinfo=UTC), []
    while hour.year < 2031:
        later = hour + timedelta(hours=1)
        if hour.astimezone(zone).utcoffset() != later.astimezone(zone).utcoffset():
            minute = hour
            while minute.astimezone(zone).utcoffset() == hour.astimezone(zone).utcoffset():
                minute += MINUTE
            found.append(minute)
        hour = later
    return tuple(found)


def local_dates(zone: ZoneInfo, around: datetime) -> Iterator[tuple[datetime, date]]:
    """The minutes of two days before and after an instant, with the latest date that was seen until then."""
    latest = date.min
    for number in range(-2 * 1440, 2 * 1440):
        minute = around + number * MINUTE
        if abs(number) <= 180 or not number % 60:  # each minute where the clocks change, else each hour
            latest = max(latest, minute.astimezone(zone).date())  # a day that has begun goes on
            yield minute, latest


def begin_of(key: date, zone: ZoneInfo) -> datetime:
    """The first minute at which a zone's clocks show a date, by walking."""
    minute = datetime(key.year, key.month, key.day, tzinfo=UTC) - timedelta(hours=30)
    for step in (timedelta(hours=1), MINUTE):
        while (minute + step).astimezone(zone).date() < key:
            minute += step
    return minute + MINUTE


@pytest.mark.parametrize("name", ZONES)
def test_periods_turn_where_the_walk_through_the_minutes_turns(name: str) -> None:
    zone = ZoneInfo(name)
    made = {unit: CalendarPeriod(unit, zone, FISCAL) for unit in KEYS}
    begins: dict[date, datetime] = {}
    ends: set[tuple[str, int]] = set()
    for change in changes(name):
        for minute, day in local_dates(zone, change):
            for unit, period in made.items():
                key = KEYS[unit](day)
                expected = begins.get(key)
                if expected is None:
                    expected = begins[key] = begin_of(key, zone)
                begin, end = period.at(minute.timestamp())
                assert begin == expected.timestamp(), (unit, minute)
                assert end > minute.timestamp()
                if (unit, begin) not in ends:
                    ends.add((unit, begin))
                    assert period.at(end - 1) == (begin, end)
                    assert period.at(end)[0] == end
    assert changes(name) or name in {"Asia/Tokyo", "Asia/Kathmandu"}


@pytest.mark.parametrize(
    ("name", "day", "begins"),
    [
        # A midnight that does not exist: the day begins at the first moment that does.
        ("Africa/Cairo", date(2024, 4, 26), "2024-04-25T22:00:00+00:00"),
        ("Asia/Beirut", date(2026, 3, 29), "2026-03-28T22:00:00+00:00"),
        ("America/Havana", date(2026, 3, 8), "2026-03-08T05:00:00+00:00"),
        ("America/Santiago", date(2026, 9, 6), "2026-09-06T04:00:00+00:00"),
        ("America/Asuncion", date(2024, 10, 6), "2024-10-06T04:00:00+00:00"),
        ("Atlantic/Azores", date(2026, 3, 29), "2026-03-29T01:00:00+00:00"),
        # One that comes twice: the first of the two.
        ("America/Havana", date(2026, 11, 1), "2026-11-01T04:00:00+00:00"),
        ("Atlantic/Azores", date(2026, 10, 25), "2026-10-25T00:00:00+00:00"),
        # Clocks that go back from midnight to 23:00: there is one midnight, an hour later.
        ("Africa/Cairo", date(2024, 11, 1), "2024-10-31T22:00:00+00:00"),
        ("America/Santiago", date(2026, 4, 5), "2026-04-05T04:00:00+00:00"),
        # The day that Samoa left out.
        ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00:00+00:00"),
    ],
    ids=str,
)
def test_a_day_begins_at_the_earliest_instant_of_its_date(name: str, day: date, begins: str) -> None:
    local = datetime.combine(day, datetime.min.time())
    assert first_instant(local, ZoneInfo(name)).isoformat() == begins


def test_an_hour_of_the_calendar_begins_on_the_zone_s_own_clocks() -> None:
    period = CalendarPeriod("h", ZoneInfo("Asia/Kathmandu"))  # UTC+5:45
    now = datetime(2026, 5, 1, 12, 0, tzinfo=UTC).timestamp()
    assert period.at(now) == (now - 45 * 60, now + 15 * 60)


@pytest.mark.parametrize("name", ["Europe/Berlin", "Australia/Lord_Howe", "America/Havana"])
def test_hours_follow_each_other_without_a_gap_when_clocks_change(name: str) -> None:
    period = CalendarPeriod("h", ZoneInfo(name))
    for change in changes(name)[:4]:
        at = change.timestamp() - 7200
        while at < change.timestamp() + 7200:
            begin, end = period.at(at)
            assert begin <= at < end
            assert end - begin <= 3600 + 3600
            assert period.at(end - 1) == (begin, end)
            at = float(end)


@pytest.mark.parametrize(
    ("fiscal", "now", "begins", "ends"),
    [
        (1, (2026, 5, 17), (2026, 4, 1), (2026, 7, 1)),
        (2, (2026, 1, 31), (2025, 11, 1), (2026, 2, 1)),
        (4, (2026, 3, 31), (2026, 1, 1), (2026, 4, 1)),
        (12, (2026, 12, 1), (2026, 12, 1), (2027, 3, 1)),
    ],
)
def test_a_fiscal_quarter_begins_with_the_fiscal_year(
    fiscal: int, now: tuple[int, int, int], begins: tuple[int, int, int], ends: tuple[int, int, int]
) -> None:
    period = CalendarPeriod("Q", UTC, fiscal)
    found = period.at(datetime(*now, 12, tzinfo=UTC).timestamp())
    assert found == (datetime(*begins, tzinfo=UTC).timestamp(), datetime(*ends, tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("period", "seconds"),
    [
        ("1h", 3_600),
        ("1d", 86_400),
        ("1w", 604_800),
        ("1M", 2_592_000),
        ("1Q", 7_862_400),
        ("1Y", 31_536_000),
        ("12h", 43_200),
    ],
)
def test_a_rolling_period_has_its_seconds(period: str, seconds: int) -> None:
    assert make_period(period, calendar=False, time_zone="UTC", fiscal_start=1) == RollingPeriod(seconds)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"period": "1m"}, "period"),
        ({"period": "M"}, "period"),
        ({"period": "0d"}, "period"),
        ({"period": "2M", "calendar": True}, "period"),
        ({"calendar": True}, "period"),
        ({"period": "1d", "time_zone": "Europe/Atlantis"}, "time_zone"),
        ({"period": "1d", "time_zone": "../etc/passwd"}, "time_zone"),
        ({"period": "1d", "fiscal_start": 13}, "fiscal_start"),
        ({"thresholds": (0.0,)}, "thresholds"),
        ({"limit": "-1"}, "limit"),
        ({"limit": 0.1}, "limit"),
        ({"limit": "0.0000000000001"}, "limit"),
        ({"limit": "10000000"}, "limit"),
        ({"limit": "NaN"}, "limit"),
        ({"scope": "teams"}, "scope"),
        ({"scope": "team:"}, "scope"),
        ({"scope": ("team", "team:search")}, "scope"),
        ({"scope": ()}, "scope"),
        ({"hard": False, "clamp": True}, "clamp"),
        ({"name": "a name"}, "name"),
    ],
    ids=str,
)
def test_a_setting_that_makes_no_sense_is_named(settings: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Budget(**{"limit": "1.00", **settings})  # type: ignore[arg-type] # wrong on purpose
    assert caught.value.field == field


def test_without_a_time_zone_database_nothing_counts_in_utc_by_stealth(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ZoneInfo:
        raise zoneinfo.ZoneInfoNotFoundError(name)

    monkeypatch.setattr(periods, "ZoneInfo", missing)
    with pytest.raises(ConfigError, match="tzdata"):
        zone_of("Europe/Berlin")
    assert zone_of("UTC") is UTC
