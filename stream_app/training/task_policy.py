"""The parts of a policy, from what calibration found."""

import math
from collections.abc import Sequence

import numpy as np

from stream_app.routing.calibration import calibration_errors
from stream_app.routing.decide import Routed, Tier
from stream_app.routing.models import IndexArray
from stream_app.routing.policy import Isotonic, Measured, Member, Sample, SampleFile, TierPolicy
from stream_app.training.recorded import RecordedFile
from stream_app.training.rounding import shortest, to_six_digits
from stream_app.training.split import Parts


def measured(routed: Routed, truth: IndexArray, tiers: int) -> Measured:
    """What came of rows with known labels. Confidence is judged over all rows, accepted or not."""
    right, accepted = routed.label == truth, routed.accepted
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
    knots = tier.knots
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
        isotonic=None
        if knots is None
        else Isotonic(
            confidence=tuple(shortest(x) for x in knots.confidence),
            share_right=tuple(shortest(y) for y in knots.share_right),
        ),
        threshold=tier.threshold,
        label_thresholds={
            label: None if math.isinf(cut) else cut
            for label, cut in zip(labels, tier.label_thresholds or (), strict=bool(tier.label_thresholds))
        },
    )


def sample_of(files: Sequence[RecordedFile], parts: Parts, truth: IndexArray, labels: tuple[str, ...]) -> Sample:
    """Which rows were used, for what, and how often each label was true."""
    counts = np.bincount(truth, minlength=len(labels))
    return Sample(
        files=tuple(SampleFile(name=file.name, sha256=file.sha256, rows=len(file.rows)) for file in files),
        calibration=len(parts.calibration),
        certification=len(parts.certification),
        test=len(parts.test),
        label_prevalence={label: float(count / len(truth)) for label, count in zip(labels, counts, strict=True)},
    )
