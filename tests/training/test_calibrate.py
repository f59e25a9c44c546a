"""From labelled rows to a policy."""

import json
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from stream_app.cli import shunt
from stream_app.errors import SettingsError
from stream_app.routing.decide import Route
from stream_app.routing.models import Scores, ServedModel
from stream_app.routing.policy import Policy, dump_policy, load_policy
from stream_app.routing.routers import task_routers
from stream_app.routing.votes import Seen, posterior_of
from stream_app.settings import LabelCost, Task
from stream_app.training.calibrate import calibrate_task, merged
from stream_app.training.evaluate import helped
from stream_app.training.fitted import Terms
from stream_app.training.recorded import RecordedFile, RecordedRow, read_recorded
from stream_app.training.scoring import route_scored
from stream_app.training.split import split
from stream_app.training.verdict import verdict
from tests.scripted_rows import scripted_rows

LABELS = ("negative", "positive")
SERVED = {name: ServedModel(name, "1", LABELS, sha * 64, 256) for name, sha in (("fast", "a"), ("slow", "b"))}


def made_up(rows, seed, *, sharpness=1.0, spread=2.0, llm_accuracy=0.95, name="rows.jsonl"):
    """A file of rows, and scores by `fast` and `slow` (which sees more), honest but for `sharpness`.

    `fast` gives P(positive) of a logistic model of what it sees; sharpness 2 doubles its log-odds.
    """
    rng = np.random.default_rng(seed)
    seen, more = rng.normal(scale=spread, size=rows), rng.normal(scale=spread, size=rows)
    truth = rng.random(rows) < 1 / (1 + np.exp(-(seen + more)))
    llm_right = rng.random(rows) < llm_accuracy
    # What `fast` does not see widens its own odds: the probit rule of thumb for a logistic with noise.
    seen_only = seen / np.sqrt(1 + np.pi * spread**2 / 8)

    def scores(log_odds):
        positive = (1 / (1 + np.exp(-log_odds * sharpness))).astype(np.float32)
        return Scores(np.stack([1 - positive, positive], axis=1), np.ones(rows, np.float32))

    recorded = tuple(
        RecordedRow(
            id=f"{name}-{place}",
            text=f"review number {place} of {name}",
            label=LABELS[int(true)],
            llm=(("big", LABELS[int(true == right)]),),
            prompt_chars=400,
        )
        for place, (true, right) in enumerate(zip(truth, llm_right, strict=True))
    )
    return RecordedFile(name, "0" * 64, recorded), {"fast": scores(seen_only), "slow": scores(seen + more)}


TASK = Task(name="sentiment", tiers=("fast", ("fast", "slow")), target_error=0.05)
TERMS = Terms(delta=0.05, made_at="2026-11-20T09:00:00Z")


def joined(*parts):
    files = [file for file, _ in parts]
    scores = {
        name: Scores(
            np.concatenate([by[name].probabilities for _, by in parts]),
            np.concatenate([by[name].known_share for _, by in parts]),
        )
        for name in SERVED
    }
    return files, scores


def with_known(scores, shares):
    return {name: Scores(of.probabilities, np.asarray(shares, np.float32)) for name, of in scores.items()}


def test_the_policy_decides_as_it_was_certified():
    """Written, read and compiled again, the policy routes the test rows exactly as calibration did."""
    files, scores = joined(made_up(6000, 1, sharpness=2.0))
    made = calibrate_task(TASK, files, SERVED, scores, TERMS)
    policy = load_policy(dump_policy(merged(None, "reviews", "sentiment", made.task, TERMS.made_at)))
    (router,) = task_routers([TASK], SERVED, policy)
    assert router.certified
    rows = split(files[0].rows).test
    again = route_scored(
        router, [row.text for row in made.test], {name: of.rows(rows) for name, of in scores.items()}
    )
    assert (again.route == made.routed.route).all()
    assert (again.label == made.routed.label).all()
    assert (again.confidence == made.routed.confidence).all()


