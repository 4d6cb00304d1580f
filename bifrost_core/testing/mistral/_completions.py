"""Answers to chat completions and FIM."""

from __future__ import annotations

from typing import Final

from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import SSE, Reply

from ._answers import make_answer
from ._bodies import Generation, chat_body, chat_events
from ._vendor import limit_headers

__all__ = ["answer_chat", "answer_fim"]

_BYTES_PER_TOKEN: Final = 4  # of the request's JSON, which real prompts stay close to


def answer_chat(question: Question) -> Reply:
    """Chat completions.

    Raises:
        MistralError: The model, a limit, or the test's own answer function refuses.
    """
    return _answer(question, "completion_chat")


def answer_fim(question: Question) -> Reply:
    """FIM completions.

    Raises:
        MistralError: As for chat.
    """
    return _answer(question, "completion_fim")


def _answer(question: Question, capability: str) -> Reply:
    """One or several choices, plain or streamed."""
    body, rng = question.body, question.rng
    quota = question.admit(capability, "req", "tokens").quota
    lengths = question.state.key.output_tokens
    law = question.service.answer
    answers = tuple(question.ask(make_answer, body, rng, lengths, law) for _ in range(body.get("n") or 1))
    generation = Generation(
        id=question.new_id(),
        created=int(question.now),
        model=body["model"],
        prompt_tokens=max(1, question.size // _BYTES_PER_TOKEN),
        answers=answers,
    )
    question.service.keep_warm(question.state, body.get("prompt_cache_key"))
    reply = question.reply()
    reply.prompt_tokens = generation.prompt_tokens
    reply.completion_tokens = generation.completion_tokens
    cost = reply.prompt_tokens + reply.completion_tokens
    quota.charge("tokens", cost)
    reply.headers = [("x-max-retry-attempts-reached", "false")]
    if question.streams:
        reply.content_type = SSE
        reply.events = chat_events(generation, rng)
    else:
        reply.headers += [*limit_headers(quota, "req", "tokens"), ("x-ratelimit-tokens-query-cost", str(cost))]
        reply.body = chat_body(generation)
    return reply
