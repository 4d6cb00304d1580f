"""Embeddings: vectors that depend on the text alone.

Source:
    https://docs.mistral.ai/api/endpoint/embeddings (members, number formats) and replies as they come since
    2026 (usage).
"""

from __future__ import annotations

import array
from typing import Final

import msgspec

from bifrost_core.testing.serving._answers import Json, count_tokens
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving._vectors import draws, pack, unit

from ._errors import MistralError
from ._members import Check, check_members, choice, integer, mapping, optional, refuse, text, texts
from ._vendor import limit_headers

__all__ = ["answer_embeddings", "check_embeddings", "flat_usage"]

_MAX_INPUTS: Final = 256
_MEMBERS: Final[dict[str, Check]] = {
    "model": text,
    "input": texts,
    "metadata": optional(mapping),
    "output_dimension": optional(integer(1)),
    "output_dtype": optional(choice("float", "int8", "uint8", "binary", "ubinary")),
    "encoding_format": optional(choice("float", "base64")),
}
_TYPECODES: Final = {"float": "f", "int8": "b", "uint8": "B", "binary": "b", "ubinary": "B"}

_encode = msgspec.json.Encoder().encode


def check_embeddings(body: Json) -> None:
    """Refuse what embeddings refuse.

    Raises:
        MistralError: 422 for members, 400 for too many inputs.
    """
    refuse(check_members(body, _MEMBERS, ("model", "input")))
    if not isinstance(body["input"], str) and len(body["input"]) > _MAX_INPUTS:
        message = "Too many inputs in request, split into more batches."
        raise MistralError.object(400, "invalid_request_prompt", "3210", message)


def answer_embeddings(question: Question) -> Reply:
    """One vector for each text; a text has the same vector in every reply of a server with the same seed.

    ``mistral-embed`` has 1024 dimensions and no other number of them; others have 1536 (1024 without
    ``codestral`` in their name) and at most 3072. Fewer dimensions are the first ones of all, stretched to
    length one again.

    Raises:
        MistralError: The model, a limit or the number of dimensions refuses.
    """
    body = question.body
    admission = question.admit("", "req", "tokens")
    inputs: list[str] = [body["input"]] if isinstance(body["input"], str) else body["input"]
    size = _dimensions(admission.model.name, body.get("output_dimension"))
    form: str = body.get("output_dtype") or "float"
    packs = body.get("encoding_format") == "base64"
    seed = f"{question.service.seed}/{body['model']}"
    vectors = [_vector(f"{seed}/{each}", size, form) for each in inputs]
    data = [
        {"object": "embedding", "embedding": pack(vector) if packs else vector.tolist(), "index": index}
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(map(count_tokens, inputs))
    admission.quota.charge("tokens", tokens)
    usage = {**flat_usage(tokens, tokens), "request_count": None}
    reply = question.reply(
        _encode({"id": question.new_id(), "object": "list", "data": data, "model": body["model"], "usage": usage})
    )
    reply.headers = [*limit_headers(admission.quota, "req"), ("x-ratelimit-tokens-query-cost", str(tokens))]
    reply.prompt_tokens = tokens
    return reply


def flat_usage(prompt_tokens: int, total_tokens: int) -> Json:
    """Usage without output, as embeddings and moderation state it."""
    return {
        "prompt_audio_seconds": None,
        "prompt_tokens": prompt_tokens,
        "total_tokens": total_tokens,
        "completion_tokens": 0,
        "request_count": 1,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
        "service_tier": None,
        "prompt_token_details": None,
    }


def _dimensions(model: str, wanted: int | None) -> int:
    """Length of the vectors.

    Raises:
        MistralError: 400: the model has no such vectors.
    """
    if model.startswith("mistral-embed"):
        usual, allowed = 1024, wanted in {None, 1024}
    else:
        usual, allowed = 1536 if "codestral" in model else 1024, wanted is None or wanted <= 3072
    if not allowed:
        message = f"output_dimension {wanted} is not supported by this model."
        raise MistralError.object(400, "invalid_request_invalid_args", "3051", message)
    return wanted or usual


def _vector(seed: str, dimensions: int, form: str) -> array.array[float] | array.array[int]:
    """A vector of length one, in the number format that was asked for."""
    raw = draws(seed, dimensions)
    code = _TYPECODES[form]
    if form == "float":
        return unit(raw)
    if form in {"int8", "uint8"}:
        shift = 128 if form == "uint8" else 0
        return array.array(code, (round(value * 127) + shift for value in raw))
    shift = 128 if form == "binary" else 0
    bits = "".join("1" if value >= 0 else "0" for value in raw)
    return array.array(code, (int(bits[at : at + 8].ljust(8, "0"), 2) - shift for at in range(0, len(bits), 8)))
