"""A second opinion and its endpoint: asked where it is worth it, never waited for beyond a turn, never to blame."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import orjson
import pytest

from stream_app.escalate.ask import Asker
from stream_app.escalate.breaker import Circuit
from stream_app.escalate.budget import NANO
from stream_app.escalate.cache import AnswerCache
from stream_app.escalate.call_end import Counted
from stream_app.escalate.gate import Cost, Grant, No
from stream_app.escalate.line import Line, PricedClient
from stream_app.escalate.prices import Price
from stream_app.escalate.prompt import Prompter, PromptOptions
from stream_app.escalate.question import Dropped, GotAnswer, NoAnswer
from stream_app.escalate.results import Answered, ContentRefused, Failed, Misconfigured, RateLimited
from stream_app.escalate.second_admission import FirstAdmission
from stream_app.escalate.second_gate import SecondGate
from stream_app.escalate.second_opinion import SecondOpinion
from stream_app.escalate.voting import voted
from stream_app.events import Ask
from stream_app.settings import Endpoint
from stream_app.telemetry import Metrics
from tests.escalate import escalated
from tests.escalate.test_admission import Lane
from tests.escalate.test_several_endpoints import Scripted
from tests.escalate.votes import FIRST, SECOND, ask_of, escalation_of, rows, rule

REFUSED = ContentRefused("HTTP 400 content_filter")
AWAY = Failed("server_error", "HTTP 503")
NO_KEY = Misconfigured("key", "HTTP 401")
DOUBTFUL = replace(rows(1)[0], positive=0.75)
"""If the first says negative of this one, a second opinion is worth it; positive settles it."""
OTHER_ASK = Ask("toxicity", ("none", "toxic"), escalated.SURE, "unsure")


def says(label: str, **others: str) -> Answered:
    """A usable answer: 100 tokens and 10."""
    return Answered(orjson.dumps({"sentiment": label, **others}).decode(), None, "stop", 100, 10, f"req-{label}")


class Pair:
    """A line to the first LLM and one to the second, ten times as dear and without structured output."""

    def __init__(self, first: Scripted, second: Scripted, *, per_minute=1e6, waiting_max=8, **gate) -> None:
        first.model, second.model = FIRST, SECOND
        self.first, self.second = first, second
        self.lane = Lane(**gate)
        self.gate, self.wall_s = self.lane.gate, 1_000_000.0
        endpoint = Endpoint(model=SECOND, requests_per_minute=per_minute, tokens_per_minute=1e9, second_opinion=True)
        self.beside = SecondGate.beside(self.gate, endpoint)
        told = {"now_s": time.monotonic, "wall_s": lambda: self.wall_s, "want_lease": self.lane.commit}
        told |= {"failed": self.lane.admission._failed, "in_doubt": lambda: self.lane.in_doubt}
        self.admission = FirstAdmission(self.gate, self.beside, waiting_max, **told)
        self.lane.admission = self.admission  # whom it tells of leases
        for partition in (0, 1):
            self.gate.lose(partition)  # gained by the lane's own admission
            self.admission.gain(partition, None)
        self.metrics = Metrics()
        clocks = time.monotonic, time.time, lambda: 0.999
        lines = [
            Line([PricedClient(client, price)], admission, 5.0, self.metrics, *clocks)
            for client, price, admission in (
                (first, Price(1, 1), self.admission),
                (second, Price(10, 10), self.admission.second),
            )
        ]
        self.prompter = Prompter(PromptOptions(), ["sentiment", "toxicity"])
        words = Prompter(PromptOptions(json_schema=False), ["sentiment", "toxicity"])
        self.asker, self.opinion = Asker(lines[0], AnswerCache()), SecondOpinion(lines[1], words)

    async def ask(self, row=DOUBTFUL, within_s: float = 10.0, *, asks=(), parked: bool = False):
        """As the lane asks about an event."""
        escalation, event = escalation_of(row, 0), escalated.event(row.text)
        if asks:
            tasks = {ask.task for ask in asks}
            sure = {task: answer for task, answer in escalation.sure.items() if task not in tasks}
            escalation = replace(escalation, asks=tuple(asks), sure=sure)
        deadline_s = self.admission.running_s + within_s
        request = [self.prompter.render(escalation, event)]
        if parked:
            first = await self.asker.ask_after_all(0, request, deadline_s)
            return await self.opinion.beside_after_all(first, 0, escalation, event, deadline_s)
        first = await self.asker.ask(0, request, deadline_s)
        return await self.opinion.beside(first, 0, escalation, event, deadline_s)

    def counted(self) -> dict[str, float]:
        """What became of second opinions, by the metrics."""
        family = next(each for each in self.metrics.registry.collect() if each.name == "shunt_second_opinions")
        return {each.labels["result"]: each.value for each in family.samples if each.name.endswith("_total")}


async def test_a_first_answer_that_settles_it_is_not_questioned():
    """It agrees with the small model: nothing more is asked, and the result is as without a second endpoint."""
    pair = Pair(Scripted("a", says("positive")), Scripted("b", says("negative")))
    got = await pair.ask()
    assert isinstance(got, GotAnswer)
    assert (got.usage.model, got.cast("sentiment")) == (FIRST, {FIRST: "positive"})
    assert pair.second.asked == []
    assert pair.counted() == {}


@pytest.mark.parametrize(("said", "result"), [("positive", "changed"), ("negative", "same")])
async def test_where_it_is_worth_it_both_votes_count_and_both_bills(said, result):
    """Tokens and dollars of both, each at its price; and the metrics say whether the label is another one."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says(said)))
    got = await pair.ask()
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative", SECOND: said}
    assert voted(ask_of(DOUBTFUL), len(DOUBTFUL.text), got.cast("sentiment")) == said
    assert (got.usage.model, got.usage.input_tokens, got.usage.output_tokens) == (f"{FIRST}+{SECOND}", 200, 20)
    assert got.usage.cost_usd == pytest.approx((110 * 1 + 110 * 10) / 1e6)
    assert got.usage.request_id == f"req-{said}"
    assert pair.counted() == {result: 1}
    spent = pair.gate.budgets[0].settled_hour_nusd / NANO
    assert spent == pytest.approx(got.usage.cost_usd)
    assert pair.second.asked[0].response_format == {"type": "json_object"}


