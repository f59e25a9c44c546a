"""Policies for the model `scripted`, whose confidence stands in the text."""

from __future__ import annotations

from stream_app.routing.policy import (
    Certificate,
    Domain,
    Measured,
    Member,
    Policy,
    Sample,
    ShareHeld,
    TaskPolicy,
    TierPolicy,
)

LABELS = ("negative", "positive")
NO_WEIGHTS = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""What the model says that its weights are: the sha-256 of nothing."""
MADE_AT = "2026-11-20T09:00:00Z"


def scripted_policy(
    *,
    number: int = 1,
    model_version: str = "1",
    threshold: float = 0.9,
    target_error: float | None = 0.05,
    coverage: float = 0.8,
    share: float | None = None,
    sha256: str = NO_WEIGHTS,
) -> Policy:
    """The policy `scripted@number`. With `share` it holds that, and confidences are evenly spread from 0.5 to 1."""
    cut = threshold if share is None else 0.5 + share / 2
    task = TaskPolicy(
        labels=LABELS,
        tiers=(
            TierPolicy(
                members=(Member(model="scripted", version=model_version, weights_sha256=sha256, weight=1.0),),
                threshold=cut,
            ),
        ),
        target_error=target_error if share is None else None,
        reference="human",
        certificate=Certificate(
            error_max=target_error if share is None else None,
            delta=0.05,
            rows=1_000,
            accepted=int(1_000 * coverage),
            wrong=10,
            error_bound=0.03,
        ),
        domain=Domain(
            known_share_min=0.0, known_share_quantile=0.01, scripts=("Latin",), text_chars=(1.0, 9.0, 99.0)
        ),
        sample=Sample(files=(), calibration=700, certification=1_000, test=300, label_prevalence={}),
        measured=Measured(
            coverage=coverage,
            accepted_error=0.01,
            small_accuracy=0.9,
            tier_coverage=(coverage,),
            expected_calibration_error=0.01,
            brier=0.1,
            negative_log_likelihood=0.2,
            area_under_risk_coverage=0.02,
        ),
        made_at=MADE_AT,
        share=None if share is None else ShareHeld(escalate_max=share, confidence=(0.5, 1.0), rank=(0.0, 1.0)),
    )
    return Policy(name="scripted", version=number, made_at=MADE_AT, tasks={"sentiment": task})
