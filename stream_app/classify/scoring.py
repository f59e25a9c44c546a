"""Scores for a batch: patient while Triton is away, and down to the record that a model refuses."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from stream_app.errors import ModelRefused, ModelRetired, ModelUnavailable
from stream_app.routing.models import Scores, ServedModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stream_app.telemetry import Metrics

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MAX_S = 0.1, 2.0


class Models(Protocol):
    """What scoring asks: `TritonModels`, or anything that keeps its promises."""

    async def infer(self, model: ServedModel, texts: Sequence[str | bytes]) -> Scores:
        """Scores in order; ModelUnavailable (later) or ModelRefused (never)."""
        ...


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of all rows; those of the rows in `refused` (row -> why) mean nothing."""

    scores: Scores
    refused: Mapping[int, ModelRefused]


class Scorer:
    """Asks the models in requests of at most `records_max`, sent side by side."""

    def __init__(self, models: Models, records_max: int, metrics: Metrics) -> None:
        self.retired = False
        """Another policy is in force: nobody waits for a model of this one any more."""
        self._models = models
        self._records_max = records_max
        self._metrics = metrics

    async def score(self, model: ServedModel, texts: Sequence[str]) -> Scored:
        """Waits for as long as Triton is away or the model's version is gone; never raises for that, but ModelRetired
        once another policy is in force.

        A request that fails for good is halved until the record is found that the model refuses.
        """
        step = min(self._records_max, model.batch_records_max)
        parts = await asyncio.gather(
            *(self._bisect(model, texts[at : at + step], at) for at in range(0, len(texts), step))
        )
        return _joined(parts) if len(parts) != 1 else parts[0]

    async def _bisect(self, model: ServedModel, texts: Sequence[str], first: int) -> Scored:
        try:
            return Scored(await self._patiently(model, texts), {})
        except ModelRefused as refusal:
            if len(texts) == 1:
                nothing = np.zeros((1, len(model.labels)), np.float32)
                return Scored(Scores(nothing, np.zeros(1, np.float32)), {first: refusal})
        half = len(texts) // 2
        return _joined(
            [await self._bisect(model, texts[:half], first), await self._bisect(model, texts[half:], first + half)]
        )

    async def _patiently(self, model: ServedModel, texts: Sequence[str]) -> Scores:
        pause_s = RETRY_FIRST_S
        while True:
            started_s = time.perf_counter()
            try:
                scores = await self._models.infer(model, texts)
            except ModelUnavailable as error:
                self._metrics.model_request(model.ref, "unavailable", time.perf_counter() - started_s)
                self._metrics.waiting("classify", "Triton")
                if self.retired:
                    raise ModelRetired(error.message) from error
                log.warning("%s waits: %s", model.ref, error.one_line())
            except ModelRefused:
                self._metrics.model_request(model.ref, "refused", time.perf_counter() - started_s)
                raise
            else:
                self._metrics.model_request(model.ref, "ok", time.perf_counter() - started_s)
                self._metrics.waiting("classify", None)
                return scores
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MAX_S)


def _joined(parts: Sequence[Scored]) -> Scored:
    return Scored(
        Scores(
            np.concatenate([part.scores.probabilities for part in parts]),
            np.concatenate([part.scores.known_share for part in parts]),
        ),
        {row: why for part in parts for row, why in part.refused.items()},
    )
