"""The options that name LLMs whose recorded answers a file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from stream_app.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

LLMS_MAX = 2


def _prices(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    found = dict[str, float]()
    for one in given:
        llm, _, price = one.rpartition("=")
        try:
            found[llm] = float(price)
        except ValueError:
            found[llm] = 0.0
        if not llm or not found[llm] > 0:
            raise SettingsError(f"--price {one} is not NAME=NUMBER", advice="such as --price small-llm=0.2")
    return found


def _llms(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    if len(given) > LLMS_MAX or len(set(given)) < len(given):
        raise SettingsError("--llm names the LLM that is asked, and perhaps another for second opinions")
    return given


def with_recorded_llms(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --llm, given to the command as `llms`, and --price, as `prices`."""
    price = click.option(
        "--price",
        "prices",
        multiple=True,
        metavar="NAME=RATIO",
        callback=_prices,
        help="What an LLM's token costs against another's.  [default: the same]",
    )
    llm = click.option(
        "--llm",
        "llms",
        multiple=True,
        callback=_llms,
        help="The LLM whose recorded answers (field `llm`) stand for its own. A second one gives second opinions.",
    )
    return llm(price(command))
