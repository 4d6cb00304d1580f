"""OpenAI Responses requests served through chat: the body as a chat body, and chat answers as Responses answers.

Of no one provider: whoever has only chat puts its own chat writer and reader behind these. Every
member of the Responses shape is put into the chat shape, left out where that changes nothing (noted
once), or refused here by its name.

Source:
    https://platform.openai.com/docs/api-reference/responses/create and
    https://platform.openai.com/docs/guides/migrate-to-responses (which member is which in chat).
"""

from __future__ import annotations

# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUnknownArgumentType=false
# (wire JSON: its members are untyped until this module has read them)
import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import attrs

from bifrost_core.errors import BadRequestError, CallError
from bifrost_core.response_events import responses_of
from bifrost_core.responses import ChatResponse, ResponsesResponse
from bifrost_core.types import Chunk, JsonObject, Operation, Request
from bifrost_core.wire import HttpReply

from ._chat import read_chat
from ._chat_stream import ChatStreamDecoder
from ._events import EventDecoder
from ._reporter import Reporter
from ._responses_input import is_list, read_input

__all__ = ["OTHERWISE", "ResponsesStreamDecoder", "chat_request", "read_responses", "responses_decoder"]

_Writer = Callable[[JsonObject, str, Any, Reporter], None]


# --- members of the body


