"""What answers that come whole share: in a stream they would say nothing."""

from __future__ import annotations

from collections.abc import Sequence

from bifrost_core.errors import BifrostError
from bifrost_core.responses import Response
from bifrost_core.types import Chunk

__all__ = ["WholeRenderer"]


class WholeRenderer:
    """The part of a ``Renderer`` that is about streams, for orders that are none."""

    def feed(self, chunks: Sequence[Chunk]) -> bytes:  # noqa: ARG002 # a Renderer
        """Nothing."""
        return b""

    def finish(self, response: Response) -> bytes:  # noqa: ARG002 # a Renderer
        """Nothing."""
        return b""

    def fail(self, error: BifrostError) -> bytes | None:  # noqa: ARG002 # a Renderer
        """No words: the connection breaks."""
        return None
