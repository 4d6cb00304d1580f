"""Embeddings: vectors that depend on the input, the model and the seed alone.

Source:
    https://platform.openai.com/docs/api-reference/embeddings/create (members, 2,048 inputs at most) and
    https://platform.openai.com/docs/guides/embeddings (dimensions).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from bifrost_core.testing.serving._answers import Json, count_tokens
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._replies import Reply
from bifrost_core.testing.serving._vectors import draws, pack, unit

from ._members import Check, check_members, choice, integer, is_list, refused, text
from ._vendor import limit_headers

__all__ = ["answer_embeddings", "check_embeddings"]

_MOST_INPUTS: Final = 2048
_DIMENSIONS: Final = 1536
_LARGE: Final = 3072

_encode = msgspec.json.Encoder().encode


def _input(path: str, value: object) -> None:
    """A text, a list of texts, tokens, or a list of lists of tokens."""
    if isinstance(value, str):
        empty = not value
    elif is_list(value):
        empty = not value or any(each in ("", []) for each in value)
        kinds = {type(each) for each in value}
        inner = {type(token) for each in value if is_list(each) for token in each}
        if len(kinds) > 1 or not kinds <= {str, int, list} or not inner <= {int}:
            raise refused(
                "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
                None,
            )
        if kinds != {int} and len(value) > _MOST_INPUTS:
            raise refused(
                f"Invalid '{path}': array too long. Expected at most {_MOST_INPUTS} items.",
                path,
                "array_above_max_length",
            )
    else:
        raise refused(f"Invalid type for '{path}': expected a string or an array.", path, "invalid_type")
    if empty:
        raise refused(f"Invalid '{path}': input cannot be an empty string or array.", path, "invalid_value")


_MEMBERS: Final[dict[str, Check]] = {
    "model": text,
    "input": _input,
    "dimensions": integer(1),
    "encoding_format": choice("float", "base64"),
    "user": text,
}


def check_embeddings(body: Json) -> None:
    """Refuse what embeddings refuse.

    Raises:
        OpenAIError: 400 for the first finding.
    """
    check_members(body, _MEMBERS, ("model", "input"))


def answer_embeddings(question: Question) -> Reply:
    """One vector for each input; an input has the same vector in every reply of a server with the same seed.

    Fewer dimensions are the first ones of all, stretched to length one again.

    Raises:
        ApiError: The model, a limit, the length of an input or the number of dimensions refuses.
    """
    body = question.body
    admission = question.admit("embeddings", "req", "tokens")
    model = admission.model
    given: Any = body["input"]
    inputs: list[Any] = given if is_list(given) and not isinstance(given[0], int) else [given]
    counts = [len(each) if is_list(each) else count_tokens(each) for each in inputs]
    if max(counts) > model.context:
        message = f"This model's maximum context length is {model.context} tokens, however you requested {max(counts)} tokens."
        raise refused(f"{message} Please reduce your prompt.", None)
    size = _dimensions(model.name, body.get("dimensions"))
    packs = body.get("encoding_format") == "base64"
    vectors = [unit(draws(f"{question.service.seed}/{model.name}/{each}", size)) for each in inputs]
    data = [
        {"object": "embedding", "index": index, "embedding": pack(vector) if packs else vector.tolist()}
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(counts)
    admission.quota.charge("tokens", tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    reply = question.reply(_encode({"object": "list", "data": data, "model": model.name, "usage": usage}))
    reply.headers = limit_headers(admission.quota)
    reply.prompt_tokens = tokens
    return reply


def _dimensions(model: str, wanted: int | None) -> int:
    """Length of the vectors.

    Raises:
        OpenAIError: 400: the model has no such vectors.
    """
    usual = _LARGE if "large" in model else _DIMENSIONS
    if wanted is None:
        return usual
    if "ada" in model:
        raise refused("This model does not support specifying dimensions.", None)
    if wanted > usual:
        raise refused(f"Invalid value for 'dimensions' = {wanted}. Must be less than or equal to {usual}.", None)
    return wanted
