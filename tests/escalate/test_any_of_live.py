"""A task of which any label may be right, from its model to people's verdicts, on the real Kafka and Triton."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from stream_app.cli import shunt
from stream_app.local.llm.rule import fit, read_text
from stream_app.local.stack import Stack
from stream_app.routing.policy import load_policy
from stream_app.settings import load_settings
from stream_app.training.train import train
from tests.classify.lanes import caught_up as classified
from tests.classify.lanes import classifying
from tests.conftest import run_apart
from tests.escalate import escalated
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.kafka.reading import produce, read_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNS = {
    "delivery": ["courier", "parcel", "late"],
    "price": ["dear", "bargain", "cost"],
    "quality": ["flimsy", "solid"],
}
LABELS = tuple(SIGNS)
PLAIN = ["the", "came", "on", "time", "thanks", "box", "blue", "today", "again", "shop", "street"]
LLM = "big"


def about(text: str) -> list[str]:
    """What the stand-in LLM says of a text: the labels whose own names stand in it."""
    reading = read_text(text)
    return [label for label in LABELS if fit(label, reading) > 0]


def written_by_chance(count: int, seed: int) -> list[dict[str, Any]]:
    """Each label is there for a third of the texts, told by words the model learns; one text in seven leaves it open.

    The LLM knows a label by its name alone, which stands in one of three texts that have it.
    """
    draw, rows = random.Random(seed), list[dict[str, Any]]()
    for number in range(count):
        there = [label for label in LABELS if draw.random() < 1 / 3]
        words = [draw.choice(SIGNS[label]) for label in there] + draw.sample(PLAIN, 4)
        words += [label for label in there if draw.random() < 1 / 3]
        if draw.random() < 1 / 7:  # `perhaps` is about the price as often as not
            there = [label for label in there if label != "price"] + ["price"] * (draw.random() < 0.5)
            words = [word for word in words if word not in {*SIGNS["price"], "price"}] + ["perhaps"]
        draw.shuffle(words)
        text = f"{' '.join(words)} {seed} {number}"
        marks = {label: label in there for label in LABELS}
        rows.append({"id": f"r{number}", "text": text, "labels": marks, "llm": {LLM: about(text)}})
    return rows


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Triton that serves a model trained here, by its gRPC address."""
    folder = tmp_path_factory.mktemp("any_of")
    trained = train(
        [written(folder / "rows.jsonl", written_by_chance(700, 1))], task="about", out=folder / "made", curve=False
    )
    assert trained.labels == LABELS
    shutil.copytree(trained.folder, folder / "models" / "about_fast")
    stack = Stack(
        folder / "stack", kafka=False, llm=False, model_repository=folder / "models", load_models=["about_fast"]
    )
    run_apart(stack.open())
    yield stack.triton_grpc
    run_apart(stack.close())


@pytest.fixture
def config(stack, prefix, triton, llm, tmp_path) -> Path:  # noqa: F811
    """Settings of a pipeline with that one task, every third accepted answer audited."""
    file = tmp_path / "shunt.toml"
    file.write_text(
        f'[kafka]\nbootstrap_servers = "{stack.bootstrap_servers}"\ninput_topic = "{prefix}"\ngroup = "{prefix}"\n'
        f'[triton]\nurl = "{triton}"\n[policy]\nfile = "policy.json"\n[audit]\nshare = 0.33\n'
        '[[tasks]]\nname = "about"\nkind = "any_of"\ntiers = ["about_fast"]\ntarget_error = 0.03\n'
        '[decisions.recommended_action]\nprice = "hold"\nquality = "review"\n'
        "[llm]\nusd_per_hour = 100\nusd_per_day = 1000\n"
        f'[[llm.endpoints]]\nbase_url = "{llm.base_url}"\nmodel = "{LLM}"\nrequests_per_minute = 1000000\n'
        "tokens_per_minute = 1000000000\nusd_per_million_input = 1\nusd_per_million_output = 1\n"
    )
    return file


