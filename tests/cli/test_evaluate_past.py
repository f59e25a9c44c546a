"""`shunt evaluate --from-topic` on real Kafka, Triton and the stand-in LLM: against what another cut really does."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from stream_app.cli import shunt as shunt_in_process
from stream_app.errors import SettingsError
from tests.cli.command import command, environment, shunt
from tests.kafka.reading import produce, read_all
from tests.messages.test_schemas import SCHEMAS

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from stream_app.local.stack import Stack

WAIT_S = 60
SURE, UNSURE, BLANK = 30, 20, 10


def texts() -> list[str]:
    """The scripted model is sure of some at 0.98, of some at 0.55, and of the rest at 0.5."""
    sure = [f"good item number {n}, love it" for n in range(SURE)]
    unsure = [f"unsure about {n}: {'lovely' if n % 2 else 'awful, hate it'}" for n in range(UNSURE)]
    return sure + unsure + [f"item {n}, {'lovely' if n % 3 else 'awful'}" for n in range(BLANK)]


def run(folder: Path, *arguments: str, stdin: bytes = b"") -> Result:
    """A command in this process: a process of its own takes seconds to begin."""
    return CliRunner().invoke(shunt_in_process, ["--config", str(folder / "shunt.toml"), *arguments], input=stdin)


def run_pipeline(folder: Path, stack: Stack, llm_url: str, topic: str, cut: float) -> None:
    """All texts through both lanes of a real worker at that cut, until each has its final."""
    folder.mkdir()
    (folder / "shunt.toml").write_text(
        f'[kafka]\nbootstrap_servers = "{stack.bootstrap_servers}"\ninput_topic = "{topic}"\ngroup = "{topic}"\n'
        f'[triton]\nurl = "{stack.triton_grpc}"\n'
        f'[[tasks]]\nname = "sentiment"\ntiers = ["scripted"]\nthreshold = {cut}\n'
        f'[[llm.endpoints]]\nbase_url = "{llm_url}"\nmodel = "gpt-4o-mini"\n[web]\nport = 0\n'
        "[audit]\nshare = 0.0\n"
    )
    assert run(folder, "topics", "create", "--partitions", "2").exit_code == 0
    events = [json.dumps({"id": f"e{n}", "text": text}).encode() for n, text in enumerate(texts())]
    produce(stack.bootstrap_servers, topic, events, partitions=2)
    with (folder / "run.log").open("wb") as log, subprocess.Popen(
        command("run"), cwd=folder, stdout=log, stderr=log, env=environment()
    ) as running:  # fmt: skip
        try:
            deadline = time.monotonic() + WAIT_S
            while len(decisions(stack, topic)) < len(texts()):
                assert running.poll() is None, (folder / "run.log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.5)
            running.send_signal(signal.SIGTERM)
            assert running.wait(WAIT_S) == 0
        finally:
            running.kill()


def decisions(stack: Stack, topic: str) -> list[dict[str, Any]]:
    """What stands on the decisions topic, read by another client."""
    return [json.loads(message.value()) for message in read_all(stack.bootstrap_servers, f"{topic}-decisions")]


def asked(folder: Path, *arguments: str) -> dict[str, Any]:
    """The what-if as one object."""
    ran = run(folder, "evaluate", "--from-topic", "--json", *arguments)
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


@dataclass(frozen=True)
class Ran:
    """One pipeline's folder and topic, and its decisions."""

    folder: Path
    topic: str
    decided: list[dict[str, Any]]


