"""What all calls of a Router share: providers, their keys, and one balancer per deployment."""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Callable, Iterable
from typing import Any, Final

import attrs
from cachetools import LRUCache

from .balancing import Balancer
from .clocks import Clock
from .errors import ConfigError
from .health import Health, RouteHealth
from .hedging import AnswerTimes
from .keys import Key, Masks
from .kinds import Kind
from .providers.base import Provider
from .types import Route, RouteRef

__all__ = ["Deployment", "Deployments", "PickRequest"]

_MAX_DEPLOYMENTS: Final = 10_000
_PROMPT_RATIO: Final = 0.35  # above the greatest seen in recorded text exchanges, 0.31
_OUTPUT_RATIO: Final = 0.35  # of streamed text in Latin script; a model's own answers teach it better
_MOST_PER_BYTE: Final = 8.0  # more tokens than bytes: reasoning that is counted and not shown
_RATIO_STEP: Final = 0.02  # of the way to the ratio of each answer, downwards


@attrs.define(eq=False)
class PickRequest:
    """What a balancer may know of a request.

    Attributes:
        session: Calls of one session like to stay on one key.
        input_tokens: Estimate of the prompt's tokens.
        attempt: 0 for the first attempt of a call.
    """

    session: str | None = None
    input_tokens: int = 0
    attempt: int = 0


class Deployment:
    """A model at a provider, with the keys that may be used for it.

    Args:
        provider: The adapter.
        model: The model's name at the provider.
        keys: The provider's keys; those that do not serve the model are left out.
        balancer: Chooses among the keys.
    """

    __slots__ = (
        "_begin_takes_stream",
        "_masks",
        "answer_times",
        "balancer",
        "by_key",
        "first_token_times",
        "key_ids",
        "keys",
        "model",
        "name",
        "output_ratio",
        "prompt_ratio",
        "provider",
        "routes",
    )

    def __init__(self, provider: Provider, model: str, keys: Iterable[Key], balancer: Balancer) -> None:
        self.provider = provider
        self.model = model
        self.name = f"{provider.name}/{model}"
        self.balancer = balancer
        self.keys: dict[str, Key] = {}
        self.routes: tuple[Route, ...] = ()
        self.key_ids: tuple[str, ...] = ()  # of the routes, in their order
        self.by_key: dict[str, Route] = {}
        self._masks: Masks | None = None  # until an error needs them
        self.answer_times = AnswerTimes()  # of plain calls; kept up where somebody hedges
        self.first_token_times = AnswerTimes()  # of streams
        self.prompt_ratio = _PROMPT_RATIO  # prompt tokens per byte of a request's body: a slowly decaying maximum
        self.output_ratio = _OUTPUT_RATIO  # output tokens per byte of a streamed answer, likewise
        self._begin_takes_stream = _takes(balancer.begin, "stream")
        for key in keys:
            self._take(key)
        self._rebuild()  # once for all of them: a thousand keys would make half a million routes

    def add(self, key: Key) -> None:
        """Take a key into use, if it serves the model."""
        if self._take(key):
            self._rebuild()

    def _take(self, key: Key) -> bool:
        if not key.serves(self.model) or (key.secret is None and not key.is_anonymous):
            return False
        self.keys[key.id] = key
        self.balancer.add(key.id, key.weight)
        return True

    def remove(self, key_id: str) -> None:
        """Choose a key no more; attempts in flight on it go on."""
        if self.keys.pop(key_id, None) is not None:
            self.balancer.remove(key_id)
            self._rebuild()

    @property
    def masks(self) -> Masks:
        """Takes the keys out of what a provider said."""
        if self._masks is None:
            self._masks = Masks(key.secret for key in self.keys.values() if key.secret is not None)
        return self._masks

    def begin(self, key_id: str, *, stream: bool) -> Any:
        """Tell the balancer that an attempt starts; its token is for ``end``."""
        if stream and self._begin_takes_stream:
            return self.balancer.begin(key_id, stream=True)  # type: ignore[call-arg] # asked by its signature
        return self.balancer.begin(key_id)

    def learn_prompt(self, body: int, tokens: int) -> None:
        """Note how many prompt tokens a body of so many bytes was counted as."""
        if body and tokens:
            seen = min(1.0, tokens / body)
            self.prompt_ratio = max(seen, self.prompt_ratio - (self.prompt_ratio - seen) * _RATIO_STEP)

    def learn_output(self, size: int, tokens: int) -> None:
        """Note how many output tokens a streamed answer of so many bytes was counted as."""
        if size and tokens:
            seen = min(_MOST_PER_BYTE, tokens / size)
            self.output_ratio = max(seen, self.output_ratio - (self.output_ratio - seen) * _RATIO_STEP)

    def output_tokens(self, size: int, pieces: int) -> int:
        """An estimate of the tokens of so many bytes of an answer, which came in so many pieces: one each at least."""
        return max(pieces, math.ceil(size * self.output_ratio))

    def prompt_tokens(self, body: int) -> int:
        """An estimate of the prompt tokens of a body of so many bytes; at least 1."""
        return max(1, math.ceil(body * self.prompt_ratio))

    def report(self, health: Health) -> list[RouteHealth]:
        """How each of the routes stands, with the balancer's figures where it has any."""
        snapshot: Any = getattr(self.balancer, "snapshot", dict[str, Any])()
        rows: list[RouteHealth] = []
        for route in self.routes:
            seen = snapshot.get(route.key_id)
            if seen is None:
                rows.append(health.describe(route))
                continue
            row = health.describe(
                route,
                latency=seen.latency,
                time_to_first_token=seen.time_to_first_token,
                in_flight=seen.in_flight,
                share=seen.share,
            )
            if row.state == "closed" and seen.reason in ("dry", "refused") and seen.rest > 0:
                row = attrs.evolve(row, until=seen.rest, reason=Kind.RATE_LIMITED)  # spared: a quota is used up
            rows.append(row)
        return rows

    def _rebuild(self) -> None:
        self.routes = tuple(
            Route(self.provider.name, self.model, key.id, key.weight, key.quota_group) for key in self.keys.values()
        )
        self.key_ids = tuple(self.keys)
        self.by_key = dict(zip(self.key_ids, self.routes, strict=True))
        self._masks = None