def test_overconfidence_is_undone_and_both_tiers_serve():
    """A model twice too sure is cooled down, confidence becomes honest, and the second tier takes its share."""
    files, scores = joined(made_up(8000, 2, sharpness=2.0))
    task = calibrate_task(TASK, files, SERVED, scores, TERMS).task
    assert task.tiers[0].members[0].weight == pytest.approx(0.5, abs=0.1)
    assert task.measured.expected_calibration_error < 0.06
    assert task.tiers[0].threshold == task.tiers[1].threshold
    assert min(task.measured.tier_coverage) > 0.05
    assert task.certificate is not None
    assert task.certificate.wrong / task.certificate.accepted <= task.certificate.error_bound <= 0.05


def test_the_promise_holds_in_simulation():
    """Over 80 seeded samples, the policy's true error exceeds its target in at most delta of them."""
    runs, broken, certified, delta = 80, 0, 0, 0.1
    fresh_file, fresh = made_up(20_000, 999, sharpness=1.5)
    truth = np.array([LABELS.index(row.label) for row in fresh_file.rows])
    texts = [row.text for row in fresh_file.rows]
    for seed in range(runs):
        files, scores = joined(made_up(1500, seed, sharpness=1.5))
        made = calibrate_task(TASK, files, SERVED, scores, Terms(delta, TERMS.made_at)).task
        if made.certificate is None:
            continue
        certified += 1
        policy = Policy(name="p", version=1, made_at=TERMS.made_at, tasks={"sentiment": made})
        (router,) = task_routers([TASK], SERVED, policy)
        routed = route_scored(router, texts, fresh)
        broken += (routed.label != truth)[routed.accepted].mean() > TASK.target_error
    # Three standard deviations of a binomial with 80 trials at delta are 10 %.
    assert broken / runs <= delta + 0.1
    assert certified > runs / 2


def test_too_few_rows_are_refused_with_the_number_needed():
    """A sample on which even faultless answers prove nothing says how many labels it takes."""
    files, scores = joined(made_up(300, 3))
    with pytest.raises(SettingsError, match="300 labelled rows are too few") as refused:
        calibrate_task(TASK, files, SERVED, scores, TERMS)
    assert "label at least 394" in refused.value.one_line()
    files, scores = joined(made_up(440, 3))
    calibrate_task(TASK, files, SERVED, scores, TERMS)


def test_nothing_certified_says_so():
    """Where no cut keeps the target there is no threshold, and the verdict asks for a better model."""
    files, scores = joined(made_up(2000, 4, spread=0.2))
    made = calibrate_task(TASK, files, SERVED, scores, TERMS)
    assert made.task.certificate is None
    assert [tier.threshold for tier in made.task.tiers] == [None, None]
    assert made.task.measured.coverage == 0
    assert "not good enough yet" in verdict("sentiment", made.task, None)


def test_each_file_keeps_the_promise_by_itself():
    """A hard source among easy ones is certified on its own rows, at the price of coverage."""
    easy, hard = made_up(4000, 5, spread=4.0, name="easy"), made_up(3000, 6, sharpness=1.6, name="hard")
    files, scores = joined(easy, hard)
    together = calibrate_task(TASK, files, SERVED, scores, TERMS).task
    apart = calibrate_task(TASK, files, SERVED, scores, Terms(0.05, TERMS.made_at, each_file=True)).task
    assert together.certificate is not None
    assert apart.certificate is not None
    assert (together.certificate.each_file, apart.certificate.each_file) == (False, True)
    assert apart.measured.coverage < together.measured.coverage
    assert apart.certificate.error_bound <= 0.05


def leaning(file, llm="big"):
    """The file with an LLM that doubts a quarter of the positives, whatever the small model says."""
    rng = np.random.default_rng(10)
    return replace(
        file,
        rows=tuple(
            replace(row, llm=((llm, "negative"),)) if row.label == "positive" and rng.random() < 0.25 else row
            for row in file.rows
        ),
    )


