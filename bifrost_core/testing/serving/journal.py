"""What the simulated service remembers of the requests it served, and what one would meet that came now."""

from __future__ import annotations

from collections import Counter

import attrs

__all__ = ["KeyCounters", "Outlook", "ServedPart", "ServedRequest"]


@attrs.frozen
class ServedPart:
    """One part of a form, without what was in it.

    Attributes:
        name: Of the part.
        size: Bytes.
        filename: As the client named the file; None for a part that is text.
        content_type: Of the file; None for a part that is text.
    """

    name: str
    size: int
    filename: str | None = None
    content_type: str | None = None


@attrs.define(eq=False, kw_only=True)
class ServedRequest:
    """One request, filled in while it is served.

    Attributes:
        key_id: Which key sent it, or None when no known key did. Never the secret.
        number: The how manieth request of this key it is, counted from 1; 0 without a key.
        method: HTTP method.
        path: Path without the query.
        model: The model asked for, as sent, or None.
        at: Seconds since the server's start (or last ``reset()``), on the server's clock.
        stream: Whether a stream was asked for.
        status: HTTP status of the reply; None as long as no head was sent.
        fault: Kind of the fault that was played, or None.
        ended_after: Seconds from arrival to the end, in real time; None while it is served.
        left_after: Seconds from arrival to the moment the client was seen to have left before the
            end, in real time; None if it stayed.
        prompt_tokens: Input tokens that would be billed.
        completion_tokens: Output tokens that would be billed.
        audio_seconds: Seconds of sound that would be billed.
        pages: Pages read that would be billed.
        characters: Characters spoken that would be billed.
        body: The request's body, where the server was told to keep bodies; of forms only ``parts`` are.
        parts: The names and sizes of a form's parts, where the server was told to keep bodies.
    """

    key_id: str | None
    number: int
    method: str
    path: str
    model: str | None = None
    at: float
    stream: bool = False
    status: int | None = None
    fault: str | None = None
    ended_after: float | None = None
    left_after: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    audio_seconds: int = 0
    pages: int = 0
    characters: int = 0
    body: bytes | None = attrs.field(default=None, repr=False)
    parts: tuple[ServedPart, ...] = ()


@attrs.define(eq=False, kw_only=True)
class KeyCounters:
    """Sums over all requests of one key, those no longer in the journal included.

    Attributes:
        requests: Requests that came.
        in_flight: Requests being served now.
        most_in_flight: The most that were served at one time.
        statuses: Replies by HTTP status.
        faults: Faults played, by kind.
        left: Requests whose client left before the end.
        prompt_tokens: Input tokens that would be billed.
        completion_tokens: Output tokens that would be billed.
        audio_seconds: Seconds of sound that would be billed.
        pages: Pages read that would be billed.
        characters: Characters spoken that would be billed.
    """

    requests: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    statuses: Counter[int] = attrs.field(factory=Counter[int])
    faults: Counter[str] = attrs.field(factory=Counter[str])
    left: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    audio_seconds: int = 0
    pages: int = 0
    characters: int = 0

    def begin(self) -> None:
        """Count a request in."""
        self.requests += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def end(self, record: ServedRequest) -> None:
        """Count a request out, with what became of it."""
        self.in_flight -= 1
        if record.status is not None:
            self.statuses[record.status] += 1
        if record.fault is not None:
            self.faults[record.fault] += 1
        self.left += record.left_after is not None
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens
        self.audio_seconds += record.audio_seconds
        self.pages += record.pages
        self.characters += record.characters

    def copy(self) -> KeyCounters:
        """The state of now, independent of what follows."""
        return attrs.evolve(self, statuses=Counter(self.statuses), faults=Counter(self.faults))


@attrs.frozen(kw_only=True)
class Outlook:
    """What a request would meet on a key if it came now, chance left out: what an all-knowing chooser goes by.

    Attributes:
        seconds: Expected time to the end of a good answer, the wait for a slot included.
        failure: Probability that some fault strikes, 0 to 1.
        failure_seconds: Mean time until it does; infinite when it is a hang.
        refused_for: Seconds for which the key's limits refuse it; 0: they let it in.
        in_flight: Requests of the key that are being served.
    """

    seconds: float
    failure: float
    failure_seconds: float
    refused_for: float
    in_flight: int
