"""The shadow of a text: what a reader sees, in plain letters. Rules match on it; the text is what is delivered.

Every character has its own shadow (one, none or several characters), so that the shadow of a text is the
shadows of its characters in a row, white space collapsed. That makes it the same for every way of cutting
a stream, and NFKC before NFKD needs no context: ``NFKD(NFKC(x)) = NFKD(x)``.

Source:
    Unicode Standard Annex #15 (normalisation forms, https://www.unicode.org/reports/tr15/), Unicode
    Technical Standard #39 (confusables, https://www.unicode.org/Public/security/latest/confusables.txt) and
    DerivedCoreProperties.txt (Default_Ignorable_Code_Point).
"""

from __future__ import annotations

# ruff: noqa: RUF001 # characters that look like others are what this module is about
import codecs
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final

__all__ = ["CASED", "FOLDED", "OVERRIDE", "Shadow", "ShadowTable", "reversed_runs", "seen", "views"]

OVERRIDE: Final = "\u202e"
"""RIGHT-TO-LEFT OVERRIDE: what follows is shown from right to left."""

_BLOCK: Final = 512  # characters between two known places of a map
_SPACES: Final = re.compile(r" {2,}")
_RUN: Final = re.compile("\u202e([^\u202a-\u202e\u2066-\u2069\n\r\u2029]*)")
_IGNORABLE: Final = frozenset(
    [
        847,
        4447,
        4448,
        6068,
        6069,
        8293,
        10240,
        12644,
        65440,
        *range(65024, 65040),
        *range(917504, 921600),
        *range(65520, 65529),
    ]
)

# Letters of other scripts that look like one of ours: the single letters of confusables.txt, by script.
_LOOKALIKES: Final = {
    "a": "аɑαӑ⍺", "b": "ƄЬьᏏ", "c": "сϲᴄⅽⲥꮯ", "d": "ԁᏧᑯđꓒ", "e": "еҽ℮ꬲє", "f": "ꞙẝքϝ", "g": "ɡցƍᶃ", "h": "һհᏂħ",
    "i": "іıɩιӏⅰꙇᎥ", "j": "јϳ", "k": "кκᴋⲕ", "l": "ⅼǀłӏ", "m": "мᴍ", "n": "ոռпη", "o": "оοσօഠᴏᴑⲟøס", "p": "рρϱ⍴ⲣ",
    "q": "ԛգզ", "r": "гᴦⲅꭇᴙ", "s": "ѕꜱƽꮪ", "t": "тτᴛŧ", "u": "υսʋᴜꭎ", "v": "νѵᴠⱱ", "w": "ԝѡաɯᴡ", "x": "хχ᙮ⅹ", "y": "уγүყʏỿ",
    "z": "ᴢꮓ",
    "A": "АΑᎪᗅꓮ", "B": "ВΒᏴᗷꓐ", "C": "СϹᏟꓚⲤ", "D": "ᎠᗞꓓĐ", "E": "ЕΕᎬⴹꓰ", "F": "Ϝᖴꓝ", "G": "ԌᏀꓖ", "H": "НΗᎻᕼꓧⲎĦ",
    "I": "ІΙӀⵏꓲⲒ", "J": "ЈᎫᒍꓙ", "K": "КΚᏦꓗⲔ", "L": "ᏞᒪꓡⳐŁ", "M": "МΜᎷᗰꓟⲘϺ", "N": "Νꓠⲛ", "O": "ОΟՕⵔꓳⲞØ", "P": "РΡᏢᑭꓑⲢ",
    "Q": "ⵕԚ", "R": "ᎡᏒᖇꓣ", "S": "ЅՏᏕꓢ", "T": "ТΤᎢꓔⲦŦ", "U": "ՍሀᑌꓴЦ", "V": "ѴᏙᐯꓦ", "W": "ᎳᏔԜꓪ", "X": "ХΧᚷꓫⲬ",
    "Y": "УΥҮᎩꓬⲨ", "Z": "ΖᏃꓜ",
    "-": "‐‑‒–—−﹣", "'": "‘’ʼ＇", ".": "․", "/": "⁄∕", ":": "ː∶꞉", "@": "﹫",
}  # fmt: skip
_LATIN: Final = {code: latin for latin, others in _LOOKALIKES.items() for code in map(ord, others)}