def test_the_vote_of_an_llm_with_a_leaning_is_weighed():
    """An LLM that doubts every fourth `positive` is believed less where it says `negative`, and the whole is right
    more often than where it is obeyed. The promise of what is accepted is the same.
    """
    file, scores = made_up(20_000, 10, llm_accuracy=0.97)
    file = leaning(file)
    made = calibrate_task(TASK, [file], SERVED, scores, replace(TERMS, llms=("big",)))
    assert made.task.votes is not None
    assert made.task.certificate is not None
    obeyed = replace(made, task=msgspec.structs.replace(made.task, votes=None))
    assert helped(made, ("big",), {}).accuracy > helped(obeyed, ("big",), {}).accuracy + 0.003
    policy = load_policy(dump_policy(merged(None, "reviews", "sentiment", made.task, TERMS.made_at)))
    assert policy.tasks["sentiment"].votes == made.task.votes
    weigh = posterior_of(made.task.votes, ("big",))
    even = Seen(np.full((2, 2), 0.5, np.float32), np.array([500, 500]))
    believed = weigh.chances(even, [np.array([0, 1])])
    assert believed[1, 1] > believed[0, 0]
    with pytest.raises(SettingsError, match="recorded answer of nobody"):
        calibrate_task(TASK, [file], SERVED, scores, replace(TERMS, llms=("nobody",)))


def test_an_llm_as_good_as_its_vote_is_obeyed():
    """No rule, and one cut for all labels, where neither weights nor cuts apart make the whole clearly better."""
    files, scores = joined(made_up(6000, 9, llm_accuracy=0.95))
    made = calibrate_task(TASK, files, SERVED, scores, replace(TERMS, llms=("big",))).task
    assert (made.gain_llm, made.tiers[0].label_thresholds) == (None, {})


def test_what_the_models_do_not_know_is_outside():
    """Half as many unknown words again as in the strangest hundredth bounds the domain; scripts are noted.

    So hardly a text like the sample's is outside, and a few foreign ones in it do not open the domain to more.
    """
    files, scores = joined(made_up(3000, 7))
    shares = np.random.default_rng(7).uniform(0.8, 1, 3000)
    domain = calibrate_task(TASK, files, SERVED, with_known(scores, shares), TERMS).task.domain
    assert domain.known_share_min == pytest.approx(1 - 1.5 * (1 - 0.802), abs=0.003)
    assert domain.known_share_quantile == 0
    shares[::250] = 0.1
    mixed = calibrate_task(TASK, files, SERVED, with_known(scores, shares), TERMS).task.domain
    assert mixed.known_share_min == pytest.approx(domain.known_share_min, abs=0.005)
    assert mixed.known_share_quantile == pytest.approx(1 / 250, abs=0.003)
    assert domain.scripts == ("Latin",)
    assert domain.text_chars[0] <= domain.text_chars[1] <= domain.text_chars[2]


def test_a_group_is_never_split():
    """Rows of one group, and equal texts, fall in one part; the parts are disjoint and complete."""
    rows = [
        RecordedRow(id=str(n), text=f"text {n % 700}", label="x", group=f"g{n % 90}" if n % 2 else None)
        for n in range(3000)
    ]
    parts = split(rows)
    three = (parts.calibration, parts.certification, parts.test)
    assert sorted(np.concatenate(three).tolist()) == list(range(3000))
    for name in (lambda row: row.group, lambda row: row.text if row.group is None else None):
        where = [{name(rows[row]) for row in part} - {None} for part in three]
        assert max(Counter(group for groups in where for group in groups).values()) == 1


