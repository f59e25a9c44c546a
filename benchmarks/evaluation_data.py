"""Where the evaluation texts are, which no repository holds."""

import os
import sys
from pathlib import Path


def evaluation_data() -> Path:
    """The folder that SHUNT_DATA names; ends the program, with what to do, where it names none."""
    if "SHUNT_DATA" not in os.environ:
        sys.exit("set SHUNT_DATA to the folder of the evaluation data")
    return Path(os.environ["SHUNT_DATA"])
