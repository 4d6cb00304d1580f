"""A Router's arguments from a file, a mapping or the environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import attrs
import msgspec

from .errors import ConfigError
from .hooks import configured_plugins
from .keys import Key, read_reference
from .prices import Price, PriceBook
from .providers import Anthropic, Mistral, OpenAI, OpenAICompatible
from .providers.base import Provider
from .retries import RetryPolicy
from .timeouts import Timeout

__all__ = ["options_from_config", "options_from_env"]

_T = TypeVar("_T")

_TYPES: Final[dict[str, Callable[..., Provider]]] = {
    "anthropic": Anthropic,
    "mistral": Mistral,
    "openai": OpenAI,
    "openai_compatible": OpenAICompatible,
}
_VARIABLES: Final[dict[str, Callable[..., Provider]]] = {
    "MISTRAL_API_KEY": Mistral,
    "OPENAI_API_KEY": OpenAI,
    "ANTHROPIC_API_KEY": Anthropic,
}

_NEEDED: Final = {"openai_compatible": ("name", "base_url")}


def options_from_env(environ: Mapping[str, str]) -> dict[str, Any]:
    """The ``providers`` whose keys are in the environment: ``NAME``, ``NAME_2``, ``NAME_3`` and so on.

    Raises:
        ConfigError: There are none.
    """
    providers: list[Provider] = []
    for variable, make in _VARIABLES.items():
        names = [name for name in environ if environ[name] and _numbered(name, variable)]
        if names:
            names.sort(key=lambda name: (len(name), name))
            providers.append(make([Key.from_env(name) for name in names]))
    if not providers:
        raise ConfigError(f"no key in the environment; set {' or '.join(_VARIABLES)}", field="environ")
    return {"providers": providers}


def _numbered(name: str, variable: str) -> bool:
    rest = name.removeprefix(variable)
    return name.startswith(variable) and (not rest or (rest[0] == "_" and rest[1:].isdecimal()))


def options_from_config(source: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """A Router's keyword arguments from a TOML or JSON file, or a mapping of the same shape.

    Entries: ``providers`` (a list of tables with ``type``, ``keys`` and the adapter's own options; the types are
    ``mistral``, ``openai``, ``anthropic``, and ``openai_compatible``, which has a ``name`` and a ``base_url`` and may do without keys;
    a key is a reference such as ``env:NAME`` or a table of ``Key``'s arguments), ``plugins`` (in order, the first is
    outermost: the name of an installed one, or a table of its ``name`` and options), ``aliases``,
    ``fallbacks``, ``retry``, ``timeout``, ``prices``, ``engine``, ``require``.

    Raises:
        ConfigError: The file can not be read, or an entry is wrong; names the entry, never a secret.
    """
    table = dict(source) if isinstance(source, Mapping) else _read(Path(source))
    options: dict[str, Any] = {}
    for name, value in table.items():
        match name:
            case "providers":
                options[name] = [_provider(entry, f"providers[{index}]") for index, entry in enumerate(value)]
            case "plugins":
                options[name] = configured_plugins([*_plugins(value)])
            case "retry":
                options[name] = _made(RetryPolicy, value, name)
            case "timeout":
                options[name] = value if isinstance(value, (int, float)) else _made(Timeout, value, name)
            case "prices":
                options[name] = PriceBook(
                    {model: _made(Price, price, f"prices.{model}") for model, price in value.items()}
                )
            case "aliases" | "fallbacks" | "engine" | "require":
                options[name] = value
            case _:
                raise ConfigError(f"unknown entry {name!r} in the configuration", field=name)
    if "providers" not in options:
        raise ConfigError("the configuration has no providers", field="providers")
    return options


def _read(path: Path) -> Mapping[str, Any]:
    import tomllib  # noqa: PLC0415 # slow to import; for files alone

    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"configuration {path} can not be read: {type(exc).__name__}", field=str(path)) from None
    try:
        if path.suffix == ".json":
            return msgspec.json.decode(data, type=dict[str, Any])
        return tomllib.loads(data.decode())
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"configuration {path} is not valid {kind} ({type(exc).__name__})", field=str(path)) from None


def _provider(entry: Any, where: str) -> Provider:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is no table; it needs type and keys", field=where)
    options: dict[str, Any] = {**entry}
    kind = options.pop("type", None)
    if kind not in _TYPES:
        raise ConfigError(f"{where}.type is {kind!r}; there are {', '.join(_TYPES)}", field=f"{where}.type")
    listed: list[Any] = list(options.pop("keys", ()))
    keys = [_key(key, f"{where}.keys[{index}]") for index, key in enumerate(listed)]
    for name in _NEEDED.get(kind, ()):
        if name not in options:
            raise ConfigError(f"{where} has no {name}; a server of this type needs one", field=f"{where}.{name}")
    return _TYPES[kind](keys=keys, **options)


def _plugins(entries: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and options of each plugin."""
    if not isinstance(entries, (list, tuple)):
        raise ConfigError("plugins is no list of names and tables", field="plugins")
    listed = cast("Sequence[Any]", entries)
    for index, entry in enumerate(listed):
        options: dict[str, Any] = {"name": entry} if isinstance(entry, str) else {**_table(entry, f"plugins[{index}]")}
        name = options.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError(f'plugins[{index}] has no name; write name = "…"', field=f"plugins[{index}].name")
        yield name, options


def _table(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where} is neither a name nor a table", field=where)
    return entry  # pyright: ignore[reportUnknownVariableType] # of names, as files have them


def _key(entry: Any, where: str) -> Key:
    options: dict[str, Any] = {"secret": entry} if isinstance(entry, str) else {**entry}
    secret = options.pop("secret", None)
    if not isinstance(secret, str) or read_reference(secret) is None:
        raise ConfigError(f"{where} is no reference; a file holds no keys: write env:NAME or file:PATH", field=where)
    return _made(Key, {"secret": secret, **options}, where)


def _made(cls: Callable[..., _T], arguments: Mapping[str, Any], where: str) -> _T:
    """``cls(**arguments)``, with an error that names the entry."""
    made: Any = cls
    unknown = sorted(set(arguments) - {attribute.alias for attribute in attrs.fields(made)})
    if unknown:
        raise ConfigError(f"{where} has no entry {unknown[0]!r}", field=f"{where}.{unknown[0]}")
    return cls(**arguments)
