"""A request as the answers see it, whatever it came over."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import parse_qs

import attrs

from ._answers import Json, SchemaError
from ._errors import ApiError
from ._replies import Reply
from ._service import KeyState, Service
from .catalogue import SimulatedModel
from .quotas import LimitName, Quota

__all__ = ["Admission", "Question", "read_query"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def read_query(query: str) -> dict[str, str]:
    """The parameters of a query; of repeated ones the last."""
    return {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}


@attrs.frozen
class Admission:
    """A request that its model and its key's limits let in.

    Attributes:
        model: What answers.
        quota: What is left of the limits, and is charged.
    """

    model: SimulatedModel
    quota: Quota


@attrs.define(eq=False, kw_only=True)
class Question:
    """One request, read and not yet answered.

    Attributes:
        service: What it is answered from.
        state: Its key's.
        rng: The random numbers of this request.
        body: Its members; empty without a body.
        size: Bytes of its body.
        path_id: The id in its path, if there is one.
        query: Its parameters.
        base_url: Where the service is reached, without ``/v1``.
        headers: Its headers, names in lower case.
        first_token: Seconds until the first token, as drawn for this request.
        tokens_per_second: Output speed after that.
    """

    service: Service
    state: KeyState
    rng: random.Random
    body: Json
    size: int
    path_id: str
    query: Mapping[str, str]
    base_url: str
    headers: Mapping[str, str]
    first_token: float
    tokens_per_second: float

    @property
    def streams(self) -> bool:
        """Whether a stream is asked for."""
        return self.body.get("stream") is True

    @property
    def owner(self) -> str:
        """Whose files it may see: the key's quota group."""
        return self.service.group(self.state)

    @property
    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self.service.clock.time()

    def admit(self, capability: str, *limits: LimitName) -> Admission:
        """Find the model and take the request into account.

        Args:
            capability: What the model has to be able to do, as the model list names it; ``""`` for
                embeddings.
            limits: Those that hold for the endpoint.

        Raises:
            ApiError: There is no such model, or a limit is exhausted.
        """
        model = self.service.model(self.body["model"], capability)
        return Admission(model, self.service.admit(self.state, model, *limits))

    def ask(self, law: Callable[..., T], *arguments: object) -> T:
        """What the test's own function says.

        Raises:
            ApiError: 500: it failed, which is logged; or the one that it raised itself.
            SchemaError: A JSON Schema of the request is none.
        """
        try:
            return law(*arguments)
        except (ApiError, SchemaError):
            raise
        except Exception:
            logger.exception("the answer function of the simulated service failed")
            raise self.service.vendor.failed() from None

    def new_id(self) -> str:
        """32 hexadecimal digits."""
        return f"{self.rng.getrandbits(128):032x}"

    def reply(self, body: bytes = b"") -> Reply:
        """A reply that takes as long as the key takes."""
        return Reply(body=body, first_token=self.first_token, tokens_per_second=self.tokens_per_second)
