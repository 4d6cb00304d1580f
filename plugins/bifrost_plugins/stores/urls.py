"""A store by its address, as configuration files and command lines name it."""

from __future__ import annotations

from bifrost_core import ConfigError
from bifrost_plugins import stores

from .base import Store

__all__ = ["open_store"]
