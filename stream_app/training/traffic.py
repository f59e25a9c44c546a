"""What the small models make of a calibration sample, counted: what the stream is later held against. Pure."""

import numpy as np

from stream_app.routing.decide import Route, Routed
from stream_app.routing.label_sets import label_counts
from stream_app.routing.policy import Traffic
from stream_app.training.rounding import shortest

FIFTHS = (0.2, 0.4, 0.6, 0.8)


def traffic_of(
    fitted_on: Routed, fresh: Routed, labels: tuple[str, ...], *, held: bool, any_of: bool = False
) -> Traffic:
    """Counts of the `fresh` rows, which fitted nothing; confidence in fifths of those that the tiers were fitted on.

    Where a share is `held` the sample's own says nothing of the stream's.
    """
    quantiles = np.quantile(fitted_on.confidence, FIFTHS, method="lower")
    edges = [shortest(edge) for edge in np.unique(quantiles)]
    counted = np.bincount(np.searchsorted(np.array(edges, np.float32), fresh.confidence), minlength=len(edges) + 1)
    of_labels = label_counts(fresh.label, len(labels), any_of=any_of)
    return Traffic(
        rows=len(fresh.label),
        labels=dict(zip(labels, of_labels, strict=True)),
        confidence_edges=tuple(edges),
        confidence=tuple(counted.tolist()),
        escalated=None if held else int((~fresh.accepted).sum()),
        out_of_domain=int((fresh.route == Route.OUT_OF_DOMAIN).sum()),
    )
