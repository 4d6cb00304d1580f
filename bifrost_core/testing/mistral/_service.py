"""The simulated Mistral service: what it keeps beside what every service keeps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bifrost_core.testing.serving._answers import PageLaw
from bifrost_core.testing.serving._questions import Question
from bifrost_core.testing.serving._service import Service
from bifrost_core.testing.serving.catalogue import SimulatedModel
from bifrost_core.testing.serving.laws import SimulatedKey

from ._filestore import FileStore
from ._vendor import MistralVendor

__all__ = ["MistralService", "files_of", "page_law"]


class MistralService(Service):
    """A service with uploaded files and pages to read.

    Args:
        keys: Those that are accepted.
        models: Those that are listed.
        page: The test's own pages.
        options: As for every service.
    """

    def __init__(
        self,
        keys: Iterable[SimulatedKey],
        models: Iterable[SimulatedModel],
        *,
        page: PageLaw | None = None,
        **options: Any,
    ) -> None:
        self.page = page
        self.files = FileStore()
        super().__init__(MistralVendor(), keys, models, **options)

    def reset(self) -> None:
        """Begin anew, without files."""
        super().reset()
        self.files.clear()


def files_of(question: Question) -> FileStore:
    """The files of the service that a question came to."""
    return _service(question).files


def page_law(question: Question) -> PageLaw | None:
    """The test's own pages, at the service that a question came to."""
    return _service(question).page


def _service(question: Question) -> MistralService:
    """The service, which is Mistral's wherever Mistral's endpoints are served."""
    service = question.service
    if not isinstance(service, MistralService):
        msg = f"files and pages are kept by a simulated Mistral, not by {type(service).__name__}"
        raise TypeError(msg)
    return service
