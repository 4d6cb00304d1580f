"""The simulated Anthropic service: what it keeps beside what every service keeps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Json, inner
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._service import Service
from bifrost_core.testing.serving.catalogue import SimulatedModel
from bifrost_core.testing.serving.laws import SimulatedKey

from ._errors import AnthropicError, error_body
from ._vendor import AnthropicVendor

__all__ = ["AnthropicService", "keep_thread", "resume_thread"]

_MOST: Final = 1_000  # threads that are kept
_SECONDS: Final = 300.0
_KEPT: Final = ("messages", "system", "tools")


@attrs.frozen
class _Thread:
    """A conversation that the service keeps: until when, in seconds since 1970-01-01 UTC, and what was said."""

    until: float
    body: Json


class AnthropicService(Service):
    """A service that keeps the message threads that requests ask it to keep.

    Args:
        keys: Those that are accepted.
        models: Those that are listed.
        options: As for every service.
    """

    def __init__(self, keys: Iterable[SimulatedKey], models: Iterable[SimulatedModel], **options: Any) -> None:
        self.threads: OrderedDict[tuple[str, str], _Thread] = OrderedDict()
        super().__init__(AnthropicVendor(), keys, models, **options)

    def reset(self) -> None:
        """Begin anew, without threads."""
        super().reset()
        self.threads.clear()


def _service(question: Question) -> AnthropicService:
    """The service, which is Anthropic's wherever Anthropic's endpoints are served."""
    service = question.service
    if not isinstance(service, AnthropicService):
        msg = f"threads are kept by a simulated Anthropic, not by {type(service).__name__}"
        raise TypeError(msg)
    return service


def resume_thread(question: Question) -> None:
    """Put what was said before in front of a request that continues a thread.

    Raises:
        AnthropicError: 404: there is no such thread any more; 400: the request states what the thread keeps.

    Source:
        https://platform.claude.com/docs/en/build-with-claude/message-threads, and how the package ``anthropic``
        2.14 reads ``error.details.error_code``.
    """
    body = question.body
    thread = inner(body, "thread")
    if thread.get("type") != "continue":
        return
    for name in ("system", "tools"):
        if name in body:
            raise AnthropicError.bad(f"{name}: not allowed in a request that continues a thread")
    found = _service(question).threads.get((question.owner, str(thread.get("previous_message_id"))))
    if found is None or found.until <= question.now:
        error = error_body("not_found_error", "The thread was not found. Send the full conversation again.")
        error["error"]["details"] = {"error_code": "thread_not_found"}
        raise AnthropicError(404, msgspec.json.encode(error))
    said: Any = body.get("messages")
    if isinstance(said, list):
        body.update({**found.body, "messages": [*found.body["messages"], *said]})


def keep_thread(question: Question, message: Json) -> None:
    """Keep a conversation with its answer, under the answer's id, where the request asks for a thread."""
    body = question.body
    if not inner(body, "thread"):
        return
    kept: Json = {name: body[name] for name in _KEPT if name in body}
    kept["messages"] = [*kept["messages"], {"role": "assistant", "content": message["content"]}]
    threads = _service(question).threads
    threads[question.owner, message["id"]] = _Thread(question.now + _SECONDS, kept)
    if len(threads) > _MOST:
        threads.popitem(last=False)
