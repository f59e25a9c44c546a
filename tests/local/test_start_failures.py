"""A start that fails says why in one line, where the log is where there is one, and leaves nothing running."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import re
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stream_app.errors import StartError
from stream_app.local.jars import DOWNLOADS_IN_FLIGHT, Jar, jars_ready, known_jars, ready_jars
from stream_app.local.llm.options import StandInOptions
from stream_app.local.ports import claim_port
from stream_app.local.stack import Stack
from stream_app.local.triton_server import Machine, find_libpython, refuse_unfit

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = Path(__file__).parent.parent / "models"
GOOD_MACHINE = {"system": "linux", "processor": "x86_64", "python": (3, 11), "libc": "glibc", "libc_version": "2.36"}


def test_this_kind_of_machine_is_taken() -> None:
    """Linux x86-64 with glibc 2.35 and Python 3.11 or 3.12 is fit."""
    refuse_unfit(Machine(**GOOD_MACHINE))
    refuse_unfit(Machine(**GOOD_MACHINE | {"python": (3, 12), "libc_version": "2.35"}))


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"system": "darwin", "processor": "arm64"}, "Linux x86-64.*docker/compose.yaml"),
        ({"processor": "aarch64"}, "aarch64.*docker/compose.yaml"),
        ({"python": (3, 13)}, "Python 3.11 or 3.12, this is 3.13"),
        ({"libc_version": "2.31"}, "glibc 2.35 or newer, this is glibc 2.31.*docker/compose.yaml"),
        ({"libc": "", "libc_version": ""}, "another C library.*docker/compose.yaml"),
    ],
)
def test_unfit_machine_is_named_with_the_way_out(differs: dict, said: str) -> None:
    """Where the wheel's Triton cannot run, the line says what does not fit and what to use instead."""
    with pytest.raises(StartError) as caught:
        refuse_unfit(Machine(**GOOD_MACHINE | differs))
    assert "\n" not in caught.value.one_line()
    assert re.search(said, caught.value.one_line()), caught.value.one_line()


def test_python_without_its_shared_library(tmp_path: Path) -> None:
    """Where Python's shared library is nowhere, the line names the Debian package that brings it."""
    (tmp_path / "libpython3.98.so.1.0").write_text("")
    assert find_libpython("libpython3.98.so.1.0", [tmp_path / "nowhere", tmp_path]) == tmp_path
    with pytest.raises(StartError) as caught:
        find_libpython("libpython3.99.so.1.0", [tmp_path])
    assert "apt-get install libpython3.99)" in caught.value.one_line()


async def test_model_that_is_not_there(tmp_path: Path) -> None:
    """A model that no repository has: the line names the model and the log, and the other servers end too."""
    stack = Stack(tmp_path, kafka=False, model_repository=MODELS, load_models=["no_such_model"])
    with pytest.raises(StartError) as caught:
        await stack.open()
    line = caught.value.one_line()
    assert "no_such_model" in line
    assert str(tmp_path / "triton.log") in line
    assert stack.triton.process.pid is None
    assert stack.llm.process.pid is None


async def test_model_that_raises(tmp_path: Path) -> None:
    """A model whose code fails to load: the line holds the model's own error, not Triton's last word."""
    model = tmp_path / "models" / "torn"
    (model / "1").mkdir(parents=True)
    config = (MODELS / "echo" / "config.pbtxt").read_text().replace('"echo"', '"torn"')
    (model / "config.pbtxt").write_text(config)
    (model / "labels.txt").write_text("negative\npositive\n")
    (model / "1" / "model.py").write_text("raise ValueError('weights are torn')\n")
    stack = Stack(tmp_path, kafka=False, llm=False, model_repository=tmp_path / "models", load_models=["torn"])
    with pytest.raises(StartError, match="did not start") as caught:
        await stack.open()
    assert "ValueError: weights are torn" in caught.value.one_line()
    assert "\\n" not in caught.value.one_line()


async def test_kafka_with_a_broken_folder(tmp_path: Path) -> None:
    """Kafka's own reason reaches the person, not the last of the lines that its end makes it write."""
    data = tmp_path / "kafka" / "data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\nnode.id=77\ncluster.id=QUJDREVGR0hJSktMTU5PUA\n")
    with pytest.raises(StartError) as caught:
        await Stack(tmp_path, triton=False, llm=False).open()
    assert "77" in caught.value.one_line(), caught.value.one_line()
    assert str(tmp_path / "kafka.log") in caught.value.one_line()


