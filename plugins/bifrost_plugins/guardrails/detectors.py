"""Personal data and secrets, told by shape and, where there is one, by checksum."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from .matchers import Found, Matcher, View
from .signs import Field, Signs

__all__ = ["PII", "Detector", "is_iban", "is_luhn", "secret_detectors"]

Measure = Callable[[str, int, int], int]
"""Takes a text and where a candidate begins and ends; gives the end of what it is, 0 for none."""


def _whole(text: str, start: int, end: int) -> int:  # noqa: ARG001 # the shape is proof enough
    return end


_LOCAL: Final = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\Z")


@attrs.frozen
class Detector:
    """One kind of data.

    Attributes:
        label: What it finds.
        shape: What a candidate looks like; bounded, and checked by a test as users' patterns are.
        longest: Characters of the longest candidate.
        measure: Tells candidates from the real thing.
        needle: What every candidate holds; None: the shape begins with something that is found fast.
        before: Characters of a candidate before its needle, at most.
        tail: What still belongs to it when it follows, however long.
        lead: Characters of a candidate before what ``shape`` matches: a shape that begins with something rare is
            found faster.
        is_word: Whether no candidate has white space in it.
        view: What it looks at.
        steps: Of one place.
        field: Where its matches can begin; None: anywhere.
        sign: What is in every text in which there is one.
    """

    label: str
    shape: re.Pattern[str]
    longest: int
    measure: Measure = _whole
    needle: str | re.Pattern[str] | None = None
    before: int = 0
    tail: re.Pattern[str] | None = None
    view: View = "cased"
    steps: int = 64
    lead: int = 0
    is_word: bool = False
    field: Field | None = None
    sign: str = ""

    @property
    def reach(self) -> int | None:
        """Characters that decide over a match."""
        return self.longest + 2

    def may_match(self, signs: Signs) -> bool:  # noqa: ARG002
        """Sign and field are all that is known."""
        return True

    def find(self, text: str, start: int, until: int) -> Iterator[Found]:
        """The matches that begin in ``[start, until)``, one after the other."""
        end = min(len(text), until + self.longest + 2)
        while start < until:
            if self.needle is None:
                match = self.shape.search(text, start + self.lead, end)
                if match is None:
                    return
            else:
                place = self._anchor(text, start, end)
                if place < 0:
                    return
                match = self._around(text, start, place, end)
                if match is None:
                    start = place + 1
                    continue
            first = match.start() - self.lead
            if first >= until:
                return
            last = self.measure(text, first, match.end())
            start = first + 1
            if last:
                start = last
                yield Found(first, last, self.label, last)

    def _around(self, text: str, start: int, place: int, end: int) -> re.Match[str] | None:
        """The first candidate whose needle is at ``place``."""
        end = min(end, place + self.longest + 2)
        begin = max(start, place - self.before)
        if self.before > 8:  # what stands before is found from its end: it is all of one class
            before = _LOCAL.search(text, begin, place)
            return None if before is None else self.shape.match(text, before.start(), end)
        for first in range(begin, place + 1):
            if (match := self.shape.match(text, first, end)) is not None:
                return match
        return None

    def _anchor(self, text: str, start: int, end: int) -> int:
        if isinstance(self.needle, str):
            return text.find(self.needle, start, end)
        match = None if self.needle is None else self.needle.search(text, start, end)
        return -1 if match is None else match.start()


# --- personal data


# The code of a digit as the sum of the digits of its double.
_DOUBLED: Final = bytes(sum(divmod(2 * (code - 48), 10)) if 48 <= code < 58 else 0 for code in range(256))


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the right check digit.

    Source:
        ISO/IEC 7812-1, annex B (Luhn's formula); US patent 2,950,048.
    """
    code = digits.encode()
    plain, doubled = code[-1::-2], code[-2::-2].translate(_DOUBLED)
    return (sum(plain) + sum(doubled) - 48 * len(plain)) % 10 == 0  # 48: the code of 0


