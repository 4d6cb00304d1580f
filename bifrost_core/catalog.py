"""Which provider a model's name means: ``provider/model``, an alias, or a bare name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from .errors import ConfigError, ModelNotFoundError
from .keys import ANY_MODEL, Key
from .prices import PriceBook
from .providers.base import Provider

__all__ = ["Catalog"]

_MAX_KNOWN: Final = 4096


class Catalog:
    """The names that a Router answers to.

    Args:
        providers: By name; a live mapping.
        keys_of: The present keys of a provider, by its name.
        aliases: Alias to ``"provider/model"``, to another alias or to a bare name.
        prices: Whose names are offered as near matches.

    Raises:
        ConfigError: An alias leads back to itself, or hides a provider's name.
    """

    def __init__(
        self,
        providers: Mapping[str, Provider],
        keys_of: Callable[[str], Iterable[Key]],
        aliases: Mapping[str, str],
        prices: PriceBook,
    ) -> None:
        self._providers = providers
        self._keys_of = keys_of
        self._prices = prices
        self._aliases: dict[str, str] = {}
        self._known: dict[str, tuple[str, str]] = {}  # what names mean, until keys change
        for alias in aliases:
            target, seen = alias, {alias}
            while target in aliases:
                target = aliases[target]
                if target in seen:
                    raise ConfigError(f"alias {alias!r} leads back to itself through {target!r}", field="aliases")
                seen.add(target)
            self._aliases[alias] = target

    def resolve(self, name: str, *, of_no_model: bool = False) -> tuple[str, str]:
        """The provider and the model that ``name`` means.

        Args:
            name: As the caller wrote it.
            of_no_model: It is asked of no model: whichever ``name`` means, the answer is ``ANY_MODEL``.

        Raises:
            ModelNotFoundError: No provider serves it, or several do; ``candidates`` has near matches.
        """
        found = self._known.get(name)
        if found is None:
            found = self._found(name)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[name] = found
        provider, model = found
        if of_no_model:
            return provider, ANY_MODEL
        if model == ANY_MODEL:
            raise self._unknown(name, f"{name!r} names no model, which only a list of models may do")
        return provider, model

    def forget(self) -> None:
        """Look anew what names mean: keys have come or gone."""
        self._known.clear()

    def _found(self, name: str) -> tuple[str, str]:
        target = self._aliases.get(name, name)
        provider, slash, model = target.partition("/")
        if slash and provider in self._providers:
            if model and self._serves(provider, model):
                return provider, model
            raise self._unknown(name, f"no key of provider {provider!r} may be used for model {model!r}")
        serving, named = self._serving(target)
        if len(named) == 1:
            return named[0], target
        if not slash and not named and len(serving) == 1 and len(self._providers) == 1:
            return serving[0], target
        if len(named) > 1:
            choices = ", ".join(f"{provider}/{target}" for provider in named)
            raise self._unknown(name, f"several providers serve model {target!r}; name one: {choices}")
        raise self._unknown(name, f"no provider serves model {name!r}")

    def choices(self, name: str) -> tuple[str, ...]:
        """The models that a bare name may mean, as ``"provider/model"``, where it is several; else nothing.

        In the order in which the Router was given the providers.
        """
        target = self._aliases.get(name, name)
        provider, slash, _ = target.partition("/")
        if slash and provider in self._providers:
            return ()
        _, named = self._serving(target)
        return tuple(f"{provider}/{target}" for provider in named) if len(named) > 1 else ()

    def _serving(self, model: str) -> tuple[list[str], list[str]]:
        """The providers that a bare name may go to, and those of them that are known to have the model."""
        serving = [name for name in self._providers if self._serves(name, model)]
        return serving, [name for name in serving if self._lists(name, model)]

    def _serves(self, provider: str, model: str) -> bool:
        return any(key.serves(model) for key in self._keys_of(provider))

    def _lists(self, provider: str, model: str) -> bool:
        """Whether the provider is known to have the model, beyond keys that may be used for anything."""
        return (
            self._providers[provider].knows(model)
            or self._prices.find(provider, model) is not None
            or any(model in key.models for key in self._keys_of(provider))
        )

    def _unknown(self, name: str, what: str) -> ModelNotFoundError:
        near = self.near(name)
        hint = f"; did you mean {', '.join(near)}?" if near else "; write 'provider/model' or an alias"
        return ModelNotFoundError(what + hint, model=name, candidates=near)

    def near(self, name: str) -> tuple[str, ...]:
        """At most five known names that look like ``name``."""
        known = {*self._aliases}
        for provider in self._providers:
            known.update(
                f"{provider}/{model}" for key in self._keys_of(provider) for model in key.models if "*" not in model
            )
        known.update(entry for entry in self._prices.names() if entry.partition("/")[0] in self._providers)
        matches = get_close_matches(name, sorted(known), n=5, cutoff=0.6)
        if not matches and "/" not in name:
            by_model = {entry.partition("/")[2] or entry: entry for entry in sorted(known)}
            matches = [by_model[found] for found in get_close_matches(name, list(by_model), n=5, cutoff=0.6)]
        return tuple(matches)
