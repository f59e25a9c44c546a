"""The short form of `make faults`: every kind of worker's, Triton's, LLM's and input's fault once, on one broker."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import show
from tests.faults.run import Plan, draw_seed, run

KINDS_MIN = 20


@pytest.mark.timeout(420)
def test_under_faults_every_record_has_exactly_one_outcome(tmp_path):
    """0 lost, 0 duplicated, 0 altered, order kept, lag exactly 0; SIGTERM drains with status 0."""
    seed = draw_seed()
    print(f"seed {seed}: repeat with SHUNT_FAULT_SEED={seed}")
    report = run(Plan(seed=seed, each=1, records=40_000, rate=1_000, provisional=bool(seed % 2)), tmp_path)
    show(report)
    assert report.sound, report.as_json()
    assert len(report.table()) >= KINDS_MIN
