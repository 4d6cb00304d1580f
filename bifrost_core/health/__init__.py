"""Which routes may be used now: failures close scopes, time and successes open them again."""

from __future__ import annotations

from .records import RouteHealth, Ticket
from .registry import Health
from .scopes import Reason, ScopeId, scope_id

__all__ = ["Health", "Reason", "RouteHealth", "ScopeId", "Ticket", "scope_id"]
