"""What every table of the settings is: frozen, and strict; and the numbers that stand in several."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
PARKED_AGE_MAX_S = 7 * 86_400.0
"""So long the parked topic keeps what waits there."""


class Section(BaseModel):
    """One table of the settings file: frozen, and strict about what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)
