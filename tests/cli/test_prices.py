"""``bifrost prices``: the table, and the file that ``refresh`` makes from the price library."""

from __future__ import annotations

import datetime
import json
import sys
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bifrost_core import ConfigError, PriceBook
from bifrost_core.cli import main, price_source
from bifrost_core.cli.context_source import Contexts, contexts_text, make_contexts
from bifrost_core.cli.price_corrections import CACHED_SHARES, CORRECTIONS, CachedShare, Correction
from bifrost_core.cli.price_source import LibraryModel, Period, convert, file_text, make, read
from bifrost_core.prices import built_in_table

DAY = datetime.date(2026, 11, 25)


def since(start: str | None = None, condition: str = "", **parts: Any) -> Period:
    values = {unit: Decimal(value) if isinstance(value, str) else value for unit, value in parts.items()}
    return Period(None if start is None else datetime.date.fromisoformat(start), values, condition)


def model(*periods: Period) -> LibraryModel:
    return LibraryModel(("m",), periods)


# -- from the library's units to ours ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period", "parts"),
    [
        pytest.param(since(input_mtok="0.15", output_mtok="0.60"), {"input": "0.15", "output": "0.6"}, id="tokens"),
        pytest.param(since(cache_read_mtok="0.015"), {"cached_input": "0.015"}, id="cached"),
        pytest.param(
            since(cache_write_mtok="0.3", cache_write_1h_mtok="0.5"),
            {"cache_write_input": "0.3", "long_cache_write_input": "0.5"},
            id="written-to-a-cache",
        ),
        pytest.param(
            since(input_document_kpages="4", input_annotated_document_kpages="5"),
            {"per_page": "0.004", "per_annotated_page": "0.005"},
            id="pages",
        ),
        pytest.param(since(audio_hours="0.18", input_audio_hours="0.18"), {"per_audio_minute": "0.003"}, id="hours"),
        pytest.param(since(input_mchars="16"), {"per_million_characters": "16"}, id="characters"),
        pytest.param(since(requests_kcount="35"), {"per_request": "0.035"}, id="requests"),
        pytest.param(since(input_mtok="0"), {"input": "0"}, id="free"),
        pytest.param(since(input_mtok="10"), {"input": "10"}, id="no-exponent"),
        pytest.param(since(input_mtok="0.30000000000000004"), {"input": "0.3"}, id="noise-above"),
        pytest.param(since(input_mtok="0.14999999999999999445"), {"input": "0.15"}, id="noise-below"),
    ],
)
def test_a_unit_of_the_library_is_converted_exactly(period: Period, parts: dict[str, str]) -> None:
    assert convert("p", [model(period)], DAY) == price_source.Made({"p/m": parts}, ())


@pytest.mark.parametrize(
    ("periods", "why"),
    [
        pytest.param([since(input_mtok=SimpleNamespace(base=1, tiers=[]))], "no single number", id="tiers"),
        pytest.param([since(input_mtok="1"), since(condition="TimeOfDateConstraint")], "TimeOfDate", id="time-of-day"),
        pytest.param([since(input_mtok="1", input_audio_mtok="2")], "input_audio_mtok", id="other-unit"),
        pytest.param([since(input_mtok="0.0000001")], "pico", id="too-fine"),
        pytest.param([since(input_mtok="0.1000001")], "pico", id="no-noise"),
        pytest.param([since(input_mtok="-1")], "pico", id="negative"),
        pytest.param([since(input_mtok="NaN")], "pico", id="not-a-number"),
        pytest.param([since(audio_hours="0.1")], "pico", id="minute-without-end"),
        pytest.param([since(audio_hours="0.18", input_audio_hours="0.24")], "two prices", id="contradiction"),
        pytest.param([since()], "no price", id="nothing"),
        pytest.param([since("2026-11-26", input_mtok="1")], "begun", id="not-yet"),
    ],
)
def test_what_can_not_be_said_exactly_is_left_out_with_the_reason(periods: list[Period], why: str) -> None:
    made = convert("p", [model(*periods)], DAY)
    assert made.prices == {}
    (note,) = made.notes
    assert note.startswith("p/m: left out, ")
    assert why in note


