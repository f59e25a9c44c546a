"""`make faults`: real faults on real servers, and an independent count. Exit status 1 if anything is lost or twice.

python -m tests.faults [--seed N] [--brokers 1|3] [--each N] [--records N] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from tests.faults import safeguards
from tests.faults.run import Plan, Report, draw_seed, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="drawn and printed where it is left out")
    parser.add_argument("--brokers", type=int, nargs="+", default=[1, 3], help="a run for each")
    parser.add_argument("--each", type=int, default=8, help="how often every kind of fault is injected in a run")
    parser.add_argument("--records", type=int, default=500_000, help="input records of a run, at least")
    parser.add_argument("--rate", type=float, default=1_200, help="input records a second")
    parser.add_argument("--strands", nargs="*", default=[], help="of classify escalate kafka triton llm input")
    parser.add_argument("--safeguards", type=int, default=5, help="seeds for each safeguard that is taken out")
    parser.add_argument("--folder", type=Path, help="keeps servers' and workers' logs there")
    parser.add_argument("--json", type=Path, dest="report", help="where the whole report goes")
    given = parser.parse_args()
    seed = given.seed or draw_seed()
    reports: list[Report] = []
    for brokers in given.brokers:
        print(f"seed {seed}, {brokers} broker{'s' * (brokers > 1)}: repeat with --seed {seed}", flush=True)
        plan = Plan(
            seed=seed,
            brokers=brokers,
            each=given.each,
            records=given.records,
            rate=given.rate,
            decisions_partitions=None if brokers == 1 else 4,
            provisional=brokers > 1,
            only=frozenset(given.strands),
        )
        reports.append(run(plan, given.folder and given.folder / f"brokers-{brokers}"))
        show(reports[-1])
        if given.report:
            whole = [{**report.as_json(), "log": report.faults, "ends": report.exits} for report in reports]
            given.report.write_text(json.dumps(whole, indent=1))
    outcomes = safeguards.run_all(given.safeguards) if given.safeguards else []
    safeguards.show(outcomes)
    sound = all(report.sound for report in reports) and all(outcome.as_it_must_be for outcome in outcomes)
    return 0 if sound else 1


def show(report: Report) -> None:
    """The table of faults, and what was counted."""
    summary = report.as_json()
    print(f"\n{'kind':36} faults  at work  calls  transactions (medians at that moment)")
    for row in report.table():
        print(
            f"{row['kind']:36} {row['faults']:6d}  {row['at_work']:7d}  {row['calls_median']:5d}"
            f"  {row['transactions_median']:12d}"
        )
    print(json.dumps({key: value for key, value in summary.items() if key != "table"}, indent=1))
    for worker, status, line in report.exits:
        print(f"{worker} ended by itself with status {status}: {line}")
    print("SOUND" if report.sound else "NOT SOUND", flush=True)


if __name__ == "__main__":
    sys.exit(main())
