"""The written references say what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from stream_app.cli import COMMANDS, FirstUseOrder, shunt
from stream_app.settings import Endpoint, Settings, Task

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def documented() -> dict[str, dict[str, str]]:
    """Section -> key -> default, as docs/settings.md shows them."""
    text = (ROOT / "docs" / "settings.md").read_text()
    sections = re.split(r"^## `\[+([\w.]+)\]+`$", text, flags=re.MULTILINE)[1:]
    return {name: dict(ROW.findall(body)) for name, body in zip(sections[::2], sections[1::2], strict=True)}


def sections() -> dict[str, type[BaseModel]]:
    """Section -> its class."""
    found: dict[str, type[BaseModel]] = {"tasks": Task, "llm.endpoints": Endpoint}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found[name] = field.annotation
    return found | {"kafka.topics": found["kafka"].model_fields["topics"].annotation}  # type: ignore[dict-item]


def shown(default: Any, factory: Any) -> str:
    """A default as the tables show it."""
    if factory is not None:
        return f"`{json.dumps(factory())}`"
    if default is PydanticUndefined:
        return "must be given"
    if isinstance(default, tuple) and default and isinstance(default[0], BaseModel):
        return "one, of the defaults below"
    return "none" if default is None else f"`{json.dumps(default)}`"


@pytest.mark.parametrize(("name", "section"), sections().items(), ids=lambda part: str(part))
def test_every_setting_is_documented_with_its_default(name: str, section: type[BaseModel]) -> None:
    """A key, or a default, that changes without its documentation fails here."""
    fields = {
        key: shown(field.default, field.default_factory)
        for key, field in section.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    }
    assert documented()[name] == fields


def test_no_section_is_documented_that_does_not_exist() -> None:
    """And none is left out."""
    assert set(documented()) == set(sections())


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> dict[str, click.Command]:
    """Every command that does something, by its full name."""
    context = click.Context(group)
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= leaves(command, (*path, name))
        else:
            found[" ".join((*path, name))] = command
    return found


def test_every_command_and_flag_is_documented() -> None:
    """docs/command-line.md has a section for each command, and in it each of its flags."""
    text = (ROOT / "docs" / "command-line.md").read_text()
    parts = re.split(r"^### `shunt ([a-z ]+?)(?: [A-Z\[].*)?`$", text, flags=re.MULTILINE)[1:]
    described = dict(zip(parts[::2], parts[1::2], strict=True))
    commands = leaves(shunt)
    assert set(described) == set(commands)
    for name, command in commands.items():
        for parameter in command.params:
            if isinstance(parameter, click.Option) and "--config" not in parameter.opts:
                assert f"`{parameter.opts[0]}" in described[name], f"{name}: {parameter.opts[0]}"


def test_links_in_the_documents_lead_somewhere() -> None:
    """A relative link names a file that is there."""
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_listing_is_in_the_order_of_first_use() -> None:
    """What a newcomer needs first stands first."""
    names = [listed.name for listed in COMMANDS]
    assert names[0] == "demo"
    path = ["stack", "init", "topics", "check", "run", "produce", "consume"]
    assert [name for name in names if name in path] == path
    assert isinstance(shunt, FirstUseOrder)