def is_iban(compact: str) -> bool:
    """Whether the check digits of an IBAN without spaces are right.

    Source:
        ISO 13616-1; ISO/IEC 7064, MOD 97-10.
    """
    turned = compact[4:] + compact[:4]
    return int("".join(str(int(char, 36)) for char in turned)) % 97 == 1


# Length by country: SWIFT, IBAN registry, https://www.swift.com/standards/data-standards/iban-international-bank-account-number
_IBAN_LENGTHS: Final[Mapping[str, int]] = MappingProxyType(
    {
        country: length
        for length, countries in {
            15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI",
            20: "AT BA EE KZ LT LU XK MN", 21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE ME RS VA",
            23: "AE IL IQ TL OM SO", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
            27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HU LB PL SV NI", 29: "BR EG PS QA UA",
            30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
        }.items()
        for country in countries.split()
    }
)  # fmt: skip


def _iban(text: str, start: int, end: int) -> int:
    length = _IBAN_LENGTHS.get(text[start : start + 2].upper())
    if length is None:
        return 0
    compact = _compact(text[start:end])
    if len(compact) < length:
        return 0
    last = _end_of(text, start, length)
    behind = text[last : last + 1]
    return last if not behind.isalnum() and is_iban(compact[:length]) else 0


def _compact(text: str) -> str:
    return text.replace(" ", "").replace("-", "")


def _end_of(text: str, start: int, count: int) -> int:
    """Where so many characters end that are neither spaces nor dashes."""
    for place in range(start, len(text)):
        if text[place] not in " -":
            count -= 1
            if not count:
                return place + 1
    return len(text)


# First digits and lengths: ISO/IEC 7812-1 and the networks' published ranges (https://en.wikipedia.org/wiki/Payment_card_number).
_CARDS: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[0689]\d{12}|35\d{14}|6\d{15,18}"
)

_CARD_LENGTHS: Final[Mapping[str, Sequence[int]]] = MappingProxyType(
    {"2": (16,), "3": (16, 15, 14), "4": (19, 16, 13), "5": (16,), "6": (19, 18, 17, 16)}
)
"""Those of the shapes above by first digit, the longest first."""


def _card(text: str, start: int, end: int) -> int:
    compact = _compact(text[start:end])
    for count in _CARD_LENGTHS[text[start]]:  # an expiry date may follow the number
        number = compact[:count]
        if len(number) == count and _CARDS.fullmatch(number) and is_luhn(number):
            last = _end_of(text, start, count)
            if not text[last : last + 1].isdigit():
                return last
    return 0


def _ip(text: str, start: int, end: int) -> int:
    candidate = text[start:end].rstrip(".")
    if not any(char.isalnum() for char in candidate):
        return 0
    try:
        ipaddress.ip_address(candidate)
    except ValueError:
        return 0
    return start + len(candidate)


def _ssn(text: str, start: int, end: int) -> int:
    """Areas 000, 666 and 900 to 999 are never given out (https://www.ssa.gov/employer/randomization.html)."""
    area, group, serial = text[start:end].split("-")
    return 0 if area in {"000", "666"} or area >= "900" or group == "00" or serial == "0000" else end


