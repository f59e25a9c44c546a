"""The action a decision recommends: a table of the settings, label -> action. Pure."""

from collections.abc import Mapping, Sequence

from stream_app.events import Said, each_label

SEVERITY = ("publish", "review", "hold", "remove")
"""Recommended actions, mildest first."""


def recommended_action(actions: Mapping[str, str], answers: Sequence[Said]) -> str | None:
    """The most severe action that the table gives for any label of the answers; None where it gives none."""
    found = [actions[label] for said in answers for label in each_label(said) if label in actions]
    return max(found, key=SEVERITY.index, default=None)
