"""A real Triton inference server on this machine, from the nvidia-pytriton wheel: found, started, ready, stopped."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from stream_app.errors import StartError
from stream_app.local.jars import user_cache_dir
from stream_app.local.ports import ClaimedPort, claim_port
from stream_app.local.process import GuardedProcess, last_line

if TYPE_CHECKING:
    from collections.abc import Sequence

HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002
READY_DEADLINE_S = 120.0
GLIBC_MIN = (2, 35)
PYTHONS = ((3, 11), (3, 12))
# How long Triton waits for requests in flight when it is told to stop.
EXIT_TIMEOUT_S = 5
# A model's stub grows this region as batches need it; from the default of 1 MB it grows under the first real load.
# Not more, since containers have 64 MB of it for all.
SHM_BYTES = 4 * 1024 * 1024
INSTEAD = "use docker/compose.yaml instead"


class TritonServer:
    """One Triton with explicit model control; its backends are under `folder`, its log goes to `log`.

    The ports are chosen once and kept over restarts, since clients know them.
    """

    def __init__(self, folder: Path, log: Path, *, repositories: Sequence[Path], load_models: Sequence[str]) -> None:
        self._folder = folder
        self._log = log
        self._repositories = [path.resolve() for path in repositories]
        self._load_models = list(load_models)
        self._claims: tuple[ClaimedPort, ClaimedPort, ClaimedPort] | None = None
        self._process: GuardedProcess | None = None

    @property
    def http(self) -> str:
        """`host:port` of the HTTP endpoint, once started."""
        return self._address(0)

    @property
    def grpc(self) -> str:
        """`host:port` of the gRPC endpoint, once started."""
        return self._address(1)

    @property
    def process(self) -> GuardedProcess:
        """The server's process, once started."""
        if self._process is None:
            raise StartError("Triton was not started")
        return self._process

    async def start(self) -> None:
        """Start Triton and wait until its models are ready. Raises `StartError` with the reason and the log."""
        installation = _installed()
        libpython_dir = _libpython_dir()
        if self._claims is None:
            self._claims = (claim_port(HTTP_PORT), claim_port(GRPC_PORT), claim_port(METRICS_PORT))
        backends = self._lay_out_backends(installation)
        shm_prefix = f"shunt_triton_{self._claims[0].number}_"
        self._process = GuardedProcess(
            "Triton",
            self._command(installation, backends, shm_prefix),
            self._log,
            env=_environment(installation, libpython_dir),
            grace_s=EXIT_TIMEOUT_S + 5.0,
            scratch_glob=f"/dev/shm/{shm_prefix}*",  # noqa: S108 - where the Python backend keeps its tensors
            reason=_reason,
        )
        self._process.start()
        await self._process.wait_ready(self._is_ready, deadline_s=READY_DEADLINE_S)

    def release_ports(self) -> None:
        """Let others have the ports; for a server that is not started again."""
        for claim in self._claims or ():
            claim.release()
        self._claims = None

    def _address(self, which: int) -> str:
        if self._claims is None:
            raise StartError("Triton was not started")
        return f"127.0.0.1:{self._claims[which].number}"

    async def _is_ready(self) -> bool:
        """Ready means that every model named in `load_models` answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session,
                session.get(f"http://{self.http}/v2/health/ready") as response,
            ):
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _lay_out_backends(self, installation: Path) -> Path:
        """Bring the Python backend and the stub for this Python together, as Triton wants them."""
        backends = self._folder / "backends"
        shutil.copytree(
            installation / "backends" / "python",
            backends / "python",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = installation / "python_backend_stubs" / version / "triton_python_backend_stub"
        shutil.copy2(stub, backends / "python")
        return backends

    def _command(self, installation: Path, backends: Path, shm_prefix: str) -> list[str]:
        http, grpc, metrics = (claim.number for claim in self._claims or ())
        nothing = self._folder / "no-models"  # Triton does not start without a repository
        nothing.mkdir(parents=True, exist_ok=True)
        return [
            str(installation / "bin" / "tritonserver"),
            f"--backend-directory={backends}",
            *(f"--model-repository={path}" for path in self._repositories or [nothing]),
            "--model-control-mode=explicit",
            *(f"--load-model={name}" for name in self._load_models),
            "--disable-auto-complete-config",  # would start every Python model twice; our configs are complete
            f"--backend-config=python,shm-default-byte-size={SHM_BYTES}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            *("--http-address=127.0.0.1", f"--http-port={http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={grpc}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={metrics}"),
        ]


@dataclass(frozen=True, slots=True)
class Machine:
    """What of a machine decides whether the wheel's Triton runs on it."""

    system: str
    processor: str
    python: tuple[int, int]
    libc: str
    libc_version: str

    @classmethod
    def here(cls) -> Machine:
        """The machine we are on, and the Python that runs us."""
        libc, libc_version = platform.libc_ver()
        return cls(sys.platform, platform.machine(), sys.version_info[:2], libc, libc_version)


