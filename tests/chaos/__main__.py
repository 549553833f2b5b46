"""``python -m tests.chaos 20 --seed 0``: that many schedules on a real cluster; exit status 1 if anything is wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.disturbed import Chaos
from tests.chaos.machines import Machines
from tests.chaos.schedules import draw
from tests.verdict import Tally


def main() -> int:
    """Runs the schedules, and says what happened in them and what came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("schedules", type=int, nargs="?", default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the first schedule; the others follow")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no schedule after so many")
    parser.add_argument("--folder", type=Path, help="of the runs; undisturbed ones are kept there and used again")
    arguments = parser.parse_args()
    folder: Path = arguments.folder or Path(tempfile.mkdtemp(prefix="raylign-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"directories of the runs: {folder}", flush=True)
    tally, end = Tally(), time.monotonic() + 60 * arguments.minutes
    with Machines() as machines:
        chaos = Chaos(machines, folder)
        for seed in range(arguments.seed, arguments.seed + arguments.schedules):
            if time.monotonic() > end:
                break
            verdict = chaos.judge(seed)
            tally.add(seed, verdict)
            print(f"seed {seed}: {draw(seed).method}, {dict(verdict.happened)}", flush=True)
            if verdict.wrong:
                print(f"{verdict.wrong}\n{draw(seed)}\nreplay it: python -m tests.chaos 1 --seed {seed}", flush=True)
    print("\n".join(tally.lines()))
    return int(tally.first is not None)


if __name__ == "__main__":
    sys.exit(main())
