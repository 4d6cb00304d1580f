"""What is served where, and a request on its way to its answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias, cast

import attrs
import msgspec

from bifrost_core.forms import Field, FormError, Upload, read_form

from ._answers import Json
from ._errors import ApiError
from ._questions import Question, read_query
from ._replies import Reply
from ._service import KeyState, Service
from .journal import ServedPart, ServedRequest
from .laws import Latency

__all__ = ["Asked", "Endpoint", "Find"]

Fold: TypeAlias = Callable[[Sequence[Field]], Json]
_NONE: Mapping[str, str] = MappingProxyType({})


def _allow(_body: Json) -> None:
    """Refuse nothing: there is no body."""


@attrs.frozen(kw_only=True)
class Endpoint:
    """How one kind of request is answered.

    Attributes:
        answer: Makes the reply.
        check: Refuses bodies; may fill in what was left out.
        fold: Makes an object of a form's parts; None where the body is JSON.
        has_body: Whether there is one.
    """

    answer: Callable[[Question], Reply]
    check: Callable[[Json], None] = _allow
    fold: Fold | None = None
    has_body: bool = True


Find: TypeAlias = Callable[[str, str], tuple[Endpoint, str] | None]
"""What answers a method and a path, and the id in the path; None: nothing does."""


@attrs.define(eq=False, kw_only=True)
class Asked:
    """A request that has come and whose answer is about to be made.

    Attributes:
        service: What it is answered from.
        state: Its key's.
        record: The journal's, which it fills in as far as it understands the request.
        rng: The random numbers of this request.
        endpoint: What answers it.
        path_id: The id in its path.
        query: What follows the ``?`` in its address.
        base_url: Where the service is reached, without ``/v1``.
        content_type: Of its body.
        content: Its body.
        headers: Its headers, names in lower case.
        draw: What chance depends on in place of the request's number; None: on the number.
    """

    service: Service
    state: KeyState
    record: ServedRequest
    rng: random.Random
    endpoint: Endpoint
    path_id: str
    query: str
    base_url: str
    content_type: str
    content: bytes
    headers: Mapping[str, str] = _NONE
    draw: object = attrs.field(default=None, init=False)
    _law: Latency = attrs.field(factory=Latency, init=False)
    _first_token: float = attrs.field(default=0.0, init=False)
    _body: Json = attrs.field(factory=dict[str, object], init=False)
    _malformed: ApiError | None = attrs.field(default=None, init=False)

    def read(self) -> None:
        """Read the body and draw how long the answer takes.

        A body that cannot be read is refused by ``answer`` only, as faults come before.
        """
        if self.endpoint.has_body:
            try:
                self._body = self._parse()
            except ApiError as exc:
                self._malformed = exc
        self.draw = self._body.get("random_seed") if self.service.paired else None
        if self.draw is not None:
            self.rng = random.Random(f"{self.service.seed}//{self.draw}")
        self._law = self.service.latency(self.state, self._body.get("prompt_cache_key"))
        self._first_token = self._law.draw(self.rng)
        if not self.endpoint.has_body:
            return
        self.record.stream = self._body.get("stream") is True
        model = self._body.get("model")
        self.record.model = model if isinstance(model, str) else None

    def answer(self) -> Reply:
        """The reply.

        Raises:
            ApiError: The request is refused.
        """
        if self._malformed is not None:
            raise self._malformed
        self.endpoint.check(self._body)
        return self.endpoint.answer(
            Question(
                service=self.service,
                state=self.state,
                rng=self.rng,
                body=self._body,
                size=len(self.content),
                path_id=self.path_id,
                query=read_query(self.query),
                base_url=self.base_url,
                headers=self.headers,
                first_token=self._first_token,
                tokens_per_second=self._law.tokens_per_second,
            )
        )

    def _parse(self) -> Json:
        """The body as an object.

        Raises:
            ApiError: It is none.
        """
        fold = self.endpoint.fold
        if fold is None:
            return self._parse_json()
        try:
            fields = read_form(self.content_type, self.content)
        except FormError as exc:
            raise self.service.vendor.malformed("form", str(exc)) from None
        if self.service.keep_bodies:
            self.record.parts = tuple(map(_describe, fields))
        return fold(fields)

    def _parse_json(self) -> Json:
        try:
            found: object = msgspec.json.decode(self.content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self.service.vendor.malformed("json", "it is not valid JSON") from None
        if not isinstance(found, dict):
            raise self.service.vendor.malformed("object", "it is no object")
        return cast("Json", found)


def _describe(field: Field) -> ServedPart:
    """A part for the journal."""
    name, value = field
    if isinstance(value, Upload):
        return ServedPart(name, len(value.data), value.filename, value.content_type)
    return ServedPart(name, len(value.encode()))
