"""The house's own rules: what a reviewer would otherwise have to look for by hand."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PURE = ("routing", "events.py", "codec", "errors.py")
CLOCKS_AND_CHANCE = {
    "now",
    "utcnow",
    "today",
    "time",
    "time_ns",
    "monotonic",
    "perf_counter",
    "urandom",
    "default_rng",
}


def tracked() -> list[Path]:
    """Every file that is, or is about to be, in the repository."""
    told = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in told.splitlines() if (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    """The tracked files that are text."""
    found: list[tuple[Path, str]] = []
    for path in tracked():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


def pure_modules() -> list[Path]:
    """The modules of the pure rooms."""
    package = ROOT / "stream_app"
    return [
        module
        for room in PURE
        for module in ([package / room] if room.endswith(".py") else sorted((package / room).rglob("*.py")))
    ]


@pytest.mark.parametrize("module", pure_modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_rooms_read_no_clock_and_no_randomness(module: Path) -> None:
    """Time and chance are arguments there: a decision can be repeated exactly. (Imports: see the import fence.)"""
    calls = [node.func for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Call)]
    names = [call.attr for call in calls if isinstance(call, ast.Attribute)]
    assert not CLOCKS_AND_CHANCE & set(names)
    assert not [
        call for call in calls if isinstance(call, ast.Attribute) and ast.unparse(call).startswith("np.random")
    ]


def test_constraints_name_no_index_and_pin_everything() -> None:
    """Which index serves the packages is the business of who installs; which versions, is ours."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", line) for line in lines)


def test_constraints_cover_every_dependency() -> None:
    """What pyproject.toml asks for is pinned, in every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[\[<>=;! ]", line, maxsplit=1)[0].lower().replace("_", "-") for line in asked}
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names <= pinned


def test_the_two_onnx_runtimes_are_never_asked_for_together() -> None:
    """They provide the same module: installed together, one breaks the other."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for lines in extras.values():
        assert sum(line.startswith("onnxruntime") for line in lines) <= 1


def test_no_path_of_a_machine_and_no_credential_is_committed() -> None:
    """A clone works anywhere, and nothing in it is secret."""
    here = {str(ROOT) + "/", str(Path.home()) + "/"}
    key = re.compile(r"\bsk-(?:proj-)?[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY")
    for path, text in texts():
        assert not any(place in text for place in here), path
        assert not key.search(text), path


def test_scripts_are_executable_with_unix_line_ends() -> None:
    """A clean clone can run them as they are."""
    for script in (ROOT / ".ci" / "run", ROOT / "tools" / "install", ROOT / "tools" / "find-python"):
        assert script.stat().st_mode & 0o111, script
        assert b"\r" not in script.read_bytes()


def test_the_version_stands_in_one_place_more_and_agrees() -> None:
    """`shunt --version` is the distribution's version, and the changelog knows it."""
    import stream_app

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == stream_app.__version__
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def find_python(candidates: str) -> subprocess.CompletedProcess[str]:
    """`tools/find-python` with these candidates."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": candidates}
    return subprocess.run(["tools/find-python"], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_make_finds_a_python_that_carries_triton() -> None:
    """A candidate that is missing or of another version is passed over."""
    found = find_python(f"no-such-python {sys.executable}")
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)


def test_make_says_in_one_line_which_python_it_needs() -> None:
    """Nobody reads a traceback of make."""
    found = find_python("no-such-python")
    assert found.returncode == 1
    assert found.stderr.startswith("make: Python 3.11 or 3.12 is needed (looked for: no-such-python)")
    assert found.stderr.count("\n") == 1