def _shadow_of(code: int, *, fold: bool) -> str:
    """The shadow of one character, in the order in which the steps build on each other."""
    if 0xE0020 <= code <= 0xE007E:  # a tag character: ASCII that nobody sees
        code -= 0xE0000
    seen: list[str] = []
    for composed in unicodedata.normalize("NFKC", chr(code)):
        if unicodedata.category(composed) == "Cf" or ord(composed) in _IGNORABLE:
            continue
        for char in unicodedata.normalize("NFKD", composed):
            if unicodedata.category(char) in {"Mn", "Me", "Cf"}:  # Me: circles around letters
                continue
            latin = _LATIN.get(ord(char), char)
            seen.append(" " if latin.isspace() else latin.casefold() if fold else latin)
    # Folding may make letters with marks of their own.
    folded = unicodedata.normalize("NFKD", "".join(seen)) if fold else "".join(seen)
    return "".join(char for char in folded if unicodedata.category(char) != "Mn")


class ShadowTable(dict[int, str]):
    """The shadow of each character, found out when it is first met. For ``str.translate``.

    Args:
        fold: Whether upper and lower case are one.
    """

    def __init__(self, *, fold: bool) -> None:
        super().__init__()
        self._fold = fold

    def __missing__(self, code: int) -> str:
        shadow = self[code] = _shadow_of(code, fold=self._fold)
        return shadow


CASED: Final = ShadowTable(fold=False)
FOLDED: Final = ShadowTable(fold=True)
# ASCII texts are the most and are done by one look-up per byte.
_ASCII: Final = {id(table): "".join(map(table.__getitem__, range(128))).encode() for table in (CASED, FOLDED)}
_REST: Final = bytes(range(128, 256))


# Alphabets of single bytes: texts in one of them are done in two passes that cost no look-up per character.
_ALPHABETS: Final = (
    [*range(0xA0, 0xFF), 0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x201E, 0x20AC, 0x2022, 0x152, 0x153],
    [*range(0x410, 0x450), 0x401, 0x451, 0xAB, 0xBB, 0x2013, 0x2014, 0x2116, 0xA0, 0x406, 0x456, 0x407, 0x457, 0x404],
    [*range(0x391, 0x3CF), 0xAB, 0xBB, 0x2013, 0x2014, 0xA0, 0x387],
)
_WIDE: Final = ("ß", "…", "æ", "\xad", "\u200b")  # frequent ones whose shadow is longer or shorter


def _alphabets(table: ShadowTable) -> list[tuple[Any, Any]]:
    made: list[tuple[Any, Any]] = []
    for codes in _ALPHABETS:
        chars = [*map(chr, range(128))]
        chars += [char for code in codes if len(table[code]) == 1 and (char := chr(code)) not in chars][:128]
        chars += ["\ufffe"] * (256 - len(chars))
        shadows = "".join(table[ord(char)] if char != "\ufffe" else "\ufffe" for char in chars)
        made.append((codecs.charmap_build("".join(chars)), shadows))
    return made


_BYTES: Final = {id(table): _alphabets(table) for table in (CASED, FOLDED)}


def _translated(text: str, table: ShadowTable) -> str:
    """``text.translate(table)``, fast for what most texts are."""
    if text.isascii():
        return text.encode().translate(_ASCII[id(table)] + _REST).decode("ascii")
    short = text
    for char in _WIDE:
        if char in short:
            short = short.replace(char, table[ord(char)])
    for alphabet, shadows in _BYTES[id(table)]:
        try:
            written, _ = codecs.charmap_encode(short, "strict", alphabet)
        except UnicodeEncodeError:
            continue
        return codecs.charmap_decode(written, "strict", shadows)[0]
    return text.translate(table)


