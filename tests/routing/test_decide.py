"""A batch's way through the tiers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.routing.decide import Knots, Route, TaskRouter, Tier
from stream_app.routing.domain import Scripts
from stream_app.routing.models import Scores, ServedModel

LABELS = ("negative", "positive")


def served(name):
    return ServedModel(name, "1", LABELS, "0" * 64, 1024)


FAST, SLOW = served("fast"), served("slow")


def router(*tiers, known_share_min=0.0, scripts=None):
    return TaskRouter("sentiment", LABELS, (), tiers, True, None, "p@1", known_share_min, scripts)


def scores(positive, known=None):
    positive = np.asarray(positive, np.float32)
    known = np.ones(len(positive)) if known is None else np.asarray(known)
    return Scores(np.stack([1 - positive, positive], axis=1), known.astype(np.float32))


def walk(task_router, texts, by_model):
    """Give every need from whole-batch scores; return the outcome and which rows each model was asked."""
    routing, asked = task_router.begin(texts), {}
    while routing.need is not None:
        rows = routing.need.rows
        for model in routing.need.models:
            assert model.name not in asked, "a model is asked once a batch"
            asked[model.name] = rows.tolist()
        routing.give([by_model[model.name].rows(rows) for model in routing.need.models])
    return routing.routed, asked


def test_second_tier_runs_only_for_what_the_first_is_unsure_of():
    """Tier 2 sees the unsure rows alone and reuses tier 1's scores; what it is unsure of too is escalated."""
    both = router(Tier((FAST,), (1.0,), 0.9), Tier((FAST, SLOW), (0.5, 0.5), 0.9))
    routed, asked = walk(
        both, ["a", "b", "c"], {"fast": scores([0.99, 0.6, 0.3]), "slow": scores([0.01, 0.9999, 0.5])}
    )
    assert asked == {"fast": [0, 1, 2], "slow": [1, 2]}
    assert routed.tier.tolist() == [0, 1, 1]
    assert routed.route.tolist() == [Route.ACCEPTED, Route.ACCEPTED, Route.UNSURE]
    assert routed.label.tolist() == [1, 1, 0]
    assert routed.accepted.tolist() == [True, True, False]


def test_a_tier_whose_models_are_all_known_asks_nothing():
    """Another pool of models already asked is judged without another request."""
    again = router(Tier((FAST, SLOW), (1.0, 0.0), 0.99), Tier((SLOW,), (1.0,), 0.8))
    routed, asked = walk(again, ["a"], {"fast": scores([0.6]), "slow": scores([0.85])})
    assert asked == {"fast": [0], "slow": [0]}
    assert routed.route.tolist() == [Route.ACCEPTED]
    assert routed.tier.tolist() == [1]


def test_out_of_domain_goes_straight_to_the_llm():
    """Unknown words or another script are decided at the first tier, however sure the model is."""
    strict = router(
        Tier((FAST,), (1.0,), 0.9), Tier((SLOW,), (1.0,), 0.9), known_share_min=0.5, scripts=Scripts(["Latin"])
    )
    texts = ["good", "blorp snark", "очень хорошо", "café, naïve 👍"]
    routed, asked = walk(strict, texts, {"fast": scores([0.99] * 4, [1, 0.4, 1, 1]), "slow": scores([0.99] * 4)})
    assert routed.route.tolist() == [Route.ACCEPTED, Route.OUT_OF_DOMAIN, Route.OUT_OF_DOMAIN, Route.ACCEPTED]
    assert asked == {"fast": [0, 1, 2, 3]}
    assert routed.confidence[1] == pytest.approx(0.99), "the small answer stands there for a degraded decision"


def test_no_threshold_accepts_nothing():
    """A tier without a certified cut accepts nothing, not even certainty."""
    routed, _ = walk(router(Tier((FAST,), (1.0,), None)), ["a"], {"fast": scores([1.0])})
    assert routed.route.tolist() == [Route.UNSURE]


def test_the_cut_belongs_to_the_accepted():
    """A confidence equal to the threshold, as float32, is accepted; the next smaller is not."""
    given = {"fast": scores([0.9])}
    confidence = walk(router(Tier((FAST,), (1.3,), 0.5)), ["a"], given)[0].confidence[0]
    for cut, accepted in ((confidence, True), (np.nextafter(confidence, np.float32(1)), False)):
        routed, _ = walk(router(Tier((FAST,), (1.3,), float(cut))), ["a"], given)
        assert routed.accepted.tolist() == [accepted]


def test_each_label_is_held_against_its_own_cut():
    """With cuts by label the same confidence may be enough for one label and not for the other."""
    own = router(Tier((FAST,), (1.0,), 0.9, None, (0.9, 0.7)))
    routed, _ = walk(own, ["a", "b", "c", "d"], {"fast": scores([0.2, 0.8, 0.05, 0.6])})
    assert routed.label.tolist() == [0, 1, 0, 1]
    assert routed.accepted.tolist() == [False, True, True, False]
    assert (own.tiers[0].threshold_of(0), own.tiers[0].threshold_of(1)) == (0.9, 0.7)
    assert Tier((FAST,), (1.0,), 0.8).threshold_of(1) == 0.8


def test_an_empty_batch_asks_nothing():
    """No texts, no request."""
    routing = router(Tier((FAST,), (1.0,), 0.9)).begin([])
    assert routing.need is None
    with pytest.raises(ValueError, match="nothing was asked"):
        routing.give([])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.3, 4), st.floats(0.5, 1))
def test_decisions_do_not_depend_on_the_batch(positive, weight, threshold):
    """A text is decided alike alone and in any batch; probabilities sum to 1 and confidence is the label's."""
    one = router(Tier((FAST,), (weight,), threshold, Knots(np.float32([0.5, 1]), np.float32([0.4, 0.98]))))
    together, _ = walk(one, ["x"] * len(positive), {"fast": scores(positive)})
    for row, value in enumerate(positive):
        alone, _ = walk(one, ["x"], {"fast": scores([value])})
        assert alone.label[0] == together.label[row]
        assert alone.confidence[0] == pytest.approx(together.confidence[row], abs=1e-6)
    assert np.allclose(together.probabilities.sum(axis=1), 1, atol=1e-5)
    assert (together.confidence == together.probabilities[np.arange(len(positive)), together.label]).all()
    assert (together.confidence >= np.float32(threshold)).tolist() == together.accepted.tolist()
