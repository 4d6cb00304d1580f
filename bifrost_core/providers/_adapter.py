"""What every provider on HTTP shares: name, keys, where it is and how it is reached, and one table of operations."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, cast

import attrs

from bifrost_core.bodies import MAX_JSON, MAX_UPLOAD, Multipart, Part
from bifrost_core.engines.base import HttpEngine
from bifrost_core.errors import ConfigError
from bifrost_core.keys import Key, Secret
from bifrost_core.kinds import Kind
from bifrost_core.responses import Response
from bifrost_core.types import Operation, Request
from bifrost_core.wire import Auth, HttpCall, HttpReply, Network, RawHeaders

from ._json import encode, unusable_member
from ._reporter import Reporter
from ._urls import base_of
from .base import Quota, StreamDecoder

__all__ = ["Codec", "HttpProvider", "Payload"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_FIELD_VALUE: Final = re.compile(r"[!-~](?:[ \t!-~]*[!-~])?")
_OPTIONS: Final = ("allow_http", "headers", "max_in_flight", "max_in_flight_per_key", "proxy", "verify")
_EVENTS: Final = "text/event-stream"
_OURS: Final = frozenset(
    {"accept", "accept-encoding", "connection", "content-length", "content-type", "host", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)


@attrs.frozen
class Payload:
    """A request's body before it becomes bytes.

    Attributes:
        members: The JSON members; None for a request without a body.
        output_upper: The output limit that they carry, in tokens over all choices; None without.
        path: Path behind the base URL, where it is another than the operation's own; with its query.
        form: The fields of a form that is sent instead of ``members``.
        hidden_tokens: Tokens that the provider may add to the prompt beyond what is sent.
        headers: Headers of this request alone; they go before those of all requests that have the same names.
    """

    members: dict[str, Any] | None
    output_upper: int | None = None
    path: str = ""
    form: tuple[Part, ...] = ()
    hidden_tokens: int = 0
    headers: RawHeaders = ()


@attrs.frozen
class Codec:
    """How one operation is written and read.

    Attributes:
        path: Its path behind the base URL.
        write: The request and an output limit as a payload.
        read: A successful answer as a response; raises ``CallError``.
        stream: Makes the decoder of a streamed answer; None where it can not be streamed.
        method: ``POST`` or ``GET``.
        accept: What the header ``accept`` says of a whole answer.
    """

    path: str
    write: Callable[[Request, int | None, Reporter], Payload]
    read: Callable[[Request, HttpReply, Reporter], Response]
    stream: Callable[[Request, Reporter], StreamDecoder] | None = None
    method: str = "POST"
    accept: str = "application/json"


@functools.cache
def user_agent() -> str:
    """``bifrost-core/VERSION``."""
    from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 # slow to import; needed once

    try:
        return f"bifrost-core/{version('bifrost-core')}"
    except PackageNotFoundError:
        return "bifrost-core"


class HttpProvider:
    """One provider's adapter: values in, values out. A subclass brings the table of its operations.

    Args:
        keys: ``Key``s or plain strings.
        base_url: With or without ``/v1``, with a path in front or not.
        name: First part of its models' names.
        **options: ``headers`` (extra ones for every request), ``proxy`` (URL), ``verify`` (True, a
            path to a CA bundle, or an ``ssl.SSLContext``), ``max_in_flight`` and
            ``max_in_flight_per_key`` (requests at once), ``allow_http`` (take an unencrypted URL of
            another machine).

    Raises:
        ConfigError: An argument is not usable; names it, and never shows a credential.
    """

    __slots__ = (
        "_calls",
        "_headers",
        "_table",
        "auth",
        "base_url",
        "engine",
        "keys",
        "name",
        "network",
        "operations",
        "reporter",
    )

    codecs: ClassVar[Mapping[Operation, Codec]] = {}

    def __init__(
        self,
        keys: Iterable[Key | Secret | str] | Key | Secret | str,
        *,
        base_url: str,
        name: str,
        **options: Any,
    ) -> None:
        # Nothing that holds a credential stays in a frame that an error could show.
        made, problem = _made_keys(keys)
        del keys
        network, network_problem = _made_network(options)
        base, base_problem = _made_base(base_url, allow_http=bool(options.get("allow_http", False)))
        del options, base_url
        problem = problem or network_problem or base_problem
        if problem is not None:
            raise problem.with_traceback(None)
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
            raise ConfigError("name is one word of a-z, 0-9, '_', '.' and '-'", field="name")
        self.name: str = name
        self.keys: tuple[Key, ...] = made
        self._table: Mapping[Operation, Codec] = self.table()
        self.operations: frozenset[Operation] = frozenset(self._table)
        self.auth: Auth = Auth()
        self.network: Network = network
        self.engine: HttpEngine | None = None
        self.base_url: str = base
        self.reporter: Reporter = Reporter(name, made)
        self._calls: dict[Operation, str] = {at: self.base_url + codec.path for at, codec in self._table.items()}
        agent = (b"user-agent", user_agent().encode())
        identity = (b"accept-encoding", b"identity")
        content = ((b"content-type", b"application/json"),)
        self._headers: dict[tuple[str, str], RawHeaders] = {
            (method, accept): (*body, (b"accept", accept.encode()), identity, agent)
            for method, body in (("POST", content), ("GET", ()))
            for accept in {_EVENTS, *(codec.accept for codec in self._table.values())}
        }

    def __repr__(self) -> str:
        name, keys = getattr(self, "name", "?"), getattr(self, "keys", ())  # not there yet while it is being made
        return f"{type(self).__name__}(name={name!r}, keys={[key.id for key in keys]!r})"

    def table(self) -> Mapping[Operation, Codec]:
        """Its operations, asked once when it is made: ``codecs``, or what a subclass imports then and not before."""
        return self.codecs

    def knows(self, model: str) -> bool:
        """Whether ``model`` is by its name one of this provider's."""
        raise NotImplementedError  # each provider has its own

    def encode(self, request: Request, max_output: int | None = None) -> HttpCall:
        """Write the request as one HTTP exchange, without the credential.

        Args:
            request: ``request.model`` is the name at the provider.
            max_output: Output limit in tokens to send instead of a higher one, or of none.

        Raises:
            BadRequestError: It can not be put into the provider's shape; names the field.
        """
        codec = self._codec(request)
        if request.stream and codec.stream is None:
            raise self.reporter.unsupported("stream", f"{request.operation.value} is not streamed; call it plainly")
        payload = codec.write(request, max_output, self.reporter)
        members = payload.members
        headers = self._headers[codec.method, _EVENTS if request.stream else codec.accept]
        if payload.headers:
            own = {name for name, _ in payload.headers}
            headers = (*(header for header in headers if header[0] not in own), *payload.headers)
        body = b""
        form: Multipart | None = None
        if payload.form:
            form = self._form(payload.form)
            headers = ((b"content-type", form.content_type.encode()), *headers[1:])
        elif members is not None:
            written = encode(members)
            if written is None:
                field, problem = unusable_member(members)
                raise self.reporter.invalid(f"the field {field!r} {problem}")
            if len(written) > MAX_JSON:
                raise self.reporter.invalid(
                    f"its body has {len(written)} bytes, more than {MAX_JSON}; make it smaller, or pass files by URL",
                    kind=Kind.REQUEST_TOO_LARGE,
                )
            body = written
        return HttpCall(
            codec.method,
            self.base_url + payload.path if payload.path else self._calls[request.operation],
            headers,
            body,
            request.stream,
            payload.output_upper,
            form,
            payload.hidden_tokens,
        )

    def _form(self, parts: tuple[Part, ...]) -> Multipart:
        """The body that carries a form.

        Raises:
            BadRequestError: It is too large, or holds what is no text.
        """
        problem = ""
        form: Multipart | None = None
        try:
            form = Multipart.of(parts)
        except UnicodeEncodeError:
            problem = "a field of the form holds half a surrogate pair, which is no text"
        if form is None:
            raise self.reporter.invalid(problem)
        if len(form) > MAX_UPLOAD:
            raise self.reporter.invalid(
                f"its body has {len(form)} bytes, more than {MAX_UPLOAD}; pass the file by URL, or in pieces",
                kind=Kind.REQUEST_TOO_LARGE,
            )
        return form

    def decode(self, request: Request, reply: HttpReply) -> Response:
        """Read a whole answer.

        Raises:
            CallError: The status is no success, or the body is unusable.
        """
        if not 200 <= reply.status < 300:
            raise self.reporter.failure(reply, request.model)
        return self._codec(request).read(request, reply, self.reporter)

    def decoder(self, request: Request) -> StreamDecoder:
        """A decoder for one streamed answer."""
        stream = self._codec(request).stream
        if stream is None:
            raise self.reporter.unsupported("stream", f"{request.operation.value} is not streamed; call it plainly")
        return stream(request, self.reporter)

    def quotas(self, headers: Mapping[str, str]) -> tuple[Quota, ...]:  # noqa: ARG002 # for subclasses
        """What the headers say is left of the limits; nothing unless the subclass knows the names."""
        return ()

    def _codec(self, request: Request) -> Codec:
        codec = self._table.get(request.operation)
        if codec is None:
            raise self.reporter.unsupported(request.operation.value, "this adapter does not map the operation")
        return codec