def seen(text: str, table: ShadowTable) -> str:
    """The shadow of a text that is shown as it is written, without a way back."""
    plain = _translated(text, table)
    return _SPACES.sub(" ", plain) if "  " in plain else plain


class Shadow:
    """A text's shadow and the way back.

    Args:
        text: The text.
        table: ``CASED`` or ``FOLDED``.
        runs: Stretches of ``text`` that are matched from their end to their beginning.

    Attributes:
        text: The shadow.
    """

    __slots__ = ("_blocks", "_gaps", "_original", "_runs", "_table", "text")

    def __init__(self, text: str, table: ShadowTable, runs: tuple[tuple[int, int], ...] = ()) -> None:
        if runs:
            pieces: list[str] = []
            place = 0
            for start, end in runs:
                pieces += text[place:start], text[start:end][::-1]
                place = end
            text = "".join([*pieces, text[place:]])
        self._original = text
        self._table = table
        self._runs = runs
        self._blocks: list[int] | None = None
        self._gaps: tuple[list[int], list[int]] | None = None
        plain = self._plain()
        self.text = _SPACES.sub(" ", plain) if "  " in plain else plain

    def _plain(self) -> str:
        return _translated(self._original, self._table)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where ``[start, end)`` of the shadow is in the text; with what is invisible inside."""
        if start >= end:
            place = self._place(start) if start < len(self.text) else len(self._original)
            return place, place
        if not self._runs:
            first, last = self._place(start), self._place(end - 1) + 1
        else:
            places = [self._unturned(self._place(index)) for index in range(start, end)]
            first, last = min(places), max(places) + 1
        # Marks that stand on the last letter go with it.
        while not self._runs and last < len(self._original) and not self._table[ord(self._original[last])]:
            last += 1
        return first, last

    def _unturned(self, place: int) -> int:
        for start, end in self._runs:
            if start <= place < end:
                return start + end - 1 - place
        return place

    def _place(self, index: int) -> int:
        """The character of the text that character ``index`` of the shadow comes from."""
        if self._gaps is None:
            starts, shifts, shift = [0], [0], 0
            plain = self._plain()
            if len(plain) != len(self.text):
                for match in _SPACES.finditer(plain):
                    starts.append(match.start() + 1 - shift)  # the first space stays
                    shift += match.end() - match.start() - 1
                    shifts.append(shift)
            self._gaps = starts, shifts
        starts, shifts = self._gaps
        index += shifts[bisect_right(starts, index) - 1]
        if self._original.isascii():
            return index
        if self._blocks is None:
            self._blocks, total = [], 0
            for begin in range(0, len(self._original), _BLOCK):
                self._blocks.append(total)
                total += len(self._original[begin : begin + _BLOCK].translate(self._table))
        block = bisect_right(self._blocks, index) - 1
        left = index - self._blocks[block]
        place = block * _BLOCK
        for place in range(place, min(place + _BLOCK, len(self._original))):  # noqa: B020
            left -= len(self._table[ord(self._original[place])])
            if left < 0:
                break
        return place


def reversed_runs(text: str) -> tuple[tuple[int, int], ...]:
    """The stretches of ``text`` that are shown from right to left by an override."""
    if OVERRIDE not in text:
        return ()
    return tuple(match.span(1) for match in _RUN.finditer(text) if match.end(1) - match.start(1) > 1)


def views(text: str, table: ShadowTable) -> Iterator[Shadow]:
    """The shadows to match on: the text as it is written and, where that differs, as it is shown."""
    yield Shadow(text, table)
    if runs := reversed_runs(text):
        yield Shadow(text, table, runs)
