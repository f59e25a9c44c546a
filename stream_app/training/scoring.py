"""Putting many texts to the small models through the very Triton that will serve them."""

from asyncio import Semaphore, TaskGroup
from collections.abc import Callable, Sequence

import numpy as np

from stream_app.classify.triton import TritonModels
from stream_app.routing.decide import Routed, TaskRouter
from stream_app.routing.holding import hold_all
from stream_app.routing.models import Scores, ServedModel

REQUEST_TEXTS = 32
"""A request of the slowest model (20 ms a text on one core) stays far inside the call's time limit."""
IN_FLIGHT = 4

Progress = Callable[[int], object]
"""Told how many texts were just scored."""


async def score(models: TritonModels, model: ServedModel, texts: Sequence[str], progress: Progress) -> Scores:
    """The model's scores of all texts, in order."""
    starts = range(0, len(texts), REQUEST_TEXTS)
    parts = dict[int, Scores]()
    free = Semaphore(IN_FLIGHT)

    async def one(start: int) -> None:
        async with free:
            part = texts[start : start + REQUEST_TEXTS]
            parts[start] = await models.infer(model, part)
            progress(len(part))

    try:
        async with TaskGroup() as group:
            for start in starts:
                group.create_task(one(start))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return Scores(
        np.concatenate([parts[start].probabilities for start in starts]),
        np.concatenate([parts[start].known_share for start in starts]),
    )


async def route(models: TritonModels, router: TaskRouter, texts: Sequence[str], progress: Progress) -> Routed:
    """Route all texts as one batch, asking each model for what the router needs of it."""
    routing = router.begin(texts)
    while (need := routing.need) is not None:
        asked = [texts[int(row)] for row in need.rows]
        routing.give([await score(models, model, asked, progress) for model in need.models])
    return hold_all(router.share, routing.routed)


def route_scored(router: TaskRouter, texts: Sequence[str], scores: dict[str, Scores]) -> Routed:
    """Route texts whose scores by every model are already known."""
    routing = router.begin(texts)
    while (need := routing.need) is not None:
        routing.give([scores[model.name].rows(need.rows) for model in need.models])
    return hold_all(router.share, routing.routed)
