"""Streamed chat answers in the shape that OpenAI and Mistral share: bytes into ``Chunk``s, and one answer at the end.

Source:
    https://docs.mistral.ai/capabilities/completion/usage (streaming), WHATWG HTML "Server-sent events".
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
from typing import Any, ClassVar, Final

from bifrost_core.kinds import Kind
from bifrost_core.responses import ChatResponse
from bifrost_core.types import Choice, Chunk, JsonObject, Request, ToolCall, Usage

from ._chat import (
    MalformedError,
    call_id,
    called_function,
    read_arguments,
    read_content,
    read_finish_reason,
    read_usage,
    real_id,
    response_parser,
)
from ._events import EventDecoder, most_events
from ._json import JsonError, decode
from ._reporter import Reporter

__all__ = ["ChatStreamDecoder"]

_CHUNK_OBJECTS: Final = frozenset({"chat.completion.chunk", "chat.completion", "text_completion"})
# `p` and `obfuscation` are padding against traffic analysis (Mistral's and OpenAI's).
_OWN_MEMBERS: Final = frozenset({"choices", "usage", "object", "p", "obfuscation"})
_READ_MEMBERS: Final = frozenset({"role", "content", "tool_calls", "reasoning_content", "reasoning"})  # of a delta
_WHOLE: Final = frozenset({"id", "type", "expires_at"})  # members of such objects that do not come in pieces
_MAX_CHOICES: Final = 1024


class _Call:
    """A tool call on its way."""

    __slots__ = ("arguments", "id", "index", "is_custom", "is_out", "name")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id: str | None = None
        self.name = ""
        self.arguments: list[str] = []
        self.is_custom = False  # a custom tool's: free-form input in place of arguments
        self.is_out = False


class _Choice:
    """One choice on its way."""

    __slots__ = (
        "calls",
        "finish_reason",
        "index",
        "logprobs",
        "open",
        "others",
        "parts",
        "role",
        "texts",
        "thought_name",
        "thoughts",
    )

    def __init__(self, index: int) -> None:
        self.index = index
        self.role = "assistant"
        self.texts: list[str] = []  # of the part that is last, while that is text
        self.parts: list[JsonObject | list[str]] = []  # a list of strings is text
        self.open: JsonObject | None = None  # a thinking part that further ones are joined to
        self.thoughts: list[str] = []
        self.thought_name = "reasoning_content"
        self.calls: list[_Call] = []
        self.finish_reason: str | None = None
        self.logprobs: dict[str, list[Any]] = {}
        self.others: JsonObject = {}  # further members of the message: refusal, annotations, audio …

    def say(self, text: str) -> None:
        """Text goes on, or begins."""
        if not self.parts or self.parts[-1] is not self.texts:
            self.texts = []
            self.parts.append(self.texts)
            self.open = None
        self.texts.append(text)

    def take_parts(self, content: list[Any]) -> None:
        """Parts go on, or begin: pieces of text and of thinking are joined, all others are kept as they are."""
        for part in content:
            if isinstance(part, str):
                self.say(part)
            elif part.get("type") == "text" and isinstance(part.get("text"), str) and len(part) == 2:
                self.say(part["text"])
            elif part.get("type") == "thinking" and isinstance(part.get("thinking"), list):
                if self.open is None or not self.parts or self.parts[-1] is not self.open:
                    self.open = {**part, "thinking": list(part["thinking"])}
                    self.parts.append(self.open)
                else:
                    self.open.update({name: value for name, value in part.items() if name != "thinking"})
                    self.open["thinking"].extend(part["thinking"])
            else:
                self.parts.append(part)

    def think(self, reasoning: str, delta: JsonObject) -> str:
        """Reasoning goes on, in the content or beside it; returns what is new."""
        if not reasoning:
            name = "reasoning_content" if delta.get("reasoning_content") else "reasoning"
            told = delta.get(name)
            if not isinstance(told, str) or not told:
                return ""
            reasoning, self.thought_name = told, name
        self.thoughts.append(reasoning)
        return reasoning

    def take_others(self, delta: JsonObject) -> str:
        """Members that are neither content, reasoning nor calls go on; returns what was said of a refusal."""
        for name in delta.keys() - _READ_MEMBERS:
            self.others[name] = _grown(self.others.get(name), delta[name])
        refusal = delta.get("refusal")
        return refusal if isinstance(refusal, str) else ""

    def take_logprobs(self, logprobs: JsonObject) -> None:
        """Log probabilities go on, those of text and those of a refusal apart."""
        for name, found in logprobs.items():
            if type(found) is list:
                self.logprobs.setdefault(name, []).extend(found)

    def content(self) -> Any:
        """The content as a whole answer has it: a string, or a list when there is more than text."""
        if all(isinstance(part, list) for part in self.parts):
            return "".join(piece for part in self.parts for piece in part)
        whole: list[JsonObject] = []
        for part in self.parts:
            if isinstance(part, list):
                if text := "".join(part):
                    whole.append({"type": "text", "text": text})
            elif part.get("type") == "thinking" and isinstance(part.get("thinking"), list):
                whole.append({**part, "thinking": _joined(part["thinking"])})
            else:
                whole.append(part)
        return whole


def _joined(thinking: list[Any]) -> list[Any]:
    """Neighbouring pieces of thought as one."""
    whole: list[Any] = []
    run: list[str] = []
    for part in [*thinking, None]:
        if (
            isinstance(part, dict)
            and part.get("type") == "text"
            and isinstance(part.get("text"), str)
            and len(part) == 2
        ):
            run.append(part["text"])
            continue
        if run:
            whole.append({"type": "text", "text": "".join(run)})
            run = []
        if part is not None:
            whole.append(part)
    return whole


def _expected(request: Request) -> int:
    """How many choices were asked for."""
    n = request.body.get("n")
    return n if type(n) is int and n >= 1 else 1


class ChatStreamDecoder(EventDecoder[ChatResponse]):
    """Decodes one streamed chat answer (``StreamDecoder``).

    Attributes:
        done: The terminal event has been read.
        error: What is wrong with the stream, once something is.
    """

    text_errors: ClassVar[bool] = True

    __slots__ = ("_choices", "_delivered", "_expected", "_head", "_model", "_usage")

    def __init__(self, request: Request, reporter: Reporter) -> None:
        self._expected = _expected(request)
        super().__init__(request, reporter, most=most_events(request, self._expected))
        self._head: JsonObject | None = None
        self._model: str | None = None
        self._choices: dict[int, _Choice] = {}
        self._usage: Any = None
        self._delivered = False

    def partial(self) -> ChatResponse | None:
        """What has arrived so far, assembled; None when nothing has."""
        return self._assemble() if self._delivered else None

    # --- events

    def _take_mark(self) -> bool:
        self.done = True
        if not self._is_complete():
            self._break(Kind.STREAM_TRUNCATED, "said that it is done before its answer was")
        return True

    def _is_error(self, name: bytes, event: JsonObject) -> bool:
        if type(event.get("choices")) is list and not event.get("error") and name != b"error":
            return any(type(choice) is dict and choice.get("finish_reason") == "error" for choice in event["choices"])
        if event.get("object") == "error" or event.get("error") or name == b"error":
            return True
        named = event.get("object")
        return event.get("choices") is None and not (isinstance(named, str) and named in _CHUNK_OBJECTS)

    def _take(self, name: bytes, event: JsonObject, chunks: list[Chunk]) -> None:
        if self._is_error(name, event):
            self._fail(event)
            return
        raw_choices = event.get("choices")
        if self._head is None:
            self._head = event
        elif len(event) > 6:  # rarely more than its fixed members; what is new is kept for `raw`
            for member in event.keys() - self._head.keys():
                self._head = self._head | {member: event[member]}
        if self._model is None and isinstance(model := event.get("model"), str):
            self._model = model
        raw_usage = event.get("usage")
        usage: Usage | None = None
        if raw_usage:
            self._usage = raw_usage
            usage = read_usage(raw_usage, self._reporter)
        if not raw_choices:
            if raw_choices is not None and not isinstance(raw_choices, list):
                raise MalformedError("choices is no list")
            chunks.append(Chunk(usage=usage, raw=event))
            return
        if not isinstance(raw_choices, list):
            raise MalformedError("choices is no list")
        last = len(raw_choices) - 1
        for place, choice in enumerate(raw_choices):
            raw = event
            if last:  # each chunk quotes its own choice only
                raw = {**event, "choices": [choice]}
                if place != last:
                    raw.pop("usage", None)
            chunks.append(self._take_choice(choice, place, usage if place == last else None, raw))

    def _take_choice(  # noqa: C901 # one look at each member a delta may have; apart they would be looked up twice
        self, raw_choice: Any, place: int, usage: Usage | None, raw: JsonObject
    ) -> Chunk:
        if type(raw_choice) is not dict:
            raise MalformedError("a choice is no object")
        index = raw_choice.get("index", place)
        if type(index) is not int:
            raise MalformedError("the index of a choice is no number")
        choice = self._choices.get(index)
        if choice is None:
            if len(self._choices) >= _MAX_CHOICES:
                raise MalformedError("there are too many choices")
            choice = self._choices[index] = _Choice(index)
        delta = raw_choice.get("delta")
        if delta is None:
            delta = raw_choice.get("message") or {}
        if type(delta) is not dict:
            raise MalformedError("a delta is no object")
        text, reasoning = read_content(content := delta.get("content"))
        reason = read_finish_reason(raw_choice.get("finish_reason"))
        if type(content) is str:
            if text:
                choice.say(text)
        elif content:
            choice.take_parts(content)
        if not delta.keys() <= _READ_MEMBERS:
            refused = choice.take_others(delta)
            text = text or refused
        reasoning = choice.think(reasoning, delta)
        calls: tuple[ToolCall, ...] = ()
        if pieces := delta.get("tool_calls"):
            calls = self._take_pieces(choice, pieces)
        if reason is not None:
            choice.finish_reason = reason
            for call in choice.calls:
                calls += self._hand_on(choice, call)
        if (logprobs := raw_choice.get("logprobs")) and type(logprobs) is dict:
            choice.take_logprobs(logprobs)
        if text or reasoning or choice.calls:
            self._delivered = True
        return Chunk(
            text=text,
            reasoning=reasoning or None,
            tool_calls=calls,
            finish_reason=reason,
            usage=usage,
            index=index,
            raw=raw,
        )

    # --- tool calls

    def _take_pieces(self, choice: _Choice, pieces: Any) -> tuple[ToolCall, ...]:
        """Whole calls or pieces of calls; returns those that are complete because another one has begun."""
        if not isinstance(pieces, list):
            raise MalformedError("tool_calls is no list")
        whole: tuple[ToolCall, ...] = ()
        for place, piece in enumerate(pieces):
            if type(piece) is not dict:
                raise MalformedError("a tool call is no object")
            is_custom = type(piece.get("custom")) is dict
            function = called_function(piece) if is_custom else piece.get("function")
            if function is None:
                function = {}
            index = piece.get("index")
            index = place if index is None else index
            if type(function) is not dict or type(index) is not int:
                raise MalformedError("a tool call has no function")
            known, name = real_id(piece.get("id")), function.get("name")
            call = next((one for one in reversed(choice.calls) if one.index == index), None)
            if call is None or (known and call.id and known != call.id):
                if choice.calls and choice.calls[-1].arguments:
                    whole += self._hand_on(choice, choice.calls[-1])
                call = _Call(index)
                choice.calls.append(call)
            call.id = call.id or known
            call.is_custom = call.is_custom or is_custom
            if not call.name and isinstance(name, str):
                call.name = name
            if (arguments := function.get("arguments")) is not None:
                call.arguments.append(read_arguments(arguments))
        return whole

    def _hand_on(self, choice: _Choice, call: _Call) -> tuple[ToolCall, ...]:
        """The call, if its arguments are complete JSON and it has not been handed on yet."""
        if call.is_out or not call.name:
            return ()
        made = self._tool_call(choice, call)
        if call.is_custom:  # any text may be its input, so only the end of the answer tells that it is whole
            call.is_out = choice.finish_reason not in (None, "length")
        elif not made.arguments:
            # A function without arguments; unless the answer was cut before they began, or they may still come.
            call.is_out = choice.finish_reason not in (None, "length")
        else:
            try:
                decode(made.arguments.encode("utf-8", "surrogatepass"))
            except JsonError:
                return ()
            call.is_out = choice.finish_reason is not None or made.arguments.lstrip().startswith("{")
        return (made,) if call.is_out else ()

    def _tool_call(self, choice: _Choice, call: _Call) -> ToolCall:
        if call.id is None:
            place = choice.calls.index(call)
            call.id = call_id(f"{(self._head or {}).get('id')}/{choice.index}/{place}")
        return ToolCall(call.id, call.name, "".join(call.arguments))

    # --- the ends

    def _take_whole(self, answer: JsonObject, chunks: list[Chunk]) -> None:
        if answer.get("choices") or self._is_error(b"", answer):
            self._take(b"", answer, chunks)
        else:
            self._break(Kind.BAD_RESPONSE, "holds an answer without choices")

    def _take_last(self, name: bytes, event: JsonObject) -> None:
        choices = event.get("choices")
        if (
            isinstance(choices, list)
            and not any(_says_something(choice) for choice in choices)
            and not self._is_error(name, event)
        ):
            self._take(name, event, [])

    def _answer(self) -> ChatResponse | None:
        return self._assemble() if self._is_complete() else None

    def _is_complete(self) -> bool:
        """Every choice has said why it ended; without a terminal event, as many as were asked for."""
        if not self._choices or any(choice.finish_reason is None for choice in self._choices.values()):
            return False
        return self.done or len(self._choices) >= self._expected

    def _assemble(self) -> ChatResponse:
        choices: list[Choice] = []
        raw_choices: list[JsonObject] = []
        for index in sorted(self._choices):
            choice = self._choices[index]
            calls = tuple(self._tool_call(choice, call) for call in choice.calls)
            content = choice.content()
            text, _ = read_content(content)
            refusal = choice.others.get("refusal")
            if not text and isinstance(refusal, str) and refusal:
                text, content = refusal, None
            message: JsonObject = {"role": choice.role, "content": content, **choice.others}
            if calls:
                message["tool_calls"] = [
                    {**_as_sent(made, call), "index": call.index}
                    for made, call in zip(calls, choice.calls, strict=True)
                ]
            if choice.thoughts and not isinstance(content, list):
                message[choice.thought_name] = "".join(choice.thoughts)
            raw_choice: JsonObject = {"index": index, "message": message, "finish_reason": choice.finish_reason}
            if choice.logprobs:
                raw_choice["logprobs"] = choice.logprobs
            raw_choices.append(raw_choice)
            choices.append(
                Choice(
                    index=index,
                    text=text,
                    reasoning="".join(choice.thoughts) or None,
                    tool_calls=calls,
                    finish_reason=choice.finish_reason,
                    message=message,
                )
            )
        head = self._head or {}
        raw: JsonObject = {name: value for name, value in head.items() if name not in _OWN_MEMBERS}
        raw["object"] = "chat.completion"
        raw["choices"] = raw_choices
        raw["usage"] = self._usage
        return ChatResponse(
            model=self._model or self._request.model,
            usage=read_usage(self._usage, self._reporter) if self._usage or self._is_complete() else Usage(requests=1),
            raw=raw,
            choices=tuple(choices),
            parse=response_parser(self._request),
        )


def _as_sent(made: ToolCall, call: _Call) -> JsonObject:
    if call.is_custom:
        return {"id": made.id, "type": "custom", "custom": {"name": made.name, "input": made.arguments}}
    return made.to_openai()


def _grown(had: Any, new: Any) -> Any:
    """A member of a message that came in pieces: texts are joined, lists prolonged, objects member by member."""
    if new is None or had is None:
        return had if new is None else new
    if isinstance(had, str) and isinstance(new, str):
        return had + new
    if isinstance(had, list) and isinstance(new, list):
        return [*had, *new]
    if isinstance(had, dict) and isinstance(new, dict):
        names = {**had, **new}
        return {
            name: new[name] if name in _WHOLE and name in new else _grown(had.get(name), new.get(name))
            for name in names
        }
    return new


def _says_something(choice: Any) -> bool:
    delta = choice.get("delta") if isinstance(choice, dict) else None
    return not isinstance(delta, dict) or bool(
        delta.get("content") or delta.get("tool_calls") or len(delta.keys() - {"role", "content", "tool_calls"})
    )
