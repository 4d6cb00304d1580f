"""The rules that a ``GuardrailPlugin`` is made of: what to look for, where, and what to do about it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, Protocol

import attrs

from bifrost_core import Call, ConfigError, Operation

from .detectors import PII, secret_detectors
from .matchers import CallableMatcher, LiteralMatcher, Matcher, RegexMatcher
from .patterns import check
from .schema import Schema
from .shadow import FOLDED, Shadow

__all__ = [
    "Custom",
    "JsonSchema",
    "Judged",
    "Length",
    "Literals",
    "Pii",
    "Regex",
    "Rule",
    "Secrets",
    "Topics",
    "WholeRule",
]

Side = Literal["input", "output", "both"]
Action = Literal["block", "redact", "flag"]
Judged = bool | list[list[tuple[int, int]]]
Answer = bool | None | Iterable[tuple[int, int]]

_SIDES: Final = ("input", "output", "both")
_ACTIONS: Final = ("block", "redact", "flag")


def _one_of(known: tuple[str, ...]) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    def validate(rule: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value not in known:
            told = " or ".join(map(repr, known))
            raise ConfigError(f"{type(rule).__name__}: {attribute.name}={value!r}; say {told}", field=attribute.name)

    return validate


def _names(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


@attrs.frozen(kw_only=True, eq=False)
class Rule:
    """What all rules have.

    Attributes:
        side: What is looked at: the ``"input"`` (the request), the ``"output"`` (the answer) or ``"both"``.
        action: ``"block"`` refuses the call, ``"redact"`` takes the stretch out, ``"flag"`` only says so.
        name: What errors, verdicts and logs call the rule.
    """

    default_name: ClassVar[str] = "rule"

    side: Side = attrs.field(default="both", validator=_one_of(_SIDES))
    action: Action = attrs.field(default="block", validator=_one_of(_ACTIONS))
    name: str = attrs.field(default="", converter=str)

    def __attrs_post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.default_name)

    def applies(self, side: str) -> bool:
        """Whether it looks at ``"input"`` or ``"output"``."""
        return self.side in {side, "both"}

    def matchers(self) -> Sequence[Matcher]:
        """What finds its stretches; none for rules that judge the whole."""
        return ()

    @property
    def needs_whole(self) -> bool:
        """Whether an answer can only be judged when all of it is there."""
        return any(matcher.reach is None for matcher in self.matchers())


@attrs.frozen(kw_only=True, eq=False)
class _Redacting(Rule):
    """A rule that may take stretches out so that they come back.

    Attributes:
        reversible: Of ``action="redact"`` on the input: what was taken out of the request is put back where the
            answer names it. The provider sees a placeholder, the caller the real thing.
    """

    reversible: bool = False

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.reversible and (self.action != "redact" or self.side == "output"):
            raise ConfigError(
                f'{self.name}: only what is redacted from the input can come back; say action="redact" and '
                'side="input" or "both", or leave reversible out',
                field="reversible",
            )


@attrs.frozen(kw_only=True, eq=False)
class Literals(_Redacting):
    """Words and phrases, in upper and lower case and in disguise.

    Attributes:
        words: The literals.
        whole_words: Whether a letter or digit right before or behind makes it another word.

    Raises:
        ConfigError: There is no word, or one of nothing that can be seen.
    """

    default_name: ClassVar[str] = "literals"

    words: tuple[str, ...] = attrs.field(converter=_names, kw_only=False, repr=False)
    whole_words: bool = False
    _matchers: tuple[Matcher, ...] = attrs.field(init=False, repr=False, default=())

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        shadows = [Shadow(word, FOLDED).text for word in self.words]
        if not shadows or not all(word.strip() for word in shadows):
            raise ConfigError(f"{self.name}: pass at least one word, and no empty one", field="words")
        if max(map(len, shadows)) > 1024:
            raise ConfigError(f"{self.name}: a literal has at most 1,024 characters", field="words")
        matcher = LiteralMatcher(shadows, "redacted", whole_words=self.whole_words)
        object.__setattr__(self, "_matchers", (matcher,))

    def matchers(self) -> Sequence[Matcher]:
        """One for all words."""
        return self._matchers


@attrs.frozen(kw_only=True, eq=False)
class Regex(_Redacting):
    """A regular expression of the checked subset, matched on the text as it is and on its shadow.

    Attributes:
        pattern: In the language of ``re``. A repeat without a bound may only be its last part; then streamed
            answers are judged whole.
        case_sensitive: Whether upper and lower case differ.
        label: What stands in the place of what is taken out.

    Raises:
        ConfigError: The pattern is none, or not safe.
    """

    default_name: ClassVar[str] = "regex"

    pattern: str = attrs.field(kw_only=False)
    case_sensitive: bool = False
    label: str = "redacted"
    _matchers: tuple[Matcher, ...] = attrs.field(init=False, repr=False, default=())

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        checked = check(self.pattern, 0 if self.case_sensitive else re.IGNORECASE)
        made = (RegexMatcher(checked, self.label, "cased"), RegexMatcher(checked, self.label, "plain"))
        object.__setattr__(self, "_matchers", made)

    def matchers(self) -> Sequence[Matcher]:
        """One for the text and one for its shadow."""
        return self._matchers


def _kinds(values: str | Iterable[str]) -> tuple[str, ...]:
    kinds = _names(values)
    unknown = [kind for kind in kinds if kind not in PII]
    if unknown or not kinds:
        named = repr(unknown[0]) if unknown else "nothing"
        raise ConfigError(f"Pii: {named} is no kind of data; known are {', '.join(PII)}", field="kinds")
    return kinds


@attrs.frozen(kw_only=True, eq=False)
class Pii(_Redacting):
    """Personal data: ``email``, ``phone``, ``iban``, ``card``, ``ip``, ``ssn``; with checksums where they have one.

    Attributes:
        kinds: Which.
    """

    default_name: ClassVar[str] = "pii"

    kinds: tuple[str, ...] = attrs.field(default=tuple(PII), converter=_kinds, kw_only=False)

    def matchers(self) -> Sequence[Matcher]:
        """Those of the kinds."""
        return [detector for kind in self.kinds for detector in PII[kind]]


@attrs.frozen(kw_only=True, eq=False)
class Secrets(_Redacting):
    """Credentials: the shapes of vendors' keys, private keys, tokens, and strings that look drawn by lot.

    Attributes:
        entropy: Bits per character from which on a string of 32 characters or more is one; None: shapes alone.
    """

    default_name: ClassVar[str] = "secrets"

    entropy: float | None = 4.2
    _matchers: tuple[Matcher, ...] = attrs.field(init=False, repr=False, default=())

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        object.__setattr__(self, "_matchers", secret_detectors(self.entropy))

    def matchers(self) -> Sequence[Matcher]:
        """One per shape."""
        return self._matchers


class WholeRule(Protocol):
    """A rule that judges all the texts of one side."""

    def judge(self, texts: Sequence[str], call: Call, mark: str) -> Judged | Awaitable[Judged]:
        """Whether they are to be refused: yes or no, or which stretches of each."""
        ...


def _checking(rule: Rule) -> None:
    if rule.action == "redact":
        raise ConfigError(f'{rule.name}: it finds no stretch to take out; say action="block" or "flag"', field="action")


@attrs.frozen(kw_only=True, eq=False)
class Length(Rule):
    """Bounds on the characters of a request's or an answer's texts together.

    A streamed answer is let through up to ``max_characters`` and blocked there; with ``min_characters`` it
    is judged whole.

    Attributes:
        max_characters: Most characters.
        min_characters: Fewest.
    """

    default_name: ClassVar[str] = "length"

    max_characters: int | None = None
    min_characters: int | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _checking(self)
        if self.max_characters is None and self.min_characters is None:
            raise ConfigError(f"{self.name}: pass max_characters=… or min_characters=…", field="max_characters")

    @property
    def needs_whole(self) -> bool:
        """Only a whole answer can be too short."""
        return self.min_characters is not None

    def judge(self, texts: Sequence[str], call: Call, mark: str) -> bool:  # noqa: ARG002
        """Whether the texts are too long or too short."""
        return self.is_off(sum(map(len, texts)))

    def is_off(self, characters: int) -> bool:
        """Whether so many characters are too many or too few."""
        too_many = self.max_characters is not None and characters > self.max_characters
        return too_many or (self.min_characters is not None and characters < self.min_characters)


@attrs.frozen(kw_only=True, eq=False)
class JsonSchema(Rule):
    """Each text has to be JSON of a schema. Answers that only call tools have no text and pass.

    Attributes:
        schema: JSON Schema (2020-12) without remote references; a keyword that is not supported is refused.
    """

    default_name: ClassVar[str] = "json_schema"

    schema: Mapping[str, Any] = attrs.field(kw_only=False, repr=False)
    side: Side = attrs.field(default="output", validator=_one_of(_SIDES))
    _read: Schema = attrs.field(
        init=False, repr=False, default=attrs.Factory(lambda self: Schema(self.schema), takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _checking(self)

    @property
    def needs_whole(self) -> bool:
        """Half a document fits no schema."""
        return True

    def judge(self, texts: Sequence[str], call: Call, mark: str) -> bool:  # noqa: ARG002
        """Whether a text does not fit."""
        return not all(self._read.fits(text) for text in texts if text)


@attrs.frozen(kw_only=True, eq=False)
class Topics(Rule):
    """Topics that a provider's moderation model finds. The question is a call of its own through the Router.

    It carries the caller's virtual key, so it is authorised and paid for as the call is; guardrails
    leave it alone. What redacting rules took out is not in it.

    Attributes:
        model: The moderation model.
        categories: Those that count; None: all.
        threshold: Score from 0 to 1 from which on one counts; None: as the provider decides.
    """

    default_name: ClassVar[str] = "topics"

    model: str = attrs.field(default="mistral/mistral-moderation-latest", kw_only=False)
    categories: tuple[str, ...] | None = attrs.field(default=None, converter=attrs.converters.optional(_names))
    threshold: float | None = None

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        _checking(self)
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ConfigError(f"{self.name}: threshold={self.threshold}; it is from 0 to 1", field="threshold")

    @property
    def needs_whole(self) -> bool:
        """A model judges whole texts."""
        return True

    async def judge(self, texts: Sequence[str], call: Call, mark: str) -> bool:
        """Whether one of the categories applies to one of the texts.

        Raises:
            RuntimeError: The model could not be asked.
        """
        asked = [text for text in texts if text.strip()]
        if not asked or call.operation is Operation.MODERATION:  # two plugins must not ask about each other's question
            return False
        router: Any = call.router
        problem = ""
        answer: Any = None
        try:
            answer = await router.moderate(
                self.model, asked, virtual_key=call.virtual_key, metadata={**call.metadata, "guardrail": mark}
            )
        except Exception as exc:
            problem = f"{type(exc).__name__}: {exc}"
        if answer is None:  # a failure of ours and not a verdict: it must not look like the caller's own error
            raise RuntimeError(f"the moderation model {self.model} could not be asked ({problem})")
        for result in answer.results:
            names = result.scores if self.categories is None else self.categories
            for name in names:
                score = result.scores.get(name, 0.0)
                if result.categories.get(name, False) if self.threshold is None else score >= self.threshold:
                    return True
        return False


@attrs.frozen(kw_only=True, eq=False)
class Custom(Rule):
    """A function of yours.

    Attributes:
        function: Takes a text, or a text and the ``Call``; plain or async. Gives True for "the whole text",
            ``(start, end)`` pairs for stretches of it, and None, False or no pair for "nothing wrong".
        window: For streams: the function is plain, takes the text alone, gives pairs, and none of them is longer
            than so many characters or depends on more than 64 behind. None: streamed answers are judged whole.
    """

    default_name: ClassVar[str] = "custom"

    function: Callable[..., Answer | Awaitable[Answer]] = attrs.field(kw_only=False)
    window: int | None = None
    _with_call: bool = attrs.field(init=False, repr=False, default=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        try:
            inspect.signature(self.function).bind("", None)
            object.__setattr__(self, "_with_call", True)
        except TypeError:
            object.__setattr__(self, "_with_call", False)
        if self.window is not None and (self._with_call or inspect.iscoroutinefunction(self.function)):
            raise ConfigError(
                f"{self.name}: with window=… the function is plain and takes the text alone", field="window"
            )
        if self.window is not None and self.window < 1:
            raise ConfigError(f"{self.name}: window={self.window}; it is at least 1", field="window")

    def matchers(self) -> Sequence[Matcher]:
        """One, where it works on windows."""
        if self.window is None:
            return ()
        function: Any = self.function
        return (CallableMatcher(function, "redacted", self.window),)

    @property
    def needs_whole(self) -> bool:
        """Without a window."""
        return self.window is None

    async def judge(self, texts: Sequence[str], call: Call, mark: str) -> list[list[tuple[int, int]]]:  # noqa: ARG002
        """The stretches that it finds in each text."""
        found: list[list[tuple[int, int]]] = []
        for text in texts:
            result: Any = self.function(text, call) if self._with_call else self.function(text)
            if inspect.isawaitable(result):
                result = await result
            if result is None or isinstance(result, bool):
                found.append([(0, len(text))] if result else [])
            else:
                found.append([(int(start), int(end)) for start, end in result])
        return found
