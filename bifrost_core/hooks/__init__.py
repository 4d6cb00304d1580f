"""From plugins to call chains: registered and checked once, then driven without looking anything up."""

from __future__ import annotations

from .compiled import Hooks, compile_hooks
from .filters import FilterChain
from .installed import configured_plugins, load_plugins
from .options import HookOptions

__all__ = ["FilterChain", "HookOptions", "Hooks", "compile_hooks", "configured_plugins", "load_plugins"]