def test_a_new_task_joins_the_policy():
    """Another task is added beside the first, which stays as it was; the version rises."""
    files, scores = joined(made_up(2000, 8))
    made = calibrate_task(TASK, files, SERVED, scores, TERMS).task
    first = merged(None, "reviews", "sentiment", made, "t1")
    second = merged(first, "other", "mood", made, "t2")
    assert (first.ref, second.ref) == ("reviews@1", "reviews@2")
    assert second.tasks == {"sentiment": made, "mood": made}
    assert second.made_at == "t2"


@pytest.mark.parametrize(("accuracy", "says"), [(0.95, "the LLM helps here"), (0.3, "the LLM does not help")])
def test_the_verdict_weighs_the_llm(accuracy, says):
    """With recorded answers the verdict compares both on the texts that would be escalated."""
    files, scores = joined(made_up(6000, 9, llm_accuracy=accuracy))
    made = calibrate_task(TASK, files, SERVED, scores, TERMS)
    llm = helped(made, ("big",), {})
    assert helped(made, ("another",), {}) is None
    assert says in verdict("sentiment", made.task, llm)
    assert "shows with recorded answers" in verdict("sentiment", made.task, None)
    sure = msgspec.structs.replace(made.task, measured=msgspec.structs.replace(made.task.measured, coverage=0.99))
    assert "not needed" in verdict("sentiment", sure, llm)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_are_read_by_task(tmp_path):
    """`labels` and `gold` hold a label for each task, `label` that of any; a row without this task is skipped."""
    path = write_rows(
        tmp_path / "rows.jsonl",
        [
            {"text": "a", "label": "good"},
            {"text": "b", "labels": {"mood": "bad", "other": "x"}, "group": 7, "llm": {"m": None}},
            {"text": "c", "gold": {"other": "x"}},
        ],
    )
    file = read_recorded(path, "mood")
    assert [(row.id, row.label, row.group) for row in file.rows] == [("1", "good", None), ("2", "bad", "7")]
    assert file.rows[1].answer_of("m") is None
    assert file.rows[0].prompt_tokens == (1 + 317) / 4
    with pytest.raises(SettingsError, match="no answer of m"):
        file.rows[0].answer_of("m")


def test_halves_go_by_group(tmp_path):
    """The two halves share no group and lose no row."""
    path = write_rows(
        tmp_path / "rows.jsonl", [{"text": "x", "label": "y", "group": f"g{n // 3}"} for n in range(90)]
    )
    a, b = (read_recorded(path, "mood", half).rows for half in ("A", "B"))
    assert len(a) + len(b) == 90
    assert not {row.group for row in a} & {row.group for row in b}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", "needs the text fields"),
        ('{"text": 1, "label": "x"}', "needs the text"),
        ("", "has no row"),
    ],
)
def test_a_broken_file_says_where(tmp_path, line, complaint):
    """The message names the file, and the line where there is one."""
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(SettingsError, match=complaint) as refused:
        read_recorded(path, "mood")
    assert "rows.jsonl" in refused.value.one_line()


def test_a_model_that_says_the_same_to_everything_is_refused(stack, tmp_path):
    """Its accuracy is the commonest label's share, and says nothing of any text."""
    rows = [{"text": f"text number {n}", "label": "positive" if n % 60 else "negative"} for n in range(900)]
    settings = tmp_path / "shunt.toml"
    settings.write_text(
        f'[triton]\nurl = "{stack.triton_grpc}"\n[[tasks]]\nname = "mood"\ntiers = ["echo"]\ntarget_error = 0.05\n'
    )
    asked = ["--config", str(settings), "calibrate", str(write_rows(tmp_path / "rows.jsonl", rows)), "--out"]
    with pytest.raises(SettingsError, match="answer every text with the same label"):
        CliRunner().invoke(shunt, [*asked, str(tmp_path / "policy.json")], catch_exceptions=False)