def _made_keys(given: object) -> tuple[tuple[Key, ...], ConfigError | None]:
    """The keys, or what is wrong with them."""
    if isinstance(given, (str, Secret, Key)):
        given = (given,)
    if not isinstance(given, Iterable):
        return (), ConfigError(f"keys is {type(given).__name__}; pass Keys or strings", field="keys")
    made: list[Key] = []
    for index, key in enumerate(cast("Iterable[object]", given)):
        if isinstance(key, Key):
            made.append(key)
        elif isinstance(key, (str, Secret)):
            try:
                made.append(Key(key))
            except ConfigError as exc:
                return (), ConfigError(f"keys[{index}]: {exc.message}", field=f"keys[{index}]")
        else:
            return (), ConfigError(f"keys[{index}] is {type(key).__name__}; pass a Key or a string", field="keys")
    seen: set[str] = set()
    for key in made:
        if key.id in seen:
            return (), ConfigError(f"two keys have the id {key.id!r}; ids are unique within a provider", field="keys")
        seen.add(key.id)
    return tuple(made), None


def _made_base(url: str, *, allow_http: bool) -> tuple[str, ConfigError | None]:
    """The base URL in its one form, or what is wrong with it."""
    try:
        return base_of(url, allow_http=allow_http), None
    except ConfigError as exc:
        return "", exc


