"""What an attempt will probably use, learnt per model: for what can not be counted, and for soft limits."""

from __future__ import annotations

import math
from typing import Final

import attrs

from bifrost_core import Attempt, Usage

from ._remembered import Remembered

__all__ = ["Expectations"]

_FIRST_RATIO: Final = 0.35  # prompt tokens per byte of the body: above what text exchanges were seen to have
_RATIO_STEP: Final = 0.02  # of the way down to the ratio of each answer
_FIRST_OUTPUT: Final = 1_024.0  # tokens, while no answer of the model is known
_OUTPUT_STEP: Final = 0.1  # weight of an answer in the average
_MODELS: Final = 10_000


@attrs.define(eq=False)
class _Model:
    ratio: float = _FIRST_RATIO
    output: float | None = None


class Expectations:
    """Estimates of tokens, from the answers that were seen. Bounded; belongs to one plugin."""

    def __init__(self) -> None:
        self._models: Remembered[tuple[str, str], _Model] = Remembered(_MODELS)

    def learn(self, attempt: Attempt) -> None:
        """Note what an answered attempt used."""
        usage = attempt.usage
        if usage is None or attempt.outcome != "ok" or not usage.total_tokens:
            return
        model = self._model(attempt)
        if attempt.input_upper and usage.input_tokens:
            seen = min(1.0, usage.input_tokens / attempt.input_upper)
            model.ratio = max(seen, model.ratio - (model.ratio - seen) * _RATIO_STEP)
        output = float(usage.output_tokens)
        model.output = output if model.output is None else model.output + (output - model.output) * _OUTPUT_STEP

    def prompt(self, attempt: Attempt) -> int:
        """Estimate of the prompt's tokens, at most their bound; 0 where the body says nothing about them."""
        return math.ceil((attempt.input_upper or 0) * self._model(attempt).ratio)

    def tokens(self, attempt: Attempt) -> tuple[int, int]:
        """What the attempt will probably use: the prompt's estimate and an average answer."""
        model = self._model(attempt)
        output = math.ceil(_FIRST_OUTPUT if model.output is None else model.output)
        if attempt.output_upper is not None and attempt.output_upper < output:
            output = attempt.output_upper
        return math.ceil((attempt.input_upper or 0) * model.ratio), output

    def usage(self, attempt: Attempt) -> Usage:
        """``tokens``, as a provider would count them."""
        prompt, output = self.tokens(attempt)
        return Usage(input_tokens=prompt, output_tokens=output, requests=1)

    def _model(self, attempt: Attempt) -> _Model:
        key = attempt.route.provider, attempt.route.model
        model = self._models.get(key)
        return self._models.keep(key, _Model()) if model is None else model