def test_the_command_makes_a_policy_and_carries_it_on(stack, tmp_path):
    """On the real Triton: rows in, a policy out that the next run finds and raises; a wrong file is told first."""
    data = write_rows(tmp_path / "rows.jsonl", scripted_rows(900))
    settings, out = tmp_path / "shunt.toml", tmp_path / "my policy.json"
    settings.write_text(
        f'[triton]\nurl = "{stack.triton_grpc}"\n'
        '[[tasks]]\nname = "mood"\ntiers = ["scripted"]\ntarget_error = 0.05\n'
        '[[tasks]]\nname = "by_hand"\ntiers = ["scripted"]\nthreshold = 0.9\n'
    )

    def calibrate(*arguments):
        asked = ["--config", str(settings), "calibrate", *map(str, arguments), "--out", str(out)]
        return CliRunner().invoke(shunt, asked, catch_exceptions=False)

    made = calibrate(data, "--llm", "big")
    assert made.exit_code == 0
    assert "the LLM is not needed" in made.output
    policy = load_policy(out.read_bytes())
    assert policy.ref == "my-policy@1"
    assert policy.tasks["mood"].certificate is not None
    assert calibrate(data).exit_code == 0
    assert load_policy(out.read_bytes()).version == 2
    wrong = write_rows(tmp_path / "wrong.jsonl", [{"text": "x", "label": "spam"}])
    with pytest.raises(SettingsError, match="labelled 'spam'"):
        calibrate(wrong)
    with pytest.raises(SettingsError, match="no task by_hand is to be certified"):
        calibrate(data, "--task", "by_hand")


def with_llms(file, *answers):
    """The file with recorded answers of `big` and `other`: [rows] of labels each."""
    named = zip(*answers, strict=True)
    rows = tuple(
        replace(row, llm=tuple(zip(("big", "other"), said, strict=False)))
        for row, said in zip(file.rows, named, strict=True)
    )
    return replace(file, rows=rows)


def test_a_second_opinion_is_heard_where_it_helps():
    """Two LLMs with mistakes of their own: the second is asked about some of what is escalated, and the whole is
    right more often, at the cost it says.
    """
    file, scores = made_up(12_000, 21)
    draw = np.random.default_rng(21)
    truth = [row.label for row in file.rows]
    other = {"positive": "negative", "negative": "positive"}
    said = [[one if draw.random() < 0.85 else other[one] for one in truth] for _ in range(2)]
    both = with_llms(file, *said)
    made = calibrate_task(TASK, [both], SERVED, scores, replace(TERMS, llms=("big", "other")))
    alone = calibrate_task(TASK, [both], SERVED, scores, replace(TERMS, llms=("big",)))
    assert made.task.votes is not None
    assert made.task.votes.expecting[0].llm == "other"
    two, one = helped(made, ("big", "other"), {}), helped(alone, ("big",), {})
    assert two.accuracy > one.accuracy
    assert 0 < two.second_share < 1 - made.task.measured.coverage
    assert two.cost_share == pytest.approx(two.second_share + 1 - made.task.measured.coverage, abs=0.001)
    cheap = helped(made, ("big", "other"), {"other": 0.2})
    assert cheap.cost_share == pytest.approx(two.cost_share - 0.8 * two.second_share, abs=0.001)


def test_an_llm_that_only_repeats_the_first_is_not_asked():
    """A second opinion that is always the first's can change nothing."""
    file, scores = made_up(6_000, 22)
    said = [answer for row in file.rows for _, answer in row.llm]
    made = calibrate_task(
        TASK, [with_llms(file, said, said)], SERVED, scores, replace(TERMS, llms=("big", "other"))
    ).task
    assert made.votes is None or not made.votes.expecting


BY_GAIN = Task(name="sentiment", tiers=("fast",), costs={"positive": LabelCost(missed=1.0, false_alarm=1.0)})


