"""`shunt run --shadow`: decides like the hot path, in a group of its own, and publishes nothing.

It says beforehand what Shunt would do with a topic: the share that would go to the LLM, what that would cost,
and what would be a dead letter. Only the input topic must exist, and no LLM is called. With a challenger, a policy
that is not in force, it says too how its decisions would compare with the live ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import orjson

from stream_app.classify.against_live import AgainstLive, final_of, live_finals, place_of
from stream_app.classify.in_force import Policing
from stream_app.classify.outbox import Outbox
from stream_app.classify.service import ClassifyLane
from stream_app.classify.start import challenging, deciding
from stream_app.codec import Codec, decode_dead_letter, decode_decision, timestamp_ms
from stream_app.errors import StartError
from stream_app.escalate.prices import price_of
from stream_app.escalate.prompt import tokens_of
from stream_app.escalate.prompters import prompter_of
from stream_app.kafka.connection import Connection
from stream_app.kafka.membership import Membership
from stream_app.kafka.topics import TopicFound, look_up, plan
from stream_app.kafka.transactions import TransactionalOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiokafka import TopicPartition

    from stream_app.escalate.prices import Price
    from stream_app.escalate.prompt import Prompter, Request
    from stream_app.events import Outgoing
    from stream_app.routing.policy import Policy
    from stream_app.settings import Settings, TopicNames
    from stream_app.telemetry import Metrics

log = logging.getLogger(__name__)

TOLD_EVERY_S = 10.0
DAY_S = 86_400
SPAN_LEAST_S = 60.0
"""Timestamps that span less than a minute say nothing of a day."""
NANO = 1_000_000_000


@dataclass(slots=True)
class ShadowReport:
    """What would have become of the records seen. Pure: outcomes are folded in, figures come out."""

    accepted: int = 0
    escalated: int = 0
    tombstones: int = 0
    because: Counter[str] = field(default_factory=Counter[str])
    dead: Counter[str] = field(default_factory=Counter[str])
    cost_nusd: int = 0
    first_ms: int | None = None
    last_ms: int | None = None

    @property
    def records(self) -> int:
        """All records seen."""
        return self.accepted + self.escalated + self.tombstones + self.dead.total()

    @property
    def share_escalated(self) -> float | None:
        """Of the events, those that would be sent to the LLM; None before there are any."""
        events = self.accepted + self.escalated
        return self.escalated / events if events else None

    @property
    def records_a_day(self) -> float | None:
        """By the records' own timestamps; None where these span too little to say."""
        if self.first_ms is None or self.last_ms is None:
            return None
        span_s = (self.last_ms - self.first_ms) / 1000
        return self.records / span_s * DAY_S if span_s >= SPAN_LEAST_S else None

    def stamp(self, at_ms: int) -> None:
        """A record with this timestamp was seen."""
        self.first_ms = at_ms if self.first_ms is None else min(self.first_ms, at_ms)
        self.last_ms = at_ms if self.last_ms is None else max(self.last_ms, at_ms)

    def told(self) -> dict[str, Any]:
        """The figures for a program. Dollars are estimates: no call was made."""
        cost_usd, a_day = self.cost_nusd / NANO, self.records_a_day
        return {
            "records": self.records,
            "accepted": self.accepted,
            "escalated": self.escalated,
            "share_escalated": self.share_escalated,
            "escalated_because": dict(self.because),
            "dead_letters": dict(self.dead),
            "tombstones": self.tombstones,
            "cost_usd_estimate": cost_usd,
            "records_a_day": a_day,
            "usd_a_day_estimate": None if a_day is None else cost_usd / self.records * a_day,
        }

    def lines(self) -> list[str]:
        """The figures for a person."""
        told = self.told()
        share = self.share_escalated
        because = ", ".join(f"{reason} {n:,}" for reason, n in self.because.most_common())
        dead = ", ".join(f"{cause} {n:,}" for cause, n in self.dead.most_common())
        a_day = told["usd_a_day_estimate"]
        bill = "the records' timestamps span too little to say what a day would cost"
        if a_day is not None:
            bill = f"about ${a_day:,.2f} a day, at {told['records_a_day']:,.0f} records a day"
        return [
            f"{self.records:,} records seen; nothing was published and no LLM was called",
            f"  decided by the small models  {self.accepted:,}",
            f"  would go to the LLM          {self.escalated:,}"
            + (f" ({share:.1%} of the events: {because})" if share is not None and self.escalated else ""),
            f"  would be dead letters        {self.dead.total():,}" + (f" ({dead})" if dead else ""),
            f"  tombstones                   {self.tombstones:,}",
            f"  the LLM would have cost      about ${told['cost_usd_estimate']:,.4f}; {bill}",
        ]