@pytest.fixture(scope="module")
def pipelines(stack: Stack, llm_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict[float, Ran]:
    """The same texts decided at two cuts, each by a pipeline of its own."""
    base = tmp_path_factory.mktemp("past")
    found: dict[float, Ran] = {}
    for cut in (0.9, 0.54):
        folder, topic = base / f"at-{cut}", f"past-{uuid.uuid4().hex[:8]}"
        run_pipeline(folder, stack, llm_url, topic, cut)
        found[cut] = Ran(folder, topic, decisions(stack, topic))
    return found


def test_it_says_what_the_other_cut_really_does(pipelines: dict[float, Ran]) -> None:
    """Decisions at 0.9 tell coverage, calls and dollars at 0.54, as a pipeline at 0.54 has them; and of both errors
    what the LLM's answers say."""
    found = asked(pipelines[0.9].folder, "--threshold", "0.54", "--threshold", "0.99")
    assert (found["task"], found["events"]) == ("sentiment", SURE + UNSURE + BLANK)
    now, lower, higher = found["cuts"]
    really = pipelines[0.54].decided
    accepted = [one for one in really if one["decided_by"] == "small"]
    paid_usd = sum(one["usage"]["cost_usd"] for one in really if one["usage"])
    assert now["coverage"] == {"low": 0.5, "high": 0.5}
    assert lower["coverage"]["low"] == lower["coverage"]["high"] == pytest.approx(len(accepted) / len(really))
    assert lower["asked"]["low"] == pytest.approx(BLANK / len(really))
    assert lower["cost_usd"]["low"] == pytest.approx(paid_usd, rel=0.02)
    assert (higher["coverage"]["low"], higher["error"]["accepted"]) == (0, 0)
    mean_usd = now["cost_usd"]["low"] / (UNSURE + BLANK)
    assert higher["cost_usd"]["low"] == pytest.approx(now["cost_usd"]["low"] + SURE * mean_usd)
    labels = {one["id"]: one["answers"]["sentiment"]["label"] for one in pipelines[0.9].decided}
    wrong = sum(labels[f"e{n}"] != "positive" for n in range(SURE, SURE + UNSURE))
    assert wrong > 0
    assert (lower["error"]["by_llm"], lower["error"]["wrong"]) == (UNSURE, wrong)
    assert lower["error"]["between"] == {
        "low": pytest.approx(wrong / (SURE + UNSURE)), "high": pytest.approx((wrong + SURE) / (SURE + UNSURE)),
    }  # fmt: skip
    assert (now["error"]["known"], now["error"]["between"]) == (0, {"low": 0, "high": 1})
    assert lower["error"]["audited"] is None


def test_people_s_verdicts_and_audits_count(pipelines: dict[float, Ran], stack: Stack) -> None:
    """A correction by a person is the truth of its event; audits of accepted ones estimate what nobody looked at."""
    folder, topic = pipelines[0.9].folder, pipelines[0.9].topic
    sure = [one for one in pipelines[0.9].decided if one["decided_by"] == "small"]
    first = sure[0]
    answer = {**first["answers"]["sentiment"], "label": "negative", "confidence": None, "decided_by": "human"}
    answer |= {"model": "person", "certified": None}
    answer.pop("uncertified_reason")
    verdict = {**first, "kind": "correction", "revision": 1, "replaces": 0, "decided_by": "human"}
    verdict |= {"certified": None, "answers": {"sentiment": answer}}
    produce(stack.bootstrap_servers, f"{topic}-decisions", [json.dumps(verdict).encode(), b"not ours", None])
    audits = [
        {"task": "sentiment", "by": "llm", "label": "positive" if n else "negative", "source": one["source"]}
        for n, one in enumerate(sure[1:11])
    ]
    audits.append({"task": "sentiment", "by": "llm", "label": None, "source": sure[20]["source"]})
    audits.append({"task": "another", "by": "llm", "label": "positive", "source": sure[21]["source"]})
    produce(stack.bootstrap_servers, f"{topic}-audit-results", [json.dumps(one).encode() for one in audits])
    (now,) = asked(folder)["cuts"]
    error = now["error"]
    assert (error["by_people"], error["by_audit"], error["known"], error["wrong"]) == (1, 10, 11, 2)
    assert error["audited"] == pytest.approx((2 + 0.1 * (SURE - 11)) / SURE)
    assert error["audited_between"]["low"] < error["audited"] < error["audited_between"]["high"]
    readable = shunt("evaluate", "--from-topic", "--threshold", "0.54", cwd=folder)
    assert readable.status == 0, readable.err
    assert "11 of 30 accepted are labelled (1 by people, 10 by audits), 2 of them wrong" in readable.out
    assert "nobody looked at 19" in readable.out


def test_which_decisions_are_looked_at(pipelines: dict[float, Ran]) -> None:
    """The newest, or those since a time; where there is none, it says so."""
    folder = pipelines[0.54].folder
    assert asked(folder, "--since", "1h")["events"] == SURE + UNSURE + BLANK
    assert asked(folder, "--limit", "7")["events"] == 7
    assert asked(folder, "--since", "1h", "--limit", "7")["events"] == 7
    middle = sorted(one["decided_at"] for one in pipelines[0.54].decided)[SURE]
    later = sum(one["decided_at"] >= middle for one in pipelines[0.54].decided)
    assert asked(folder, "--since", middle)["events"] == later
    none = run(folder, "evaluate", "--from-topic", "--since", "2199-01-01")
    assert isinstance(none.exception, SettingsError)
    assert "no decision about sentiment" in none.exception.one_line()


def test_labels_of_which_any_may_be_right(stack: Stack, tmp_path: Path) -> None:
    """The cut is that of every label; an empty list is an answer, of the model, of an audit and of a person."""
    topic = f"past-{uuid.uuid4().hex[:8]}"
    (tmp_path / "shunt.toml").write_text(
        f'[kafka]\nbootstrap_servers = "{stack.bootstrap_servers}"\ninput_topic = "{topic}"\ngroup = "{topic}"\n'
        '[[tasks]]\nname = "trouble"\nkind = "any_of"\ntiers = ["trouble_fast"]\nthreshold = 0.9\n'
        '[[llm.endpoints]]\nbase_url = "http://127.0.0.1:9"\nmodel = "big"\n'
    )
    assert run(tmp_path, "topics", "create", "--partitions", "1").exit_code == 0
    insult = json.loads((SCHEMAS / "samples/decision/good-final-any-of.json").read_bytes())
    finals = [{**insult, "source": {**insult["source"], "offset": n}} for n in range(4)]
    small = insult["answers"]["trouble"]
    nothing = {**small, "label": [], "confidence": 0.7, "escalated_because": "unsure", "certified": False}
    nothing["probabilities"] = {"insult": 0.3, "spam": 0.1, "threat": 0.0}
    asked_llm = {**nothing, "confidence": None, "decided_by": "llm", "model": "big", "certified": None}
    asked_llm["votes"] = {"trouble_fast:1": [], "big": []}
    finals[3] |= {"decided_by": "llm", "certified": None, "answers": {"trouble": asked_llm}}
    by_person = {
        **small,
        "label": [],
        "confidence": None,
        "decided_by": "human",
        "model": "person",
        "certified": None,
    }
    verdict = {**finals[0], "kind": "correction", "revision": 1, "replaces": 0, "decided_by": "human"}
    verdict |= {"certified": None, "answers": {"trouble": by_person}}
    records = [json.dumps(one).encode() for one in (*finals, verdict)]
    produce(stack.bootstrap_servers, f"{topic}-decisions", records)
    audits = [
        {"task": "trouble", "by": "llm", "label": label, "source": finals[n]["source"]}
        for n, label in enumerate((["insult"], [], None))
    ]
    produce(stack.bootstrap_servers, f"{topic}-audit-results", [json.dumps(one).encode() for one in audits])
    now, lower, higher = asked(tmp_path, "--threshold", "0.7", "--threshold", "0.96")["cuts"]
    assert (now["coverage"]["low"], now["error"]["by_people"], now["error"]["by_audit"]) == (3 / 4, 1, 1)
    assert (now["error"]["known"], now["error"]["wrong"]) == (2, 2)
    assert (lower["coverage"]["low"], lower["error"]["by_llm"], lower["error"]["wrong"]) == (1, 1, 2)
    assert (higher["coverage"]["high"], higher["error"]["accepted"]) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--threshold", "0.5"), "--threshold needs --from-topic"),
        (("--since", "2h"), "--since needs --from-topic"),
        (("--from-topic", __file__), "leave FILE out"),
        (("--from-topic", "--policy", __file__), "leave --policy out"),
        (("--from-topic", "--live"), "leave --live out"),
        (("--from-topic", "--llm", "big"), "leave --llm out"),
        (("--from-topic", "--since", "soon"), "'soon' is no time"),
        ((), "Missing argument 'FILE'"),
        ((__file__,), "Missing option '--policy'"),
    ],
)
def test_usage_errors_say_what_to_leave_out(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """What does not go together ends with status 2 before anything is read."""
    (tmp_path / "shunt.toml").write_text('[[tasks]]\nname = "mood"\ntiers = ["scripted"]\nthreshold = 0.9\n')
    ran = run(tmp_path, "evaluate", *arguments)
    assert ran.exit_code == 2
    assert said in ran.stderr
