"""Guarding an answer while it arrives: what may still be part of something forbidden is held back.

A text is held back by as many visible characters as its matchers' reach. Wherever the stream is cut, what
comes out is what judging the whole text would have made of it.
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (events are JSON: their members are untyped until this module has read them)
from collections.abc import Callable, Mapping
from typing import Any, Final
from zlib import crc32

import attrs

from bifrost_core import Call, Chunk, ToolCall
from bifrost_core.blocks import is_event

from .judging import Judge, Span, now, precedence
from .matchers import Matcher
from .rules import Rule
from .shadow import CASED, FOLDED, OVERRIDE, ShadowTable
from .texts import Leaf, UnknownPartError, Walker
from .vault import Restorer, irreversible
from .verdicts import State

__all__ = ["GuardedStream", "Scanner"]

JsonObject = dict[str, Any]

_CONTEXT: Final = 80  # characters before a place that a look-behind may see
_HELD: Final = 64 * 1024  # characters of which hardly any can be seen, at most


@attrs.define
class _Sight:
    """The end of a text as matchers of one view see it, and which character of the text each one is."""

    table: ShadowTable | None
    text: str = ""
    origins: list[int] = attrs.field(factory=list[int])

    def take(self, text: str, offset: int) -> None:
        table = self.table
        if table is None:
            self.text += text
            self.origins.extend(range(offset, offset + len(text)))
            return
        seen: list[str] = []
        is_space = self.text.endswith(" ")
        for place, char in enumerate(text, offset):
            for shadow in table[ord(char)]:
                if shadow == " ":
                    if is_space:
                        continue
                    is_space = True
                else:
                    is_space = False
                seen.append(shadow)
                self.origins.append(place)
        self.text += "".join(seen)


@attrs.define
class _Eye:
    """One matcher and how far it has looked."""

    matcher: Matcher
    order: int
    rule: Rule
    sight: _Sight
    place: int = 0
    tail: Span | None = None  # goes on as long as its tail does
    tail_place: int = 0


class Scanner:
    """Takes a text in pieces and gives it back without what is to be redacted.

    Args:
        judge: The rules; none that needs the whole.
        state: Where verdicts go.
        call: The call.
    """

    def __init__(self, judge: Judge, state: State, call: Call) -> None:
        self._judge = judge
        self._state = state
        self._call = call
        sights: dict[str, _Sight] = {}
        tables: Mapping[str, ShadowTable | None] = {"cased": CASED, "folded": FOLDED, "plain": None, "text": None}
        for matcher, _, _ in judge.matchers:
            sights.setdefault(matcher.view, _Sight(tables[matcher.view]))
        self._sights = list(sights.values())
        self._eyes = [_Eye(matcher, order, rule, sights[matcher.view]) for matcher, order, rule in judge.matchers]
        self._context = max([_CONTEXT, *(eye.matcher.reach or 0 for eye in self._eyes)])
        self._text = ""  # what is kept, and where in the whole text it begins
        self._base = 0
        self._done = 0  # up to where it has been given back or swallowed
        self._covered = -1  # the end of the last stretch that was redacted
        self._spans: list[Span] = []
        self._said: set[Span] = set()
        self._turns = False  # an override was met: the rest is judged when all of it is there

    @property
    def held(self) -> int:
        """Characters that are held back."""
        return self._base + len(self._text) - self._done

    def feed(self, text: str, *, is_last: bool = False) -> str:
        """Take a piece; return what can be delivered.

        Raises:
            GuardrailError: A rule blocks.
        """
        offset = self._base + len(self._text)
        self._text += text
        self._turns = self._turns or OVERRIDE in text
        if not self._turns:
            for sight in self._sights:
                sight.take(text, offset)
            for eye in self._eyes:
                self._look(eye, is_last=is_last)
        elif is_last:
            self._look_at_all()
        settled = self._settled(is_last=is_last)
        out = self._give(settled)
        if self.held > _HELD + self._context:
            self._judge.refuse("shadow", "too much that can not be seen", self._state, self._call)
        self._trim()
        return out

    def _look(self, eye: _Eye, *, is_last: bool) -> None:
        matcher, sight = eye.matcher, eye.sight
        size = len(sight.text)
        if eye.tail is not None:
            self._follow(eye, is_last=is_last)
        until = size if is_last else size - (matcher.reach or 0)
        if matcher.is_word and not is_last:
            until = max(until, sight.text.rfind(" ", max(eye.place, 0)))
        if until <= eye.place:
            return
        for found in matcher.find(sight.text, eye.place, until):
            eye.place = found.resume
            if matcher.tail is not None and found.end <= eye.tail_place:  # a part of the one before
                continue
            span = Span(sight.origins[found.start], self._end(sight, found.end), found.label, eye.order, eye.rule)
            self._note(span)
            if matcher.tail is not None:
                eye.tail, eye.tail_place = span, found.end
                self._follow(eye, is_last=is_last)
        eye.place = max(eye.place, until)

    def _follow(self, eye: _Eye, *, is_last: bool) -> None:
        """Let a stretch go on with what belongs to it."""
        tail, span = eye.matcher.tail, eye.tail
        if tail is None or span is None:
            return
        more = tail.match(eye.sight.text, eye.tail_place)
        place = eye.tail_place if more is None else more.end()
        if place > eye.tail_place:
            longer = attrs.evolve(span, end=self._end(eye.sight, place))
            self._spans.append(longer)
            eye.tail, eye.tail_place = longer, place
        if place < len(eye.sight.text) or is_last:
            eye.tail = None

    def _end(self, sight: _Sight, end: int) -> int:
        """Where in the text a stretch of a sight ends, with the invisible marks on its last letter."""
        last = sight.origins[end - 1] + 1
        table = sight.table
        while (
            table is not None and last - self._base < len(self._text) and not table[ord(self._text[last - self._base])]
        ):
            last += 1
        return last

    def _note(self, span: Span) -> None:
        if span in self._said:
            return
        self._said.add(span)
        self._judge.say(span.rule, span.label, 1, self._state, self._call)
        if span.rule.action == "redact":
            self._spans.append(span)

    def _look_at_all(self) -> None:
        """What is left is judged as a text of its own, as it is written and as it is shown."""
        for span in now(self._judge.scan(self._text)):
            placed = attrs.evolve(span, start=span.start + self._base, end=span.end + self._base)
            if placed.end > self._done:
                self._note(placed)

    def _settled(self, *, is_last: bool) -> int:
        """Up to where nothing that is still to come can change what is delivered."""
        end = self._base + len(self._text)
        if is_last:
            return end
        if self._turns:
            return self._done
        for eye in self._eyes:
            place = min(eye.place, len(eye.sight.text))
            if place < len(eye.sight.text):
                end = min(end, eye.sight.origins[place])
            elif eye.matcher.reach is None:
                end = min(end, self._done)
            if eye.tail is not None:  # may go on
                end = min(end, max(eye.tail.end, self._done))
        return max(end, self._done)

    def _give(self, settled: int) -> str:
        out: list[str] = []
        cursor = self._done
        left: list[Span] = []
        for span in sorted(self._spans, key=precedence):
            if span.end > settled:
                left.append(span)
            if span.start >= settled or (span.end <= cursor and span.start < self._covered):
                continue
            if span.start > cursor:
                out.append(self._text[cursor - self._base : span.start - self._base])
                cursor = span.start
            if span.start >= self._covered:
                out.append(irreversible(span.label))
            self._covered = max(self._covered, span.end)
            cursor = max(cursor, min(span.end, settled))
        if cursor < settled:
            out.append(self._text[cursor - self._base : settled - self._base])
        self._spans = left
        self._done = settled
        return "".join(out)

    def _trim(self) -> None:
        """Forget what nothing can look back to."""
        drop = self._done - self._context - self._base
        if drop > self._context:
            self._text = self._text[drop:]
            self._base += drop
        for sight in self._sights:
            eyes = [eye for eye in self._eyes if eye.sight is sight]
            low = min(min(eye.place, eye.tail_place if eye.tail is not None else eye.place) for eye in eyes)
            cut = min(low, len(sight.text)) - self._context
            if cut <= self._context:
                continue
            sight.text = sight.text[cut:]
            del sight.origins[:cut]
            for eye in eyes:
                eye.place -= cut
                eye.tail_place -= cut


@attrs.define
class _Voice:
    """One text of a stream: a choice's words or its thoughts."""

    scanner: Scanner | None
    restorer: Restorer | None
    heard: int = 0  # checksums of what went in and what came out
    told: int = 0

    def feed(self, text: str, *, is_last: bool = False) -> str:
        self.heard = crc32(text.encode("utf-8", "surrogatepass"), self.heard)
        if self.scanner is not None:
            text = self.scanner.feed(text, is_last=is_last)
        if self.restorer is not None:
            text = self.restorer.feed(text, is_last=is_last)
        self.told = crc32(text.encode("utf-8", "surrogatepass"), self.told)
        return text