def run(config: Path, *arguments: str) -> str:
    done = CliRunner().invoke(shunt, ["--config", str(config), *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


async def test_from_labelled_rows_to_a_verdict(stack, config, tmp_path):
    """Every event is decided live as it was evaluated; audits compare sets; a person's list becomes a correction."""
    policy, told = tmp_path / "policy.json", tmp_path / "told.jsonl"
    known = written_by_chance(1_500, 2)
    unsaid = [{**row, "id": f"open-{row['id']}", "labels": {"price": True}} for row in known[:7]]
    calibration = written(tmp_path / "calibration.jsonl", [*known, *unsaid])
    rows = written_by_chance(300, 3)
    test = written(tmp_path / "test.jsonl", rows)
    shown = await asyncio.to_thread(run, config, "calibrate", str(calibration), "--llm", LLM, "--out", str(policy))
    assert "a text with any label wrong" in shown
    assert "7 of 1,507 rows leave a label open, and were passed over" in shown
    assert "What each label does to a text" in policy.with_suffix(".report.html").read_text()
    made = load_policy(policy.read_bytes()).tasks["about"]
    assert made.certificate is not None
    evaluated = json.loads(
        await asyncio.to_thread(
            run, config, "evaluate", str(test), "--policy", str(policy), "--llm", LLM, "--out", str(told), "--json"
        )
    )
    assert set(evaluated["by_label"]) == set(LABELS)
    expected = {line["id"]: line for line in map(json.loads, told.read_text().splitlines())}
    routes = Counter(line["route"] for line in expected.values())
    assert min(routes["accepted"], routes["unsure"]) > 20, routes

    settings = load_settings(config)
    values = [json.dumps({"id": row["id"], "text": row["text"]}).encode() for row in rows]
    await asyncio.to_thread(produce, stack.bootstrap_servers, settings.kafka.input_topic, values, partitions=3)
    async with classifying(settings) as task, working(settings):
        await classified(settings, task)
        await caught_up(stack, settings)
        decisions = escalated.finals(stack.bootstrap_servers, settings.kafka.names.decisions)
        assert len(decisions) == len(rows)
        for decision in decisions:
            check(decision, expected[decision["id"]], made.tiers[0].threshold)
        results = await audits_done(stack, settings)
        verdicts = [
            {"source": decision["source"], "labels": {"about": {label: label != "price" for label in LABELS}}}
            for decision in (one_that(decisions, "small"), one_that(decisions, "llm"))
        ]
        said = written(tmp_path / "said.jsonl", verdicts)
        await asyncio.to_thread(run, config, "feedback", str(said))
        corrections = await corrected(stack, settings, 2)
    texts = {row["id"]: row["text"] for row in rows}
    assert {result["result"] for result in results} == {"agree", "disagree"}
    for result in results:
        assert result["label"] == about(texts[result["id"]])
        assert (result["result"] == "agree") == (set(result["label"]) == set(result["small"]["label"]))
    for correction in corrections:
        answer = correction["answers"]["about"]
        assert (answer["label"], answer["decided_by"], answer["certified"]) == (
            ["delivery", "quality"],
            "human",
            None,
        )
        assert correction["recommended_action"] == "review"
    check_feedback(stack, settings, expected, texts)
    again = await asyncio.to_thread(run, config, "feedback", str(said), "--json")
    assert [json.loads(line)["result"] for line in again.splitlines()] == ["said_before"] * 2


def check(decision: dict[str, Any], wanted: dict[str, Any], cut: float | None) -> None:
    """The decision is what `shunt evaluate` said, and says what it was held against."""
    answer = decision["answers"]["about"]
    assert answer["label"] == wanted["answer"]
    assert answer["decided_by"] == decision["decided_by"] == wanted["decided_by"]
    assert answer["threshold"] == dict.fromkeys(LABELS, cut)
    shares = answer["probabilities"]
    sure = min(max(share, 1 - share) for share in shares.values())
    if wanted["decided_by"] == "small":
        assert answer["confidence"] == pytest.approx(sure, abs=1e-6)
        assert answer["label"] == [label for label in LABELS if shares[label] >= 0.5]
        assert (answer["certified"], "votes" in answer) == (True, False)
    else:
        assert (answer["confidence"], answer["certified"]) == (None, None)
        assert answer["votes"] == {"about_fast:1": wanted["small"], LLM: wanted["answer"]}
    actions = {"price": "hold", "quality": "review"}
    found = [actions[label] for label in answer["label"] if label in actions]
    assert decision["recommended_action"] == (None if not found else "hold" if "hold" in found else "review")


def one_that(decisions: list[dict[str, Any]], by: str) -> dict[str, Any]:
    """A decision by `by` that says something else than the person will."""
    return next(
        one
        for one in decisions
        if one["decided_by"] == by and one["answers"]["about"]["label"] != ["delivery", "quality"]
    )


async def audits_done(stack, settings) -> list[dict[str, Any]]:
    """The results of all audits, once each is there."""
    names = settings.kafka.names
    async with asyncio.timeout(60):
        while True:
            asked = await asyncio.to_thread(read_all, stack.bootstrap_servers, names.audits)
            found = await asyncio.to_thread(read_all, stack.bootstrap_servers, names.audit_results)
            if asked and len(found) == len(asked):
                return [json.loads(record.value()) for record in found]
            await asyncio.sleep(0.2)


async def corrected(stack, settings, count: int) -> list[dict[str, Any]]:
    """So many corrections."""
    async with asyncio.timeout(60):
        while True:
            records = await asyncio.to_thread(read_all, stack.bootstrap_servers, settings.kafka.names.decisions)
            found = [json.loads(record.value()) for record in records]
            corrections = [one for one in found if one["kind"] == "correction"]
            if len(corrections) >= count:
                return corrections
            await asyncio.sleep(0.2)


def check_feedback(stack, settings, expected: dict[str, Any], texts: dict[str, str]) -> None:
    """A row for each answer and audit of the LLM and each verdict: a list, and the map that trains a model."""
    rows = [json.loads(one.value()) for one in read_all(stack.bootstrap_servers, settings.kafka.names.feedback)]
    by_llm = [row for row in rows if row["labelled_by"] == "llm"]
    answered = sum(line["decided_by"] == "llm" for line in expected.values())
    audited = len(read_all(stack.bootstrap_servers, settings.kafka.names.audit_results))
    assert Counter(row["why"] for row in by_llm) == Counter(escalated=answered, audit=audited)
    assert sum(row["labelled_by"] == "human" for row in rows) == 2
    for row in rows:
        assert row["labels"] == {label: label in row["label"] for label in LABELS}
        assert row["small"]["label"] == expected[row["id"]]["small"]
    for row in by_llm:
        assert row["label"] == about(texts[row["id"]])


async def test_try_shows_every_label(config, tmp_path):
    """`shunt try` tells the set, what each label is held against, and a question that offers all labels."""
    calibration = written(tmp_path / "calibration.jsonl", written_by_chance(1_500, 2))
    await asyncio.to_thread(run, config, "calibrate", str(calibration), "--out", str(tmp_path / "policy.json"))
    unsure = await asyncio.to_thread(run, config, "try", "perhaps the box came today again")
    assert "any of delivery or price or quality" in " ".join(unsure.split())
    assert "name every one of these labels that applies" in " ".join(unsure.replace("│", " ").split())
    sure = await asyncio.to_thread(run, config, "try", "courier came late today flimsy box parcel again")
    assert "Decided: about delivery, quality." in " ".join(sure.split())