async def test_only_the_tasks_that_are_worth_it_are_asked_of_the_second():
    """Another unsure task without a rule keeps the first's answer; the second never hears of it."""
    pair = Pair(Scripted("a", says("negative", toxicity="toxic")), Scripted("b", says("positive")))
    got = await pair.ask(asks=(ask_of(DOUBTFUL), OTHER_ASK))
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative", SECOND: "positive"}
    assert got.cast("toxicity") == {FIRST: "toxic"}
    assert pair.first.asked[0].allowed.keys() == {"sentiment", "toxicity"}
    assert pair.second.asked[0].allowed.keys() == {"sentiment"}


async def test_after_a_refusal_the_second_is_asked_about_every_task_and_its_answer_is_the_llms():
    """The first is not known to have any label: without the second's, a task would have no answer of an LLM."""
    pair = Pair(Scripted("a", REFUSED), Scripted("b", says("positive", toxicity="toxic")))
    got = await pair.ask(asks=(ask_of(DOUBTFUL), OTHER_ASK))
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: None, SECOND: "positive"}
    assert got.cast("toxicity") == {FIRST: None, SECOND: "toxic"}
    assert got.usage.model == f"{FIRST}+{SECOND}"


@pytest.mark.parametrize(("second", "result"), [(REFUSED, "refused"), (says("mixed"), "invalid_answer")])
async def test_a_second_that_has_nothing_usable_to_say_is_a_vote_for_nothing(second, result):
    """The event is answered, by the votes as they are; after a refusal of the first it is as refused as before."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", second))
    got = await pair.ask()
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative", SECOND: None}
    assert pair.counted() == {result: 1}
    pair = Pair(Scripted("a", REFUSED), Scripted("b", second))
    none = await pair.ask()
    assert isinstance(none, NoAnswer)
    assert (none.reason, none.why) == ("refused", REFUSED.why)
    assert none.usage is not None
    assert none.usage.model == FIRST


async def test_a_second_that_is_away_costs_no_event_anything():
    """Its circuit is open: the first's opinion stands at once, nothing is degraded, and no clock stops."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", NO_KEY), on_outage="wait")
    assert isinstance(await pair.ask(), GotAnswer)
    assert pair.beside.endpoints[0].breaker.circuit is Circuit.OPEN
    began_s = time.monotonic()
    for row in rows(20):
        got = await pair.ask(replace(row, positive=0.75))
        assert isinstance(got, GotAnswer)
        assert got.cast("sentiment") == {FIRST: "negative"}
        assert got.usage.model == FIRST
    assert time.monotonic() - began_s < 0.9
    assert len(pair.second.asked) == 1
    assert not pair.admission.clock.stopped
    assert pair.admission.waits_for is None
    assert pair.counted() == {"outage": 21}
    assert not pair.gate.is_out


