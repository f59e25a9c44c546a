"""The command `shunt`: which commands there are, and what a failure looks like.

Commands are imported when they are called, so that `shunt --help` answers at once. Exit statuses, for every
command: 0 done, 1 failed, 2 bad usage or settings, and 3 from `shunt run` when the worker lost its membership
too often. Ctrl-C is the ordinary end of the commands that run until they are stopped (`run`, `consume`,
`demo`: status 0); any other command that is interrupted has not done its work (status 1). When the reader of its
output leaves (`shunt consume | head`), a command ends quietly, with status 1.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from stream_app import __version__
from stream_app.errors import ShuntError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEBUG_VARIABLE = "SHUNT_DEBUG"


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `shunt --help`: the command's name, where it lives (`module:attribute`), what it does."""

    name: str
    where: str
    does: str


COMMANDS = (
    Listed("demo", "stream_app.cli.demo:demo", "Reviews through real Kafka and real Triton, before your eyes."),
    Listed("try", "stream_app.cli.try_text:try_", "One text through tiers, threshold and prompt, step by step."),
    Listed(
        "stack", "stream_app.cli.stack:stack", "Kafka, Triton and a stand-in LLM on this machine: up, down, status."
    ),
    Listed("init", "stream_app.cli.init:init", "Write a commented shunt.toml, its fields read off a topic."),
    Listed("topics", "stream_app.cli.topics:topics", "Make the topics of the pipeline."),
    Listed("check", "stream_app.cli.check:check", "Is everything reachable, and does it fit together?"),
    Listed("run", "stream_app.cli.run:run", "One worker: both lanes, or classify, escalate, feeds."),
    Listed("produce", "stream_app.cli.produce:produce", "Send a file of JSON Lines to the input topic."),
    Listed("consume", "stream_app.cli.consume:consume", "Print the decisions, or any topic, as they come."),
    Listed("status", "stream_app.cli.status:status", "Lag, rates, share escalated, spend, dead letters."),
    Listed("feedback", "stream_app.cli.feedback:feedback", "Post people's labels, which correct decisions."),
    Listed("erase", "stream_app.cli.erase:erase", "Take an event out of training, and publish its tombstone."),
    Listed("dlq", "stream_app.cli.dlq:dlq", "List, show and replay dead letters."),
    Listed("sample", "stream_app.cli.sampling:sample", "Draw what of the topic is worth labelling."),
    Listed("train", "stream_app.cli.train:train", "Make a Triton model from labelled texts."),
    Listed("convert", "stream_app.cli.convert:convert", "Make an encoder's half-precision twin, for a GPU."),
    Listed("calibrate", "stream_app.cli.calibrate:calibrate", "Make a policy that keeps a target error."),
    Listed("evaluate", "stream_app.cli.evaluate:evaluate", "Measure a policy on labelled texts."),
    Listed("distill", "stream_app.cli.distill:distill", "Teach the small model what it had to ask."),
    Listed("promote", "stream_app.cli.promote:promote", "Bring a better policy into force in every worker."),
    Listed("rollback", "stream_app.cli.promote:rollback", "Bring the policy before it back into force."),
)
"""In the order in which a person first needs them."""


class FirstUseOrder(click.Group):
    """The group of all commands: listed in the order of first use, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [listed.name for listed in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        for listed in COMMANDS:
            if listed.name == cmd_name:
                module, _, attribute = listed.where.partition(":")
                return cast("click.Command", getattr(import_module(module), attribute))
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        with formatter.section("Commands, in the order of first use"):
            formatter.write_dl([(listed.name, listed.does) for listed in COMMANDS])


@click.group(cls=FirstUseOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="shunt")
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The settings file.  [default: $SHUNT_CONFIG, else shunt.toml]",
)
@click.pass_context
def shunt(ctx: click.Context, config: Path | None) -> None:
    """Small models decide what they are sure of, an LLM the rest: exactly one decision per Kafka event."""
    ctx.obj = config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. Whatever fails ends here, as one line on standard error."""
    if not os.environ.get(DEBUG_VARIABLE):
        # What libraries complain of reaches the person as our one line; a worker sets up logs of its own.
        logging.getLogger().addHandler(logging.NullHandler())
    try:
        result: Any = shunt.main(args=arguments, prog_name="shunt", standalone_mode=False)
        status = result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        status = error.exit_code
    except click.UsageError as error:
        status = _complain(f"{error.format_message()} (see `{_help_of(error)}`)", error.exit_code)
    except click.ClickException as error:
        status = _complain(error.format_message(), error.exit_code)
    except ShuntError as error:
        _show_traceback()
        status = _complain(error.one_line(), error.exit_status)
    except (click.Abort, KeyboardInterrupt):
        status = _complain("interrupted", 1)
    except Exception as error:  # noqa: BLE001 - the last line of defence: a person gets one line, not a trace
        hint = "" if _show_traceback() else f" (a fault of Shunt; {DEBUG_VARIABLE}=1 shows where)"
        status = _complain(f"{type(error).__name__}: {error}{hint}", 1)
    return status


def _complain(text: str, status: int) -> int:
    """Print one line on standard error; `status` back."""
    print(f"shunt: {' '.join(text.split())}", file=sys.stderr)
    return status


def _show_traceback() -> bool:
    """Print the current exception's traceback where the debug variable asks for it."""
    wanted = bool(os.environ.get(DEBUG_VARIABLE))
    if wanted:
        traceback.print_exc()
    return wanted


def _help_of(error: click.UsageError) -> str:
    """The help command nearest to where usage went wrong."""
    path = error.ctx.command_path if error.ctx is not None else "shunt"
    return f"{path} --help"