def tier(base: str, far: str, start: int = 200_000) -> SimpleNamespace:
    return SimpleNamespace(base=Decimal(base), tiers=[SimpleNamespace(start=start, price=Decimal(far))])


def test_one_tier_is_the_price_of_a_long_context() -> None:
    made = convert("p", [model(since(input_mtok=tier("5", "10"), output_mtok="25"))], DAY)
    far = {"input": "10", "output": "25"}
    assert made.prices == {"p/m": {"input": "5", "output": "25", "long_context": far, "long_context_from": 200_000}}
    two = convert("p", [model(since(input_mtok=tier("5", "10"), output_mtok=tier("1", "2", 300_000)))], DAY)
    assert two == price_source.Made({}, ("p/m: left out, its prices change at more than one number of tokens",))


def test_what_no_usage_counts_is_told_and_leaves_no_model_out() -> None:
    made = convert("p", [model(since(input_mtok="1", web_searches_kcount="10"))], DAY)
    assert made == price_source.Made({"p/m": {"input": "1"}}, ("p/m: web searches are not charged",))


def test_rules_are_kept_in_the_librarys_order_and_none_takes_what_has_no_price() -> None:
    library = {
        "openai": [
            LibraryModel(("a",), (since(input_mtok="1"),), (("starts_with", "A-"),)),
            LibraryModel(("b",), (since(input_audio_mtok="1"),), (("regex", "^B"),)),
            LibraryModel((), (since(input_mtok="3"),), (("contains", "c"),)),
        ],
        "mistral": [LibraryModel(("m",), (since(input_mtok="1"),), (("starts_with", "m-"),))],
    }
    made = make(library, DAY, [Correction("openai/a", "input", "2", "why", "https://example.org/prices")])
    assert made.rules == {
        "openai": [
            ("starts_with", "a-", {"input": "2"}),
            ("equals", "b", None),
            ("regex", "^B", None),
            ("contains", "c", {"input": "3"}),
        ]
    }
    assert "mistral: names that match starts_with 'm-' are not listed" in made.notes


@pytest.mark.parametrize(
    ("day", "price"), [("2026-03-15", "0.1"), ("2026-03-16", "0.15"), ("2026-11-25", "0.15"), ("2027-01-01", "0.2")]
)
def test_the_last_period_that_has_begun_counts(day: str, price: str) -> None:
    periods = since(input_mtok="0.1"), since("2026-03-16", input_mtok="0.15"), since("2027-01-01", input_mtok="0.2")
    made = convert("p", [model(*periods)], datetime.date.fromisoformat(day))
    assert made.prices == {"p/m": {"input": price}}
    assert ("p/m: other prices from 2027-01-01 on" in made.notes) is (day < "2027")


# -- corrections ---------------------------------------------------------------------------------------------------

LIBRARY = {"p": [LibraryModel(("old", "alias"), (since(input_mtok="2", output_mtok="6"),))]}


def corrected(name: str, field: str, value: str | None) -> Correction:
    return Correction(f"p/{name}", field, value, "why", "https://example.org/prices")


@pytest.mark.parametrize(
    ("correction", "expected"),
    [
        pytest.param(corrected("alias", "input", "1"), {"input": "1", "output": "6"}, id="a-field"),
        pytest.param(corrected("alias", "output", None), {"input": "2"}, id="a-field-out"),
        pytest.param(corrected("alias", "entry", None), None, id="the-entry-out"),
        pytest.param(corrected("new", "per_page", "3"), {"input": "2", "output": "6"}, id="another-model"),
    ],
)
def test_a_correction_changes_what_it_names(correction: Correction, expected: dict[str, str] | None) -> None:
    made = make(LIBRARY, DAY, [correction])
    assert made.prices.get("p/alias") == expected
    assert made.prices["p/old"] == {"input": "2", "output": "6"}
    assert made.notes == ()


def test_a_name_takes_the_price_of_another_as_corrected_before() -> None:
    made = make(LIBRARY, DAY, [corrected("old", "input", "1"), corrected("new", "same_as", "p/old")])
    assert made.prices["p/new"] == made.prices["p/old"] == {"input": "1", "output": "6"}


def test_a_correction_that_changes_nothing_is_told() -> None:
    made = make(LIBRARY, DAY, [corrected("old", "input", "2")])
    assert made.notes == ("p/old: the correction of input is needed no more",)


