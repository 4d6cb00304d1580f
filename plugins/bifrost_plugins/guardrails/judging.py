"""Judging texts that are all there: what is found in them, and what becomes of them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Generator, Iterator, Sequence
from typing import Any, Final, NoReturn, TypeVar
from urllib.parse import unquote

import attrs
from anyio.lowlevel import checkpoint

from bifrost_core import Call, GuardrailError

from .detectors import Detector
from .matchers import Matcher, View
from .rules import Judged, Length, Rule, WholeRule
from .shadow import CASED, FOLDED, OVERRIDE, Shadow, views
from .signs import Field, Signs
from .texts import Leaf
from .vault import Vault, irreversible
from .verdicts import State, Verdict

__all__ = ["Judge", "Span", "drive", "merged", "now", "precedence"]

_T = TypeVar("_T")
Steps = Generator[Awaitable[Any] | None, Any, _T]
"""Work in steps: yields None where others may run, and what has to be waited for."""

_WORK: Final = 500_000  # steps of matching between two looks at the event loop, about
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}|(?:%[0-9A-Fa-f]{2}|[A-Za-z0-9._~-]){4,}")
_DECODED: Final = 64 * 1024  # characters of encoded text that are decoded


@attrs.frozen
class Span:
    """A stretch of a text that a rule is about; ``order`` is the rule's place."""

    start: int
    end: int
    label: str
    order: int
    rule: Rule


def precedence(span: Span) -> tuple[int, int, str]:
    """Which of several spans at one place names what is taken out, whatever the order in which they were found."""
    return span.start, span.order, span.label