class GuardedStream:
    """The stream filter of one call.

    Args:
        judge: The rules for answers; None: what was taken out of the request is put back, and no more.
        state: The call's.
        call: The call.
        unknown: What is done about parts of unknown type.
    """

    def __init__(self, judge: Judge | None, state: State, call: Call, unknown: Any) -> None:
        self._judge = judge
        self._state = state
        self._call = call
        self._unknown = unknown
        self._voices: dict[tuple[int, str], _Voice] = {}
        self._last: dict[int, Chunk] = {}  # by choice, until it has ended
        self._thought: dict[int, Chunk] = {}  # the last piece of a thought
        self._calls: dict[int, int] = {}
        self._length = 0

    def feed(self, chunk: Chunk) -> list[Chunk]:
        """Take a chunk; return what may be delivered.

        Raises:
            GuardrailError: A rule blocks; nothing more is delivered.
        """
        self._count(chunk)
        if _seals(chunk.raw):
            return self._sealed(chunk)
        is_last = chunk.finish_reason is not None
        text = self._said(chunk.index, "text", chunk.text, is_last=is_last)
        reasoning = self._said(chunk.index, "reasoning", chunk.reasoning or "", is_last=is_last) or None
        calls = tuple(self._called(each) for each in chunk.tool_calls)
        beside = self._beside(chunk.raw)
        if is_last:
            self._last.pop(chunk.index, None)
        elif chunk.has_content:
            self._last[chunk.index] = chunk
            if chunk.reasoning:
                self._thought[chunk.index] = chunk
        same = text == chunk.text and (reasoning or "") == (chunk.reasoning or "") and calls == chunk.tool_calls
        if same and beside:
            self._calls[chunk.index] = self._calls.get(chunk.index, 0) + len(calls)
            return [chunk]
        told = self._told(chunk, text, reasoning, calls)
        is_empty = not (told.has_content or is_last or told.usage is not None)
        return [] if is_empty else [told]

    def _sealed(self, chunk: Chunk) -> list[Chunk]:
        """A thought is over and its provider seals it: what is held of it goes first, and the seal of a changed one not.

        Source:
            https://platform.claude.com/docs/en/build-with-claude/extended-thinking (a thought goes back unchanged, or
            is refused)
        """
        rest = self._said(chunk.index, "reasoning", "", is_last=True)
        voice = self._voices.pop((chunk.index, "reasoning"), None)
        last = self._thought.pop(chunk.index, None)
        out = [] if voice is not None and voice.heard != voice.told else [chunk]
        if rest and last is not None:
            out.insert(0, self._told(attrs.evolve(last, tool_calls=(), usage=None), "", rest, ()))
        return out

    def finish(self) -> list[Chunk]:
        """What is still held back of choices that nobody ended.

        Raises:
            GuardrailError: A rule blocks.
        """
        rest: list[Chunk] = []
        for index, chunk in sorted(self._last.items()):
            text = self._said(index, "text", "", is_last=True)
            reasoning = self._said(index, "reasoning", "", is_last=True) or None
            if text or reasoning:
                bare = attrs.evolve(chunk, tool_calls=(), usage=None)
                rest.append(self._told(bare, text, reasoning, ()))
        self._last.clear()
        return rest

    def _count(self, chunk: Chunk) -> None:
        if self._judge is None or not self._judge.lengths:
            return
        self._length += len(chunk.text) + len(chunk.reasoning or "")
        self._length += sum(len(call.name) + len(call.arguments) for call in chunk.tool_calls)
        for rule in self._judge.lengths:
            before = any(verdict.rule == rule.name for verdict in self._state.verdicts)
            if not before and rule.is_off(self._length):
                self._judge.say(rule, rule.default_name, 1, self._state, self._call)

    def _said(self, index: int, kind: str, text: str, *, is_last: bool) -> str:
        voice = self._voices.get((index, kind))
        if voice is None:
            if not text:
                return ""
            scanner = Scanner(self._judge, self._state, self._call) if self._judge and self._judge.matchers else None
            voice = _Voice(scanner, Restorer(self._state.vault) if self._state.vault else None)
            self._voices[index, kind] = voice
        elif not text and not is_last:
            return ""
        return voice.feed(text, is_last=is_last)

    def _judged(self, walk: Callable[[Walker], Any]) -> Any:
        """What a walk makes of something: first every text is judged, then it is put in its place."""
        judge = self._judge
        if judge is None or not judge.matchers:
            return walk(Walker(lambda text, _leaf: text, unknown="skip"))
        shown: list[tuple[str, Leaf]] = []

        def show(text: str, leaf: Leaf) -> str:
            shown.append((text, leaf))
            return text

        same = walk(Walker(show, unknown=self._unknown))
        if not shown:
            return same
        rest = iter(now(judge.texts(shown, self._state, self._call, wholes=False)))
        return walk(Walker(lambda _text, _leaf: next(rest), unknown="skip"))

    def _called(self, call: ToolCall) -> ToolCall:
        """A tool call is judged whole."""
        told: ToolCall = self._judged(lambda walker: walker.call(call))
        vault = self._state.vault
        if not vault:
            return told
        return Walker(lambda text, _leaf: vault.restore(text), unknown="skip").call(told)

    def _beside(self, raw: JsonObject) -> bool:
        """Whether the event may go on as it is: pieces of calls may not, nor what is not known."""
        if is_event(raw):
            return self._beside_words(raw)
        for choice in raw.get("choices") or ():
            delta: Any = choice.get("delta") or choice.get("message")
            if not isinstance(delta, dict):
                continue
            others: JsonObject = {
                name: value
                for name, value in delta.items()
                if name not in {"content", "role", "reasoning_content", "reasoning", "tool_calls"}
            }
            content: Any = delta.get("content")
            if isinstance(content, list):
                others["content"] = [
                    part
                    for part in content
                    if isinstance(part, dict) and not (part.get("type") in {"text", "thinking"} and len(part) == 2)
                ]
            if delta.get("tool_calls"):
                return False
            if any(others.values()) and not self._may_pass(others):
                return False
        return True

    def _beside_words(self, event: JsonObject) -> bool:
        """The same of an event of Anthropic's, which brings one thing."""
        brought: Any = event.get("content_block") or event.get("delta")
        if event["type"] not in {"content_block_start", "content_block_delta"} or not isinstance(brought, dict):
            return True
        kind: Any = brought.get("type")
        if kind in {"tool_use", "input_json_delta"}:
            return False
        own = _OWN_WORDS.get(kind, ()) if isinstance(kind, str) else ()
        others: JsonObject = {name: value for name, value in brought.items() if name not in own and value}
        if event["type"] == "content_block_delta":
            others.pop("type", None)
        return not others or self._may_pass({"content": [others]} if "type" in others else others)

    def _may_pass(self, others: JsonObject) -> bool:
        try:
            told: Any = self._judged(lambda walker: walker.value(others))
        except UnknownPartError as exc:
            self._refuse(str(exc))
            return False
        return told is others

    def _refuse(self, kind: str) -> None:
        if self._judge is not None:
            self._judge.refuse("unknown_part", f"a part of type {kind}", self._state, self._call)

    def _told(self, chunk: Chunk, text: str, reasoning: str | None, calls: tuple[ToolCall, ...]) -> Chunk:
        """The chunk that says this and nothing else, in ``raw`` too."""
        if "choices" not in chunk.raw:
            return attrs.evolve(chunk.with_text(text), reasoning=reasoning, tool_calls=calls)
        content: Any = text
        if reasoning:
            content = [{"type": "thinking", "thinking": [{"type": "text", "text": reasoning}]}]
            if text:
                content.append({"type": "text", "text": text})
        delta: JsonObject = {"content": content}
        for old in chunk.raw["choices"]:
            if (old.get("delta") or {}).get("role") is not None:
                delta = {"role": "assistant", **delta}
        if calls:
            first = self._calls.get(chunk.index, 0)
            self._calls[chunk.index] = first + len(calls)
            delta["tool_calls"] = [{"index": number, **call.to_openai()} for number, call in enumerate(calls, first)]
        raw = {name: value for name, value in chunk.raw.items() if name in _HEAD}
        if chunk.usage is None:
            raw.pop("usage", None)
        raw["choices"] = [{"index": chunk.index, "delta": delta, "finish_reason": chunk.finish_reason}]
        return attrs.evolve(chunk, text=text, reasoning=reasoning, tool_calls=calls, raw=raw)


def _seals(raw: JsonObject) -> bool:
    """Whether an event brings the seal of a thought."""
    return is_event(raw) and (raw.get("delta") or {}).get("type") == "signature_delta"


# Members of a block or a delta that are the chunk's own words, or sealed.
_OWN_WORDS: Final = {
    "text": ("type", "text"),
    "text_delta": ("type", "text"),
    "thinking": ("type", "thinking", "signature"),
    "thinking_delta": ("type", "thinking", "estimated_tokens"),
    "signature_delta": ("type", "signature"),
    "redacted_thinking": ("type", "data"),
}
_HEAD: Final = frozenset({"id", "object", "created", "model", "usage", "system_fingerprint", "service_tier"})
