"""``python -m tests.simulation 50000 --seed 0``: that many fault schedules; exit status 1 if anything is wrong."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.checks import case_of, simulate
from tests.verdict import Tally


def main() -> int:
    """Runs the schedules, and says what happened in them and what came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("schedules", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule; the others follow")
    parser.add_argument(
        "--tables", choices=("rows", "parquet"), default="rows", help="parquet: the real tables, slower"
    )
    arguments = parser.parse_args()
    tally = Tally()
    for seed in range(arguments.seed, arguments.seed + arguments.schedules):
        verdict = simulate(seed, arguments.tables)
        if verdict.wrong and tally.first is None:
            print(
                f"seed {seed}: {verdict.wrong}\n{case_of(seed)}\nreplay it: python -m tests.simulation 1 --seed {seed}"
            )
        tally.add(seed, verdict)
    print("\n".join(tally.lines()))
    return int(tally.first is not None)


if __name__ == "__main__":
    sys.exit(main())