@pytest.mark.parametrize(
    "correction",
    [
        corrected("old", "same_as", "p/unheard-of"),
        corrected("old", "colour", "1"),
        corrected("old", "input", "0.0000001"),
        corrected("old", "input", "cheap"),
    ],
    ids=["model", "field", "too-fine", "word"],
)
def test_a_correction_that_is_wrong_itself_is_refused_by_its_model(correction: Correction) -> None:
    with pytest.raises(ConfigError, match="p/old"):
        make(LIBRARY, DAY, [correction])


def test_cached_input_is_the_providers_share_where_the_library_has_no_price() -> None:
    library = {
        "p": [LibraryModel(("a",), (since(input_mtok="0.3"),)), LibraryModel(("c",), (since(audio_hours="6"),))],
        "q": [LibraryModel(("b",), (since(input_mtok="0.3"),))],
    }
    library["p"].append(LibraryModel(("own",), (since(input_mtok="0.3", cache_read_mtok="0.007"),)))
    made = make(library, DAY, cached_shares={"p": CachedShare(Decimal("0.1"), "https://example.org/prices")})
    assert made.prices == {
        "p/a": {"input": "0.3", "cached_input": "0.03"},
        "p/c": {"per_audio_minute": "0.1"},
        "p/own": {"input": "0.3", "cached_input": "0.007"},
        "q/b": {"input": "0.3"},
    }


def test_every_correction_has_a_public_source_and_a_reason() -> None:
    for correction in CORRECTIONS:
        assert correction.source.startswith("https://")
        assert len(correction.reason) > 10
        assert datetime.date.fromisoformat(correction.date) <= DAY
    changed = [(correction.model, correction.field) for correction in CORRECTIONS]
    assert len(set(changed)) == len(changed)


@pytest.mark.parametrize("correction", CORRECTIONS, ids=lambda each: f"{each.model}-{each.field}")
def test_the_built_in_prices_have_every_correction(correction: Correction) -> None:
    prices = built_in_table().prices
    if correction.field == "entry":
        assert correction.model not in prices
    elif correction.field == "same_as":
        assert correction.value is not None
        assert prices[correction.model] == prices[correction.value]
    else:
        value = None if correction.value is None else Decimal(correction.value)
        assert getattr(prices[correction.model], correction.field) == value


# -- contexts ------------------------------------------------------------------------------------------------------


def test_lengths_of_contexts_are_kept_by_name_and_by_rule_unless_a_price_goes_beyond_them() -> None:
    library = {
        "openai": [
            LibraryModel(("a", "a-1"), (), (("starts_with", "A-"),), 1_000),
            LibraryModel(("b",), (), (("regex", "^B"),)),
            LibraryModel(("c",), (), (("contains", "c"),), 2_000),
            LibraryModel(("d",), (), (), 3_000),
        ],
        "mistral": [LibraryModel(("m",), (), (("starts_with", "m-"),), 4_000), LibraryModel(("n",), ())],
    }
    prices: price_source.Entries = {
        "openai/c": {"input": "1", "long_context_from": 2_000},
        "openai/d": {"input": "1", "long_context_from": 2_999},
    }
    changes = [
        Correction("mistral/m-latest", "same_as", "mistral/m", "why", "https://example.org/models"),
        Correction("mistral/n-latest", "same_as", "mistral/n", "why", "https://example.org/models"),
        Correction("openai/a", "input", "2", "why", "https://example.org/prices"),
    ]
    assert make_contexts(library, prices, changes) == Contexts(
        {"mistral/m": 4_000, "mistral/m-latest": 4_000, "openai/a": 1_000, "openai/a-1": 1_000, "openai/d": 3_000},
        {
            "openai": [
                ("starts_with", "a-", 1_000),
                ("equals", "b", None),
                ("regex", "^B", None),
                ("equals", "c", None),
                ("contains", "c", None),
            ]
        },
        ("openai/c: a context of 2000 left out, there is a price beyond it",),
    )


def test_a_file_of_no_contexts_is_one_too() -> None:
    table = json.loads(contexts_text(Contexts({}, {}, ()), day=DAY, source="nothing"))
    assert (table["contexts"], table["rules"], table["date"]) == ({}, {}, "2026-11-25")


