"""The partition protocol against a model of Kafka: no order of events loses or doubles an outcome.

Two or three workers with the real membership, transactions, partition life, runs and finished-offsets map; Hypothesis
chooses what happens next (`tests.kafka.kafka_model` says what can). Assignments are the worst there are: a worker may
be given the partition while another still believes that it has it, so only the protocol keeps them apart.

Then each safeguard is taken out by a subclass, and the count of outcomes must notice.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest
from aiokafka.errors import KafkaError
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from stream_app.errors import MembershipLost
from stream_app.kafka.finished import Restored, decode
from stream_app.kafka.partition import LEGAL_MOVES, IllegalMove, PartitionLife, PartitionStatus
from stream_app.kafka.transactions import TransactionalOutput
from tests.kafka.kafka_model import Broker, Fate
from tests.kafka.model_workers import SPAN_MAX, HotWorker, Partition, SlowWorker, Worker

if TYPE_CHECKING:
    from aiokafka.structs import OffsetAndMetadata

# Hypothesis likes the first best, so that is the one by which work gets on.
COUNTS = st.sampled_from([6, 3, 1])
REQUESTS = st.sampled_from([9, 2, 1, 3, 0])
"""A transaction takes three: produce, offsets, end."""
OPENING = 3
"""Requests of an opening: the fence, the end of what hangs, and what is committed."""
DECIDED = st.sampled_from([(0,), (1,), (0, 0, 0), (2, 1, 0), ()])
YES_OR_NO = st.sampled_from([True, False])


def free(worker: Worker) -> bool:
    return worker.owned is None and not worker.handing_over


def has_it(worker: Worker) -> bool:
    return worker.owned is not None


def asked_back(worker: Worker) -> bool:
    return worker.owned is not None and not worker.handing_over


def failed(worker: Worker) -> bool:
    return worker.lost_membership and not worker.handing_over


def ready(worker: Worker) -> bool:
    return worker.owned is not None and worker.owned.life.status is PartitionStatus.READY


def waits(worker: Worker) -> bool:
    return worker.process.waits


class TestClock(asyncio.SelectorEventLoop):
    """An event loop whose time passes only when the test says so."""

    __test__ = False
    now_s = 1_000.0

    def time(self) -> float:
        return self.now_s

    @property
    def idle(self) -> bool:
        """Nothing can run before something else happens."""
        return not self._ready


class PartitionMachine(RuleBasedStateMachine):
    """One input partition, its broker, and workers that come, stall, wake and go."""

    make_broker: ClassVar[type[Broker]] = Broker
    make_worker: ClassVar[type[Worker]]
    workers_count: ClassVar[int] = 3
    by_count_alone: ClassVar[bool] = False
    """Look at nothing but outcomes and the committed offset, as a user's own count would."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = TestClock()
        self.loop.set_exception_handler(lambda *_: None)
        self.broker = self.make_broker()
        self.broker.log = [number % 5 != 4 for number in range(20)]
        self.assignments = 0
        self.workers = [self._new_worker() for _ in range(self.workers_count)]
        self._do(self.workers[0].assign, 0)
        self._requests_done(self.workers[0], OPENING)

    def _new_worker(self) -> Worker:
        async def make() -> Worker:
            return self.make_worker(self.broker)

        return self.loop.run_until_complete(make())

    def _let_run(self, coroutine: Any = None) -> None:
        """Runs the coroutine, and everything that can run without another request, to its end."""

        async def settle() -> None:
            if coroutine is not None:
                await coroutine
            await asyncio.sleep(0)  # timers that are due become ready
            while not self.loop.idle:
                await asyncio.sleep(0)

        self.loop.run_until_complete(settle())
        for place, worker in enumerate(self.workers):
            for error in worker.unforeseen:
                raise error
            if worker.process.ended:
                self.workers[place] = self._new_worker()

    def _do(self, action: Any, *args: Any) -> None:
        async def act() -> None:
            action(*args)

        self._let_run(act())

    def _any(self, wanted: Any) -> bool:
        return any(wanted(worker) for worker in self.workers)

    def _one(self, data: st.DataObject, wanted: Any) -> Worker:
        fitting = [place for place, worker in enumerate(self.workers) if wanted(worker)]
        return self.workers[data.draw(st.sampled_from(fitting), label="worker")]

    # The topic

    @rule(count=COUNTS, marker=st.booleans())
    def records_are_produced(self, count: int, marker: bool) -> None:
        self.broker.log += [True] * count + [False] * marker

    # The group

    @precondition(lambda self: self._any(free))
    @rule(data=st.data(), meanwhile=YES_OR_NO, requests=st.sampled_from([OPENING, 2, 1, 0]))
    def assign(self, data: st.DataObject, meanwhile: bool, requests: int) -> None:
        """To a worker without it; who has it is not always asked first (a stalled worker is expelled unawares).

        It may end its transaction before the new owner fences it.
        """
        worker = self._one(data, free)
        self.assignments += 1
        self._do(worker.assign, self.assignments)
        for other in self.workers if meanwhile else ():
            self._requests_done(other, 0 if other is worker else 9)
        self._requests_done(worker, requests)

    def _assign(self, worker: Worker) -> None:
        self.assignments += 1
        self._do(worker.assign, self.assignments)
        self._requests_done(worker, OPENING)

    @precondition(lambda self: self._any(asked_back))
    @rule(data=st.data(), too_slow=YES_OR_NO, comes_back=YES_OR_NO)
    def revoke(self, data: st.DataObject, too_slow: bool, comes_back: bool) -> None:
        """The hand-over waits for what is in flight, or its time is up; the sticky assignor may give it back."""
        worker = self._one(data, asked_back)
        self._do(worker.revoke)
        if too_slow:
            self._time_passes(6.0)
        if comes_back and free(worker):
            self._assign(worker)

    @precondition(lambda self: self._any(failed))
    @rule(data=st.data(), comes_back=YES_OR_NO)
    def join_again(self, data: st.DataObject, comes_back: bool) -> None:
        worker = self._one(data, failed)
        self._do(worker.join_again)
        if comes_back:
            self._assign(worker)

    # Records and work

    @precondition(lambda self: self._any(has_it))
    @rule(data=st.data(), count=COUNTS)
    def fetch(self, data: st.DataObject, count: int) -> None:
        """In any state: aiokafka hands records out during callbacks and openings too."""
        worker = self._one(data, has_it)
        self._hand_out(worker, worker.fetch, count)

    @precondition(lambda self: self._any(has_it))
    @rule(data=st.data(), back=st.integers(0, 8), count=COUNTS)
    def fetch_from_an_older_position(self, data: st.DataObject, back: int, count: int) -> None:
        worker = self._one(data, has_it)
        self._hand_out(worker, worker.hand_out, self.broker.records(worker.fetch_from - back, count))

    @precondition(lambda self: self._any(has_it))
    @rule(
        data=st.data(),
        records=COUNTS,
        decided=DECIDED,
        first=st.sampled_from([*[Fate.DONE] * 7, Fate.REFUSED]),
        requests=REQUESTS,
    )
    def work(self, data: st.DataObject, records: int, decided: tuple[int, ...], first: Fate, requests: int) -> None:
        """Fetch, start, decide some in any order, and get some way with their transaction."""
        self._work(self._one(data, has_it), records, decided, first, requests)

    def _work(self, worker: Worker, records: int, decided: tuple[int, ...], first: Fate, requests: int) -> None:
        self._hand_out(worker, worker.fetch, records)
        for _ in range(3):
            self._do(worker.start)
        for place in decided:
            self._do(worker.decide, place)
        if requests:
            self._do(worker.process.go_on, first)
        self._requests_done(worker, requests)

    @precondition(lambda self: self._any(lambda worker: worker.undecided))
    @rule(data=st.data(), place=st.integers(0, 3))
    def decide(self, data: st.DataObject, place: int) -> None:
        """Also for a partition that is gone: a call, or a batch, that ends late."""
        self._do(self._one(data, lambda worker: worker.undecided).decide, place)

    @precondition(lambda self: self._any(ready))
    @rule(data=st.data())
    def tick(self, data: st.DataObject) -> None:
        self._do(self._one(data, ready).tick)

    @precondition(lambda self: self._any(waits))
    @rule(data=st.data(), count=REQUESTS)
    def requests_are_done(self, data: st.DataObject, count: int) -> None:
        self._requests_done(self._one(data, waits), count)

    # Faults

    @precondition(lambda self: self._any(waits))
    @rule(data=st.data(), fate=st.sampled_from([Fate.REFUSED, Fate.LOST, Fate.UNHEARD]))
    def a_request_fails(self, data: st.DataObject, fate: Fate) -> None:
        self._do(self._one(data, waits).process.go_on, fate)

    @precondition(lambda self: self._any(has_it))
    @rule(data=st.data(), fault=st.sampled_from(["kill", "kill", "transactions", "no markers", "time"]))
    def a_fault(self, data: st.DataObject, fault: str) -> None:
        """A worker is killed and nothing of it gets another turn, open transactions time out, or commits do."""
        match fault:
            case "kill":
                self.workers[self.workers.index(self._one(data, has_it))] = self._new_worker()
            case "transactions":
                self.broker.time_out_transactions()
            case "no markers":
                self.broker.time_out_without_markers()
            case _:
                self._time_passes(31.0)

    def _time_passes(self, seconds: float) -> None:
        self.loop.now_s += seconds
        self._let_run()

    def _requests_done(self, worker: Worker, count: int) -> None:
        while count and worker.process.waits:
            self._do(worker.process.go_on)
            count -= 1

    def _hand_out(self, worker: Worker, action: Any, what: Any) -> None:
        partition = worker.owned
        if partition is None:
            return
        life, status, before = partition.life, partition.life.status, partition.life.next_offset
        worker.taken.clear()
        self._do(action, what)
        if not self.by_count_alone:
            assert not worker.taken or status is PartitionStatus.READY, f"records accepted while {status.name}"
            assert all(offset >= before for offset in worker.taken), "a record accepted twice"
            assert life.next_offset >= before

    # What must hold

    @invariant()
    def an_illegal_move_changes_nothing(self) -> None:
        for partition in [] if self.by_count_alone else [w.owned for w in self.workers if w.owned]:
            life = partition.life
            before = (life.status, life.next_offset)
            for to in set(PartitionStatus) - LEGAL_MOVES[life.status]:
                with pytest.raises(IllegalMove):
                    life.ready(0) if to is PartitionStatus.READY else life.move(to)
            assert (life.status, life.next_offset) == before

    @invariant()
    def every_record_has_at_most_one_outcome(self) -> None:
        for record in self.broker.records(0, len(self.broker.log)):
            allowed = self.broker.allowed.get(record.offset, 1)
            assert self.broker.outcomes(record.offset) <= allowed, f"record {record.offset} has more than one outcome"

    @invariant()
    def the_committed_offset_passes_no_record_without_outcome(self) -> None:
        delivered = {each.offset for each in self.broker.delivered} | self.broker.skipped
        passed = {r.offset for r in self.broker.records(0, len(self.broker.log))}
        passed = {offset for offset in passed if offset < self.broker.committed.offset}
        assert passed <= delivered, f"records {sorted(passed - delivered)} are passed without an outcome"

    @invariant()
    def nothing_is_delivered_from_an_earlier_assignment(self) -> None:
        assert self.by_count_alone or not self.broker.strays

    @invariant()
    def the_hot_lane_keeps_order(self) -> None:
        if self.make_worker is HotWorker and not self.by_count_alone:
            offsets = [each.offset for each in self.broker.delivered]
            assert offsets == sorted(offsets), "out of order"

    def teardown(self) -> None:
        try:
            self.everyone_wakes_and_a_last_owner_drains()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self._let_run()
            self.loop.close()

    def everyone_wakes_and_a_last_owner_drains(self) -> None:
        """At the end every record has exactly one outcome, or as many as a foreign tool made of it."""
        self._wake(self.workers)
        last = self._new_worker()
        self.workers.append(last)
        self._do(last.assign, self.assignments + 1)
        for _ in range(20 + 2 * len(self.broker.log)):
            last = self.workers[-1]
            self._wake([last])
            if last.owned is not None and last.owned.committed == len(self.broker.log):
                break
            self._do(last.fetch, 6)
            self._do(last.tick)
        self._wake(self.workers)
        self.every_record_has_at_most_one_outcome()
        self.the_committed_offset_passes_no_record_without_outcome()
        assert self.broker.committed.offset == len(self.broker.log), "lag does not reach zero"

    def _wake(self, workers: list[Worker]) -> None:
        """Each does all that it can without new records."""
        for worker in workers:
            for _ in range(12):
                self._do(worker.start)
                if not (worker.undecided or worker.process.waits):
                    break
                self._do(worker.decide, 0)
                while worker.process.waits:
                    worker.process.go_on()
                    self._let_run()