def test_costs_alone_escalate_nothing_that_gains_nothing():
    """An LLM that tosses coins is never asked; nothing is certified, since nothing was promised."""
    file, scores = made_up(4_000, 23, llm_accuracy=0.5)
    made = calibrate_task(BY_GAIN, [file], SERVED, scores, replace(TERMS, llms=("big",)))
    assert (made.routed.route != Route.UNSURE).all()
    assert made.task.certificate is None
    policy = load_policy(dump_policy(merged(None, "reviews", "sentiment", made.task, TERMS.made_at)))
    (router,) = task_routers([BY_GAIN], SERVED, policy)
    assert (router.certified, router.uncertified_reason) == (False, "no_gain")


def test_costs_alone_escalate_where_asking_saves():
    """A better LLM is asked about the unsure, less so where asking costs; the whole costs less than the small one."""
    file, scores = made_up(8_000, 24, llm_accuracy=0.95)
    free = calibrate_task(BY_GAIN, [file], SERVED, scores, replace(TERMS, llms=("big",)))
    dear = calibrate_task(
        BY_GAIN.model_copy(update={"asking_cost": 0.2}), [file], SERVED, scores, replace(TERMS, llms=("big",))
    )
    assert 1 - dear.task.measured.coverage < 0.7 * (1 - free.task.measured.coverage)
    found = helped(free, ("big",), {})
    assert found.accuracy > found.small_accuracy + 0.05


def test_a_miss_that_is_dear_is_answered_sooner():
    """With costs the small model's own answer is the one that costs least; without an LLM's answers it is refused."""
    task = BY_GAIN.model_copy(update={"costs": {"positive": LabelCost(missed=9.0, false_alarm=1.0)}})
    file, scores = made_up(4_000, 25)
    made = calibrate_task(task, [file], SERVED, scores, replace(TERMS, llms=("big",)))
    said = made.routed.probabilities[:, 1]
    assert ((said >= 0.1001) <= (made.routed.label == 1)).all()
    assert ((said <= 0.0999) <= (made.routed.label == 0)).all()
    with pytest.raises(SettingsError, match="escalates where an LLM gains"):
        calibrate_task(task, [file], SERVED, scores, TERMS)
    policy = merged(None, "reviews", "sentiment", made.task, TERMS.made_at)
    with pytest.raises(SettingsError, match="made for another costs"):
        task_routers([BY_GAIN], SERVED, policy)


SHARED = Task(name="sentiment", tiers=("fast", ("fast", "slow")), escalate_max=0.2)


def test_a_share_is_held_from_its_sample_on():
    """The cut escalates the share of fresh rows, what it accepts is certified, and the policy reads back the same."""
    files, scores = joined(made_up(8000, 21))
    made = calibrate_task(SHARED, files, SERVED, scores, TERMS)
    policy = load_policy(dump_policy(merged(None, "reviews", "sentiment", made.task, TERMS.made_at)))
    (router,) = task_routers([SHARED], SERVED, policy)
    assert router.certified
    assert router.share is not None
    assert router.share.floor == router.tiers[0].threshold == router.tiers[1].threshold
    assert abs((1 - made.task.measured.coverage) - 0.2) <= 0.03
    certificate = made.task.certificate
    assert certificate.error_max is None
    assert certificate.wrong / certificate.accepted < certificate.error_bound < 0.2
    assert router.share.ranks.cut_at(0.2) == pytest.approx(router.share.floor, abs=0.01)
    fresh, by_model = made_up(8000, 22, spread=1.2, name="fresh.jsonl")  # less sure
    routed = route_scored(router, [row.text for row in fresh.rows], by_model)
    assert abs((~routed.accepted).mean() - 0.2) <= 0.0065
    fixed = route_scored(replace(router, share=None), [row.text for row in fresh.rows], by_model)
    assert (~fixed.accepted).mean() > 0.3
    assert "under the share it holds" in verdict("sentiment", made.task, None)