# Shapes begin with a character or a class alone: that is what ``re`` looks for fastest. What may not stand before
# comes second, as a look-behind over the first.
PII: Final[Mapping[str, tuple[Detector, ...]]] = MappingProxyType(
    {
        # RFC 5321, 4.5.3.1: 64 characters before the @, 254 together.
        "email": (
            Detector(
                "email",
                re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[A-Za-z0-9-]{1,40}\.){1,4}[A-Za-z]{2,24}"),
                253,
                needle="@",
                sign="@",
                before=64,
                tail=re.compile(r"[A-Za-z]*"),
                steps=256,
                is_word=True,
            ),
        ),
        # E.164: + and at most 15 digits; beside it the ten digits of the North American plan.
        "phone": (
            Detector(
                "phone", re.compile(r"\+[1-9](?:[ .()/-]{0,2}[0-9]){6,13}(?![0-9])"), 42, field="digits", sign="+"
            ),
            Detector(
                "phone",
                re.compile(r"0(?<![0-9.]0)0[1-9](?:[ .()/-]{0,2}[0-9]){6,13}(?![0-9])"),
                44,
                field="digits",
                sign="00",
            ),
            Detector(
                "phone", re.compile(r"\([0-9]{3}\) ?[0-9]{3}[-. ][0-9]{4}(?![0-9-])"), 15, field="digits", sign="("
            ),
            Detector(
                "phone",
                re.compile(r"[0-9](?<![0-9.-].)[0-9]{2}[-. ][0-9]{3}[-. ][0-9]{4}(?![0-9-])"),
                13,
                field="digits",
            ),
        ),
        "iban": (
            Detector(
                "iban",
                re.compile(r"[0-9](?<=[A-Za-z]{2}.)(?<![A-Za-z0-9]...)[0-9](?:[ -]?[A-Za-z0-9]){11,30}"),
                66,
                _iban,
                steps=256,
                lead=2,
                field="iban",
            ),
        ),
        "card": (
            Detector(
                "card", re.compile(r"[2-6](?<![0-9].)(?:[ -]?[0-9]){12,18}"), 38, _card, steps=256, field="digits"
            ),
        ),
        "ip": (
            Detector(
                "ip",
                re.compile(r"[0-9](?<![\w.].)[0-9]{0,2}(?:\.[0-9]{1,3}){3}(?!\.?[0-9])"),
                16,
                _ip,
                is_word=True,
                field="dotted",
            ),
            Detector(
                "ip",
                re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]{0,15}(?![\w:])"),
                52,
                _ip,
                needle=re.compile(r":[0-9A-Fa-f]{0,4}:"),
                sign=":",
                before=4,
                steps=256,
                is_word=True,
            ),
        ),
        "ssn": (
            Detector(
                "ssn",
                re.compile(r"[0-9](?<![0-9-].)[0-9]{2}-[0-9]{2}-[0-9]{4}(?![0-9-])"),
                12,
                _ssn,
                field="digits",
                sign="-",
            ),
        ),
    }
)
"""By kind."""

# --- secrets

_TOKEN: Final = re.compile(r"(?:[A-Za-z0-9+/_=-]|\.(?=[A-Za-z0-9_-]))*")
_SHORTEST: Final = 15  # characters of the shortest credential below

