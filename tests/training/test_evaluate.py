"""The figures of an evaluation, on rows small enough to count by hand and on the real Triton."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from stream_app.cli import shunt
from stream_app.errors import SettingsError
from stream_app.routing.decide import Route, Routed
from stream_app.routing.policy import Certificate
from stream_app.training.asked import Asked
from stream_app.training.evaluate import evaluation, outcomes
from stream_app.training.recorded import RecordedRow
from stream_app.training.voting import Recordings
from tests.scripted_rows import scripted_rows

LABELS = ("no", "yes")
CERTIFICATE = Certificate(error_max=0.3, delta=0.05, rows=100, accepted=50, wrong=5, error_bound=0.2)


def rows_of(*rows):
    """(gold, llm's answer, prompt characters) each."""
    return [
        RecordedRow(id=str(place), text="x", label=gold, llm=(("big", answer),), prompt_chars=chars)
        for place, (gold, answer, chars) in enumerate(rows)
    ]


def routed_of(*rows):
    """(small answer, route, tier) each."""
    labels, routes, tiers = zip(*rows, strict=True)
    count = len(rows)
    return Routed(
        label=np.array([LABELS.index(label) for label in labels]),
        confidence=np.full(count, 0.9, np.float32),
        probabilities=np.full((count, 2), 0.5, np.float32),
        tier=np.array(tiers, np.int8),
        route=np.array(routes, np.int8),
    )


ROWS = rows_of(
    ("yes", "yes", 400),  # accepted, right
    ("no", "no", 400),  # accepted, wrong
    ("yes", "yes", 800),  # escalated: the LLM saves it
    ("yes", None, 400),  # escalated: refused, the small answer stands and is right
    ("no", "maybe", 400),  # escalated: no label of the task, the small answer stands and is right
)
ROUTED = routed_of(
    ("yes", Route.ACCEPTED, 0),
    ("yes", Route.ACCEPTED, 1),
    ("no", Route.UNSURE, 1),
    ("yes", Route.OUT_OF_DOMAIN, 0),
    ("no", Route.UNSURE, 1),
)
TRUTH = np.array([LABELS.index(row.label) for row in ROWS])


def asked_of(llm="big", rule=None):
    return Asked.of(Recordings.of((llm,), ROWS, LABELS, {}), rule, ROWS, ROUTED)


def figures(certificate=CERTIFICATE, asked=None):
    return evaluation("t", ROWS, ROUTED, TRUTH, tiers=2, certificate=certificate, asked=asked)


def test_counted_by_hand():
    """Five rows whose every figure is known."""
    found = figures(asked=asked_of())
    assert found.llm is not None
    assert (found.small_accuracy, found.coverage, found.escalated_share) == (0.6, 0.4, 0.6)
    assert found.out_of_domain_share == 0.2
    assert found.tier_coverage == (0.2, 0.2)
    assert (found.accepted_error, found.target_error, found.certified_bound, found.bound_held) == (
        0.5,
        0.3,
        0.2,
        False,
    )
    assert found.llm.accuracy == pytest.approx(4 / 5)  # all but row 1
    assert found.llm.llm_accuracy == pytest.approx(3 / 5)  # a refusal alone is wrong
    assert found.llm.llm_filled_accuracy == pytest.approx(5 / 5)  # and right where the small model is
    assert found.llm.refused == 2
    assert found.llm.cost_share == pytest.approx(1600 / 2400)
    assert found.llm.performance_gap_recovered is None, "the LLM alone is no better here"
    assert found.llm.oracle.accuracy == pytest.approx(1.0)  # rows 1 and 2 are the LLM's alone
    assert found.llm.oracle.escalated_share == pytest.approx(2 / 5)


def test_without_an_llm_or_a_certificate():
    """What was not asked for is None, not zero."""
    found = figures(certificate=None)
    assert (found.llm, found.certified_bound, found.bound_held) == (None, None, None)


def test_outcomes_of_rows():
    """Each row says who decided it; a refusal is degraded; no text is written."""
    lines = outcomes(ROWS, LABELS, ROUTED, asked_of())
    assert [line["answer"] for line in lines] == ["yes", "yes", "yes", "yes", "no"]
    assert [line["decided_by"] for line in lines] == ["small", "small", "llm", "small", "small"]
    assert [line["degraded_reason"] for line in lines] == [None, None, None, "refused", "invalid_answer"]
    assert [line["votes"] for line in lines] == [{}, {}, {"big": "yes"}, {"big": None}, {"big": "maybe"}]
    assert [line["route"] for line in lines] == ["accepted", "accepted", "unsure", "out_of_domain", "unsure"]
    assert not any("text" in line for line in lines)
    assert {line["decided_by"] for line in outcomes(ROWS, LABELS, ROUTED, None)} == {"small"}


def test_an_unknown_llm_names_those_recorded():
    """Asking for answers that were never recorded says which there are."""
    with pytest.raises(SettingsError, match="no answer of tiny") as refused:
        asked_of("tiny")
    assert "big" in refused.value.one_line()


def test_the_command_on_the_real_triton(stack, tmp_path):
    """Calibrate, then evaluate: one JSON object with the figures, and one line for each row."""
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in scripted_rows(900)))
    settings, policy, out = tmp_path / "shunt.toml", tmp_path / "policy.json", tmp_path / "out.jsonl"
    settings.write_text(
        f'[triton]\nurl = "{stack.triton_grpc}"\n'
        '[[tasks]]\nname = "mood"\ntiers = ["scripted"]\ntarget_error = 0.05\n'
    )
    common = ["--config", str(settings)]
    made = CliRunner().invoke(shunt, [*common, "calibrate", str(data), "--out", str(policy)], catch_exceptions=False)
    assert made.exit_code == 0
    asked = [*common, "evaluate", str(data), "--policy", str(policy), "--llm", "big", "--out", str(out)]
    run = CliRunner().invoke(shunt, [*asked, "--json"], catch_exceptions=False)
    assert run.exit_code == 0
    found = json.loads(run.stdout)
    assert found["coverage"] == 1.0
    assert found["escalated_share"] == 0.0
    assert found["accuracy"] == found["small_accuracy"] == pytest.approx(885 / 900)
    assert found["llm_accuracy"] == pytest.approx(885 / 900)
    assert found["bound_held"] is True
    assert {label: one["rows"] for label, one in found["by_label"].items()} == {"negative": 240, "positive": 660}
    assert found["by_label"]["positive"]["small_precision"]["share"] == pytest.approx(660 / 675)
    assert found["by_label"]["negative"]["missed"]["hits"] == 15
    assert [(one["what"], one["share_max"], one["held"]) for one in found["promises"]] == [("wrong", 0.05, True)]
    assert found["to_llm"]["difference"] == found["to_small"]["difference"] == 0
    assert (found["unanswered"], found["llm_filled_accuracy"]) == (0, found["llm_accuracy"])
    assert len(out.read_text().splitlines()) == 900
    shown = CliRunner().invoke(shunt, asked, catch_exceptions=False)
    assert "big alone" in shown.stdout
    assert "against the LLM alone" in shown.stdout
    assert "negative (240)" in shown.stdout
    half = CliRunner().invoke(shunt, [*common, "evaluate", str(data), "--policy", str(policy), "--half", "A"])
    assert half.exit_code == 0