# -- the library's objects -----------------------------------------------------------------------------------------


class Equals:
    def __init__(self, equals: str) -> None:
        self.equals = equals

    def is_match(self, name: str) -> bool:
        return name == self.equals


class StartsWith:
    def __init__(self, starts_with: str) -> None:
        self.starts_with = starts_with

    def is_match(self, name: str) -> bool:
        return name.startswith(self.starts_with)


class Or:
    def __init__(self, *or_: Any) -> None:
        self.or_ = or_

    def is_match(self, name: str) -> bool:
        return any(each.is_match(name) for each in self.or_)


class TimeOfDay:
    """A price for a part of the day."""


def priced(constraint: Any = None, **parts: Decimal | None) -> SimpleNamespace:
    return SimpleNamespace(constraint=constraint, prices=SimpleNamespace(**parts))


ONE = Decimal(1)
MODELS = [
    SimpleNamespace(id="big", match=Or(Equals("big-1"), Equals("big-latest")), prices=SimpleNamespace(input_mtok=ONE)),
    SimpleNamespace(id="big-x", match=StartsWith("big-"), prices=SimpleNamespace(input_mtok=ONE, output_mtok=None)),
    SimpleNamespace(
        id="small",
        match=Or(Equals("small"), Equals("big-1")),
        prices=[
            priced(input_mtok=ONE),
            priced(SimpleNamespace(start_date=DAY), input_mtok=ONE + ONE),
            priced(TimeOfDay(), input_mtok=ONE),
        ],
    ),
]