# Shapes as the vendors document them; collected at
# https://docs.github.com/en/code-security/secret-scanning/introduction/supported-secret-scanning-patterns
# and https://github.com/gitleaks/gitleaks/blob/master/config/gitleaks.toml (MIT). The end of a credential belongs to
# it however long it is, so that a stream need not wait for it.
_SHAPES: Final[tuple[tuple[str, str], ...]] = (
    ("api_key", r"sk-[A-Za-z0-9_-]{16}"),  # OpenAI, Anthropic, OpenRouter, virtual keys (sk-bf-…)
    ("api_key", r"gsk_[A-Za-z0-9]{20}"),  # Groq
    ("api_key", r"hf_[A-Za-z0-9]{20}"),
    ("api_key", r"AIza[A-Za-z0-9_-]{35}"),  # Google
    ("github_token", r"gh[pousr]_[A-Za-z0-9]{20}"),
    ("github_token", r"github_pat_[A-Za-z0-9_]{20}"),
    ("gitlab_token", r"glpat-[A-Za-z0-9_-]{20}"),
    ("aws_key", r"A[KS]IA[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("slack_token", r"xox[abeoprs]-[A-Za-z0-9-]{10}"),
    ("slack_token", r"xapp-[A-Za-z0-9-]{10}"),
    ("stripe_key", r"[rs]k_live_[A-Za-z0-9]{10}"),
    ("sendgrid_key", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16}"),
    ("npm_token", r"npm_[A-Za-z0-9]{36}"),
    ("pypi_token", r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{16}"),
    ("jwt", r"eyJ[A-Za-z0-9_-]{8,160}\.eyJ[A-Za-z0-9_-]{4}"),  # RFC 7519: {" in base64url
)
_BEGINNINGS: Final = (
    *(
        "sk-",
        "gsk_",
        "hf_",
        "AIza",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
        "glpat-",
        "AKIA",
        "ASIA",
        "xox",
        "xapp-",
        "k_live_",
        "SG.",
        "npm_",
        "pypi-",
    ),
    "eyJ",
)
"""One of these stands in every shape above."""

_PRIVATE_KEY: Final = Detector(
    "private_key",  # RFC 7468
    re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"),
    70,
    needle="-----BEGIN ",
    sign="-----BEGIN ",
    tail=re.compile(r"[A-Za-z0-9+/=\s]*"),
)
_PASSWORD: Final = Detector(
    "password_in_url",  # RFC 3986, 3.2.1
    re.compile(r"://[^\s/:@\"'<>]{1,64}:[^\s/@\"'<>]{3,128}@"),
    198,
    needle="://",
    sign="://",
    is_word=True,
)

_HEX: Final = frozenset("0123456789abcdefABCDEF-")


def _bits(token: str) -> float:
    """Bits per character (C. E. Shannon, "A Mathematical Theory of Communication", BSTJ 27, 1948)."""
    size = len(token)
    return -sum(count / size * math.log2(count / size) for count in Counter(token).values())


def secret_detectors(bits: float | None) -> tuple[Matcher, ...]:
    """What finds credentials.

    Args:
        bits: Shannon entropy per character from which on a string of 32 characters and more is one, over its first
            64 characters; None: none is. Hexadecimal ones are left alone: nearly all are hashes and UUIDs.
    """
    return _TokenMatcher(bits), _PRIVATE_KEY, _PASSWORD


class _TokenMatcher:
    """Finds credentials that are one word. Looks only where words are long: prose has few of them."""

    def __init__(self, bits: float | None) -> None:
        names = [f"(?P<n{number}>{shape})" for number, (_, shape) in enumerate(_SHAPES)]
        self._shapes = re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(names)})")
        self._drawn = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{32,64}")
        self._bits = bits
        self.view: View = "cased"
        self.reach: int | None = 172
        self.tail: re.Pattern[str] | None = _TOKEN
        self.steps = 64
        self.is_word = True
        self.field: Field | None = None
        self.sign = ""

    def may_match(self, signs: Signs) -> bool:
        """Whether there is a word as long as the shortest credential, and how one begins or one drawn by lot."""
        cased = signs.cased
        if "eyJ" in cased:  # the first part of a JWT may be shorter
            return True
        if not signs.has_word(15):
            return False
        return signs.has_word(32) or any(begin in cased for begin in _BEGINNINGS)

    def find(self, text: str, start: int, until: int) -> Iterator[Found]:
        """The matches that begin in ``[start, until)``."""
        end = min(len(text), until + 172)
        place = max(0, start - 172)
        while place < end:
            space = text.rfind(" ", place, place + _SHORTEST)
            if space >= 0:  # all words up to there are short
                place = space + 1
                continue
            behind = text.find(" ", place, end)
            behind = end if behind < 0 else behind
            if behind - place >= _SHORTEST and behind > start:
                yield from self._in_word(text, max(start, place), min(until, behind), behind)
            place = behind + 1

    def _in_word(self, text: str, start: int, until: int, end: int) -> Iterator[Found]:
        found: list[Found] = []
        place = start
        while (match := self._shapes.search(text, place, end)) is not None and match.start() < until:
            number = int((match.lastgroup or "n0")[1:])
            place = match.start() + 1  # another may begin inside
            found.append(Found(match.start(), match.end(), _SHAPES[number][0], place))
        place = start
        while self._bits is not None and (match := self._drawn.search(text, place, end)) and match.start() < until:
            place = match.start() + 1
            if self._is_drawn(match[0]):
                found.append(Found(match.start(), match.end(), "high_entropy", place))
        yield from sorted(found, key=lambda each: each.start)

    def _is_drawn(self, token: str) -> bool:
        if self._bits is None or _HEX.issuperset(token):
            return False
        kinds = any(map(str.isdigit, token)) + any(map(str.islower, token)) + any(map(str.isupper, token))
        return kinds == 3 and _bits(token) >= self._bits