def _made_headers(given: object) -> dict[str, str] | str:
    """Extra headers with their names in lower case, or what is wrong with them; never shows a value."""
    if not isinstance(given, Mapping):
        return "headers is not a mapping of names to values"
    headers: dict[str, str] = {}
    for name, value in cast("Mapping[object, object]", given).items():
        if not isinstance(name, str) or _TOKEN.fullmatch(name) is None:
            return "headers holds a name that HTTP does not allow"
        if not isinstance(value, str) or _FIELD_VALUE.fullmatch(value) is None:
            return f"the value of header {name!r} is not printable ASCII"
        if name.lower() in _OURS or name.lower() == "authorization":
            return f"header {name!r} is set by the library; leave it out"
        headers[name.lower()] = value
    return headers


def _is_count(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


def _made_network(options: Mapping[str, Any]) -> tuple[Network, ConfigError | None]:
    """How the provider is reached, or what is wrong with the options."""
    unknown = sorted(set(options) - set(_OPTIONS))
    problem, field = "", None
    headers = _made_headers(options.get("headers") or {})
    proxy, verify = options.get("proxy"), options.get("verify", True)
    if unknown:
        problem, field = f"unknown option {', '.join(unknown)}; there are {', '.join(_OPTIONS)}", unknown[0]
    elif isinstance(headers, str):
        problem, field = headers, "headers"
    elif proxy is not None and not (isinstance(proxy, str) and re.match(r"(https?|socks5h?)://[!-~]+\Z", proxy)):
        problem, field = "proxy is a URL such as http://host:3128", "proxy"
    elif not (verify is True or isinstance(verify, (str, os.PathLike)) or hasattr(verify, "wrap_socket")):
        problem, field = "verify is True, a path to a CA bundle or an ssl.SSLContext; it can not be off", "verify"
    else:
        for field in ("max_in_flight", "max_in_flight_per_key"):
            if not _is_count(options.get(field)):
                problem = f"{field} is a whole number of at least 1"
                break
    if problem or isinstance(headers, str):
        return Network(), ConfigError(problem, field=field)
    return (
        Network(
            headers=headers,
            proxy=proxy,
            verify=cast("Any", verify),
            max_in_flight=options.get("max_in_flight"),
            max_in_flight_per_key=options.get("max_in_flight_per_key"),
        ),
        None,
    )
