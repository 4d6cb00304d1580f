"""Placeholders: what was taken out comes back wherever a stream is cut, and tells nothing until then."""

from __future__ import annotations

import re

from bifrost_plugins.guardrails.vault import Restorer, Vault
from hypothesis import given
from hypothesis import strategies as st

KEY = bytes(range(32))


def test_a_value_has_one_placeholder_and_a_caller_has_placeholders_of_their_own() -> None:
    vault, other = Vault(KEY, "team"), Vault(KEY, "another team")
    name = vault.placeholder("email", "odin@valhalla.example")
    assert re.fullmatch(r"\[EMAIL_[0-9A-F]{12}\]", name)
    assert vault.placeholder("email", "odin@valhalla.example") == name
    assert len({name, other.placeholder("email", "odin@valhalla.example"), vault.placeholder("email", "x@y.org")}) == 3
    assert vault.restore(f"to {name}, [EMAIL_000000000000] [x]") == "to odin@valhalla.example, [EMAIL_000000000000] [x]"
    assert other.restore(name) == name
    assert "valhalla" not in repr(vault)


@given(st.lists(st.sampled_from(["[", "]", "EMAIL_", "0A", "_", "NAME", "!", " "]), max_size=20), st.data())
def test_any_split_is_restored_as_the_whole_is(fragments: list[str], data: st.DataObject) -> None:
    vault = Vault(KEY, "")
    names = [vault.placeholder("email", "odin@valhalla.example"), vault.placeholder("iban", "[EMAIL_")]
    places = data.draw(st.lists(st.integers(0, len(fragments)), max_size=3))
    for place in places:
        fragments.insert(place, names[place % 2])
    text = "".join(fragments)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12)))
    restorer = Restorer(vault)
    out = [restorer.feed(text[start:end]) for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join([*out, restorer.feed("", is_last=True)]) == vault.restore(text)