class Shadow:
    """The hot path with an output that is only looked at. Ends after `limit` records, or when asked to.

    What the LLM would have cost is reckoned at the first endpoint's price. A `challenger` decides instead of the
    settings' policy; Triton is asked to serve its models beside those in use.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        limit: int | None,
        as_json: bool,
        challenger: Policy | None = None,
    ) -> None:
        quiet = settings.decisions.model_copy(update={"provisional": False})
        batch_max = min(settings.classify.batch_records_max, limit or settings.classify.batch_records_max)
        small = settings.classify.model_copy(update={"batch_records_max": batch_max})
        self._settings = settings.model_copy(update={"decisions": quiet, "classify": small})
        self._metrics = metrics
        self._limit = limit
        self._as_json = as_json
        self._codec = Codec(settings.events, settings.kafka.group)
        self._prompter: Prompter = prompter_of(settings)
        self._price: Price = price_of(settings.llm.endpoints[0])
        self._enough = asyncio.Event()
        self.report = ShadowReport()
        self._challenger = challenger
        self.against = None if challenger is None else AgainstLive()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until `stopping` or the limit, then print the report. Raises StartError or SettingsError."""
        asked = asyncio.create_task(self._stop_with(stopping))
        telling = asyncio.create_task(self._tell())
        try:
            await self._decide()
        finally:
            for task in (asked, telling):
                task.cancel()
        told, lines = self.report.told(), self.report.lines()
        if self.against is not None and self._challenger is not None:
            told |= {"challenger": self._challenger.ref, "against_live": self.against.told()}
            lines += self.against.lines(self._challenger.ref)
        click.echo(orjson.dumps(told) if self._as_json else "\n".join(lines))

    async def _decide(self) -> None:
        connection = Connection(self._settings.kafka)
        topics = await _topics(connection)

        def membership(lane: ClassifyLane) -> Membership:
            return Membership(
                connection,
                topic=self._settings.kafka.input_topic,
                group=f"{self._settings.kafka.group}-shadow",
                work=lane,
                reach=lambda _: (),
                make_output=lambda *args, **kwargs: LookedAt(self._see, *args, **kwargs),
            )

        challenger, against, names = self._challenger, self.against, self._settings.kafka.names
        deciders = (
            deciding(self._settings, in_force=True) if challenger is None else challenging(self._settings, challenger)
        )
        async with deciders as parts, live_finals(connection, names.decisions, against):
            outbox = Outbox(self._settings, self._codec, parts.routers, topics, parts.policy)
            decider = parts.decider(self._settings, self._metrics)
            policing = Policing(decider, outbox, parts.policy)
            lane = ClassifyLane(self._settings, self._codec, policing, self._metrics, membership)
            await lane.run(self._enough)

    def _see(self, outgoing: Sequence[Outgoing]) -> None:
        names = self._settings.kafka.names
        for record in outgoing:
            if self._limit is not None and self.report.records >= self._limit:
                break
            self._fold(record, names)
        if self._limit is not None and self.report.records >= self._limit:
            self._enough.set()

    def _fold(self, record: Outgoing, names: TopicNames) -> None:
        report = self.report
        if record.topic == names.audits:
            return  # beside its event's decision or escalation, which is counted
        if record.topic == names.dlq:
            report.dead[decode_dead_letter(record.headers).cause.name] += 1
        elif record.topic == names.escalations:
            escalated, event = self._codec.decode_escalated(record.key, record.value, record.headers)
            report.escalated += 1
            report.because[escalated.escalation.asks[0].because] += 1
            report.cost_nusd += self._cost_nusd(self._prompter.render(escalated.escalation, event))
            report.stamp(event.source.timestamp_ms)
            if self.against is not None:
                self.against.would_be(event.source.ref, None)
        elif record.value is None:
            report.tombstones += 1
        else:
            decision = decode_decision(record.value)
            report.accepted += 1
            report.stamp(timestamp_ms(decision.source.timestamp))
            if self.against is not None:
                self.against.would_be(place_of(decision), final_of(decision).labels)

    def _cost_nusd(self, request: Request) -> int:
        """The estimate for one call: the rendered prompt, and an answer with the longest allowed labels."""
        return self._price.cost_nusd(request.input_tokens, tokens_of(len(orjson.dumps(request.longest_answer))))

    async def _stop_with(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._enough.set()

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY_S)
            share = self.report.share_escalated
            log.info(
                "%d records seen, %s would go to the LLM",
                self.report.records,
                "-" if share is None else f"{share:.1%}",
            )


class LookedAt(TransactionalOutput):
    """An output that shows what it is given, publishes nothing, and commits the shadow group's offsets."""

    def __init__(self, see: Callable[[Sequence[Outgoing]], None], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._see = see

    async def commit(self, outgoing: Sequence[Outgoing], source: TopicPartition, offset: int, metadata: str) -> None:
        """Commits the offset alone."""
        await super().commit((), source, offset, metadata)
        self._see(outgoing)


async def _topics(connection: Connection) -> dict[str, TopicFound]:
    """The input topic as it is, the outputs as they would be made. StartError where there is no input topic."""
    name = connection.kafka.input_topic
    source = (await look_up(connection, [name])).get(name)
    if source is None:
        raise StartError(f"there is no topic {name!r}", advice="correct [kafka] input_topic")
    planned = {
        topic.name: TopicFound(
            topic.name, topic.partitions, topic.cleanup.value, topic.retention_ms, topic.message_bytes_max
        )
        for topic in plan(connection.kafka, source)
    }
    return {**planned, name: source}
