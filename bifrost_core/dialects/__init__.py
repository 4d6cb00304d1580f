"""The wire shapes that vendors' SDKs speak to us: one module per dialect, bytes in and bytes out."""

from __future__ import annotations

from .base import Dialect, Inbound, Order, Renderer, Reply, StreamedReply
from .door import Door, Routes

__all__ = ["Dialect", "Door", "Inbound", "Order", "Renderer", "Reply", "Routes", "StreamedReply"]
