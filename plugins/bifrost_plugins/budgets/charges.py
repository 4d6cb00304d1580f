"""What an attempt is charged, by how it ended: one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from bifrost_core import Attempt, Kind, Usage

__all__ = ["CHARGES", "Basis", "basis_of", "is_counted"]


class Basis(StrEnum):
    """What an amount is made from."""

    EXACT = "exact"  # the provider's count, at the prices of the reservation
    ESTIMATED = (
        "estimated"  # an answer came, its count did not: the prompt's estimate and an average answer, in the hold
    )
    PARTIAL = "partial"  # a stream that broke or was left: the prompt's estimate and what had arrived
    UNCERTAIN = "uncertain"  # sent, and nobody knows: the whole hold under a hard budget, else the estimate
    UNBILLED = "unbilled"  # 0, booked, so that it can be adjusted
    NOTHING = "nothing"  # 0: released


_ROWS: Final = {
    Basis.NOTHING: (
        *(Kind.INVALID_REQUEST, Kind.CONTEXT_TOO_LONG, Kind.REQUEST_TOO_LARGE, Kind.CONTENT_FILTERED, Kind.CONFLICT),
        *(Kind.AUTH, Kind.NO_CREDENTIALS, Kind.PAYMENT, Kind.PERMISSION, Kind.MODEL_NOT_FOUND),
        *(Kind.RATE_LIMITED, Kind.QUOTA_EXHAUSTED, Kind.CONNECT_ERROR, Kind.REDIRECT, Kind.NO_ROUTE),
        *(Kind.UNAUTHENTICATED, Kind.REFUSED),
        *(Kind.BUDGET_EXCEEDED, Kind.BUDGET_UNAVAILABLE, Kind.RATE_EXCEEDED),
    ),
    Basis.UNBILLED: (Kind.SERVER_ERROR, Kind.SERVER_TIMEOUT, Kind.MODEL_OVERLOADED),
    Basis.UNCERTAIN: (
        # Providers mostly go on and bill all of it. The prompt alone would make "send, abort" a cheap way round.
        *(Kind.CANCELLED, Kind.DEADLINE_EXCEEDED, Kind.CONNECTION_LOST, Kind.READ_TIMEOUT, Kind.PROTOCOL_ERROR),
        *(Kind.BAD_RESPONSE, Kind.RESPONSE_TOO_LARGE, Kind.GUARDRAIL_BLOCKED, Kind.PLUGIN_ERROR),
    ),
    Basis.PARTIAL: (Kind.STREAM_TRUNCATED, Kind.STREAM_ERROR, Kind.STREAM_MALFORMED, Kind.STREAM_STALLED),
    Basis.ESTIMATED: (Kind.BAD_USAGE,),
}

CHARGES: Final[Mapping[Kind, Basis]] = MappingProxyType({kind: basis for basis, row in _ROWS.items() for kind in row})
"""What an attempt is charged that failed so, having brought no content."""


def is_counted(usage: Usage | None) -> bool:
    """Whether the provider counted anything at all."""
    return usage is not None and any(
        (usage.input_tokens, usage.output_tokens, usage.audio_seconds, usage.pages, usage.characters)
    )


def basis_of(attempt: Attempt) -> Basis:
    """What a finished attempt is charged by."""
    if attempt.outcome == "refused" or not attempt.sent:
        return Basis.NOTHING
    if attempt.outcome == "ok":
        return Basis.EXACT if is_counted(attempt.usage) else Basis.ESTIMATED
    if attempt.usage is not None:  # content had arrived
        return Basis.PARTIAL
    basis = Basis.UNCERTAIN if attempt.kind is None else CHARGES[attempt.kind]
    if basis in (Basis.NOTHING, Basis.UNBILLED):
        if attempt.status is not None and attempt.status < 300:  # an error inside an answer that had begun
            return Basis.PARTIAL
        if attempt.status is not None and attempt.status >= 500:
            return Basis.UNBILLED
    return basis