def merged(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Spans that overlap, together; the first one names them."""
    together: list[Span] = []
    end = -1
    for span in sorted(spans, key=precedence):
        if together and span.start >= end:
            yield together
            together = []
        together.append(span)
        end = span.end if len(together) == 1 else max(end, span.end)
    if together:
        yield together


@attrs.frozen(eq=False)
class _Plan:
    """One matcher, with what is asked of it at every text."""

    matcher: Matcher
    order: int
    rule: Rule
    view: View
    step: int
    tail: re.Pattern[str] | None
    field: Field | None


class Judge:
    """The rules of one side.

    Args:
        rules: All of the plugin's.
        side: ``"input"`` or ``"output"``.
        plugin: Its name.
        mark: What its own calls carry.
        decode: Whether to look into base64, hexadecimal and percent-encoded text, one level deep.
        on_verdict: Is told each verdict.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        side: str,
        *,
        plugin: str,
        mark: str,
        decode: bool,
        on_verdict: Callable[[Verdict, Call], None],
    ) -> None:
        self.side = side
        self.rules = [rule for rule in rules if rule.applies(side)]
        self.matchers: list[tuple[Matcher, int, Rule]] = [
            (matcher, order, rule) for order, rule in enumerate(self.rules) for matcher in rule.matchers()
        ]
        self._plans = [
            _Plan(matcher, order, rule, matcher.view, _step(matcher), matcher.tail, matcher.field)
            for matcher, order, rule in self.matchers
        ]
        self._looks = [
            (
                plan,
                plan.matcher.sign,
                plan.field,
                None if isinstance(plan.matcher, Detector) else plan.matcher.may_match,
            )
            for plan in self._plans
        ]
        self.wholes: list[Any] = [rule for rule in self.rules if not rule.matchers()]
        self.lengths = [rule for rule in self.wholes if isinstance(rule, Length)]
        self.needs_whole = decode or any(rule.needs_whole for rule in self.rules)
        self._plugin = plugin
        self._mark = mark
        self._decode = decode
        self._on_verdict = on_verdict

    # --- verdicts

    def say(self, rule: Rule, label: str, count: int, state: State, call: Call) -> None:
        """Note a verdict; of a rule that blocks it is the last.

        Raises:
            GuardrailError: The rule blocks.
        """
        verdict = Verdict(rule.name, self.side, rule.action, label, count, self._plugin)
        state.verdicts.append(verdict)
        self._on_verdict(verdict, call)
        if rule.action == "block":
            self.block(rule.name)

    def refuse(self, rule: str, label: str, state: State, call: Call) -> NoReturn:
        """Block for a reason that is no rule of the user's.

        Raises:
            GuardrailError: Always.
        """
        verdict = Verdict(rule, self.side, "block", label, 1, self._plugin)
        state.verdicts.append(verdict)
        self._on_verdict(verdict, call)
        self.block(rule, label)

    def block(self, rule: str, why: str = "") -> NoReturn:
        """Refuse.

        Raises:
            GuardrailError: Always; says which rule, never what matched.
        """
        what = "request" if self.side == "input" else "answer"
        more = f" ({why})" if why else ""
        raise GuardrailError(
            f"the {what} was blocked by the guardrail {rule!r}{more}; change it or the rule", rule=rule, side=self.side
        )

    # --- texts

    def passes(self, texts: Sequence[tuple[str, Leaf]]) -> bool:
        """Whether a glance shows that no rule has anything to say about texts; most are like that.

        Args:
            texts: And where each stands.
        """
        if len(self.lengths) != len(self.wholes):
            return False
        characters, group, read = 0, -1, list[str]()
        for text, leaf in texts:
            if leaf.group < group:  # goes on with a text that others have come between
                return False
            if leaf.group != group:
                read.append(" ")
            read.append(text)
            group = leaf.group
            if leaf.kind != "copy":
                characters += len(text)
        for rule in self.lengths:
            if rule.is_off(characters):
                return False
        return not self.promising("".join(read))

    def texts(
        self, texts: Sequence[tuple[str, Leaf]], state: State, call: Call, *, wholes: bool = True
    ) -> Steps[list[str]]:
        """What becomes of texts: the same objects where nothing does.

        Args:
            texts: And where each stands.
            state: The call's.
            call: The call.
            wholes: Whether the rules that judge all texts together do so.

        Raises:
            GuardrailError: A rule blocks.
        """
        new = [text for text, _ in texts]
        edits: list[tuple[list[int], list[list[Span]]]] = []
        if self.matchers:
            groups = _groups(texts)
            read = new if len(groups) == len(new) else ["".join([new[number] for number in each]) for each in groups]
            if plans := self.promising(" ".join(read)):
                edits = yield from self._find(groups, read, plans, state, call)
        for members, stretches in edits:
            self._edit(new, members, stretches, state.vault)
        if wholes:
            yield from self._judge_wholes([leaf for _, leaf in texts], new, state, call)
        return new

    def _find(
        self, groups: Sequence[list[int]], read: Sequence[str], plans: Sequence[_Plan], state: State, call: Call
    ) -> Steps[list[tuple[list[int], list[list[Span]]]]]:
        """Say what is found in groups of texts, each as it is read; what is to be taken out of which."""
        found: dict[tuple[int, str], int] = {}
        edits: list[tuple[list[int], list[list[Span]]]] = []
        for members, whole in zip(groups, read, strict=True):
            spans = yield from self.scan(whole, plans)
            if self.side == "output" and state.vault:  # a cached answer may hold what this caller wrote
                spans = [span for span in spans if not _is_returned(span, whole, state.vault)]
            counts: dict[tuple[int, str], int] = {}
            for span in spans:
                counts[span.order, span.label] = counts.get((span.order, span.label), 0) + 1
            for key, count in counts.items():
                found[key] = found.get(key, 0) + count
            redacting = [span for span in spans if span.rule.action == "redact"]
            if redacting:
                edits.append((members, list(merged(redacting))))
        # What blocks goes first: the rest is then of no interest.
        for (order, label), count in sorted(found.items(), key=lambda each: self.rules[each[0][0]].action != "block"):
            self.say(self.rules[order], label, count, state, call)
        return edits

    def promising(self, text: str) -> Sequence[_Plan]:
        """The matchers that may find something in a text, or in one of several with spaces between them."""
        if self._decode or OVERRIDE in text:
            return self._plans
        signs = Signs(text)
        cased = signs.cased
        has_twin = cased == text  # then who looks at the text itself sees what another sees already
        fields: frozenset[Field] | None = None
        found: list[_Plan] = []
        for plan, sign, field, may_match in self._looks:
            if sign and sign not in cased:
                continue
            if field is not None:
                fields = signs.fields if fields is None else fields
                if field not in fields:
                    continue
            if has_twin and plan.view == "plain":
                continue
            if may_match is None or may_match(signs):
                found.append(plan)
        return found

    def _edit(self, new: list[str], members: list[int], stretches: list[list[Span]], vault: Vault) -> None:
        """Take stretches out of texts that are read as one."""
        whole = "".join(new[number] for number in members)
        bounds: list[tuple[int, int]] = []
        place = 0
        for number in members:
            bounds.append((place, place + len(new[number])))
            place += len(new[number])
        changed = [""] * len(members)
        last = [low for low, _ in bounds]
        for together in stretches:
            start, end = together[0].start, max(span.end for span in together)
            label = together[0].label
            if self.side == "input" and all(getattr(span.rule, "reversible", False) for span in together):
                instead = vault.placeholder(label, whole[start:end])
            else:
                instead = irreversible(label)
            for number, (low, high) in enumerate(bounds):
                if start < high and end > low:
                    changed[number] += whole[last[number] : max(start, low)]
                    changed[number] += instead if start >= low else ""
                    last[number] = min(end, high)
        for number, member in enumerate(members):
            low, high = bounds[number]
            if last[number] != low or changed[number]:
                new[member] = changed[number] + whole[last[number] : high]

    def _judge_wholes(self, leaves: Sequence[Leaf], new: list[str], state: State, call: Call) -> Steps[None]:
        for rule in self.wholes:
            kinds = (
                {"text"}
                if rule.needs_whole and rule.default_name == "json_schema"
                else {"text", "reasoning", "argument", "other"}
            )
            members = [number for number, leaf in enumerate(leaves) if leaf.kind in kinds]
            judge: WholeRule = rule
            answer = judge.judge([new[number] for number in members], call, self._mark)
            verdict: Judged = answer if isinstance(answer, (bool, list)) else (yield answer)
            if isinstance(verdict, bool):
                if verdict:
                    self.say(rule, rule.default_name, 1, state, call)
                continue
            found = sum(len(pairs) for pairs in verdict)
            if not found:
                continue
            self.say(rule, "redacted", found, state, call)
            if rule.action == "redact":
                for number, pairs in zip(members, verdict, strict=True):
                    spans = [Span(start, end, "redacted", 0, rule) for start, end in pairs if start < end]
                    if spans:
                        self._edit(new, [number], list(merged(spans)), state.vault)

    # --- one text

    def scan(self, text: str, plans: Sequence[_Plan] | None = None) -> Steps[list[Span]]:
        """Everything that the matchers find in a text, in no order; all of them, or those of ``plans``."""
        plans = self._plans if plans is None else plans
        spans: list[Span] = yield from self._scan(text, plans)
        if self._decode:
            for start, end, plain in _decoded(text):
                inner: list[Span] = yield from self._scan(plain, plans)
                spans += [Span(start, end, span.label, span.order, span.rule) for span in inner]
        return spans

    def _scan(self, text: str, plans: Sequence[_Plan]) -> Steps[list[Span]]:
        spans: list[Span] = []
        cased: list[tuple[Shadow, Signs]] = []
        folded: list[Shadow] = []
        work = 0
        for plan in plans:
            subjects: list[tuple[Shadow | None, Signs | None]]
            if plan.view == "folded":
                folded = folded or list(views(text, FOLDED))
                subjects = [(shadow, None) for shadow in folded]
            else:
                cased = cased or [(shadow, Signs(text, shadow.text)) for shadow in views(text, CASED)]
                subjects = [*cased] if plan.view == "cased" else [(None, None)]
                if plan.view == "plain" and cased[0][0].text == text:  # the matcher's twin has seen it
                    subjects = []
            for shadow, signs in subjects:
                subject = text if shadow is None else shadow.text
                covered = resume = 0
                windows = ((0, len(subject)),) if plan.field is None or signs is None else signs.windows(plan.field)
                for low, high in windows:
                    place = max(low, resume)
                    stride = plan.step or high - low
                    while place < high:
                        until = min(high, place + stride)
                        work += (until - place) * plan.matcher.steps
                        for found in plan.matcher.find(subject, place, until):
                            place = resume = found.resume
                            end = found.end
                            if plan.tail is not None:
                                if end <= covered:  # a part of the one before
                                    continue
                                more = plan.tail.match(subject, end)
                                covered = end = end if more is None else more.end()
                            start, end = (found.start, end) if shadow is None else shadow.span(found.start, end)
                            spans.append(Span(start, end, found.label, plan.order, plan.rule))
                            if plan.rule.action == "block":
                                return spans
                        place = max(place, until)
                        if work > _WORK and place < windows[-1][1]:
                            work = 0
                            yield None
        return list(dict.fromkeys(spans))