def _rename(to: str) -> _Writer:
    def write(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a _Writer
        body[to] = value

    return write


def _leave_out(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a _Writer
    reporter.note(f"the field {name!r} of a Responses request, which does not change the answer, is left out")


def _refuse(why: str, harmless: Any = None) -> _Writer:
    def write(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
        if value != harmless or type(value) is not type(harmless):
            raise reporter.unsupported(name, why)
        _leave_out(body, name, value, reporter)

    return write


def _mapping(name: str, value: Any, known: Collection[str], reporter: Reporter) -> Mapping[str, Any]:
    """A member that is an object; what it holds beside ``known`` is refused by name."""
    if not isinstance(value, Mapping):
        raise reporter.invalid(f"the field {name!r} is no object")
    for member, given in value.items():
        if given is not None and member not in known:
            raise reporter.unsupported(f"{name}.{member}", f"{name} has {', '.join(sorted(known))}")
    return value


def _text(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    text = _mapping(name, value, ("format", "verbosity"), reporter)
    if text.get("verbosity") is not None:
        body["verbosity"] = text["verbosity"]
    if text.get("format") is not None:
        _format(body, "text.format", text["format"], reporter)


def _format(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """Flat here, nested in chat; a class goes on to whoever makes a schema of it."""
    if "response_format" in body:
        raise reporter.unsupported(name, "text_format and text.format were both given; give one of them")
    if isinstance(value, Mapping):
        if value.get("type") == "json_schema" and "json_schema" not in value:
            schema = {member: given for member, given in value.items() if member != "type" and given is not None}
            value = {"type": "json_schema", "json_schema": schema}
        elif value.get("type") == "text":
            return
    body["response_format"] = value


def _reasoning(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    known = ("effort", "summary", "generate_summary", "mode", "context")
    reasoning = _mapping(name, value, known, reporter)
    for member, harmless in (("mode", "standard"), ("context", "auto")):
        if reasoning.get(member) not in (None, harmless):
            raise reporter.unsupported(f"{name}.{member}", f"chat has no such setting; it is {harmless!r} here")
    if reasoning.get("summary") is not None or reasoning.get("generate_summary") is not None:
        reporter.note("reasoning.summary is left out: what a provider shows of its reasoning comes whole")
    if reasoning.get("effort") is not None:
        body["reasoning_effort"] = reasoning["effort"]


def _include(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not is_list(value):
        raise reporter.invalid(f"the field {name!r} is no list")
    for wanted in value:
        if wanted == "message.output_text.logprobs":
            body["logprobs"] = True
        elif wanted in _NOTHING_TO_INCLUDE:
            reporter.note(f"{name}: there is nothing of {wanted!r} in a chat answer that could be included")
        else:
            raise reporter.unsupported(name, f"{str(wanted)[:64]!r} is nothing that can be included")


def _top_logprobs(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:  # noqa: ARG001 # a _Writer
    if value:
        body["logprobs"] = True
        body[name] = value


def _tools(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    if not is_list(value):
        raise reporter.invalid(f"the field {name!r} is no list")
    body[name] = [_tool(f"{name}[{at}]", tool, reporter) for at, tool in enumerate(value)]


def _tool(path: str, tool: Any, reporter: Reporter) -> Any:
    """Flat here, nested in chat. What is no object (a Python function) goes on to whoever describes it."""
    if not isinstance(tool, Mapping):
        return tool
    if tool.get("type", "function") != "function":
        raise reporter.unsupported(f"{path}.type", "only function tools can be served; the others run at OpenAI")
    if isinstance(tool.get("function"), Mapping):  # chat's own form
        return tool
    function: JsonObject = {}
    for member, value in tool.items():
        if member in {"name", "description", "parameters", "strict"}:
            if value is not None:
                function[member] = value
        elif member != "type" and value not in (None, False, ["direct"]):
            raise reporter.unsupported(f"{path}.{member}", "a function of chat has no such member")
    if not isinstance(function.get("name"), str):
        raise reporter.invalid(f"{path}.name is missing")
    return {"type": "function", "function": function}


def _tool_choice(body: JsonObject, name: str, value: Any, reporter: Reporter) -> None:
    """A word, a function, or a choice of tools: then the others are not offered, which says the same."""
    if isinstance(value, Mapping):
        kind = value.get("type")
        if kind == "allowed_tools":
            _allow(body, name, value, reporter)
            return
        if kind != "function":
            raise reporter.unsupported(f"{name}.type", "only function tools can be served")
        if not isinstance(value.get("function"), Mapping):
            named = value.get("name")
            if not isinstance(named, str):
                raise reporter.invalid(f"{name}.name is missing")
            value = {"type": "function", "function": {"name": named}}
    body[name] = value


def _allow(body: JsonObject, name: str, value: Mapping[str, Any], reporter: Reporter) -> None:
    allowed: set[str] = set()
    tools: Any = value.get("tools")
    if not is_list(tools):
        raise reporter.invalid(f"{name}.tools is no list")
    for at, tool in enumerate(tools):
        named = tool.get("name") if isinstance(tool, Mapping) and tool.get("type") == "function" else None
        if not isinstance(named, str):
            raise reporter.unsupported(f"{name}.tools[{at}]", "only function tools can be served")
        allowed.add(named)
    offered = {_name_of(tool): tool for tool in body.get("tools") or ()}
    for missing in sorted(allowed - offered.keys()):
        raise reporter.invalid(f"{name}.tools names {missing[:64]!r}, which is not among the tools")
    body["tools"] = [tool for named, tool in offered.items() if named in allowed]
    body[name] = value.get("mode") or "auto"


def _name_of(tool: Any) -> str:
    if isinstance(tool, Mapping):
        return str(tool["function"].get("name"))
    return str(getattr(tool, "__name__", ""))


_NOTHING_TO_INCLUDE: Final = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
_STATELESS: Final = "nothing is stored between calls; pass the whole conversation as input"
_NO_SUCH: Final = "chat has no such field, and without it the answer would be another"
# In the order of writing: a choice of tools comes after the tools.
_FIELDS: Final[Mapping[str, _Writer | None]] = {
    "background": _refuse("an answer is waited for, or streamed", harmless=False),
    "background_options": _refuse(_NO_SUCH),
    "access_programs": _refuse(_NO_SUCH),
    "context_management": _refuse(_NO_SUCH),
    "conversation": _refuse(_STATELESS),
    "image": _refuse(_NO_SUCH),
    "include": _include,
    "max_output_tokens": _rename("max_tokens"),
    "max_tool_calls": _leave_out,  # counts calls of built-in tools, and there are none
    "metadata": None,
    "moderation": _refuse(_NO_SUCH),
    "parallel_tool_calls": None,
    "previous_response_id": _refuse(_STATELESS),
    "prompt": _refuse("templates are stored at OpenAI; pass instructions and input"),
    "prompt_cache_key": None,
    "prompt_cache_options": _leave_out,
    "prompt_cache_retention": None,
    "reasoning": _reasoning,
    "safety_identifier": None,
    "service_tier": None,
    "store": _refuse("nothing is stored, so no later call could refer to it; leave it out", harmless=False),
    "stream_options": _leave_out,
    "temperature": None,
    "text": _text,
    "text_format": _format,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "top_logprobs": _top_logprobs,
    "top_p": None,
    "truncation": _refuse("the input is sent whole or not at all", harmless="disabled"),
    "user": None,
}
# Fields of chat that have another name, or no place, in the Responses shape.
OTHERWISE: Final[Mapping[str, str]] = {
    "logprobs": "it is top_logprobs, or 'message.output_text.logprobs' in include, here",
    "max_completion_tokens": "it is max_output_tokens here",
    "max_tokens": "it is max_output_tokens here",
    "messages": "it is input here",
    "n": "a Responses answer is one answer",
    "reasoning_effort": "it is reasoning={'effort': …} here",
    "response_format": "it is text_format (a class) or text={'format': …} here",
    "verbosity": "it is text={'verbosity': …} here",
}


def chat_request(request: Request, own: Collection[str], reporter: Reporter) -> Request:
    """The same request as a chat request.

    Args:
        request: In the Responses shape.
        own: Names of the fields that the provider's chat takes: those that the Responses shape does
            not have pass through.
        reporter: Of the provider.

    Raises:
        BadRequestError: A member can not be put into the chat shape; ``UnsupportedParameterError`` where
            chat has nothing like it, or it is unknown.
    """
    given = {name: value for name, value in request.body.items() if value is not None}
    body: JsonObject = {"messages": read_input(request.body, reporter)}
    for name, value in given.items():
        if name in OTHERWISE:
            raise reporter.unsupported(name, OTHERWISE[name])
        if name == "extra_body" and isinstance(value, Mapping) and value.get("n") not in (None, 1):
            raise reporter.unsupported("n", OTHERWISE["n"])
        if name in own or name == "extra_body":
            if name not in _FIELDS:
                body[name] = value
        elif name not in _FIELDS and name not in {"input", "instructions"}:
            raise _unknown(str(name), own, reporter)
    for name, write in _FIELDS.items():
        if name not in given:
            continue
        if write is None:
            body[name] = given[name]
        else:
            write(body, name, given[name], reporter)
    return attrs.evolve(request, operation=Operation.CHAT, body=body)


def _unknown(name: str, own: Collection[str], reporter: Reporter) -> BadRequestError:
    known = sorted({"input", "instructions", *_FIELDS, *own} - OTHERWISE.keys())
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return reporter.unsupported(name, f"{hint}fields that this version does not know go through extra_body")


# --- answers


def _chat_view(request: Request) -> Request:
    """What a reader of chat answers asks of a request: its limit."""
    body = {"max_tokens": request.body.get("max_output_tokens"), "extra_body": request.body.get("extra_body")}
    return attrs.evolve(request, operation=Operation.CHAT, body=body)


def read_responses(request: Request, reply: HttpReply, reporter: Reporter) -> ResponsesResponse:
    """Read a whole chat completion as a Responses answer.

    Raises:
        ProviderServerError: It can not be used (``bad_response``).
    """
    return responses_of(read_chat(_chat_view(request), reply, reporter))


class ResponsesStreamDecoder:
    """Decodes a streamed chat answer (``StreamDecoder``); the chunks are chat's, the whole is a Responses answer.

    Args:
        chat: Decodes the chat answer.

    Attributes:
        done: The terminal event has been read.
        error: What is wrong with the stream, once something is.
    """

    __slots__ = ("_chat", "done", "error")

    def __init__(self, chat: EventDecoder[ChatResponse]) -> None:
        self.done = False
        self.error: CallError | None = None
        self._chat = chat

    def feed(self, data: bytes) -> list[Chunk]:
        """Take the next bytes; return the chunks that they complete."""
        chunks = self._chat.feed(data)
        self.done, self.error = self._chat.done, self._chat.error
        return chunks

    def finish(self) -> ResponsesResponse:
        """The assembled answer, after the last byte.

        Raises:
            StreamBrokenError: The stream was cut short, or ``error``.
        """
        return responses_of(self._chat.finish())

    def partial(self) -> ChatResponse | None:
        """What has arrived so far, as chat; None when nothing has."""
        partial = self._chat.partial()
        return partial if isinstance(partial, ChatResponse) else None


def responses_decoder(request: Request, reporter: Reporter) -> ResponsesStreamDecoder:
    """Decodes a streamed chat completion as a Responses answer."""
    return ResponsesStreamDecoder(ChatStreamDecoder(_chat_view(request), reporter))
