"""Embedding requests on Mistral's wire.

Source:
    https://docs.mistral.ai/api/endpoint/embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from bifrost_core.types import Request

from ._adapter import Payload
from ._embeddings import write_texts
from ._members import Writer, leave_out, model_name, rename, same, stream_flag, write_members
from ._reporter import Reporter

__all__ = ["write_embeddings"]

_EMBEDDINGS: Final[Mapping[str, Writer | None]] = {
    "dimensions": rename("output_dimension"),
    "encoding_format": None,
    "input": write_texts,
    "metadata": None,
    "model": model_name,
    "output_dimension": same,
    "output_dtype": None,
    "stream": stream_flag,
    "user": leave_out,
}


def write_embeddings(request: Request, max_output: int | None, reporter: Reporter) -> Payload:  # noqa: ARG001 # nothing is put out
    """An embeddings request.

    OpenAI's ``dimensions`` is sent as ``output_dimension``; ``user``, which Mistral refuses, is left out.

    Raises:
        BadRequestError: It can not be put into Mistral's shape; names the field.
    """
    members, extra = write_members(_EMBEDDINGS, "input", request, reporter)
    members.update(extra)
    return Payload(members, 0)