class Deployments:
    """The providers of a Router, their keys at this moment, and the deployments that calls have asked for.

    Args:
        providers: In the order in which they were given.
        balancer: Makes a balancer per deployment; called with ``clock`` and ``rng`` where it takes them.
        clock: Monotonic seconds.
        rng: For the balancers.

    Raises:
        ConfigError: Two providers of one name, or two keys of one id at a provider.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        balancer: Callable[..., Balancer],
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self.providers: dict[str, Provider] = {}
        self._keys: dict[str, dict[str, Key]] = {}
        self._live: LRUCache[tuple[str, str], Deployment] = LRUCache(_MAX_DEPLOYMENTS)
        self._factory = balancer
        self._arguments = {name: value for name, value in (("clock", clock), ("rng", rng)) if _takes(balancer, name)}
        for provider in providers:
            self.add_provider(provider)

    def add_provider(self, provider: Provider) -> None:
        """Take a provider and its keys into use."""
        if provider.name in self.providers:
            raise ConfigError(f"two providers are named {provider.name!r}; give one another name=", field="providers")
        self.providers[provider.name] = provider
        self._keys[provider.name] = {}
        for key in provider.keys:
            self.add_key(provider.name, key)

    def keys_of(self, provider: str) -> Iterable[Key]:
        """The provider's keys at this moment."""
        return self._keys[provider].values()

    def add_key(self, provider: str, key: Key) -> None:
        """Take a key into use in every deployment that it serves."""
        keys = self._keys_of(provider)
        if key.id in keys:
            raise ConfigError(f"provider {provider!r} has a key {key.id!r} already; give one another id=", field="id")
        keys[key.id] = key
        for deployment in self._of(provider):
            deployment.add(key)

    def replace_key(self, provider: str, key: Key) -> None:
        """Put another credential under the id of a key; nothing is lost on the way."""
        keys = self._keys_of(provider)
        keys[key.id] = key
        for deployment in self._of(provider):
            deployment.remove(key.id)
            deployment.add(key)

    def remove_key(self, provider: str, key_id: str) -> None:
        """Choose a key no more; attempts in flight on it go on."""
        if self._keys_of(provider).pop(key_id, None) is None:
            raise ConfigError(f"provider {provider!r} has no key {key_id!r}", field="key_id")
        for deployment in self._of(provider):
            deployment.remove(key_id)

    def find(self, provider: str, model: str) -> Deployment:
        """The deployment of a model; made at its first use."""
        found = self._live.get((provider, model))
        if found is None:
            found = Deployment(
                self.providers[provider],
                model,
                self._keys[provider].values(),
                self._factory(**self._arguments),
            )
            self._live[provider, model] = found
        return found

    def route(self, ref: RouteRef) -> Route:
        """The route of that name.

        Raises:
            ConfigError: There is none.
        """
        self._keys_of(ref.provider)
        route = self.find(ref.provider, ref.model).by_key.get(ref.key_id)
        if route is not None:
            return route
        raise ConfigError(f"no key {ref.key_id!r} of {ref.provider!r} serves {ref.model!r}", field="route")

    def live(self) -> list[Deployment]:
        """The deployments that calls have asked for, by name."""
        return sorted(self._live.values(), key=lambda deployment: deployment.name)

    def _of(self, provider: str) -> list[Deployment]:
        return [deployment for (name, _), deployment in self._live.items() if name == provider]

    def _keys_of(self, provider: str) -> dict[str, Key]:
        if provider not in self._keys:
            known = ", ".join(sorted(self._keys)) or "none"
            raise ConfigError(f"no provider {provider!r}; there are: {known}", field="provider")
        return self._keys[provider]


def _takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has a parameter of that name."""
    try:
        return name in inspect.signature(function).parameters
    except (TypeError, ValueError):  # some builtins have no signature
        return False
