"""Reads the settings, and says in one line what is wrong with them."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsConfigDict

from stream_app.errors import SettingsError
from stream_app.settings.whole import Settings

DEFAULT_FILE = "shunt.toml"


def settings_path(path: Path | str | None = None) -> Path:
    """The settings file: the one given, else `SHUNT_CONFIG`, else `shunt.toml` in the working folder."""
    return Path(path or os.environ.get("SHUNT_CONFIG") or DEFAULT_FILE)


def load_settings(path: Path | str | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """The settings from file, environment and flags. Relative paths in the file count from the file.

    Raises SettingsError, one line that says what to change, for a file that is missing or not TOML, an
    unknown key (with the nearest known one), a value of the wrong type or out of range.
    """
    file = settings_path(path)
    if not file.is_file():
        raise SettingsError(
            f"there is no settings file {file}", advice="make one with `shunt init`, or name it with --config"
        )

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        found = FromFile(**(overrides or {}))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML ({error})") from error
    except ValidationError as error:
        raise SettingsError(f"{file}: {_first_complaint(error)}") from error
    return _with_absolute_paths(found, file.resolve().parent)


def _with_absolute_paths(settings: Settings, folder: Path) -> Settings:
    """`settings` with the paths that stand in it counted from `folder`."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else folder / path.expanduser()

    endpoints = tuple(
        endpoint.model_copy(update={"api_key_file": absolute(endpoint.api_key_file)})
        for endpoint in settings.llm.endpoints
    )
    llm = settings.llm.model_copy(
        update={"instructions_file": absolute(settings.llm.instructions_file), "endpoints": endpoints}
    )
    policy = settings.policy.model_copy(update={"file": absolute(settings.policy.file)})
    return settings.model_copy(update={"llm": llm, "policy": policy})


def _first_complaint(error: ValidationError) -> str:
    """The first thing pydantic found, in our words."""
    complaint = error.errors(include_url=False)[0]
    where = tuple(part for part in complaint["loc"] if not _is_union_branch(part))
    name = ".".join(str(part) for part in where) or "settings"
    if complaint["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(where[-1]), _known_keys(where[:-1]), n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"unknown key {name!r}{hint}"
    if complaint["type"] == "missing":
        return f"{name!r} is missing"
    message = complaint["msg"].removeprefix("Value error, ")
    given = complaint.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{name!r}: {message[0].lower()}{message[1:]}{shown}"


def _is_union_branch(part: int | str) -> bool:
    """True for what pydantic adds to a location to tell the branches of a union apart."""
    return isinstance(part, str) and ("[" in part or part in {"str", "tuple", "dict"})


def _known_keys(where: tuple[int | str, ...]) -> list[str]:
    """The keys of the section at `where`."""
    section: type[BaseModel] = Settings
    for part in where:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        inner = [cast("Any", annotation), *getattr(annotation, "__args__", ())]
        section = next(kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(section.model_fields)
