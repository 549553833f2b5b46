"""``python -m tests.simulation 50000 --seed 0``: that many fault schedules; exit status 1 if anything is wrong."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.checks import case_of, simulate


def main() -> int:
    """Runs the schedules, and says what happened in them and what came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("schedules", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule; the others follow")
    parser.add_argument(
        "--tables", choices=("rows", "parquet"), default="rows", help="parquet: the real tables, slower"
    )
    arguments = parser.parse_args()
    faults: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    first, begun = None, time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.schedules):
        verdict = simulate(seed, arguments.tables)
        faults += verdict.happened
        for kind in ("lost", "doubled", "different"):
            wrong[kind] += bool(getattr(verdict, kind))
        if verdict.wrong and first is None:
            first = seed
            print(
                f"seed {seed}: {verdict.wrong}\n{case_of(seed)}\nreplay it: python -m tests.simulation 1 --seed {seed}"
            )
    seconds = time.monotonic() - begun
    print(f"{arguments.schedules} schedules in {seconds:.0f} s, {60 * arguments.schedules / seconds:.0f} a minute")
    for kind, count in sorted(faults.items()):
        print(f"{count:8d} {kind}")
    print(f"lost {wrong['lost']}, doubled {wrong['doubled']}, different {wrong['different']}; first failure: {first}")
    return int(first is not None)


if __name__ == "__main__":
    sys.exit(main())
