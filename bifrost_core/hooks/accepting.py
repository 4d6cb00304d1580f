"""What each hook takes as a result. Called for results that are not None only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from inspect import isawaitable
from types import MappingProxyType
from typing import Any, Final

from bifrost_core.calls import Principal
from bifrost_core.hookspecs import StreamFilter
from bifrost_core.responses import Response
from bifrost_core.types import Request, Route

from .implementations import WrongTypeError, drop

__all__ = ["acceptance", "kind_of"]

Accept = Callable[[Any, Any], Any]
"""Takes result and subject; returns the result as the chain goes on with it, or raises ``WrongTypeError``."""


def kind_of(value: object) -> str:
    """The type of ``value`` with its article (``"a dict"``), as no message shows the value."""
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name}"


def _refuse(result: object, wanted: str) -> WrongTypeError:
    if isawaitable(result):
        drop(result)
        return WrongTypeError(f"returned an awaitable ({type(result).__name__}) but may not wait; return {wanted}")
    return WrongTypeError(f"returned {kind_of(result)}; return {wanted}")


def _nothing(instead: str = "") -> Accept:
    def accept(result: Any, _: Any) -> Any:
        raise _refuse(result, f"nothing{instead}")

    return accept


def _instance(wanted: type) -> Accept:
    def accept(result: Any, _: Any) -> Any:
        if isinstance(result, wanted):
            return result
        name = wanted.__name__
        raise _refuse(result, f"{'an' if name[:1] in 'AEIOaeio' else 'a'} {name} or None")

    return accept


def _name(route: Route) -> tuple[str, str, str]:
    return route.provider, route.model, route.key_id


def _routes(result: Any, subject: tuple[Route, ...]) -> tuple[Route, ...]:
    if not isinstance(result, Sequence) or isinstance(result, (str, bytes)):
        raise _refuse(result, "a sequence of Route or None")
    routes: tuple[Any, ...] = tuple(result)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for route in routes:
        if not isinstance(route, Route):
            whole = kind_of(result)  # pyright: ignore[reportUnknownArgumentType]
            raise WrongTypeError(f"returned {whole} with {kind_of(route)} in it; return a sequence of Route or None")
    names = [_name(route) for route in routes]
    if len(set(names)) != len(names) or not set(names) <= {_name(route) for route in subject}:
        raise WrongTypeError("returned a route twice, or one that it was not given; return some of those, each once")
    return routes


def _one_route(result: Any, subject: tuple[Route, ...]) -> Route:
    if not isinstance(result, Route):
        raise _refuse(result, "one of the routes or None")
    name = _name(result)
    for route in subject:
        if _name(route) == name:
            return route
    raise WrongTypeError("returned a route that it was not given; return one of those or None")


def _filter(result: Any, _: Any) -> StreamFilter:
    if isinstance(result, StreamFilter) and not isinstance(result, type):
        return result
    raise _refuse(result, "an object with feed and finish, or None")


def _context(result: Any, _: Any) -> AbstractAsyncContextManager[object]:
    if isinstance(result, AbstractAsyncContextManager):
        return result  # pyright: ignore[reportUnknownVariableType] # whatever it gives is not used
    raise _refuse(result, "an async context manager")


def _providers(result: Any, _: Any) -> tuple[Any, ...]:
    if not isinstance(result, Iterable) or isinstance(result, (str, bytes, Mapping)):
        raise _refuse(result, "an iterable of providers")  # pyright: ignore[reportUnknownArgumentType]
    providers: tuple[Any, ...] = tuple(result)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    for provider in providers:
        if not isinstance(getattr(provider, "name", None), str):
            raise WrongTypeError(
                f"returned {kind_of(provider)} among its providers, which has no name; return providers"
            )
    return providers


def acceptance(hook: str, *, checks: bool) -> Accept:
    """What ``hook`` takes; from an implementation that only checks, nothing but what it was given."""
    accept = _ACCEPTS[hook]
    if not checks:
        return accept

    def unchanged(result: Any, subject: Any) -> Any:
        if accept(result, subject) is subject or result == subject:
            return subject
        raise WrongTypeError("returned a changed value but says that it only checks; return None or drop checks=True")

    return unchanged


_ACCEPTS: Final[Mapping[str, Accept]] = MappingProxyType(
    {
        "bifrost_authenticate": _instance(Principal),
        "bifrost_authorize": _nothing("; to refuse, raise RefusedError"),
        "bifrost_guard_request": _instance(Request),
        "bifrost_cached_response": _instance(Response),
        "bifrost_select_routes": _routes,
        "bifrost_pick_route": _one_route,
        "bifrost_reserve": _nothing("; to refuse, raise BudgetExceededError or RateLimitError"),
        "bifrost_attempt_finished": _nothing(),
        "bifrost_stream_filter": _filter,
        "bifrost_guard_response": _instance(Response),
        "bifrost_recover": _instance(Response),
        "bifrost_call_finished": _nothing(),
        "bifrost_lifespan": _context,
        "bifrost_providers": _providers,
        "bifrost_resolve_secret": _instance(str),
    }
)
