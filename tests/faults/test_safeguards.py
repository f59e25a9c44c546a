"""Two of the safeguards taken out, with one seed each: the count that finds nothing elsewhere does find breaches."""

from __future__ import annotations

import os
import random

import pytest

from tests.faults.safeguards import SAFEGUARDS, run

SHORT = [safeguard for safeguard in SAFEGUARDS if safeguard.name in {"sends", "gate"}]
"""The quickest: a loss and a duplicate. `python -m tests.faults.safeguards` takes out every one."""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("safeguard", SHORT, ids=lambda safeguard: safeguard.name)
def test_the_count_finds_what_a_safeguard_prevents(stack, safeguard, tmp_path):
    """Without the safeguard, the fault it is there for breaks the promise, and the independent count says so."""
    seed = int(os.environ.get("SHUNT_FAULT_SEED", "0")) or random.randrange(1, 10**6)
    print(f"seed {seed}: repeat with SHUNT_FAULT_SEED={seed}")
    outcome = run(stack, safeguard, seed, tmp_path / safeguard.name)
    assert outcome.as_it_must_be, outcome.line()