class HotMachine(PartitionMachine):
    """The hot lane: runs in order."""

    make_worker = HotWorker


class SlowMachine(PartitionMachine):
    """The slow lane: any order, a map in the metadata, and foreign tools that write there."""

    make_worker = SlowWorker

    @precondition(lambda self: self.broker.committed.offset >= 0)
    @rule(move=st.integers(-4, 4), text=st.sampled_from([None, None, "", "foreign", "shunt1:0:00000000:AAAA:"]))
    def a_foreign_tool_writes_the_offset(self, move: int, text: str | None) -> None:
        """Moves it, changes its metadata, or both. Kafka takes that from an empty group, which then comes back."""
        self.workers = [self._new_worker() for _ in range(self.workers_count)]
        committed = self.broker.committed
        offset = min(max(0, committed.offset + move), len(self.broker.log))
        self.broker.tamper(offset, committed.metadata if text is None else text)
        self._assign(self.workers[0])

    @invariant()
    def the_span_is_bounded(self) -> None:
        committed = self.broker.committed
        if not self.broker.tampered and committed.offset >= 0:
            found = decode(committed.metadata, committed.offset)
            assert found.doubt is None
            assert all(offset < committed.offset + SPAN_MAX for offset in found.finished)


# Safeguards taken out, each by a subclass


