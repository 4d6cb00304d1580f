"""Lengths of contexts: what is known of which names, and that the shipped file is what its program makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bifrost_core import contexts
from bifrost_core.cli.price_corrections import CONTEXT_ALIASES, CORRECTIONS
from bifrost_core.contexts import context_length
from bifrost_core.name_rules import rule_matches

SHIPPED = json.loads((Path(contexts.__file__).parent / "contexts.json").read_bytes())


@pytest.mark.parametrize(
    ("name", "length"),
    [
        pytest.param("mistral/mistral-small-2603", 262_144, id="mistral"),
        pytest.param("mistral/mistral-large-latest", 262_144, id="a-name-that-has-the-price-of-another"),
        pytest.param("mistral/mistral-small-latest", 262_144, id="a-name-that-has-the-context-of-another"),
        pytest.param("anthropic/claude-haiku-4-5", 200_000, id="anthropic"),
        pytest.param("anthropic/claude-haiku-4-5-20251001", 200_000, id="by-a-rule"),
        pytest.param("anthropic/claude-sonnet-4-5-20250929", None, id="may-be-longer-at-another-price"),
        pytest.param("openai/gpt-4o-2024-11-20", 128_000, id="openai"),
        pytest.param("openai/text-embedding-3-small", 8_192, id="embeddings"),
        pytest.param("openai/unheard-of", None, id="no-such-model"),
        pytest.param("mistral/claude-haiku-4-5", None, id="of-another-provider"),
        pytest.param("unheard-of/claude-haiku-4-5", None, id="no-such-provider"),
    ],
)
def test_what_is_known_of_a_context(name: str, length: int | None) -> None:
    assert context_length(*name.split("/")) == length


def test_every_length_that_ships_is_found_and_no_rule_hides_it() -> None:
    assert len(SHIPPED["contexts"]) > 200
    for name, length in SHIPPED["contexts"].items():
        assert context_length(*name.split("/", 1)) == length
        assert 4_000 <= length <= 2_000_000
    assert list(SHIPPED["contexts"]) == sorted(SHIPPED["contexts"])


def test_a_name_has_the_context_of_the_model_that_it_means() -> None:
    same = [each for each in (*CORRECTIONS, *CONTEXT_ALIASES) if each.field == "same_as" and each.value is not None]
    assert len(same) > 8
    for each in same:
        assert SHIPPED["contexts"].get(each.model) == SHIPPED["contexts"].get(each.value)
    for each in CONTEXT_ALIASES:
        assert each.model in SHIPPED["contexts"]
        assert each.source.startswith("https://")


@pytest.mark.parametrize(
    ("kind", "text", "name", "matches"),
    [
        pytest.param("equals", "a-1", "A-1", True, id="equal-in-any-case"),
        pytest.param("equals", "a-1", "a-12", False, id="longer"),
        pytest.param("starts_with", "a-1", "A-12", True, id="begins"),
        pytest.param("starts_with", "a-1", "xa-1", False, id="begins-otherwise"),
        pytest.param("contains", "a-1", "xA-12", True, id="inside"),
        pytest.param("contains", "a-1", "a1", False, id="not-inside"),
        pytest.param("regex", r"^a-\d$", "a-1", True, id="regex"),
        pytest.param("regex", r"^a-\d$", "A-1", False, id="regex-minds-case"),
    ],
)
def test_a_rule_says_which_names_mean_a_model(kind: str, text: str, name: str, matches: bool) -> None:
    assert rule_matches(kind, text, name) is matches