def refuse_unfit(machine: Machine) -> None:
    """Raise `StartError`, which says what to do instead, where the wheel's Triton cannot run."""
    if machine.system != "linux" or machine.processor != "x86_64":
        raise StartError(
            f"the embedded Triton runs on Linux x86-64, this is {machine.system} {machine.processor}",
            advice=INSTEAD,
        )
    if machine.python not in PYTHONS:
        raise StartError(
            "the embedded Triton needs Python 3.11 or 3.12, this is {}.{}".format(*machine.python),
            advice=f"make the environment with one of those, or {INSTEAD}",
        )
    version = tuple(int(part) for part in re.findall(r"\d+", machine.libc_version)[:2])
    if machine.libc != "glibc" or version < GLIBC_MIN:
        raise StartError(
            "the embedded Triton needs glibc 2.35 or newer, "
            f"this is {machine.libc or 'another C library'} {machine.libc_version}".rstrip(),
            advice=f"Debian 12 and Ubuntu 22.04 have it; or {INSTEAD}",
        )


def _installed() -> Path:
    """The wheel's `tritonserver` folder. Raises `StartError` where it is not, or cannot run."""
    refuse_unfit(Machine.here())
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise StartError(
            "the embedded Triton needs the package nvidia-pytriton", advice="install shunt-stream[local]"
        )
    return Path(spec.origin).parent / "tritonserver"


def find_libpython(name: str, folders: Sequence[Path]) -> Path | None:
    """The folder that holds Python's shared library `name`, or None where the system's loader finds it by itself.

    Raises `StartError` where neither does, and names the package to install.
    """
    for folder in folders:
        if (folder / name).exists():
            return folder
    try:
        ctypes.CDLL(name)
    except OSError:
        package = name.partition(".so")[0]
        raise StartError(
            f"Triton's Python models need {name}, which this Python lacks",
            advice=f"install it (Debian and Ubuntu: apt-get install {package})",
        ) from None
    return None


def _libpython_dir() -> Path | None:
    own = sysconfig.get_config_var("LIBDIR")
    folders = [Path(own)] if own else []
    # A Python that was moved after it was built still says where it was built.
    return find_libpython(
        f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0",
        [*folders, Path(sys.base_prefix) / "lib"],
    )


def _environment(installation: Path, libpython_dir: Path | None) -> dict[str, str]:
    """Triton's environment: its libraries, ours for its Python models, and a cache that outlives the stack."""
    bundled = installation.parent.parent / "nvidia_pytriton.libs"
    libraries = [str(path) for path in (bundled, libpython_dir) if path is not None]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join([*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]),
        # The stub finds the virtual environment through the first `python3` on the path, and nothing else.
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR") or str(user_cache_dir() / "numba"),
    }


def _reason(text: str) -> str | None:
    """Why Triton did not start: the first model that could not be loaded, with its own error's first line."""
    failed = re.search(r'"(failed to (?:load|poll) [^"\\]+)', text)
    if failed:
        return failed.group(1)
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    return errors[-1] if errors else last_line(text)