def test_the_bound_of_a_share_holds_in_simulation():
    """Over 100 seeded samples, the error of what the certified cut accepts exceeds its bound in at most delta."""
    fresh_file, fresh = made_up(20_000, 998)
    truth = np.array([LABELS.index(row.label) for row in fresh_file.rows])
    texts, broken, delta = [row.text for row in fresh_file.rows], 0, 0.1
    for seed in range(100):
        files, scores = joined(made_up(600, seed + 500))
        made = calibrate_task(SHARED, files, SERVED, scores, Terms(delta, TERMS.made_at)).task
        policy = Policy(name="p", version=1, made_at=TERMS.made_at, tasks={"sentiment": made})
        (router,) = task_routers([SHARED], SERVED, policy)
        routed = route_scored(replace(router, share=None), texts, fresh)
        broken += (routed.label != truth)[routed.accepted].mean() > made.certificate.error_bound
    assert broken <= 100 * delta + 3 * (100 * delta * (1 - delta)) ** 0.5


def test_a_share_needs_a_policy_that_was_made_for_it():
    """Another share, a policy without one, or a sample too small for its cut: refused, in one line."""
    files, scores = joined(made_up(2000, 23))
    policy = merged(None, "p", "sentiment", calibrate_task(SHARED, files, SERVED, scores, TERMS).task, TERMS.made_at)
    other = Task(name="sentiment", tiers=SHARED.tiers, escalate_max=0.1)
    with pytest.raises(SettingsError, match=r"made for escalate_max 0.2, the settings have 0.1"):
        task_routers([other], SERVED, policy)
    with pytest.raises(SettingsError, match="not made for target_error, the settings have"):
        task_routers([TASK], SERVED, policy)
    target = merged(None, "p", "sentiment", calibrate_task(TASK, files, SERVED, scores, TERMS).task, TERMS.made_at)
    with pytest.raises(SettingsError, match=r"made for target_error 0.05, the settings have none"):
        task_routers([SHARED], SERVED, target)
    with pytest.raises(SettingsError, match="too few to find the cut that escalates"):
        calibrate_task(Task(name="sentiment", tiers=SHARED.tiers, escalate_max=0.0005), files, SERVED, scores, TERMS)


def test_the_policy_knows_what_its_sample_was_like():
    """What audits and drift are held against: counted on the rows that fitted nothing, as the worker routes them."""
    file, scores = made_up(4_000, 21)
    made = calibrate_task(TASK, [file], SERVED, scores, replace(TERMS, llms=("big",)))
    parts = split(file.rows)
    places = np.concatenate([parts.certification, parts.test])
    policy = Policy(name="p", version=1, made_at="", tasks={"sentiment": made.task})
    (router,) = task_routers([TASK], SERVED, policy)
    rows = [file.rows[int(place)] for place in places]
    routed = route_scored(router, [row.text for row in rows], {name: of.rows(places) for name, of in scores.items()})
    traffic, known = made.task.traffic, made.task.llm_disagreement
    assert traffic.rows == len(rows) == sum(traffic.confidence) == sum(traffic.labels.values())
    assert traffic.labels == dict(Counter(LABELS[label] for label in routed.label.tolist()))
    assert traffic.escalated == int((~routed.accepted).sum())
    assert traffic.out_of_domain == int((routed.route == Route.OUT_OF_DOMAIN).sum())
    assert max(traffic.confidence) < 0.35 * traffic.rows, "fifths of the fitted rows are about fifths of these"
    taken = [
        (row.answer_of("big"), LABELS[label])
        for row, label, accepted in zip(rows, routed.label, routed.accepted, strict=True)
        if accepted
    ]
    assert known.accepted == len(taken)
    assert known.disagreed == sum(said != label for said, label in taken)
    assert known.disagreed / known.accepted < known.bound < 0.2
    assert load_policy(dump_policy(policy)) == policy
    alone = calibrate_task(TASK, [file], SERVED, scores, TERMS).task
    assert alone.llm_disagreement is None
    assert alone.traffic is not None
