"""Commands that need the settings: `--config` is understood before and after the command's name."""

from __future__ import annotations

from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from stream_app.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def configured(command: Callable[Concatenate[Settings, P], R]) -> Callable[P, R]:
    """Gives `command` the settings as its first argument. Loading raises SettingsError (exit status 2)."""

    @config_option
    @click.pass_context
    @wraps(command)
    def with_settings(ctx: click.Context, *args: P.args, **kwargs: P.kwargs) -> R:
        return command(load_settings(ctx.obj), *args, **kwargs)

    return with_settings


def config_option(command: Callable[P, R]) -> Callable[P, R]:
    """`--config` after the command's name: what `click.pass_obj` then hands over."""
    decorate = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        expose_value=False,
        callback=_remember,
        help="The settings file.  [default: $SHUNT_CONFIG, else shunt.toml]",
    )
    return decorate(command)


def _remember(ctx: click.Context, _parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        ctx.obj = value
