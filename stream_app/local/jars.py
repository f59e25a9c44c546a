"""Kafka's jars: fetched once with jgo, kept in jgo's own cache, and run only with the checksums we know.

`kafka_jars.txt` names every jar and its sha-256. A second start finds all of them in the cache and asks nobody.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from stream_app.errors import StartError

if TYPE_CHECKING:
    from jgo.maven import MavenContext

Progress = Callable[[str], None]

# Fetching waits for the network, not for the processor; more at once would be rude to a public server.
DOWNLOADS_IN_FLIGHT = 8


@dataclass(frozen=True, slots=True)
class Jar:
    """One jar we know: its Maven coordinates and the sha-256 it must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"


def known_jars() -> list[Jar]:
    """Every jar of `kafka_jars.txt`, in its order."""
    text = resources.files("stream_app.local").joinpath("kafka_jars.txt").read_text(encoding="utf-8")
    jars: list[Jar] = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            sha256, coordinates = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


async def jars_ready(progress: Progress | None = None) -> list[Path]:
    """`ready_jars` in a thread, which gives up after the jar at hand when this coroutine is cancelled."""
    give_up = Event()
    try:
        return await asyncio.to_thread(ready_jars, progress=progress, give_up=give_up)
    finally:
        give_up.set()


def ready_jars(
    jars: list[Jar] | None = None, progress: Progress | None = None, give_up: Event | None = None
) -> list[Path]:
    """Paths of the jars, each verified; what is missing is fetched first. Blocks.

    Raises `StartError` when a jar cannot be fetched or has another checksum than ours, or once `give_up` is set.
    """
    jars = known_jars() if jars is None else jars
    maven = _maven()
    with _one_fetcher_at_a_time(), ThreadPoolExecutor(DOWNLOADS_IN_FLIGHT) as pool:
        kept = [_in_cache(maven, jar) for jar in jars]
        missing = sum(path is None for path in kept)
        if missing and progress is not None:
            progress(f"fetching {missing} jars of Apache Kafka, once")
        return list(pool.map(partial(_ready_jar, maven, give_up or Event()), jars))


def _ready_jar(maven: MavenContext, give_up: Event, jar: Jar) -> Path:
    """The jar's path. One in the cache with another content (a broken download) is fetched anew, once."""
    if give_up.is_set():
        raise StartError("the start was given up before Kafka's jars were there")
    kept = _in_cache(maven, jar)
    if kept is not None:
        if _sha256(kept) == jar.sha256:
            return kept
        kept.unlink()
    path = _fetch(maven, jar)
    found = _sha256(path)
    if found != jar.sha256:
        path.unlink()
        raise StartError(
            f"the jar {jar} has sha-256 {found[:16]}…, not {jar.sha256[:16]}…",
            advice="it was not run; look at what stands between this machine and Maven Central",
        )
    return path


def _fetch(maven: MavenContext, jar: Jar) -> Path:
    try:
        return maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    except OSError as error:  # requests' errors are OSErrors, and a full disk is one too
        if error.errno is not None:
            raise StartError(f"cannot keep Kafka's jar {jar}", advice=str(error)) from error
        raise StartError(
            f"cannot fetch Kafka's jar {jar}",
            advice=f"the first start needs the network ({type(error).__name__}); later ones do not",
        ) from error
    except RuntimeError as error:  # jgo: not found, or not what the server's own checksum says
        raise StartError(f"cannot fetch Kafka's jar {jar}", advice=str(error)) from error


def _maven() -> MavenContext:
    """Jgo's own settings decide where jars are kept and which mirrors are asked before Maven Central."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - an optional dependency, and slow to import
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
        from jgo.maven import MavenContext  # noqa: PLC0415
    except ImportError as error:
        raise StartError("the embedded Kafka needs the package jgo", advice="install shunt-stream[local]") from error
    settings = GlobalSettings.load()
    return MavenContext(
        repo_cache=settings.repo_cache,
        remote_repos={**settings.repositories, "central": MAVEN_CENTRAL_URL},
    )


def _in_cache(maven: MavenContext, jar: Jar) -> Path | None:
    path = maven.project(jar.group, jar.artifact).at_version(jar.version).artifact().cached_path
    return path if path is not None and path.exists() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as jar:
        return hashlib.file_digest(jar, "sha256").hexdigest()


@contextmanager
def _one_fetcher_at_a_time() -> Generator[None]:
    """Two stacks that start side by side must not write the same jar: the second waits for the first."""
    folder = user_cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def user_cache_dir() -> Path:
    """Where what is costly to make again is kept between runs: `$XDG_CACHE_HOME/shunt`, or `~/.cache/shunt`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shunt"