class UngatedLife(PartitionLife):
    """Records are accepted while the partition is still being opened, from wherever the consumer stands."""

    def admit(self, first_offset: int, last_offset: int) -> int | None:
        self.next_offset = last_offset + 1
        return first_offset


class LifeWithoutWatermark(PartitionLife):
    """Records are accepted once READY, also from an older position."""

    def admit(self, first_offset: int, last_offset: int) -> int | None:
        if self.status is not PartitionStatus.READY:
            return None
        self.next_offset = max(self.next_offset, last_offset + 1)
        return first_offset


def with_life(life: type[PartitionLife]) -> type[Worker]:
    """A hot worker whose partitions live so."""

    class WithLife(HotWorker):
        def assign(self, number: int) -> None:
            super().assign(number)
            cast("Partition", self.owned).life = life()

    return WithLife


class KeepsItsAssignment(HotWorker):
    """What was accepted in an earlier assignment may be delivered in a later one: a life for ever, not for each."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.earlier: list[Partition] = []
        self.one_at_a_time = asyncio.Lock()

    async def _deliver(self, run: Any) -> None:
        if run.turn is not None:
            await run.turn
        async with self.one_at_a_time:  # a producer refuses two transactions side by side
            await super()._deliver(run)

    def assign(self, number: int) -> None:
        super().assign(number)
        now = cast("Partition", self.owned)
        for partition in self.earlier:
            partition.life, partition.output, partition.failed = now.life, now.output, False
        self.earlier.append(now)


class ReadsBeforeTheFence(HotWorker):
    """The committed offset is read when the partition is assigned, before the previous owner is fenced."""

    def assign(self, number: int) -> None:
        self.read_early = self.process.broker.committed
        super().assign(number)

    async def read_committed(self) -> OffsetAndMetadata:
        return self.read_early


class NoFence(Broker):
    """A transactional id for each worker: nobody's InitProducerId refuses anybody's commit."""

    fences = False


class UncheckedOutput(TransactionalOutput):
    """Nobody looks at the sends' futures before the commit."""

    async def _check_sends(self, futures: Any) -> None:
        await asyncio.gather(*futures, return_exceptions=True)


