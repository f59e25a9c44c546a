"""The action a decision recommends: a table of the settings, label -> action. Pure."""

from collections.abc import Mapping, Sequence

SEVERITY = ("publish", "review", "hold", "remove")
"""Recommended actions, mildest first."""


def recommended_action(actions: Mapping[str, str], labels: Sequence[str]) -> str | None:
    """The most severe action that the table gives for any of the labels; None where it gives none."""
    found = [actions[label] for label in labels if label in actions]
    return max(found, key=SEVERITY.index, default=None)
