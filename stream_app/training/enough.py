"""Whether rows are enough to learn from, said before anything is trained."""

from collections.abc import Sequence

from stream_app.errors import SettingsError
from stream_app.training.gold import Gold, TaskKind
from stream_app.training.table import Mask

ROWS_PER_LABEL_MIN = 8
"""Below two rows of a label a fold there is nothing to learn or to calibrate on."""
GROUPS_PER_LABEL_MIN = 4
"""Groups are kept together: every fold needs one of its own."""


def check_enough(gold: Gold, groups: Sequence[str]) -> None:
    """Raise SettingsError, naming the label, where its rows or their groups are too few.

    Where any label may be right, both a label's yes and its no need rows.
    """
    if gold.kind is TaskKind.ONE_OF and len(gold.labels) < 2:
        raise SettingsError(f"the rows have {len(gold.labels)} label(s)", advice="give rows of at least two labels")
    if not gold.labels:
        raise SettingsError("the rows have no labels", advice="give labels: a map of each label to true or false")
    answers = {f"label {label!r}": gold.yes[:, at] for at, label in enumerate(gold.labels)}
    if gold.kind is TaskKind.ANY_OF:
        answers |= {
            f"label {label!r} = false": gold.known[:, at] & ~gold.yes[:, at] for at, label in enumerate(gold.labels)
        }
    said, found = min(((said, int(rows.sum())) for said, rows in answers.items()), key=lambda item: item[1])
    if found < ROWS_PER_LABEL_MIN:
        advice = f"label at least {ROWS_PER_LABEL_MIN} texts of each"
        raise SettingsError(f"{said} has {found} row(s)", advice=advice)
    said, found = min(((said, _groups(groups, rows)) for said, rows in answers.items()), key=lambda item: item[1])
    if found < GROUPS_PER_LABEL_MIN:
        advice = f"label texts of at least {GROUPS_PER_LABEL_MIN} groups"
        raise SettingsError(f"{said} is in {found} group(s)", advice=advice)


def _groups(groups: Sequence[str], rows: Mask) -> int:
    return len({group for group, chosen in zip(groups, rows.tolist(), strict=True) if chosen})
