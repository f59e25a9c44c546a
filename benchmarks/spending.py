"""What the order of spending is worth: a budget for half of the escalations, against first come, first served.

    SHUNT_DATA=... python benchmarks/spending.py [--shuffles 20]

Half A of `imdb_llm_calibration` sets the threshold of `sentiment_fast` so that a share of it is unsure (`--share`).
Half B's unsure rows then come evenly over an hour, in `--shuffles` orders; each call costs the same, a fifth of what
is reserved for it, and the budget pays for half of them. Recorded answers of gpt-3.5-turbo-1106. Prints, in points of
accuracy over all of half B, the mean difference with two lower bounds of 95 %: over the orders (t), and over the rows
(bootstrap). Exits 1 where the mean is below 0.3 or a bound is not above 0.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import statistics
from pathlib import Path

import numpy as np

from stream_app.escalate.spending import Left, Spending
from stream_app.training.evaluation import labels_in, load_scorer

MODEL = Path(__file__).parent.parent / "triton_models" / "sentiment_fast"
LLM = "gpt-3.5-turbo-1106"
HOUR_S, CALL_NUSD, BOUND_NUSD = 3_600.0, 1_000, 5_000
"""What is reserved for a call, its longest answer, is several times what it costs."""
GAIN_MIN = 0.3
T_19 = 1.729
"""One-sided 95 % of Student's t with 19 degrees of freedom (20 orders)."""


def in_order(rows: np.ndarray, chances: np.ndarray, budget: int, rng: np.random.Generator) -> np.ndarray:
    """The rows that `Spending` pays for when they come in this order."""
    spending, left, paid = Spending(), budget, []
    for place, row in enumerate(rows):
        now_s = place * HOUR_S / len(rows)
        funds = [Left(left * CALL_NUSD, HOUR_S - now_s)]
        worth = spending.worth(float(chances[row]), [BOUND_NUSD], funds, now_s=now_s, draw=rng.random())
        if worth and left * CALL_NUSD >= BOUND_NUSD:
            left -= 1
            spending.paid(BOUND_NUSD, CALL_NUSD)
            paid.append(row)
    return np.array(paid)


def main() -> int:
    """Runs it; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.2, help="of half A that is unsure")
    given = parser.parse_args()
    file = Path(os.environ["SHUNT_DATA"]) / "imdb_llm_calibration.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    half_b = np.array([hashlib.sha256(row["group"].encode()).hexdigest()[0] >= "8" for row in rows])
    labels = list(labels_in(MODEL))
    scorer = load_scorer(MODEL)
    texts = [row["text"].encode(errors="replace") for row in rows]
    found = np.concatenate([scorer.answer(texts[at : at + 256])[0] for at in range(0, len(texts), 256)])
    truth = np.array([labels.index(row["label"]) for row in rows])
    small, confidence = found.argmax(1), found.max(1)
    told = np.array([labels.index(row["llm"][LLM]) if row["llm"].get(LLM) in labels else -1 for row in rows])
    llm = np.where(told < 0, small, told)
    unsure = np.flatnonzero(half_b & (confidence < np.quantile(confidence[~half_b], given.share)))
    gained = (llm == truth).astype(int) - (small == truth).astype(int)

    differences, by_row = [], np.zeros(len(rows))
    for seed in range(given.shuffles):
        rng = np.random.default_rng(seed)
        order, budget = rng.permutation(unsure), len(unsure) // 2
        ours, first = in_order(order, 1 - confidence, budget, rng), order[:budget]
        difference = np.zeros(len(rows))
        difference[ours] += gained[ours]
        difference[first] -= gained[first]
        differences.append(100 * difference[half_b].mean())
        by_row += difference / given.shuffles
    rng = np.random.default_rng(0)
    kept = by_row[half_b]
    means = [100 * kept[rng.integers(0, len(kept), len(kept))].mean() for _ in range(2_000)]
    mean = statistics.mean(differences)
    result = {
        "unsure": len(unsure),
        "paid": len(unsure) // 2,
        "points_gained": round(mean, 2),
        "lower_bound_over_orders": round(mean - T_19 * statistics.stdev(differences) / len(differences) ** 0.5, 2),
        "lower_bound_over_rows": round(float(np.quantile(means, 0.05)), 2),
        "bar": GAIN_MIN,
    }
    print(json.dumps(result))
    holds = mean >= GAIN_MIN and min(result["lower_bound_over_orders"], result["lower_bound_over_rows"]) > 0
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
