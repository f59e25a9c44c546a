"""The filters of `shunt dlq`, the same for each of its commands."""

from __future__ import annotations

import time
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import click

from stream_app.cli.dlq_selection import Selection, moment_ms, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
R = TypeVar("R")


def filtered(command: Callable[Concatenate[Selection, P], R]) -> Callable[P, R]:
    """Gives `command` the filters as a Selection, as its first argument."""

    @click.option("--cause", "causes", multiple=True, help="Only this cause, such as not_json; again for more.")
    @click.option("--stage", "stages", multiple=True, help="Only this stage: decode, classify or escalate.")
    @click.option("--since", help="Only what died at or after this: 2026-11-20T09:30 (UTC), or 2h ago.")
    @click.option("--until", help="Only what died before this.")
    @click.option("--key", help="Only records with exactly this key.")
    @wraps(command)
    def with_selection(*args: P.args, **kwargs: P.kwargs) -> R:
        asked = cast("dict[str, Any]", kwargs)
        now_ms = int(time.time() * 1000)
        since_ms = _moment("--since", asked.pop("since"), now_ms)
        until_ms = _moment("--until", asked.pop("until"), now_ms)
        if since_ms is not None and until_ms is not None and since_ms >= until_ms:
            raise click.BadParameter("it is not after --since", param_hint="--until")
        key: str | None = asked.pop("key")
        selection = Selection(
            causes=frozenset(asked.pop("causes")),
            stages=frozenset(asked.pop("stages")),
            since_ms=since_ms,
            until_ms=until_ms,
            # What the shell hands over that is no UTF-8 comes as surrogates: any bytes can be named.
            key=None if key is None else key.encode("utf-8", "surrogateescape"),
            places=frozenset(_place(text) for text in asked.pop("places", ())),
        )
        return command(selection, *args, **kwargs)

    return with_selection


def _moment(name: str, text: str | None, now_ms: int) -> int | None:
    if text is None:
        return None
    try:
        return moment_ms(text, now_ms)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(
            f"{text!r} is neither a time such as 2026-11-20T09:30 nor a duration such as 2h", param_hint=name
        ) from error


def _place(text: str) -> tuple[int, int]:
    try:
        return place_of(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is no PARTITION/OFFSET such as 0/17", param_hint="PARTITION/OFFSET"
        ) from error
