"""Credentials: ``Secret`` keeps a value out of every text, ``Key`` is one credential of a provider."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NoReturn

import attrs

from ._errors import ConfigError

__all__ = ["ANY_MODEL", "Key", "Masks", "Secret"]

ANY_MODEL: Final = "*"
"""The model of an operation that is on no model: ``"provider/*"``."""

_PRINTABLE: Final = re.compile(r"[!-~]+")  # ASCII 0x21 to 0x7E: what an HTTP field value may carry unquoted
_MIN_LENGTH: Final = 8
_MAX_LENGTH: Final = 4096
_SALT: Final = os.urandom(16)  # hashes of secrets mean nothing in another process
_REFERENCE: Final = re.compile(r"(env|file|vault|aws-sm|gcp-sm|azure-kv):(.+)", re.DOTALL)

_log = logging.getLogger(__name__)


class Secret:
    """A credential that does not show itself.

    ``repr``, ``str`` and ``format`` give a mask; pickling, copying and JSON are refused; comparison
    takes the same time for every value. ``reveal()`` is the only way to the text.

    Args:
        value: The credential: ASCII 0x21 to 0x7E, 8 to 4,096 characters. One newline at the end, as
            files have it, is dropped with a warning in the log.
        source: Where it came from, for the error message (``"env MISTRAL_API_KEY"``).

    Raises:
        ConfigError: The value can not be sent in an HTTP header. Names ``source``, never the value.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str | Secret, source: str = "secret") -> None:
        if isinstance(value, Secret):
            text = value.reveal()
        elif isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] # users' input
            text = value
        else:
            raise ConfigError(f"{source} is not a string but {type(value).__name__}", field=source)
        if text.endswith("\n"):
            text = text.removesuffix("\n").removesuffix("\r")
            _log.warning("%s ends with a line break, which is dropped", source)
        problem = None
        if not _MIN_LENGTH <= len(text) <= _MAX_LENGTH:
            problem = f"has {len(text)} characters; a key has {_MIN_LENGTH} to {_MAX_LENGTH}"
        elif _PRINTABLE.fullmatch(text) is None:
            problem = "holds a space, a line break or a character outside ASCII; copy the key again"
        if problem is not None:
            del text, value
            raise ConfigError(f"{source} {problem}", field=source)
        self.__value = text

    @classmethod
    def read(cls, reference: str) -> Secret:
        """The credential that ``env:NAME`` or ``file:PATH`` stands for, as it is now.

        Raises:
            ConfigError: It is not there or not usable, or ``reference`` is none of the two. Never shows it.
        """
        found = read_reference(reference)
        secret = _resolve_locally(reference) if found else None
        if secret is None:  # not quoted: it may be the credential itself
            raise ConfigError("a secret is named by env:NAME or file:PATH here, and nothing else", field="secret")
        return secret

    def reveal(self) -> str:
        """The credential itself. Put it on a request and nowhere else."""
        return self.__value

    def mask(self, text: str) -> str:
        """``text`` with every occurrence of this secret replaced by its mask."""
        return text.replace(self.__value, repr(self)) if self.__value in text else text

    def __repr__(self) -> str:
        value: str = getattr(self, "_Secret__value", "")  # absent in the frame of an error about it
        return f"Secret(…{value[-4:]})" if len(value) >= 20 else "****"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self.__value.encode(), other.reveal().encode())

    def __hash__(self) -> int:
        return hash((_SALT, self.__value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Secret:
        return self

    def __getstate__(self) -> NoReturn:
        self.__reduce__()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled: send a reference such as env:NAME to the other process")


class Masks:
    """Takes secrets out of texts, in a time that hardly depends on how many secrets there are.

    A secret has eight characters or more. So where there are more secrets than the text has characters, its pieces of
    eight are looked up among the ends of the secrets, and only those that match are searched for.

    Args:
        secrets: In the order in which they are masked.
    """

    __slots__ = ("__by_end", "__secrets")

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self.__secrets = tuple(secrets)
        by_end: dict[str, list[int]] = {}
        for place, secret in enumerate(self.__secrets):
            by_end.setdefault(secret.reveal()[-_MIN_LENGTH:], []).append(place)
        self.__by_end = by_end

    def mask(self, text: str) -> str:
        """``text`` with every occurrence of each of them replaced by its mask."""
        if len(self.__secrets) <= len(text):
            for secret in self.__secrets:
                text = secret.mask(text)
            return text
        by_end = self.__by_end
        pieces = [text[start : start + _MIN_LENGTH] for start in range(len(text) - _MIN_LENGTH + 1)]
        for place in sorted({place for piece in pieces if piece in by_end for place in by_end[piece]}):
            text = self.__secrets[place].mask(text)
        return text


def presented(value: str | Secret | None) -> Secret | None:
    """What a caller presents as a credential; a text that can be none becomes one that nobody has.

    The first thing done with it, so that no frame of a traceback holds the text.
    """
    if value is None or isinstance(value, Secret):
        return value
    try:
        return Secret(value, "virtual key")
    except ConfigError:
        return Secret(os.urandom(32).hex(), "virtual key")


def read_reference(reference: str) -> tuple[str, str] | None:
    """Split ``env:NAME`` and its like into scheme and rest; None for a plain credential."""
    found = _REFERENCE.fullmatch(reference)
    return (found[1], found[2]) if found else None


def _names(values: str | Iterable[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _default_id(secret: Secret | None, reference: str | None) -> str:
    if reference is not None and reference.startswith("env:"):
        return reference.removeprefix("env:")
    named = reference or "" if secret is None else secret.reveal()  # a vault answers later: its reference stands in
    # Keyed, so that the id of a short secret is not found in a table of hashes of common ones.
    digest = hashlib.blake2b(named.encode(), digest_size=4, key=b"bifrost_core.key.id")
    return f"k_{digest.hexdigest()}"


@attrs.frozen(init=False, kw_only=True)
class Key:
    """One credential of one provider.

    Attributes:
        id: Stable name, safe to log; unique within its provider. Without one: the name in
            ``env:NAME``, else ``k_`` and 8 hex digits.
        secret: The credential; None while a reference such as ``vault:…`` is not resolved yet.
        reference: The reference that the credential comes from, if any.
        weight: Share of traffic among keys that perform alike; 0: used only when no other key is left.
        models: Names of models, without the provider, that the key may be used for; ``*`` is a
            wildcard. Empty: none at all.
        exclude_models: Names that it may not be used for; wins over ``models``.
        quota_group: Keys with the same group share one quota at the provider. None: the key alone.
        enabled: A disabled key is never chosen.
        is_anonymous: It stands for no credential: nothing is sent (``Key.anonymous()``).

    Raises:
        ConfigError: The credential, a reference or a number is not usable. Never shows the value.
    """

    id: str
    secret: Secret | None = attrs.field(repr=False)
    reference: str | None
    weight: float
    models: tuple[str, ...]
    exclude_models: tuple[str, ...]
    quota_group: str | None
    enabled: bool
    is_anonymous: bool = attrs.field(repr=False)

    def __init__(
        self,
        secret: str | Secret | None,
        *,
        id: str | None = None,  # noqa: A002 # the public name
        weight: float = 1.0,
        models: str | Iterable[str] = ("*",),
        exclude_models: str | Iterable[str] = (),
        quota_group: str | None = None,
        enabled: bool = True,
        reference: str | None = None,  # set by ``attrs.evolve`` alone, as is the next
        is_anonymous: bool = False,
    ) -> None:
        resolved: Secret | None = None
        problem: ConfigError | None = None
        try:
            if isinstance(secret, str) and reference is None and read_reference(secret):
                reference, secret = secret, None
                resolved = _resolve_locally(reference)
            elif secret is not None:
                resolved = Secret(secret, f"key {id}" if id else "key")
            elif reference is None and not is_anonymous:
                problem = ConfigError(
                    f"key {id or 'without id'} has no secret; pass one or a reference", field="secret"
                )
        except ConfigError as exc:
            problem = exc
        del secret  # the frame of an error must not hold it
        if problem is not None:
            raise problem.with_traceback(None)
        if id is None:
            id = _default_id(resolved, reference)  # noqa: A001
        if not id or not id.isprintable():
            raise ConfigError("a key's id is empty or not printable; leave it out or give it a name", field="id")
        if not (isinstance(weight, (int, float)) and 0 <= weight < float("inf")):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigError(f"key {id}: weight must be a number >= 0, not {weight!r}", field="weight")
        self.__attrs_init__(  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue] # attrs makes it
            id=id,
            secret=resolved,
            reference=reference,
            weight=float(weight),
            models=_names(models),
            exclude_models=_names(exclude_models),
            quota_group=quota_group,
            enabled=bool(enabled),
            is_anonymous=is_anonymous and resolved is None and reference is None,
        )

    @classmethod
    def from_env(cls, name: str, **options: Any) -> Key:
        """A key whose credential is in the environment variable ``name``; ``options`` as for ``Key``."""
        return cls(f"env:{name}", **options)

    @classmethod
    def anonymous(cls, id: str = "anonymous", **options: Any) -> Key:  # noqa: A002 # as of a key
        """A key for servers that ask for none: it makes a route, and no credential is sent; ``options`` as for ``Key``."""
        return cls(None, id=id, is_anonymous=True, **options)

    def __repr__(self) -> str:
        # Half-made in the frame of an error about it, which a debugger or an error tracker may show.
        shown = [field.name for field in attrs.fields(type(self)) if field.repr and hasattr(self, field.name)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def serves(self, model: str) -> bool:
        """Whether the key may be used for ``model`` (the name without its provider); for no model any enabled key."""
        if not self.enabled or model == ANY_MODEL:
            return self.enabled
        if any(fnmatchcase(model, pattern) for pattern in self.exclude_models):
            return False
        return any(pattern == "*" or fnmatchcase(model, pattern) for pattern in self.models)

    def resolve(self, value: str) -> Key:
        """A copy that holds the credential which a vault answered for ``reference``.

        Raises:
            ConfigError: The answer is not usable as a credential. Never shows it.
        """
        problem: ConfigError | None = None
        secret: Secret | None = None
        try:
            secret = Secret(value, f"key {self.id}")
        except ConfigError as exc:
            problem = exc
        del value  # the frame of an error must not hold it
        if problem is not None:
            raise problem.with_traceback(None)
        return attrs.evolve(self, secret=secret)


def _resolve_locally(reference: str) -> Secret | None:
    """Read ``env:`` and ``file:`` references; None for those that a plugin resolves."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        value = os.environ.get(rest)
        if not value:
            raise ConfigError(f"environment variable {rest} is not set; export it or pass a key", field=rest)
        return Secret(value, f"env {rest}")
    if scheme == "file":
        try:
            value = Path(rest).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(f"key file {rest} can not be read: {type(exc).__name__}", field=rest) from None
        return Secret(value, f"file {rest}")
    return None
