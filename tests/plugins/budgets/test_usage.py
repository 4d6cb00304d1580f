"""Who spent what on which model: rows that add up, from Python and from the command line."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
import attrs
import click
import pytest
from bifrost_plugins.budgets import Budget, BudgetPlugin, UsageRow, plugin
from bifrost_plugins.budgets.commands import usage
from bifrost_plugins.budgets.money import exact_pico, usd_of
from bifrost_plugins.stores import MemoryStore, SqliteStore
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from bifrost_core import ConfigError, Price, PriceBook, Request, Response, Router
from bifrost_core.testing import FakeClock, Simulated
from bifrost_core.wire import HttpReply

PRICES = {"small": Price(input="0.1", output="0.3"), "large": Price(input="2", output="6")}
ASK: dict[str, Any] = {"max_tokens": 100}


def costs(rows: list[UsageRow], *labels: str) -> dict[Any, Decimal]:
    return {tuple(row.labels[label] for label in labels): row.cost for row in rows}


async def test_rows_are_told_apart_and_add_up(callers: object) -> None:
    clock = FakeClock(wall=datetime(2026, 5, 20, 10, 30, tzinfo=UTC).timestamp())
    made = BudgetPlugin(MemoryStore(clock=clock), [Budget("1")], clock=clock)
    sim = Simulated(["one"], prices=PRICES)
    spent: dict[tuple[str, str, str], Decimal] = {}
    async with Router([sim], plugins=[callers, made], prices=PriceBook(sim.prices)) as router:
        for hour in range(3):
            for key in ("search-1", "search-2", "adverts-1"):
                for model in ("small", "large"):
                    answer = await router.chat(f"simulated/{model}", "hello", virtual_key=key, **ASK)
                    place = (key, f"simulated/{model}", f"2026-05-20T{10 + hour}:00:00+00:00")
                    spent[place] = spent.get(place, Decimal(0)) + (answer.cost or 0)
            clock.advance(3_600)
        total = sum(spent.values())
        everything = await made.usage(by=("virtual_key", "model", "hour"))
        assert costs(everything, "virtual_key", "model", "hour") == spent
        assert sum(row.cost for row in everything) == total
        assert sum(row.calls for row in everything) == 18
        by_model = costs(await made.usage(), "model")
        assert by_model == {
            (model,): sum(cost for (_, each, _), cost in spent.items() if each == model)
            for model in ("simulated/large", "simulated/small")
        }
        assert (await made.usage(by=()))[0].cost == total
        search = sum(cost for (key, _, _), cost in spent.items() if key.startswith("search"))
        assert costs(await made.usage(scope="team:search", by=["team"]), "team") == {("search",): search}
        both = await made.usage(scope=("team:search", "model:simulated/large"), by=["customer"])
        assert costs(both, "customer") == {
            ("acme",): sum(
                cost for (key, model, _), cost in spent.items() if key.startswith("search") and "large" in model
            )
        }
        first = datetime(2026, 5, 20, 11, tzinfo=UTC)
        one_hour = await made.usage(since=first, until=first + timedelta(hours=1), by=())
        assert one_hour[0].cost == sum(cost for (*_, at), cost in spent.items() if at == first.isoformat())
        assert await made.usage(since=first - timedelta(days=9), until=first - timedelta(days=8)) == []
        clock.advance(12 * 86_400)  # June
        assert await made.usage() == []


class Caching(Simulated):
    """Counts half of each prompt as read from a cache and the other half as written to it, the half of that for long."""

    def decode(self, request: Request, reply: HttpReply) -> Response:
        response = super().decode(request, reply)
        part = response.usage.input_tokens // 4
        written = {"cache_write_tokens": 2 * part, "long_cache_write_tokens": part}
        counted = attrs.evolve(response.usage, input_tokens=4 * part, cached_tokens=2 * part, **written)
        return attrs.evolve(response, usage=counted)


async def test_a_row_tells_what_was_read_from_a_cache_and_what_was_written_to_one() -> None:
    made = BudgetPlugin(budgets=[Budget("1")])
    price = Price(input=2, output=6, cached_input="0.2", cache_write_input="2.5", long_cache_write_input=4)
    async with Router([Caching(["one"])], plugins=[made], prices=PriceBook({"simulated/small": price})) as router:
        answer = await router.chat("simulated/small", "hello, and hello to all of you", **ASK)
        (row,) = await made.usage(by=())
    part = answer.usage.long_cache_write_tokens
    assert part > 0
    assert (row.input_tokens, row.cached_tokens) == (4 * part, 2 * part)
    assert (row.cache_write_tokens, row.long_cache_write_tokens) == (2 * part, part)
    assert row.cost == (Decimal("6.9") * part + 6 * answer.usage.output_tokens) / 10**6


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"by": ("prompt",)}, "by"),
        ({"scope": "team"}, "scope"),
        ({"scope": "room:12"}, "scope"),
        ({"since": datetime(2026, 5, 1)}, "since"),  # noqa: DTZ001
    ],
    ids=str,
)
async def test_a_question_that_makes_no_sense_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await BudgetPlugin().usage(**options)
    assert caught.value.field == field


async def test_without_budgets_usage_is_counted_all_the_same_and_unknown_prices_are_said() -> None:
    made = BudgetPlugin()
    async with Router([Simulated(["one"])], plugins=[made]) as router:
        answer = await router.chat("simulated/new", "hello")
        assert answer.cost is None
        (row,) = await made.usage(by=("provider",))
        assert (dict(row.labels), row.cost, row.unpriced, row.calls) == ({"provider": "simulated"}, Decimal(0), 1, 1)
        assert (row.input_tokens, row.output_tokens) == (answer.usage.input_tokens, answer.usage.output_tokens)


@given(st.integers(0, 2**63 - 1))
def test_money_goes_in_and_out_exactly(pico: int) -> None:
    assert exact_pico(usd_of(pico), "limit") == pico
    assert "E" not in f"{usd_of(pico):f}"
    if pico >= 1_000_000:
        assert "E" not in str(usd_of(pico))


# The command.


def invoke(*arguments: str, **options: Any) -> str:
    result = CliRunner().invoke(usage, arguments, catch_exceptions=False, **options)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def used(tmp_path: Path, callers: object) -> tuple[str, Decimal]:
    """The address of a store, and what was spent in it."""
    path = tmp_path / "bifrost.db"

    async def main() -> Decimal:
        sim = Simulated(["one"], prices=PRICES)
        made = BudgetPlugin(SqliteStore(path), [Budget("1")])
        total = Decimal(0)
        async with Router([sim], plugins=[callers, made], prices=PriceBook(sim.prices)) as router:
            for key in ("search-1", "adverts-1", None):
                answer = await router.chat("simulated/large", "hello", virtual_key=key, **ASK)
                total += answer.cost or 0
        return total

    return f"sqlite:{path}", anyio.run(main)


def test_the_command_prints_rows_and_their_sum(used: tuple[str, Decimal]) -> None:
    address, total = used
    lines = invoke("--store", address, "--by", "team", "--by", "model").splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["team", "model", "calls"],
        ["-", "simulated/large", "1"],
        ["adverts", "simulated/large", "1"],
        ["search", "simulated/large", "1"],
        ["sum", "3", "3"],
    ]
    assert lines[-1].split()[-1] == f"{total:f}"
    assert (
        invoke("--since", "2020-01-01", "--until", "2020-02-01", env={"BIFROST_STORE": address})
        == "nothing was used in this time\n"
    )


def test_the_command_speaks_json(used: tuple[str, Decimal]) -> None:
    address, _ = used
    (row,) = json.loads(invoke("--store", address, "--json", "--scope", "team:search"))
    assert (row["model"], row["calls"], row["cached_calls"]) == ("simulated/large", 1, 0)
    assert isinstance(row["cost"], str)
    assert Decimal(row["cost"]) > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--store", "memory"], "in memory"),
        (["--store", "sqlite:/nowhere/at.all"], "there is no file"),
        (["--store", "sqlite:x", "--since", "yesterday"], "is no date"),
        (["--store", "sqlite:x", "--by", "prompt"], "prompt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_mistake_is_one_clear_line(arguments: list[str], words: str) -> None:
    with pytest.raises((click.ClickException, ConfigError), match=words):
        usage.main(arguments, standalone_mode=False)


# Configuration and packaging.


def test_configuration_makes_the_plugin() -> None:
    made = plugin(
        budgets=[{"limit": "10.00", "period": "1M", "scope": ["team", "model"]}],
        ceiling={"input": "10", "output": "30"},
        max_output=500,
        unbounded="0.5",
    )
    assert repr(made) == "BudgetPlugin(MemoryStore(), ['model+team'])"
    with pytest.raises(ConfigError, match=r"budgets\[0\]"):
        plugin(budgets=[{"limit": "1", "color": "red"}])


def test_the_entry_points_lead_to_what_they_name() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = project["entry-points"]
    for group, name in [("bifrost", "budgets"), ("bifrost", "rate_limits"), ("bifrost.cli", "usage")]:
        module, _, attribute = groups[group][name].partition(":")
        assert callable(getattr(import_module(module), attribute))
