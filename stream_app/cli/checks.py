"""The checks behind `shunt check`: each asks the real thing, with the worker's own code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import aiohttp

from stream_app.classify.start import deciding
from stream_app.classify.triton import TritonModels
from stream_app.errors import ModelError, ShuntError
from stream_app.escalate.endpoint_facts import api_key
from stream_app.escalate.prices import price_of
from stream_app.escalate.prompters import prompter_of
from stream_app.kafka.connection import Connection
from stream_app.kafka.topics import differences, look_up, plan

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stream_app.events import VoteRule
    from stream_app.routing.decide import TaskRouter
    from stream_app.settings import Endpoint, Llm, Settings

State = Literal["ok", "note", "fails"]
MARKS: dict[State, str] = {"ok": "✓", "note": "!", "fails": "✗"}
LLM_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the checklist. A `note` works, and is worth a look."""

    what: str
    state: State
    detail: str = ""

    @property
    def mark(self) -> str:
        """How the state is shown."""
        return MARKS[self.state]


async def all_checks(settings: Settings) -> list[Finding]:
    """Every finding, in the order of an event's path. Raises nothing for what it looks for."""
    parts = await asyncio.gather(_kafka(settings), _triton(settings), _llm(settings))
    return [finding for part in parts for finding in part]


async def _kafka(settings: Settings) -> list[Finding]:
    names = settings.kafka.names
    try:
        found = await look_up(Connection(settings.kafka), names.model_dump().values())
    except ShuntError as error:
        return [Finding("Kafka", "fails", error.one_line())]
    findings = [Finding("Kafka", "ok", settings.kafka.bootstrap_servers)]
    planned = plan(settings.kafka, found.get(names.input))
    wrong = differences(planned, found)
    for topic in planned:
        of_topic = [difference for difference in wrong if difference.topic == topic.name]
        if topic.name not in found:
            findings.append(Finding(topic.name, "fails", "does not exist: make it with `shunt topics create`"))
        elif not of_topic:
            there = found[topic.name]
            detail = f"{there.partitions} partitions, records up to {there.message_bytes_max:,} bytes"
            findings.append(Finding(topic.name, "ok", detail))
        findings += [
            Finding(topic.name, "fails" if difference.breaks else "note", difference.what)
            for difference in of_topic
            if topic.name in found
        ]
    return findings


async def _triton(settings: Settings) -> list[Finding]:
    url = settings.triton.url
    async with TritonModels.connect(url, settings.triton.timeout_s) as models:
        if not await models.ready():
            return [
                Finding("Triton", "fails", f"no Triton answers at {url}: start it, or correct [triton] url (gRPC)")
            ]
        findings = [Finding("Triton", "ok", url)]
        names = dict.fromkeys(name for task in settings.tasks for name in task.models)
        findings += await asyncio.gather(*(_model(models, name) for name in names))
    if all(finding.state == "ok" for finding in findings):
        findings += await _tasks(settings)
    return findings


async def _model(models: TritonModels, name: str) -> Finding:
    try:
        served = await models.describe(name)
    except ModelError:
        return Finding(f"model {name}", "fails", "is not loaded: load it (--load-model), or correct `tiers`")
    except ShuntError as error:
        return Finding(f"model {name}", "fails", error.one_line())
    return Finding(f"model {name}", "ok", f"version {served.version}, labels {', '.join(served.labels)}")


async def _tasks(settings: Settings) -> list[Finding]:
    """Labels, tiers and policy against the models that are served, as a worker sees them when it starts."""
    try:
        async with deciding(settings, in_force=True) as parts:
            by = parts.policy or "thresholds by hand, not certified"
    except ShuntError as error:
        return [Finding("tasks and policy", "fails", error.one_line())]
    fit = Finding("tasks and policy", "ok", f"{', '.join(task.name for task in settings.tasks)}: {by}")
    return [fit, *votes(settings.llm, parts.routers)]


def votes(llm: Llm, routers: Iterable[TaskRouter]) -> list[Finding]:
    """Whether the policy knows the LLMs of the settings: whose votes it weighs, whose second opinion it expects."""
    rules = {router.task: router.votes for router in routers if router.votes is not None}
    found = [finding for task, rule in rules.items() for finding in _rule(f"votes, {task}", rule, llm)]
    first, second = llm.endpoints[0].model, llm.second_opinion
    if second is None:
        return found
    by = [task for task, rule in rules.items() if second.model in _expected(rule, first)]
    if by:
        return [*found, Finding("second opinion", "ok", f"{second.model} beside {first}, for {', '.join(by)}")]
    why = f"the policy expects nothing of {second.model} beside {first}: it is never asked; run `shunt calibrate`"
    return [*found, Finding("second opinion", "note", why)]


def _rule(what: str, rule: VoteRule, llm: Llm) -> list[Finding]:
    """What of a task's rule the settings make nothing of."""
    first, found = llm.endpoints[0].model, list[Finding]()
    if not any(one.voters == (first,) for one in rule.weighing):
        known = ", ".join(one.voters[0] for one in rule.weighing if len(one.voters) == 1) or "no LLM alone"
        why = f"the policy weighs votes of {known}: answers of {first} are taken as they are"
        found.append(Finding(what, "note", why))
    if (expected := _expected(rule, first)) and llm.second_opinion is None:
        why = f"the policy can use {', '.join(expected)} beside {first}: no endpoint has second_opinion = true"
        found.append(Finding(what, "note", why))
    return found


def _expected(rule: VoteRule, first: str) -> list[str]:
    """Whose second opinions the rule can judge beside that first one."""
    weighed = {one.voters for one in rule.weighing}
    return [one.llm for one in rule.expecting if one.voters == (first,) and (first, one.llm) in weighed]


async def _llm(settings: Settings) -> list[Finding]:
    """The prompt, then every endpoint: a substitute is needed when there is no time to correct it."""
    try:
        prompter_of(settings)
    except ShuntError as error:
        return [Finding("LLM", "fails", error.one_line())]
    count = len(settings.llm.in_turn)
    names = [f"LLM {number}" for number in range(1, count + 1)] if count > 1 else ["LLM"]
    if settings.llm.second_opinion is not None:
        names.append("LLM, second opinion")
    return await asyncio.gather(*map(_endpoint, names, settings.llm.endpoints))


async def _endpoint(what: str, endpoint: Endpoint) -> Finding:
    """Price and key; then asks the endpoint for its list of models, which costs nothing and shows address and key."""
    try:
        price_of(endpoint)
        key = api_key(endpoint)
    except ShuntError as error:
        return Finding(what, "fails", error.one_line())
    url = endpoint.base_url.rstrip("/") + "/models"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LLM_TIMEOUT_S), trust_env=True) as session,
            session.get(url, headers={"Authorization": f"Bearer {key}"}) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        why = str(error) or type(error).__name__
        return Finding(what, "fails", f"{endpoint.base_url} does not answer ({why}): correct base_url")
    if status in {401, 403}:
        return Finding(
            what, "fails", f"{endpoint.base_url} refuses the key (HTTP {status}): correct {_key_name(endpoint)}"
        )
    if status >= 500:
        return Finding(what, "note", f"{endpoint.base_url} answers HTTP {status}: it may be out of order")
    return Finding(what, "ok", f"{endpoint.model} at {endpoint.base_url}")


def _key_name(endpoint: Endpoint) -> str:
    return "api_key_file" if endpoint.api_key_file else endpoint.api_key_env
