"""The parts of a policy, from what calibration found."""

import math
from collections.abc import Sequence

import numpy as np

from stream_app.routing.any_of import AnyOfTier, as_two
from stream_app.routing.calibration import calibration_errors
from stream_app.routing.decide import Knots, Routed, Tier
from stream_app.routing.label_sets import label_counts, marks_of
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import Isotonic, Measured, Member, Sample, SampleFile, TierPolicy
from stream_app.training.recorded import RecordedFile
from stream_app.training.rounding import shortest, to_six_digits
from stream_app.training.split import Parts


def measured(routed: Routed, truth: IndexArray, tiers: int, *, any_of: bool = False) -> Measured:
    """What came of rows with known labels. Confidence is judged over all rows, accepted or not.

    Where any label may be right (`any_of`) a row is right with all of them, and confidence is that of each yes or no.
    """
    right, accepted = routed.label == truth, routed.accepted
    if any_of:
        marks = marks_of(truth, routed.probabilities.shape[1])
        errors = calibration_errors(as_two(routed.probabilities), marks.reshape(-1).astype(np.intp))
    else:
        errors = calibration_errors(routed.probabilities, truth)
    return Measured(
        coverage=to_six_digits(accepted.mean()),
        accepted_error=to_six_digits((~right[accepted]).mean()) if accepted.any() else None,
        small_accuracy=to_six_digits(right.mean()),
        tier_coverage=tuple(to_six_digits((accepted & (routed.tier == tier)).mean()) for tier in range(tiers)),
        expected_calibration_error=to_six_digits(errors.expected_calibration_error),
        brier=to_six_digits(errors.brier),
        negative_log_likelihood=to_six_digits(errors.negative_log_likelihood),
        area_under_risk_coverage=to_six_digits(errors.area_under_risk_coverage),
    )


def tier_policy(tier: Tier, labels: tuple[str, ...]) -> TierPolicy:
    """A tier with its cuts, as the policy holds it."""
    own = tier.label_knots if isinstance(tier, AnyOfTier) else ()
    return TierPolicy(
        members=tuple(
            Member(
                model=model.name,
                version=model.version,
                weights_sha256=model.weights_sha256,
                weight=weight,
            )
            for model, weight in zip(tier.models, tier.weights, strict=True)
        ),
        isotonic=None if tier.knots is None else _isotonic(tier.knots),
        label_isotonic={
            label: _isotonic(knots) for label, knots in zip(labels, own, strict=bool(own)) if knots is not None
        },
        threshold=tier.threshold,
        label_thresholds={
            label: None if math.isinf(cut) else cut
            for label, cut in zip(labels, tier.label_thresholds or (), strict=bool(tier.label_thresholds))
        },
    )


def _isotonic(knots: Knots) -> Isotonic:
    return Isotonic(
        confidence=tuple(shortest(x) for x in knots.confidence),
        share_right=tuple(shortest(y) for y in knots.share_right),
    )


def sample_of(
    files: Sequence[RecordedFile], parts: Parts, truth: IndexArray, labels: tuple[str, ...], *, any_of: bool = False
) -> Sample:
    """Which rows were used, for what, and how often each label was true."""
    counts = label_counts(truth, len(labels), any_of=any_of)
    return Sample(
        files=tuple(SampleFile(name=file.name, sha256=file.sha256, rows=len(file.rows)) for file in files),
        calibration=len(parts.calibration),
        certification=len(parts.certification),
        test=len(parts.test),
        label_prevalence={label: float(count / len(truth)) for label, count in zip(labels, counts, strict=True)},
    )
