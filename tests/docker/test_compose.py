"""The container files, without an engine: what can be wrong in them and be seen before anything is built."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from stream_app.settings import Settings, load_settings

DOCKER = Path(__file__).parents[2] / "docker"
ROOT = DOCKER.parent


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The compose file as compose reads it: its anchors resolved."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The containers' settings, read as a worker reads them."""
    monkeypatch.delenv("SHUNT_CONFIG", raising=False)
    return load_settings(DOCKER / "shunt.toml")


def test_the_compose_file_is_valid_by_composes_own_schema(compose: dict[str, Any]) -> None:
    """No misspelt or misplaced key: compose itself refuses those."""
    # The package carries the schema; imported it cannot be, beside the click that Faust needs.
    carrier = metadata.distribution("check-jsonschema")
    schema = Path(str(carrier.locate_file("check_jsonschema/builtin_schemas/vendor/compose-spec.json")))
    jsonschema.validate(compose, json.loads(schema.read_text()))


def test_every_port_is_published_on_loopback_only(compose: dict[str, Any]) -> None:
    """A compose file for one machine opens nothing to its network."""
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_nothing_starts_before_what_it_needs(compose: dict[str, Any]) -> None:
    """Workers wait for topics and models, topics for Kafka; every awaited service can say that it is healthy."""
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, name
            if how["condition"] == "service_healthy":
                assert services[needed]["healthcheck"]["test"], needed
    assert set(services["classify"]["depends_on"]) == {"topics", "triton"}
    assert set(services["escalate"]["depends_on"]) == {"topics"}


def test_every_command_of_a_worker_exists(compose: dict[str, Any]) -> None:
    """The command line understands what the containers are told to do."""
    from stream_app.app import Role
    from stream_app.cli import COMMANDS

    workers = [service for service in compose["services"].values() if service["image"] == "shunt"]
    assert len(workers) == 4
    for worker in workers:
        command, *arguments = worker["command"]
        assert command in {listed.name for listed in COMMANDS}
        assert command != "run" or arguments[0] in {role.value for role in Role}


def test_settings_name_the_services_and_the_shipped_models(compose: dict[str, Any], settings: Settings) -> None:
    """What the settings point at is there, under the names and ports the containers have."""
    assert settings.kafka.bootstrap_servers.split(":")[0] in compose["services"]
    assert settings.triton.url.split(":")[0] in compose["services"]
    for task in settings.tasks:
        for model in task.models:
            folder = ROOT / "triton_models" / model
            assert (folder / "config.pbtxt").is_file(), model
            assert tuple((folder / "labels.txt").read_text().split()) == task.label_names


def test_mounted_files_and_build_files_exist(compose: dict[str, Any]) -> None:
    """Docker makes an empty folder of a mounted file that is missing, and the worker then fails in a strange way."""
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DOCKER / source).exists(), source
        if build := service.get("build"):
            assert (DOCKER / build["context"] / build["dockerfile"]).is_file()


def test_a_worker_gets_longer_to_stop_than_it_takes_to_drain(compose: dict[str, Any], settings: Settings) -> None:
    """SIGKILL in the middle of a drain pays calls twice."""
    for name in ("classify", "escalate", "feeds"):
        grace_s = int(compose["services"][name]["stop_grace_period"].removesuffix("s"))
        assert grace_s > settings.kafka.drain_timeout_s


def test_no_key_stands_in_the_files(compose: dict[str, Any]) -> None:
    """The LLM's key comes from the environment, and a start without it says so."""
    assert compose["services"]["escalate"]["environment"]["OPENAI_API_KEY"].startswith("${OPENAI_API_KEY:?")


@pytest.mark.parametrize("name", ["Dockerfile", "triton.Dockerfile"])
def test_images_are_pinned_and_copied_files_reach_the_builder(name: str) -> None:
    """A build gives the same thing next year; what it copies is not ignored and is there."""
    text = (DOCKER / name).read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert bases
    assert all(":" in base and not base.endswith(":latest") for base in bases)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert source in allowed, source


def test_the_worker_is_not_root() -> None:
    """Nothing it does needs rights."""
    assert re.search(r"^USER 10001$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)


def test_kafka_is_the_version_the_tests_run_on(compose: dict[str, Any]) -> None:
    """One Kafka version everywhere: what the embedded stack proves holds in the containers."""
    version = compose["services"]["kafka"]["image"].partition(":")[2]
    assert f"kafka-clients:{version}\n" in (ROOT / "stream_app" / "local" / "kafka_jars.txt").read_text()