class OffsetsOutside(TransactionalOutput):
    """The outcomes are committed, and then the offset."""

    async def _send_offsets(self, offsets: Any) -> None:
        self.late = next(iter(offsets.values()))

    async def _transaction(self, *args: Any) -> None:
        await super()._transaction(*args)
        producer: Any = self._producer
        try:
            await producer.process.ask(lambda: producer.broker.commit_offset(self.late))
        except KafkaError as error:
            raise MembershipLost(str(error)) from error


class EndsNothing(TransactionalOutput):
    """What the last owner left hanging is left alone."""

    async def open(self) -> None:
        await self._producer.start()


class LeavesHanging(HotWorker):
    make_output = EndsNothing


class UncheckedSends(HotWorker):
    make_output = UncheckedOutput


class OffsetsApart(HotWorker):
    make_output = OffsetsOutside


class OutOfTurn(HotWorker):
    """A run is delivered as soon as it is decided."""

    async def _deliver(self, run: Any) -> None:
        run.before = None
        await super()._deliver(run)


def any_base(metadata: str, committed: int) -> Restored:
    """Believes a map whatever offset it was written for."""
    parts = metadata.split(":")
    if len(parts) < 2 or not parts[1].isdigit():
        return decode(metadata, committed)
    base = int(parts[1])
    found = decode(metadata, base)
    return Restored(frozenset(offset - base + committed for offset in found.finished), found.extra, found.doubt)


