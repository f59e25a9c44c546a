"""A task's rule for votes goes with its escalation, so that the slow lane needs no policy of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from stream_app.cli.escalations import Escalations
from stream_app.codec import decode_escalation, encode_escalation
from stream_app.events import Event, Source, VoteRule
from stream_app.routing.decide import Route, TaskRouter, Tier
from stream_app.routing.models import Scores, ServedModel
from stream_app.training.scoring import route_scored
from tests.escalate import escalated
from tests.escalate.votes import LABELS, rule


@pytest.mark.parametrize("votes", [None, rule()], ids=["obeyed", "weighed"])
def test_the_rule_of_the_policy_stands_in_the_escalation_and_comes_back_from_it(votes: VoteRule | None) -> None:
    """Weights and all, beside the probabilities they were fitted on."""
    tier = Tier((ServedModel("small", "1", LABELS, "0" * 64, 1024),), (1.0,), 0.9)
    router = TaskRouter("sentiment", LABELS, (), (tier,), True, None, "p@1", votes=votes)
    scores = Scores(np.array([[0.25, 0.75]], np.float32), np.ones(1, np.float32))
    routed = route_scored(router, ["a lamp"], {"small": scores})
    event = Event("r-1", "a lamp", b"{}", Source("reviews", 0, 0, 0), key=None)
    settings = escalated.settings("127.0.0.1:1", "http://127.0.0.1:1/v1", "shop")
    escalation = Escalations(settings, (router,), "p@1").of(0, event, [routed])
    assert escalation is not None
    assert escalation.asks[0].votes == votes
    assert escalation.asks[0].small.probabilities == {"negative": 0.25, "positive": 0.75}
    outside = replace(routed, route=np.full(1, Route.OUT_OF_DOMAIN, np.int8))
    foreign = Escalations(settings, (router,), "p@1").of(0, event, [outside])
    assert foreign is not None
    assert foreign.asks[0].votes is None, "nothing is known of votes outside the calibrated domain"
    assert decode_escalation(encode_escalation(escalation, [])).escalation == escalation