async def test_a_second_that_comes_back_is_found_by_the_next_event():
    """One probe after the cool-down; its answer closes the circuit."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", NO_KEY, says("positive")))
    await pair.ask()
    await asyncio.sleep(1.05)
    for row in rows(3):
        got = await pair.ask(replace(row, positive=0.75))
        assert isinstance(got, GotAnswer)
        assert got.cast("sentiment") == {FIRST: "negative", SECOND: "positive"}


@pytest.mark.parametrize("second", [None, RateLimited(), AWAY], ids=["hangs", "429", "503"])
async def test_at_the_deadline_the_first_opinion_stands(second):
    """However the second keeps it waiting; what may have been paid in vain is on the decision."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", second))
    began_s = time.monotonic()
    got = await pair.ask(within_s=0.6)
    assert time.monotonic() - began_s < 1.2
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative"}
    assert got.usage.model == FIRST
    assert (got.usage.cost_usd > 110 / 1e6) == (second is None)
    assert pair.counted() == {"deadline": 1}


async def test_what_waits_for_the_second_holds_up_nobody_else():
    """Its rate is spent: first opinions of other events go on, and only so many wait for a turn."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")), per_minute=1, waiting_max=3)
    await asyncio.sleep(0.05)
    events = [asyncio.create_task(pair.ask(replace(row, positive=0.75), 1.0)) for row in rows(12)]
    await asyncio.sleep(0.2)
    assert len(pair.first.asked) == 12
    assert sum(not event.done() for event in events) == 3
    settled = replace(rows(13)[12], positive=0.99)
    began_s = time.monotonic()
    assert isinstance(await pair.ask(settled), GotAnswer)
    assert time.monotonic() - began_s < 0.5
    found = await asyncio.gather(*events)
    assert all(isinstance(one, GotAnswer) for one in found)
    counted = pair.counted()
    assert counted["deadline"] >= 11, "one call goes at the start of a minute"
    assert sum(counted.values()) == 12


async def test_while_the_first_is_waited_for_the_second_does_not_time_out():
    """One clock: an outage of the first stops it for both, and what waits for the second goes on waiting."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")), per_minute=60)
    await asyncio.sleep(0.05)
    event = asyncio.create_task(pair.ask(within_s=0.3))
    await asyncio.sleep(0.1)
    assert len(pair.first.asked) == 1
    pair.gate.endpoints[0].breaker.failed(time.monotonic(), probe=False, at_once=True)
    pair.gate.endpoints[0].breaker.open_until_s = time.monotonic() + 60
    pair.admission.pump()
    await asyncio.sleep(1.2)
    got = await event
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative", SECOND: "positive"}