def _is_returned(span: Span, text: str, vault: Vault) -> bool:
    return bool(getattr(span.rule, "reversible", False)) and text[span.start : span.end] in vault


def _step(matcher: Matcher) -> int:
    """Characters that are looked at in one go; 0: all."""
    return 0 if matcher.reach is None else max(1024, _WORK // matcher.steps)


def _groups(texts: Sequence[tuple[str, Leaf]]) -> list[list[int]]:
    """The places of texts that are read as one, in the order in which they begin."""
    groups: dict[int, list[int]] = {}
    for number, (_, leaf) in enumerate(texts):
        members = groups.get(leaf.group)
        if members is None:
            groups[leaf.group] = [number]
        else:
            members.append(number)
    return list(groups.values())


def _decoded(text: str) -> Iterator[tuple[int, int, str]]:
    """Encoded stretches of a text, with what they say."""
    left = _DECODED
    for match in _ENCODED.finditer(text):
        run = match[0]
        left -= len(run)
        if left < 0:
            return
        for plain in (_of_percent(run), _of_hex(run), _of_base64(run)):
            if plain and plain != run:
                yield match.start(), match.end(), plain


def _of_percent(run: str) -> str:
    return unquote(run, errors="replace") if "%" in run else ""


def _of_hex(run: str) -> str:
    try:
        return bytes.fromhex(run).decode()
    except ValueError:
        return ""


def _of_base64(run: str) -> str:
    try:
        plain = run.rstrip("=").translate({ord("-"): "+", ord("_"): "/"})
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""


def now(steps: Steps[_T]) -> _T:
    """The result of steps none of which waits."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: _T = stop.value
            return result


def drive(steps: Steps[_T]) -> _T | Awaitable[_T]:
    """The result of steps: at once when nothing is to be waited for and the work is small."""
    try:
        step = next(steps)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    return _rest(steps, step)


async def _rest(steps: Steps[_T], step: Awaitable[Any] | None) -> _T:
    try:
        while True:
            if step is None:
                await checkpoint()
                step = next(steps)
            else:
                step = steps.send(await step)
    except StopIteration as stop:
        result: _T = stop.value
        return result
