"""A Triton that has one core, and what a pass over texts costs it: by the clock and by its CPU seconds."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from stream_app.classify.triton import TritonModels
from stream_app.local.stack import Stack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence

MODELS = Path(__file__).parent.parent / "triton_models"


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over the texts: how many, how long by the clock, and how many CPU seconds."""

    texts: int
    clock_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Texts a second: by the clock in the best round, by CPU seconds over all (they tick in hundredths)."""

    by_clock: float
    by_cpu: float


def speed(rounds: Sequence[Round]) -> Speed:
    return Speed(
        max(each.texts / each.clock_s for each in rounds),
        sum(each.texts for each in rounds) / sum(each.cpu_s for each in rounds),
    )


@contextmanager
def pinned(cores: set[int]) -> Generator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def triton_processes(parent: psutil.Process) -> list[psutil.Process]:
    return [each for each in parent.children(recursive=True) if "triton" in each.name()]


def cpu_s(processes: Sequence[psutil.Process]) -> float:
    return sum(times.user + times.system for times in (each.cpu_times() for each in processes))


@dataclass(frozen=True, slots=True)
class PinnedTriton:
    """Its gRPC address and its processes."""

    url: str
    processes: Sequence[psutil.Process]

    async def round(self, texts: int, work: Callable[[TritonModels], Awaitable[object]]) -> Round:
        """One pass of `work` over so many texts."""
        async with TritonModels.connect(self.url, timeout_s=120) as models:
            spent, start = cpu_s(self.processes), time.perf_counter()
            await work(models)
            return Round(texts, time.perf_counter() - start, cpu_s(self.processes) - spent)


@asynccontextmanager
async def pinned_triton(models: Sequence[str]) -> AsyncGenerator[PinnedTriton]:
    """Shipped models on the first core; who feeds them, in this process, has the others."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        async with Stack.start(
            dir=Path(folder), kafka=False, llm=False, model_repository=MODELS, load_models=list(models)
        ) as stack:
            processes = triton_processes(psutil.Process())
            for process in processes:
                for thread in process.threads():
                    os.sched_setaffinity(thread.id, {cores[0]})
            with pinned(set(cores[1:]) or set(cores)):
                yield PinnedTriton(stack.triton_grpc, processes)
