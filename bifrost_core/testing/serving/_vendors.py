"""What is a vendor's own in every exchange: headers, ids, and the words of its refusals."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from ._errors import ApiError
from ._replies import DONE
from .laws import Fault
from .quotas import LimitName, Quota

__all__ = ["Headers", "Vendor", "bearer"]

Headers: TypeAlias = list[tuple[str, str]]


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token of an ``authorization`` header, or None.

    Source:
        RFC 6750, section 2.1.
    """
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


class Vendor(ABC):
    """The manners of one vendor's API.

    Attributes:
        name: In lower case, for the names of threads and commands.
    """

    name: ClassVar[str]

    # -- every reply ---------------------------------------------------------------------------------------------

    def secret(self, headers: Mapping[str, str]) -> str | None:
        """The credential that a request shows, or None.

        Args:
            headers: Of the request, names in lower case.
        """
        return bearer(headers)

    @abstractmethod
    def request_id(self, now: float, rng: random.Random) -> str:
        """The id of a request that came at ``now`` (seconds since 1970-01-01 UTC)."""

    @abstractmethod
    def headers(self, request_id: str, milliseconds: int) -> Headers:
        """The headers of every reply.

        Args:
            request_id: The request's.
            milliseconds: Since the request's arrival.
        """

    def refuse_headers(self, headers: Mapping[str, str]) -> ApiError | None:  # noqa: ARG002  # for those that do
        """Why a request of a known key is refused for its headers; None: it is not."""
        return None

    # -- refusals ------------------------------------------------------------------------------------------------

    @abstractmethod
    def no_route(self, method: str, path: str, new_id: Callable[[], str]) -> ApiError:
        """Nothing is served there."""

    @abstractmethod
    def no_key(self, new_id: Callable[[], str]) -> ApiError:
        """The request shows no credential."""

    @abstractmethod
    def wrong_key(self, secret: str) -> ApiError:
        """The request shows a credential that nobody knows."""

    @abstractmethod
    def no_model(self, name: str) -> ApiError:
        """There is no such model, or it cannot do what is asked."""

    @abstractmethod
    def exhausted(self, quota: Quota, name: LimitName, now: float) -> ApiError:
        """A limit is used up.

        Args:
            quota: All limits of the model.
            name: Which one it is.
            now: Seconds since 1970-01-01 UTC.
        """

    @abstractmethod
    def malformed(self, what: Literal["json", "object", "form"], why: str) -> ApiError:
        """The body is no JSON, no JSON object, or no form."""

    def bad_http(self, status: int, message: str) -> dict[str, Any]:  # noqa: ARG002  # for those that name a type
        """The body of a refusal of bytes that are no request, or of a body that is too large."""
        return {"message": message}

    @abstractmethod
    def failed(self) -> ApiError:
        """The test's own answer function raised."""

    def signed(self, error: ApiError, request_id: str) -> ApiError:  # noqa: ARG002  # for those that do
        """The refusal with the request's id in it, where the vendor puts it into bodies."""
        return error

    # -- faults --------------------------------------------------------------------------------------------------

    @abstractmethod
    def error_object(self, status: int, fault: Fault) -> dict[str, Any]:
        """The body of an error reply, with the usual type, code and words where the fault gives none."""

    @abstractmethod
    def fault_error(self, fault: Fault, request_id: str) -> ApiError:
        """The error reply that a ``status`` fault stands for."""

    def error_event(self, fault: Fault, like: bytes) -> bytes:  # noqa: ARG002  # for those with streams of several kinds
        """The frame of an error inside a stream.

        Args:
            fault: What it says.
            like: Another frame of the stream.
        """
        return b"data: " + msgspec.json.encode(self.error_object(fault.status or 500, fault)) + b"\n\n"

    def is_end(self, data: bytes) -> bool:
        """Whether a frame only says that the stream is over."""
        return data == DONE