async def test_the_same_question_is_asked_of_each_once():
    """Events with the same text share both calls, whoever comes first; later ones have both from the cache."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")))
    found = await asyncio.gather(*(pair.ask() for _ in range(10)))
    found.append(await pair.ask())
    assert {tuple(one.cast("sentiment").items()) for one in found} == {((FIRST, "negative"), (SECOND, "positive"))}
    assert (len(pair.first.asked), len(pair.second.asked)) == (1, 1)
    assert [one.usage.cached for one in found].count(False) == 1
    assert found[-1].usage.cost_usd == 0


async def test_in_a_hand_over_the_first_opinion_is_delivered():
    """It was paid for: the next owner would pay for it again."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")), per_minute=1)
    await asyncio.sleep(0.05)
    event = asyncio.create_task(pair.ask())
    await asyncio.sleep(0.1)
    pair.admission.stop(0)
    got = await asyncio.wait_for(event, 1.0)
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative"}
    assert pair.counted() == {"handed_over": 1}
    assert isinstance(await pair.ask(rows(2)[1]), Dropped), "before the first was asked, its owner asks"


async def test_a_cancelled_second_call_gives_back_what_it_reserved():
    """At most its bound is paid; nothing stays reserved."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", None))
    event = asyncio.create_task(pair.ask())
    await asyncio.sleep(0.1)
    assert len(pair.second.asked) == 1
    event.cancel()
    await asyncio.gather(event, return_exceptions=True)
    assert pair.gate.budgets[0].reserved_nusd == 0
    assert pair.beside.endpoints[0].rate.shares.in_flight == 0


@pytest.mark.parametrize("on_budget", ["wait", "degrade"])
async def test_with_the_budget_spent_the_first_opinion_stands(on_budget):
    """The second is not waited for, also where a first opinion would be."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")), on_budget=on_budget)
    for budget in pair.gate.budgets.values():
        budget.settled_hour_nusd = budget.hour_share_nusd - 5_000_000  # half a cent: a call of the first at most
    got = await pair.ask()
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative"}
    assert pair.second.asked == []
    assert pair.counted() == {"budget": 1}