def test_the_librarys_models_become_plain_values_and_a_name_belongs_to_the_first() -> None:
    assert read(MODELS) == [
        LibraryModel(("big-1", "big-latest"), (Period(None, {"input_mtok": ONE}),)),
        LibraryModel(("big-x",), (Period(None, {"input_mtok": ONE}),), (("starts_with", "big-"),)),
        LibraryModel(
            ("small",),
            (
                Period(None, {"input_mtok": ONE}),
                Period(DAY, {"input_mtok": ONE + ONE}),
                Period(None, {"input_mtok": ONE}, "TimeOfDay"),
            ),
        ),
    ]


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price library of a few models, in place of the installed one."""
    mistral = [
        SimpleNamespace(
            id=name, match=Equals(name), prices=SimpleNamespace(input_mtok=Decimal("0.5"), output_mtok=Decimal("1.5"))
        )
        for name in (
            *("mistral-large-2512", "mistral-large-latest", "ministral-3b-2512", "ministral-14b-2512"),
            *("devstral-2512", "mistral-small-2603", "mistral-embed", "tiered"),
        )
    ]
    mistral[-1].prices.input_mtok = SimpleNamespace(base=ONE, tiers=[])
    mistral[0].context_window = 262_144
    providers = [SimpleNamespace(id="mistral", models=mistral), SimpleNamespace(id="other", models=MODELS[:1])]
    providers += [SimpleNamespace(id=name, models=MODELS) for name in ("openai", "anthropic")]
    monkeypatch.setitem(sys.modules, "genai_prices", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "genai_prices.data", SimpleNamespace(providers=providers))
    monkeypatch.setattr(price_source, "version", lambda name: f"1.2.3 of {name}")


# -- the command ---------------------------------------------------------------------------------------------------


def test_refresh_writes_the_same_file_for_the_same_library_and_day(
    library: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    assert main(["prices", "refresh", "--out", str(one), "--date", "2026-11-25"]) == 0
    out, err = capsys.readouterr()
    assert "prices of 2026-11-25 from genai-prices 1.2.3 of genai-prices written to" in out
    assert "mistral/tiered: left out, its price per input_mtok is no single number (SimpleNamespace)\n" in err
    assert main(["prices", "refresh", "--out", str(two), "--date", "2026-11-25"]) == 0
    assert one.read_bytes() == two.read_bytes()
    table = json.loads(one.read_bytes())
    assert table["date"] == "2026-11-25"
    assert table["version"].startswith("2026-11-25.")
    assert table["prices"]["mistral/mistral-large-2512"] == {"input": "0.5", "output": "1.5", "cached_input": "0.05"}
    assert table["prices"]["mistral/mistral-embed"] == {"input": "0.5", "cached_input": "0.05"}
    assert "mistral/tiered" not in table["prices"]
    assert list(table["prices"]) == sorted(table["prices"])


def test_refresh_writes_the_lengths_of_contexts_where_a_file_for_them_is_named(
    library: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices, contexts = tmp_path / "prices.json", tmp_path / "contexts.json"
    arguments = ["prices", "refresh", "--out", str(prices), "--contexts", str(contexts), "--date", "2026-11-25"]
    assert main(arguments) == 0
    assert "lengths of contexts from genai-prices 1.2.3 of genai-prices written to" in capsys.readouterr().out
    table = json.loads(contexts.read_bytes())
    assert (table["date"], table["source"]) == ("2026-11-25", "genai-prices 1.2.3 of genai-prices")
    assert table["contexts"] == {"mistral/mistral-large-2512": 262_144, "mistral/mistral-large-latest": 262_144}
    assert table["rules"]["openai"][0] == ["equals", "big-1", None]


def test_refresh_takes_the_providers_that_are_named_and_today(library: None, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    arguments = ["prices", "refresh", "--out", str(path), "--provider", "mistral", "--provider", "other"]
    before = datetime.datetime.now(datetime.UTC).date()
    assert main(arguments) == 0
    after = datetime.datetime.now(datetime.UTC).date()
    table = json.loads(path.read_bytes())
    assert table["prices"]["other/big-1"] == {"input": "1"}
    assert table["date"] in {str(before), str(after)}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["--provider", "nobody"], "bifrost: genai-prices has no provider nobody\n", id="provider"),
        pytest.param(["--date", "yesterday"], "", id="date"),
    ],
)
def test_refresh_says_in_one_line_what_is_wrong_and_writes_nothing(
    arguments: list[str], line: str, library: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prices.json"
    assert main(["prices", "refresh", "--out", str(path), *arguments]) != 0
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err == line or not line
    assert not path.exists()


def test_refresh_without_the_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    monkeypatch.setitem(sys.modules, "genai_prices.data", None)
    assert main(["prices", "refresh", "--out", str(tmp_path / "prices.json")]) == 1
    expected = "bifrost: genai-prices is not installed; run: pip install 'bifrost-core[prices]'\n"
    assert capsys.readouterr() == ("", expected)


def test_the_files_in_the_package_are_as_the_command_writes_them() -> None:
    path = Path(price_source.__file__).parent.parent / "prices.json"
    text = path.read_text(encoding="utf-8")
    table = json.loads(text)
    day = datetime.date.fromisoformat(table["date"])
    assert text == file_text(table["prices"], table["rules"], day=day, source=table["source"])
    known = json.loads((path.parent / "contexts.json").read_bytes())
    rules = {provider: [tuple(rule) for rule in listed] for provider, listed in known["rules"].items()}
    made = Contexts(known["contexts"], rules, ())
    written = contexts_text(made, day=datetime.date.fromisoformat(known["date"]), source=known["source"])
    assert (path.parent / "contexts.json").read_text(encoding="utf-8") == written
    assert (known["date"], known["source"]) == (table["date"], table["source"])
    shares = {name: share.share for name, share in CACHED_SHARES.items()}
    for name, parts in table["prices"].items():
        assert "cached_input" in parts or "input" not in parts or name.partition("/")[0] not in shares


def test_the_table_shows_every_built_in_price(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[1] for line in out.splitlines() if line.startswith("| ") and "/" in line]
    assert rows == list(PriceBook().names())
    assert f"{len(rows)} of {len(rows)} models; " in out
    assert built_in_table().version in out


def test_the_table_shows_the_models_with_a_text_in_their_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "--filter", "Small-Latest"]) == 0
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines() if "/" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["mistral/devstral-small-latest", "0.1", "0.01", "0.3", "-"],
        ["mistral/magistral-small-latest", "0.15", "0.015", "0.6", "-"],
        ["mistral/mistral-small-latest", "0.15", "0.015", "0.6", "-"],
        ["mistral/voxtral-small-latest", "0.1", "0.01", "0.4", "0.004"],
    ]


def test_a_text_that_is_in_no_name_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prices", "--filter", "zebra"]) == 1
    assert capsys.readouterr() == (
        "",
        "bifrost prices: no model with 'zebra' in its name has a built-in price\n",
    )
