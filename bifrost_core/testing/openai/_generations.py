"""What chat completions and responses have in common: a model, a prompt that is counted, and answers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Final, Protocol

import attrs
import msgspec

from bifrost_core.testing.serving._answers import Answer, Json, SchemaError
from bifrost_core.testing.serving._prompts import Prefix
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving._wishes import Wish, make_answer

from ._members import refused
from ._vendor import limit_headers

__all__ = ["Generated", "WishOf", "generate", "logprobs_of", "random_id"]

_BYTES_PER_TOKEN: Final = 4  # of the request's JSON, which real prompts stay close to
_LEAST_CACHED: Final = 1024  # tokens of a prompt that is cached at all
_CACHE_STEP: Final = 128
_CACHE_SECONDS: Final = 600.0
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

_encode = msgspec.json.Encoder().encode


class WishOf(Protocol):
    """How a request is understood."""

    def __call__(self, body: Json, *, reasons: bool) -> Wish:
        """What it wants, of a model that reasons or of another."""
        ...


@attrs.frozen(kw_only=True)
class Generated:
    """Answers that are about to be put on the wire.

    Attributes:
        model: The model's canonical name.
        tier: The service tier that served it.
        prompt_tokens: Input tokens, cached ones included.
        cached_tokens: Input tokens read from the cache.
        answers: One per choice.
        reply: Times, headers and billing are in it already.
    """

    model: str
    tier: str
    prompt_tokens: int
    cached_tokens: int
    answers: tuple[Answer, ...]
    reply: Reply

    @property
    def reasoning_tokens(self) -> int:
        """Output tokens of the reasoning."""
        return sum(len(answer.thinking) for answer in self.answers)

    @property
    def completion_tokens(self) -> int:
        """All output tokens."""
        return sum(answer.tokens for answer in self.answers)


def random_id(rng: random.Random, length: int) -> str:
    """Letters and digits."""
    return "".join(rng.choices(_LETTERS, k=length))


def logprobs_of(tokens: Sequence[str], most: int, rng: random.Random) -> list[Json]:
    """How likely tokens were, made up as well.

    Args:
        tokens: The tokens.
        most: How many of the likeliest tokens are told at each place, the one that came included.
        rng: Source of the probabilities.
    """

    def entry(token: str, probability: float) -> Json:
        return {"token": token, "logprob": round(math.log(probability), 6), "bytes": list(token.encode())}

    found: list[Json] = []
    for token in tokens:
        probability = rng.uniform(0.5, 0.99)
        top = [entry(token, probability)] if most else []
        top += [entry(f"{token}{number}", (1 - probability) / 2**number) for number in range(1, most)]
        found.append({**entry(token, probability), "top_logprobs": top})
    return found


def generate(question: Question, wish_of: WishOf, *, count: int, context: str) -> Generated:
    """Admit a request and make its answers.

    Args:
        question: The request.
        wish_of: How it is understood.
        count: How many answers.
        context: The member that holds the prompt, a list or a text.

    Raises:
        ApiError: The model, a limit, the length of the prompt, or the test's own function refuses.
    """
    body, rng, service = question.body, question.rng, question.service
    admission = question.admit("completion_chat", "req", "tokens")
    model = admission.model
    prompt = max(1, question.size // _BYTES_PER_TOKEN)
    if prompt > model.context:
        message = f"This model's maximum context length is {model.context} tokens. However, your messages resulted in "
        raise refused(
            f"{message}{prompt} tokens. Please reduce the length of the messages.", context, "context_length_exceeded"
        )
    reasons = "reasoning" in model.capabilities
    wish = wish_of(body, reasons=reasons)
    lengths = question.state.key.output_tokens

    def answer() -> Answer:
        return make_answer(body, wish, rng, lengths, service.answer, lambda: f"call_{random_id(rng, 24)}")

    try:
        answers = tuple(question.ask(answer) for _ in range(count))
    except SchemaError as exc:
        raise refused(f"Invalid schema: {exc}", "response_format") from None
    cached = _cached(question, prompt, body.get(context))
    service.keep_warm(question.state, body.get("prompt_cache_key"))
    reply = question.reply()
    reply.prompt_tokens = prompt
    reply.completion_tokens = sum(each.tokens for each in answers)
    admission.quota.charge("tokens", reply.prompt_tokens + reply.completion_tokens)
    reply.headers = limit_headers(admission.quota)
    tier = body.get("service_tier") or "auto"
    return Generated(
        model=model.name,
        tier="default" if tier == "auto" else tier,
        prompt_tokens=prompt,
        cached_tokens=cached,
        answers=answers,
        reply=reply,
    )


def _cached(question: Question, prompt: int, context: Any) -> int:
    """Tokens of the prompt that the same organisation sent before, in whole steps of 128 and not all of them.

    Source:
        https://platform.openai.com/docs/guides/prompt-caching.
    """
    if prompt < _LEAST_CACHED:
        return 0
    parts = [question.body.get("tools"), question.body.get("instructions")]
    parts += context if isinstance(context, list) else [context]
    sizes = [_encode(part) for part in parts]
    scale = prompt / max(1, sum(map(len, sizes)))
    prefixes: list[Prefix] = []
    total = 0
    for data in sizes:
        total += len(data)
        prefixes.append(Prefix(data, int(total * scale), _CACHE_SECONDS))
    found = question.service.prompts.read((question.owner, str(question.body["model"])), prefixes, question.now)
    tokens = min(found, prompt - 1)
    return tokens // _CACHE_STEP * _CACHE_STEP if tokens >= _LEAST_CACHED else 0
