"""``GuardrailPlugin``: rules on what goes to a provider and on what comes back."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal, TypeVar

from bifrost_core import Call, ConfigError, Operation, Request, Response, hookimpl

from .judging import Judge, Steps, drive
from .rules import Rule, Secrets
from .stream import GuardedStream
from .texts import Leaf, UnknownPartError, Walker
from .vault import Vault
from .verdicts import State, Verdict

__all__ = ["GuardrailPlugin", "plugin"]

_MIB: Final = 1024 * 1024
_T = TypeVar("_T", Request, Response)

_logger = logging.getLogger(__name__)


class GuardrailPlugin:
    """Looks at every text of requests and answers; blocks, redacts or flags what its rules find.

    A request whose texts are longer than ``max_bytes`` together is blocked, and so is an answer that is not
    streamed: nothing passes because it is too long to be looked at. Contents of files, images and sound are
    not read. Streamed answers arrive while they are judged, held back by the longest pattern's length; with
    a rule that needs the whole answer (``JsonSchema``, ``Topics``, ``Custom`` without a window, a regular
    expression without a bound, ``decode=True``) they are held back until their end.

    Args:
        rules: In order: of overlapping finds the first rule names what is taken out.
        name: The plugin's, for logs and ``describe()``.
        unknown_parts: What is done about a content part of a type that is not known, and about token ids: ``"block"``
            the call, or ``"skip"`` the part unread.
        decode: Whether to look into base64, hexadecimal and percent-encoded text too, one level deep.
        max_bytes: Most bytes of texts, as UTF-8, of one request or answer.
        on_verdict: Is called with each ``Verdict`` and the ``Call``; must not wait. What it raises is logged.

    Attributes:
        name: As given.
        rules: As given.

    Raises:
        ConfigError: There is no rule, or something that is none.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        *,
        name: str = "guardrails",
        unknown_parts: Literal["block", "skip"] = "block",
        decode: bool = False,
        max_bytes: int = _MIB,
        on_verdict: Callable[[Verdict, Call], object] | None = None,
    ) -> None:
        given = list(rules)
        if not given:
            raise ConfigError("GuardrailPlugin: pass at least one rule", field="rules")
        for rule in given:
            if not isinstance(rule, Rule):  # pyright: ignore[reportUnnecessaryIsInstance] # what users pass
                raise ConfigError(
                    f"GuardrailPlugin: {type(rule).__name__} is no rule; pass Literals(…) …", field="rules"
                )
        if unknown_parts not in {"block", "skip"}:
            raise ConfigError('GuardrailPlugin: unknown_parts is "block" or "skip"', field="unknown_parts")
        self.name = name
        self.rules = tuple(given)
        self._unknown: Literal["block", "skip"] = unknown_parts
        self._max_bytes = max_bytes
        self._on_verdict = on_verdict
        self._key = secrets.token_bytes(32)
        self._mark = f"{name}:{secrets.token_hex(4)}"  # told by identity: nobody else can pass this very object
        self._input, self._output = (self._judge(given, side, decode=decode) for side in ("input", "output"))
        self._is_reversible = any(getattr(rule, "reversible", False) for rule in given)
        # A plugin has the hooks that its rules need: one that guards answers holds streams back.
        if self._input is not None:
            self._add_guard_request()
        if self._output is not None or self._is_reversible:
            self._add_guard_response()
            if self._output is None or not self._output.needs_whole:
                self._add_stream_filter()

    def _judge(self, rules: list[Rule], side: str, *, decode: bool) -> Judge | None:
        if not any(rule.applies(side) for rule in rules):
            return None
        return Judge(rules, side, plugin=self.name, mark=self._mark, decode=decode, on_verdict=self._tell)

    def _add_guard_request(self) -> None:
        @hookimpl
        def bifrost_guard_request(request: Request, call: Call) -> Any:
            return self._guard_request(request, call)

        self.bifrost_guard_request = bifrost_guard_request

    def _add_guard_response(self) -> None:
        @hookimpl
        def bifrost_guard_response(response: Response, call: Call) -> Any:
            return self._guard_response(response, call)

        self.bifrost_guard_response = bifrost_guard_response

    def _add_stream_filter(self) -> None:
        @hookimpl
        def bifrost_stream_filter(call: Call) -> GuardedStream | None:
            state = self._state(call)
            if state.is_judged or self._is_own(call) or not (self._output is not None or state.vault):
                return None
            return GuardedStream(self._output, state, call, self._unknown)

        self.bifrost_stream_filter = bifrost_stream_filter

    # --- the two sides

    def _guard_request(self, request: Request, call: Call) -> Request | Awaitable[Request | None] | None:
        if self._input is None or self._is_own(call):
            return None
        state = self._state(call)

        def walk(walker: Walker) -> Request:
            return walker.request(request)

        texts, same = self._read(self._input, walk, state, call)
        if self._input.passes(texts):
            return None if same is request else same
        return drive(self._judged(self._input, texts, request, same, walk, state, call))

    def _guard_response(self, response: Response, call: Call) -> Response | Awaitable[Response | None] | None:
        if self._is_own(call) or call.operation is Operation.MODELS:
            return None
        state = self._state(call)

        def walk(walker: Walker) -> Response:
            return walker.response(response)

        texts: list[tuple[str, Leaf]] = []
        same = response
        if self._output is not None:
            texts, same = self._read(self._output, walk, state, call)
            if not self._output.passes(texts):
                return drive(self._judged_response(self._output, texts, response, same, walk, state, call))
        new = self._restored(same, state)
        return None if new is response else new

    def _restored(self, response: Response, state: State) -> Response:
        """The judged answer with what its placeholders stand for."""
        state.is_judged = True
        if not state.vault:
            return response
        return Walker(lambda text, _leaf: state.vault.restore(text), unknown="skip").response(response)

    def _read(
        self, judge: Judge, walk: Callable[[Walker], _T], state: State, call: Call
    ) -> tuple[list[tuple[str, Leaf]], _T]:
        """The texts that ``walk`` comes across, and what it leaves where they stay as they are.

        Raises:
            GuardrailError: A part is of a type that is not known, or there is too much text.
        """
        texts: list[tuple[str, Leaf]] = []

        def show(text: str, leaf: Leaf) -> str:
            texts.append((text, leaf))
            return text

        unknown = ""
        same: _T | None = None
        try:
            same = walk(Walker(show, unknown=self._unknown))
        except UnknownPartError as exc:
            unknown = str(exc)
        if same is None:
            judge.refuse("unknown_part", f"a part of type {unknown}", state, call)
        size = 0
        for text, leaf in texts:
            if leaf.kind != "copy":
                size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if size > self._max_bytes:
            judge.refuse("size", f"more than {self._max_bytes} bytes of text", state, call)
        return texts, same

    def _judged(
        self,
        judge: Judge,
        texts: list[tuple[str, Leaf]],
        before: _T,
        same: _T,
        walk: Callable[[Walker], _T],
        state: State,
        call: Call,
    ) -> Steps[_T | None]:
        """Judge texts and put what became of them in their places."""
        told: list[str] = yield from judge.texts(texts, state, call)
        after = same
        if any(new is not text for new, (text, _) in zip(told, texts, strict=True)):
            rest = iter(told)
            after = walk(Walker(lambda _text, _leaf: next(rest), unknown="skip"))
        return None if after is before else after

    def _judged_response(
        self,
        judge: Judge,
        texts: list[tuple[str, Leaf]],
        before: Response,
        same: Response,
        walk: Callable[[Walker], Response],
        state: State,
        call: Call,
    ) -> Steps[Response | None]:
        """The same, and what placeholders stand for put back."""
        judged = yield from self._judged(judge, texts, before, same, walk, state, call)
        after = self._restored(before if judged is None else judged, state)
        return None if after is before else after

    # --- what a call has

    def _state(self, call: Call) -> State:
        state: State | None = call.state.get(self)
        if state is None:
            principal = call.principal
            scope = "" if principal is None else f"{principal.tenant or ''}\0{principal.id}"
            state = call.state[self] = State(Vault(self._key, scope))
        return state

    def _is_own(self, call: Call) -> bool:
        """Whether a rule of this plugin makes the call to find something out."""
        return call.metadata.get("guardrail") is self._mark

    def _tell(self, verdict: Verdict, call: Call) -> None:
        if self._on_verdict is None:
            return
        try:
            self._on_verdict(verdict, call)
        except Exception:
            _logger.exception("guardrail %s: on_verdict failed", self.name)


def plugin() -> GuardrailPlugin:
    """What ``load_plugins("guardrails")`` makes: no credential goes out, none comes back."""
    return GuardrailPlugin([Secrets()])