class AnyBase(SlowWorker):
    decode = staticmethod(any_base)


class MovedMachine(SlowMachine):
    """Chance alone takes thousands of tries until an offset is moved just when a map stands beside it."""

    @rule(move=st.sampled_from([-1, 1, 2]))
    def the_offset_is_moved_under_a_map(self, move: int) -> None:
        """Some later records are finished and committed, then a foreign tool moves the offset and leaves the map."""
        self.records_are_produced(6, marker=False)
        self.workers = [self._new_worker() for _ in range(self.workers_count)]
        self._assign(self.workers[0])
        self._work(self.workers[0], 6, (2, 1), Fate.DONE, 9)
        self.a_foreign_tool_writes_the_offset(move, None)


def mutant(
    name: str,
    worker: type[Worker],
    broker: type[Broker] = Broker,
    parent: type[PartitionMachine] = HotMachine,
    luck: int | None = None,
) -> Any:
    """A machine with a safeguard less, watched only by the count. `luck` is a seed that finds the breach soon."""
    parent = SlowMachine if parent is HotMachine and issubclass(worker, SlowWorker) else parent
    made = {"make_worker": worker, "make_broker": broker, "by_count_alone": True, "workers_count": 2}
    machine = type(parent.__name__, (parent,), made)
    return pytest.param(machine if luck is None else seed(luck)(machine), id=name)


MUTANTS = [
    mutant("no READY gate", with_life(UngatedLife)),
    mutant("no watermark", with_life(LifeWithoutWatermark)),
    mutant("no life of its own for an assignment", KeepsItsAssignment),
    mutant("committed offset read before the fence", ReadsBeforeTheFence),
    mutant("no fencing, hot lane", HotWorker, NoFence),
    mutant("no fencing, slow lane", SlowWorker, NoFence, luck=2),
    mutant("sends not checked", UncheckedSends, luck=2),
    mutant("what hangs is not ended", LeavesHanging),
    mutant("offsets outside the transaction", OffsetsApart),
    mutant("runs out of turn", OutOfTurn),
    mutant("base of the metadata not compared", AnyBase, parent=MovedMachine),
]


@pytest.fixture(autouse=True)
def quiet():
    """Thousands of losses are logged otherwise."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def chosen(examples: int, phases: tuple[Phase, ...]) -> settings:
    """The same examples in every run."""
    return settings(
        max_examples=examples,
        stateful_step_count=60,
        derandomize=True,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )


@pytest.mark.parametrize("machine", [HotMachine, MovedMachine])
def test_no_order_of_events_breaks_the_promise(machine):
    """At most one outcome at every moment, exactly one at the end, and no committed offset ahead of its outcomes."""
    run_state_machine_as_test(machine, settings=chosen(100, (Phase.generate, Phase.shrink)))


@pytest.mark.timeout(600)  # seconds of computing; many times that where other tests compute beside it
@pytest.mark.parametrize("machine", MUTANTS)
def test_each_safeguard_is_needed(machine):
    """With it taken out, some order of events loses or doubles an outcome, and the count says so."""
    with pytest.raises(AssertionError, match=r"more than one outcome|without an outcome"):
        run_state_machine_as_test(machine, settings=chosen(3_000, (Phase.generate,)))
