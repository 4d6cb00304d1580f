"""The shadow of a text: disguises fall, and every stretch of it is found again in the text."""

# ruff: noqa: RUF001 # characters that look like others are the subject

from __future__ import annotations

import unicodedata

import pytest
from bifrost_plugins.guardrails import GuardrailPlugin, Literals
from bifrost_plugins.guardrails.shadow import CASED, FOLDED, Shadow, views
from hypothesis import example, given
from hypothesis import strategies as st

from bifrost_core import Call, GuardrailError, Request

TRICKS = {
    "zero-width": "pass\u200bw\u200cor\u200dd",
    "full-width": "ｐａｓｓｗｏｒｄ",
    "mathematical-bold": "".join(chr(0x1D41A + ord(char) - ord("a")) for char in "password"),
    "soft-hyphen": "pass\u00adword",
    "tag-characters": "".join(chr(0xE0000 + ord(char)) for char in "password"),
    "cyrillic": "раѕѕwоrd",
    "combining-marks": "p\u0301a\u0308ssw\u0336ord",
    "right-to-left-override": "\u202edrowssap\u202c",
    "hangul-filler": "pass\u3164w\u115ford",
    "braille-blank": "pass\u2800word",
    "variation-selectors": "pa\ufe0fss\U000e0101word",
    "upper-case": "PassWORD",
    "enclosing-circle": "p\u20ddassword",
    "greek-and-armenian": "pαsswοrd",
}


@pytest.mark.parametrize("disguise", [pytest.param(text, id=name) for name, text in TRICKS.items()])
def test_a_disguised_word_is_blocked(disguise: str) -> None:
    plugin = GuardrailPlugin([Literals(["password"])])
    request = Request("chat", "mistral/x", {"messages": [{"role": "user", "content": f"my {disguise} is"}]})
    with pytest.raises(GuardrailError) as caught:
        plugin.bifrost_guard_request(request, Call("c", request.operation, request))
    assert (caught.value.rule, caught.value.side) == ("literals", "input")


@pytest.mark.parametrize("disguise", [pytest.param(text, id=name) for name, text in TRICKS.items()])
def test_the_place_of_a_disguised_word_is_found_again(disguise: str) -> None:
    text = f"ab  cé {disguise} xyz"
    places = set()
    for shadow in views(text, FOLDED):
        if (start := shadow.text.find("password")) >= 0:
            places.add(shadow.span(start, start + 8))
    ((start, end),) = places
    kept = text[:start] + text[end:]
    assert Shadow(kept, FOLDED).text in {"ab ce xyz", "ab ce  xyz"}


def naive(text: str, *, fold: bool) -> str:
    """The steps in their order, each over the whole text, without a map."""
    text = "".join(chr(ord(char) - 0xE0000) if 0xE0020 <= ord(char) <= 0xE007E else char for char in text)
    text = unicodedata.normalize("NFKC", text)
    gone = {0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x034F, 0x17B4, 0x17B5, 0x2065, *range(0xFE00, 0xFE10)}
    gone |= {*range(0xE0000, 0xE1000), *range(0xFFF0, 0xFFF9)}
    text = "".join(char for char in text if unicodedata.category(char) != "Cf" and ord(char) not in gone)
    text = unicodedata.normalize("NFKD", text)
    text = "".join(char for char in text if unicodedata.category(char) not in {"Mn", "Me"})
    text = "".join(Shadow(char, CASED).text if not char.isascii() else char for char in text)  # look-alikes
    if fold:
        text = text.casefold()
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if unicodedata.category(char) != "Mn")
    spaced = "".join(" " if char.isspace() else char for char in text)
    while "  " in spaced:
        spaced = spaced.replace("  ", " ")
    return spaced


ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TELLING = st.text(st.sampled_from("aZß…æ \t\n\u00a0\u200bé\u0301ÅпЖοσ한글ﬁ①Ⅷ\U000e0041\U0001f468\u202e"), max_size=60)


@given(ANY | TELLING)
@example("e\u0301\u0327")
@example("ᄒ\u1161\u11ab")
@example("İstanbul ŉ ǰ")
def test_the_shadow_is_what_the_steps_one_after_the_other_make(text: str) -> None:
    text = text.replace("\u202e", "")
    assert Shadow(text, CASED).text == naive(text, fold=False)
    assert Shadow(text, FOLDED).text == naive(text, fold=True)


@given(ANY | TELLING, st.data())
def test_a_stretch_of_the_shadow_is_the_shadow_of_its_place(text: str, data: st.DataObject) -> None:
    shadow = Shadow(text, FOLDED)
    if not shadow.text:
        return
    start = data.draw(st.integers(0, len(shadow.text) - 1))
    end = data.draw(st.integers(start + 1, len(shadow.text)))
    first, last = shadow.span(start, end)
    assert 0 <= first < last <= len(text)
    assert shadow.text[start:end] in Shadow(text[first:last], FOLDED).text


@pytest.mark.parametrize(
    "text",
    ["Grüße aus Köln … naïve", "Привет, мир — «да»", "Καλημέρα κόσμε", "日本語 text", "mixed é п", "A\u200bB\u00adC"],
    ids=["latin", "cyrillic", "greek", "japanese", "mixed", "invisible"],
)
def test_alphabets_that_are_done_fast_are_done_the_same(text: str) -> None:
    for table in (CASED, FOLDED):
        collapsed = " ".join(text.translate(table).split(" "))
        assert Shadow(text, table).text == collapsed


def test_a_long_text_has_its_places_too() -> None:
    text = "ä…  " * 3000 + "zéro"
    shadow = Shadow(text, FOLDED)
    start = shadow.text.index("zero")
    assert text[slice(*shadow.span(start, start + 4))] == "zéro"
