"""`shunt init`: a commented settings file to begin with."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import click

from stream_app.cli.configured import config_option
from stream_app.cli.sample import Fields, infer
from stream_app.cli.settings_file import Addresses, settings_file
from stream_app.errors import SettingsError, StartError
from stream_app.kafka.connection import Connection
from stream_app.kafka.reader import read_topic
from stream_app.local.detached import stack_status
from stream_app.settings import DEFAULT_FILE, Kafka

SAMPLE_OF_EACH_PARTITION = 200


@click.command()
@click.option(
    "--topic", default="reviews", show_default=True, help="The input topic; its newest records are looked at."
)
@click.option("--bootstrap-servers", help="Where Kafka is.  [default: the running stack, else 127.0.0.1:9092]")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@config_option
@click.pass_obj
def init(config: Path | None, topic: str, bootstrap_servers: str | None, force: bool) -> None:
    """Write a commented shunt.toml.

    Where the topic can be read, the fields of its records are found; where `shunt stack` runs in this folder,
    its addresses are written.
    """
    file = config or Path(DEFAULT_FILE)
    if file.exists() and not force:
        raise SettingsError(
            f"{file} exists already", advice="write over it with --force, or name another with --config"
        )
    addresses = _addresses(bootstrap_servers)
    fields = _sampled(addresses.bootstrap_servers, topic)
    try:
        file.write_text(settings_file(topic, addresses, fields), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written ({error.strerror})") from error
    click.echo(f"{file} is written. Look through it: what every event is asked stands under [[tasks]].")
    click.echo("Next: shunt topics create")


def _addresses(bootstrap_servers: str | None) -> Addresses:
    """Where the servers are: the running stack's where there is one, else the usual places."""
    usual = Addresses()
    info = stack_status()
    return Addresses(
        bootstrap_servers=bootstrap_servers or (info and info.bootstrap_servers) or usual.bootstrap_servers,
        triton=(info and info.triton_grpc) or usual.triton,
        stand_in=info.llm_base_url if info else None,
    )


def _sampled(bootstrap_servers: str, topic: str) -> Fields | None:
    """The fields of the topic's newest records; None, said on standard error, where they cannot be told."""
    kafka = Kafka(bootstrap_servers=bootstrap_servers, input_topic=topic)
    try:
        values = asyncio.run(_newest(Connection(kafka), topic))
    except StartError as error:
        click.echo(f"no sample: {error.message}; the fields are the usual ones", err=True)
        return None
    fields = infer(values)
    if fields is None:
        click.echo(f"no text found in {len(values)} records of {topic}; the fields are the usual ones", err=True)
    else:
        click.echo(
            f"{fields.records} records of {topic}: id in {fields.id_field}, text in {', '.join(fields.text_fields)}"
        )
    return fields


async def _newest(connection: Connection, topic: str) -> list[bytes | None]:
    values: list[bytes | None] = []
    async with aclosing(read_topic(connection, topic, begin=SAMPLE_OF_EACH_PARTITION, to_end=True)) as batches:
        async for batch in batches:
            values += [record.value for record in batch]
    return values