async def test_recorded_answers_that_are_not_there(tmp_path: Path) -> None:
    """The stand-in's own complaint reaches the person who started the stack."""
    options = StandInOptions(replay=tmp_path / "missing.jsonl", replay_names=("gpt",))
    stack = Stack(tmp_path, kafka=False, triton=False, llm_options=options)
    with pytest.raises(StartError) as caught:
        await stack.open()
    assert "missing.jsonl" in caught.value.one_line()
    assert "llm.log" in caught.value.one_line()


async def test_one_stack_a_folder(tmp_path: Path) -> None:
    """A second stack in the same folder is refused with the owner's process id and what to do; the first lives on."""
    async with Stack.start(tmp_path, kafka=False, triton=False) as first:
        with pytest.raises(StartError) as caught:
            await Stack(tmp_path, kafka=False, triton=False).open()
        assert "already running" in caught.value.one_line()
        assert "shunt stack down" in caught.value.one_line()
        assert first.llm.process.running
    async with Stack.start(tmp_path, kafka=False, triton=False):
        pass  # once it has ended, its folder is free


async def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A folder that is a file is named."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(StartError, match=r"cannot write to .*taken"):
        await Stack(tmp_path / "taken", kafka=False, triton=False).open()


def test_ports_are_claimed() -> None:
    """The usual port is given once; while it is claimed, or someone else listens on it, another free one is."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert claim_port(taken).number != taken
    first = claim_port()
    assert claim_port(first.number).number != first.number
    first.release()
    again = claim_port(first.number)
    assert again.number == first.number
    again.release()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way out leads to a port where nobody listens."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache of jars with nothing in it."""
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    return tmp_path / "m2"


def test_second_start_needs_no_network(stack: Stack, no_network: None) -> None:
    """Once a stack has started, every jar is found and verified without the network."""
    assert len(ready_jars()) == len(known_jars()) > 40


def test_first_start_without_network(no_network: None, empty_cache: Path) -> None:
    """A first start without network says that it is the network that is missing."""
    with pytest.raises(StartError, match="cannot fetch Kafka's jar") as caught:
        ready_jars()
    assert "first start needs the network" in caught.value.one_line()


JAR = Jar("org.example", "thing", "1.0", hashlib.sha256(b"the right bytes").hexdigest())
JAR_PATH = Path("org/example/thing/1.0/thing-1.0.jar")


class _Mirror(http.server.BaseHTTPRequestHandler):
    """Serves the same bytes for every jar, as a mirror that was tampered with might."""

    content = b""

    def do_GET(self) -> None:
        is_jar = self.path.endswith(".jar")
        body = self.content if is_jar else hashlib.sha1(self.content).hexdigest().encode()  # noqa: S324 - Maven's
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the standard library
        """Keep the test's output clean."""


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_cache: Path) -> Iterator[type[_Mirror]]:
    """A Maven mirror on this machine, asked before any other."""
    handler = type("Mirror", (_Mirror,), {})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = tmp_path / "jgo.conf"
    settings.write_text(f"[repositories]\nlocal = http://127.0.0.1:{server.server_port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    yield handler
    server.shutdown()
    server.server_close()


def test_jar_with_another_checksum_is_refused(mirror: type[_Mirror], empty_cache: Path) -> None:
    """A jar that is not the one we know is not kept and not run, whatever the server's own checksum says."""
    mirror.content = b"something else"
    with pytest.raises(StartError, match="sha-256"):
        ready_jars([JAR])
    assert not (empty_cache / JAR_PATH).exists()


def test_broken_download_is_fetched_anew(mirror: type[_Mirror], empty_cache: Path) -> None:
    """A jar in the cache that a broken-off download left is replaced by a whole one."""
    mirror.content = b"the right bytes"
    (empty_cache / JAR_PATH).parent.mkdir(parents=True)
    (empty_cache / JAR_PATH).write_bytes(b"the right")
    assert [path.read_bytes() for path in ready_jars([JAR])] == [b"the right bytes"]


async def test_giving_up_while_fetching(mirror: type[_Mirror]) -> None:
    """A start that is cancelled (Ctrl-C) while jars come in does not wait for all of them."""
    asked = threading.Event()
    let_go = threading.Event()
    served = []

    class Slow(_Mirror):
        def do_GET(self) -> None:
            served.append(self.path)
            asked.set()
            let_go.wait(20)
            self.send_error(404)

    mirror.do_GET = Slow.do_GET
    fetching = asyncio.create_task(jars_ready())
    await asyncio.to_thread(asked.wait, 20)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    let_go.set()
    assert len(served) <= DOWNLOADS_IN_FLIGHT, "jars in the air are waited for, no other is begun"
