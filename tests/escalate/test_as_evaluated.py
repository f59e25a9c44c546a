"""A policy with weighed votes and second opinions, on the real Triton and Kafka: live as `shunt evaluate` said."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from stream_app.cli import shunt
from stream_app.local.llm.options import StandInOptions
from stream_app.local.llm_server import LlmServer
from stream_app.routing.policy import load_policy
from stream_app.settings import load_settings
from tests.classify.lanes import caught_up as classified
from tests.classify.lanes import classifying
from tests.conftest import run_apart
from tests.escalate import escalated
from tests.escalate.test_lane import caught_up, prefix, working  # noqa: F401 - `prefix` is a fixture
from tests.escalate.votes import FIRST, SECOND
from tests.kafka.reading import produce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LABELS = ("negative", "positive")


def made_up(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows whose words the tests' model reads: most are sure, the others it knows nothing of.

    Of those the first LLM refuses one in four; where they disagree, the second is right more often than not.
    """
    draw, rows = random.Random(seed), list[dict[str, Any]]()
    for number in range(count):
        truth = LABELS[draw.random() < 0.5]
        sure = draw.random() < 0.6
        word = {"positive": "good", "negative": "bad"}[truth] if sure else "unsure"
        said = {
            llm: None if draw.random() < silent else truth if draw.random() < right else LABELS[truth == "negative"]
            for llm, silent, right in ((FIRST, 0.25, 0.75), (SECOND, 0.1, 0.9))
        }
        more = "indeed " * draw.randrange(60)
        text = f"{word} text {seed} number {number} {more}".strip()
        rows.append({"id": f"r{number}", "text": text, "label": truth, "llm": said, "prompt_chars": len(text) + 300})
    return rows


def written(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def llm_url(tmp_path: Path) -> Iterator[str]:
    """Both LLMs at one address, each answering as recorded for its name."""
    replay = written(tmp_path / "replay.jsonl", made_up(240, 7))
    options = StandInOptions(latency_median_ms=5, replay=replay, replay_names=(FIRST, SECOND))
    server = LlmServer(tmp_path / "llm.log", options)
    run_apart(server.start())
    yield server.base_url
    run_apart(server.process.stop())


async def test_the_same_policy_decides_live_as_it_was_evaluated(stack, prefix, tmp_path, llm_url):  # noqa: F811
    """Row by row: who decided, the label, whom the vote was asked of, what they said, and what was refused."""
    stack_at = (
        f'[kafka]\nbootstrap_servers = "{stack.bootstrap_servers}"\ninput_topic = "{prefix}"\ngroup = "{prefix}"\n'
    )
    (tmp_path / "shunt.toml").write_text(
        f'{stack_at}[triton]\nurl = "{stack.triton_grpc}"\n[policy]\nfile = "policy.json"\n'
        '[[tasks]]\nname = "mood"\ntiers = ["scripted"]\ntarget_error = 0.05\n'
        "[llm]\nhint = false\nprune = false\nusd_per_hour = 100\nusd_per_day = 1000\n"
        f'[[llm.endpoints]]\nbase_url = "{llm_url}"\nmodel = "{FIRST}"\nrequests_per_minute = 100000\n'
        "tokens_per_minute = 100000000\n"
        f'[[llm.endpoints]]\nbase_url = "{llm_url}"\nmodel = "{SECOND}"\nsecond_opinion = true\n'
        "usd_per_million_input = 1\nusd_per_million_output = 1\nrequests_per_minute = 100000\n"
        "tokens_per_minute = 100000000\n"
    )

    def run(*arguments: str) -> None:
        asked = ["--config", str(tmp_path / "shunt.toml"), *arguments, "--llm", FIRST, "--llm", SECOND]
        done = CliRunner().invoke(shunt, asked, catch_exceptions=False)
        assert done.exit_code == 0, done.output

    policy, told = tmp_path / "policy.json", tmp_path / "told.jsonl"
    calibration = written(tmp_path / "calibration.jsonl", made_up(1_500, 8))
    rows = made_up(240, 7)
    test = written(tmp_path / "test.jsonl", rows)
    await asyncio.to_thread(run, "calibrate", str(calibration), "--out", str(policy))
    votes = load_policy(policy.read_bytes()).tasks["mood"].votes
    assert votes is not None
    assert [one.llm for one in votes.expecting] == [SECOND]
    await asyncio.to_thread(run, "evaluate", str(test), "--policy", str(policy), "--out", str(told))
    expected = {line["id"]: line for line in map(json.loads, told.read_text().splitlines())}

    settings = load_settings(tmp_path / "shunt.toml")
    values = [json.dumps({"id": row["id"], "text": row["text"]}).encode() for row in rows]
    await asyncio.to_thread(produce, stack.bootstrap_servers, prefix, values, partitions=escalated.PARTITIONS)
    async with classifying(settings) as task, working(settings):
        await classified(settings, task)
        await caught_up(stack, settings)
    decisions = escalated.finals(stack.bootstrap_servers, settings.kafka.names.decisions)
    assert Counter(decision["id"] for decision in decisions) == Counter(expected.keys())
    kinds = Counter[str]()
    for decision in decisions:
        line, answer = expected[decision["id"]], decision["answers"]["mood"]
        assert answer["label"] == line["answer"], line
        assert decision["decided_by"] == line["decided_by"]
        assert decision["degraded_reason"] == line["degraded_reason"]
        if decision["decided_by"] == "llm":
            heard = {model: said for model, said in answer["votes"].items() if model in (FIRST, SECOND)}
            assert heard == line["votes"]
        kinds[f"{line['decided_by']} of {len(line['votes'])}, {line['degraded_reason']}"] += 1
    print(dict(kinds))
    assert min(kinds[kind] for kind in ("small of 0, None", "llm of 1, None", "llm of 2, None")) > 8
    assert kinds["small of 2, refused"] > 0
