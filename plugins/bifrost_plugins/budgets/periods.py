"""When a budget's period turns: rolling seconds, or the calendar of a time zone.

A calendar period begins at the earliest instant of its first date, on the zone's own clocks: where
midnight is missing, at the first moment that exists; where it comes twice, at the first of the two.
Periods are found from dates, never by adding seconds, and named by the UTC second at which they begin,
so that nothing has to run when one turns.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import attrs

from bifrost_core import ConfigError

__all__ = ["CalendarPeriod", "RollingPeriod", "make_period", "zone_of"]

_SECONDS: Final = {"h": 3_600, "d": 86_400, "w": 7 * 86_400, "M": 30 * 86_400, "Q": 91 * 86_400, "Y": 365 * 86_400}
_WRITTEN: Final = re.compile(r"([1-9][0-9]{0,3})([hdwMQY])")
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_MONTHS: Final = {"M": 1, "Q": 3, "Y": 12}


@attrs.frozen
class RollingPeriod:
    """A period that lasts so many seconds from its first use.

    Attributes:
        seconds: Its length. A month counts as 30 days, a quarter as 91, a year as 365.
    """

    seconds: int


@attrs.define(eq=False)
class CalendarPeriod:
    """A period of the calendar.

    Attributes:
        unit: ``h``, ``d``, ``w`` (from Monday, ISO 8601), ``M``, ``Q`` or ``Y``.
        zone: Whose clocks count.
        fiscal_start: Month in which the year, and with it the first quarter, begins; 1 to 12.
    """

    unit: str
    zone: tzinfo
    fiscal_start: int = 1
    _last: tuple[int, int] = attrs.field(default=(1, 0), init=False, repr=False)

    def at(self, now: float) -> tuple[int, int]:
        """The period that runs at an instant.

        Args:
            now: UTC second.

        Returns:
            UTC seconds of its start and of the next one's.
        """
        begin, end = self._last
        if not begin <= now < end:
            self._last = begin, end = self._find(datetime.fromtimestamp(now, UTC))
        return begin, end

    def _find(self, now: datetime) -> tuple[int, int]:
        first = self._first(now.astimezone(self.zone).replace(tzinfo=None))
        # Clocks that go back over midnight bring yesterday's date again: the day has begun all the same.
        while (end := first_instant(self._next(first), self.zone)) <= now:
            first = self._next(first)
        return round(first_instant(first, self.zone).timestamp()), round(end.timestamp())

    def _first(self, local: datetime) -> datetime:
        """The local time at which the period begins that a local time lies in."""
        if self.unit == "h":
            return local.replace(minute=0, second=0, microsecond=0)
        day = local.date()
        if self.unit == "w":
            day -= day.weekday() * _DAY
        elif self.unit in _MONTHS:
            past = (day.month - self.fiscal_start) % 12 % _MONTHS[self.unit]
            day = _month(day.replace(day=1), -past)
        return _midnight(day)

    def _next(self, first: datetime) -> datetime:
        if self.unit == "h":
            return first + _HOUR
        if self.unit in _MONTHS:
            return _midnight(_month(first.date(), _MONTHS[self.unit]))
        return first + (7 * _DAY if self.unit == "w" else _DAY)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 - on a wall clock; the zone comes in first_instant


def _month(first: date, months: int) -> date:
    """The first of a month so many months later."""
    number = first.year * 12 + first.month - 1 + months
    return date(number // 12, number % 12 + 1, 1)


def first_instant(local: datetime, zone: tzinfo) -> datetime:
    """The earliest instant at which a zone's clocks show a local time or, where they skip it, a later one.

    Args:
        local: Without a zone, on a whole second.
        zone: The zone.

    Source:
        PEP 495, "Local Time Disambiguation": of a time that comes twice ``fold=0`` is the first; of one
        that is skipped ``fold=0`` lies behind the gap and ``fold=1`` before it.
    """
    early = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    late = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if early <= late:
        return early
    before, after = late, early  # a gap: find the second at which the clocks were put forward
    offset = before.astimezone(zone).utcoffset()
    while (seconds := (after - before) // timedelta(seconds=1)) > 1:
        middle = before + timedelta(seconds=seconds // 2)
        if middle.astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


def zone_of(name: str) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        ConfigError: There is no such zone, or no time-zone database at all; never UTC in its place.

    Source:
        https://docs.python.org/3/library/zoneinfo.html#data-sources
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        problem = f"there is no time zone {name!r}"
    try:
        ZoneInfo("Europe/Paris")
    except ZoneInfoNotFoundError:
        problem = "this machine has no time-zone database; pip install tzdata"
    raise ConfigError(problem, field="time_zone")


def make_period(
    period: str | None, *, calendar: bool, time_zone: str, fiscal_start: int
) -> RollingPeriod | CalendarPeriod | None:
    """A budget's period from its settings; None: it never turns.

    Raises:
        ConfigError: One of them makes no sense; names it.
    """
    zone = zone_of(time_zone)
    if type(fiscal_start) is not int or not 1 <= fiscal_start <= 12:
        raise ConfigError(f"fiscal_start is a month from 1 to 12, not {fiscal_start!r}", field="fiscal_start")
    if period is None:
        if calendar:
            raise ConfigError("a calendar budget needs a period: 1h, 1d, 1w, 1M, 1Q or 1Y", field="period")
        return None
    match = _WRITTEN.fullmatch(period)
    if match is None:
        raise ConfigError(f"period is 1h, 1d, 1w, 1M (month), 1Q (quarter), 1Y or None, not {period!r}", field="period")
    count, unit = int(match[1]), match[2]
    if not calendar:
        return RollingPeriod(count * _SECONDS[unit])
    if count != 1:
        raise ConfigError(f"the calendar has no period of {period}; write 1{unit}, or calendar=False", field="period")
    return CalendarPeriod(unit, zone, fiscal_start)