async def test_a_parked_event_has_a_second_opinion_with_what_the_others_leave():
    """Its correction is by both votes; while that very question is being asked, it comes another time."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")))
    got = await pair.ask(parked=True)
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative", SECOND: "positive"}
    pair = Pair(Scripted("a", says("negative")), Scripted("b", AWAY))
    await asyncio.sleep(1.05)  # until the buckets are full: what runs over is for parked events
    began_s = time.monotonic()
    got = await pair.ask(parked=True)
    assert time.monotonic() - began_s < 0.4, "it sleeps in no slot"
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative"}


def committed(pair: Pair) -> None:
    """All that a partition may lease, from the first moment."""
    for budget in pair.gate.budgets.values():
        budget._wanted_nusd = budget.left_nusd
        budget.committed(budget.authority_of(budget.lease(pair.wall_s)))


async def test_both_gates_pay_from_one_account_and_each_keeps_its_own_rate():
    """What one gives back of the hour's dollars the other may spend; neither takes the other's turn."""
    pair = Pair(Scripted("a", None), Scripted("b", None), usd_per_hour=2.0, per_minute=1e6, on_budget="degrade")
    committed(pair)
    tenth, half = (Cost(1, NANO // 10),), (Cost(1, NANO // 2),)
    now_s, wall_s = time.monotonic() + 1.0, pair.wall_s
    grants = [pair.gate.ask(0, tenth, now_s, wall_s) for _ in range(10)]
    seconds = [pair.beside.ask(0, half, now_s, wall_s) for _ in range(2)]
    assert all(isinstance(grant, Grant) for grant in (*grants, *seconds))
    assert pair.gate.ask(0, tenth, now_s, wall_s) == pair.beside.ask(0, half, now_s, wall_s) == No("budget")
    assert pair.gate.budgets is pair.beside.budgets
    pair.beside.settle(seconds[0], Counted(1), NANO // 10, now_s, wall_s)
    assert isinstance(pair.gate.ask(0, tenth, now_s, wall_s), Grant)
    assert pair.gate.endpoints[0].rate.shares.in_flight == 11
    assert pair.beside.endpoints[0].rate.shares.in_flight == 1


def test_a_short_budget_goes_to_the_likelier_change_whichever_opinion_it_is():
    """Second opinions that are worth little leave the money to first ones that are worth more."""
    pair = Pair(Scripted("a", None), Scripted("b", None), usd_per_hour=1.0, on_budget="degrade")
    cost = (Cost(1, NANO // 500),)  # a share reaches for 250 an hour, and there are 500
    firsts = seconds = 0
    for number in range(1_000):
        now_s = 7.2 * (number // 2)
        if number % 2:
            seconds += pair.beside.worth(0.01, cost, now_s, pair.wall_s, 0.5)
        else:
            firsts += pair.gate.worth(0.3, cost, now_s, pair.wall_s, 0.5)
    print(firsts, seconds)
    assert firsts > 480
    assert seconds < 60


def test_a_partition_is_gained_and_lost_by_both_and_its_account_opened_once():
    """A second account would pay what is spent twice."""
    pair = Pair(Scripted("a", None), Scripted("b", None))
    account = pair.gate.budgets[0]
    assert pair.beside.budgets[0] is account
    assert pair.beside.endpoints[0].rate.shares.owned == 2
    pair.admission.lose(0)
    assert pair.gate.budgets.keys() == {1}
    assert pair.beside.endpoints[0].rate.shares.owned == 1
    assert rule().weighing[0].voters == (FIRST,)


async def test_money_that_a_second_call_gives_back_is_spent_on_a_first_that_waits_for_it():
    """At once: nobody waits for the next commit, or the next hour, with the money there."""
    pair = Pair(Scripted("a", None), Scripted("b", None), usd_per_hour=2.0)
    committed(pair)
    await asyncio.sleep(0.05)
    deadline_s = pair.admission.running_s + 5.0
    most = (Cost(1, NANO),)  # all that a partition has
    held = [await pair.admission.second.reserve(number, most, deadline_s, first=False) for number in (0, 1)]
    waiting = asyncio.create_task(pair.admission.reserve(0, most, deadline_s, first=False))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert pair.admission.waits_for == "budget"
    pair.admission.second.settle(held[0], Counted(1), 0)
    assert isinstance(await asyncio.wait_for(waiting, 0.5), Grant)
    assert pair.admission.waits_for is None


async def test_a_parked_events_second_opinion_leaves_its_slot_to_whoever_needs_it():
    """Its correction is by the first's opinion alone: it is not asked for another time."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")), per_minute=1)
    await asyncio.sleep(1.05)
    await pair.ask(replace(rows(2)[1], positive=0.75))  # takes the minute's turn
    assert len(pair.second.asked) == 1
    waiting = asyncio.create_task(pair.ask(parked=True))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    pair.admission.give_way()
    got = await asyncio.wait_for(waiting, 0.5)
    assert isinstance(got, GotAnswer)
    assert got.cast("sentiment") == {FIRST: "negative"}


async def test_while_the_worker_may_have_been_expelled_no_second_is_asked():
    """Another worker may ask by now; and when the lane ends, neither queue wakes up again."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")))
    committed(pair)
    await asyncio.sleep(0.05)
    pair.lane.in_doubt = True
    waiting = asyncio.create_task(
        pair.admission.second.reserve(0, (Cost(1, 0),), pair.admission.running_s + 5.0, first=False)
    )
    await asyncio.sleep(0.3)
    assert not waiting.done()
    pair.lane.in_doubt = False
    assert isinstance(await asyncio.wait_for(waiting, 1.0), Grant)
    pair.lane.in_doubt = True
    late = asyncio.create_task(
        pair.admission.second.reserve(0, (Cost(1, 0),), pair.admission.running_s + 5.0, first=False)
    )
    await asyncio.sleep(0.05)
    assert pair.admission.second._timer is not None
    pair.admission.close()
    assert pair.admission._timer is pair.admission.second._timer is None
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)


async def test_a_lease_that_is_committed_is_the_seconds_too():
    """Its call is dearer than what the first's lease covers: it goes when the larger one is committed."""
    pair = Pair(Scripted("a", says("negative")), Scripted("b", says("positive")))
    await asyncio.sleep(0.05)
    deadline_s = pair.admission.running_s + 5.0
    waiting = pair.admission.second.reserve(0, (Cost(1, NANO),), deadline_s, first=False)
    assert isinstance(await asyncio.wait_for(waiting, 0.5), Grant)
    assert pair.lane.leases == 1