def test_the_cost_counts_longer_prompts_and_audits(stack, tmp_path):
    """Against plain prompts about all rows: what is escalated, its prompts' greater length, and what is audited."""
    rows = [*scripted_rows(900), *({"id": f"u{n}", "text": f"unsure {n}", "label": "negative"} for n in range(300))]
    rows = [{**row, "prompt_chars": 400, "llm": {"big": row["label"]}} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for hint in ("true", "false"):
        (tmp_path / f"{hint}.toml").write_text(
            f'[triton]\nurl = "{stack.triton_grpc}"\n[[tasks]]\nname = "mood"\ntiers = ["scripted"]\n'
            f"target_error = 0.05\n[llm]\nhint = {hint}\n"
        )

    def run(command, *arguments, hint="false"):
        asked = ["--config", str(tmp_path / f"{hint}.toml"), command, str(tmp_path / "rows.jsonl"), *arguments]
        ran = CliRunner().invoke(shunt, asked, catch_exceptions=False)
        assert ran.exit_code == 0
        return ran.stdout

    run("calibrate", "--out", str(tmp_path / "policy.json"))
    evaluate = ("evaluate", "--policy", str(tmp_path / "policy.json"), "--llm", "big", "--json")
    plain, audited, hinted = (
        json.loads(run(*evaluate)),
        json.loads(run(*evaluate, "--audit-share", "0.1")),
        json.loads(run(*evaluate, hint="true")),
    )
    assert plain["escalated_share"] == plain["cost_share"] == pytest.approx(0.25)
    assert audited["cost_share"] == pytest.approx(0.25 + 0.1 * 0.75)
    assert 0.25 < hinted["cost_share"] < 0.4, "a hint takes some of the hundred tokens of a prompt more"
    assert plain["to_small"]["low"] > 0
    assert plain["by_label"]["negative"]["escalated"]["hits"] == 300
