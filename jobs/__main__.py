"""``raylign COMMAND [CONF.yaml ...] [key=value ...]``: finds the command's module and runs its ``main``."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version

from pipeline.plugin import nearest

COMMANDS = {
    "align": "runs a method over a data set",
    "relabel": "scores and refreshes an existing data set, and exports training data",
    "sweep": "runs a grid of runs that share engines and draws, and reports on them",
    "plan": "says what a run will cost at most, before anything is spent",
    "backtest": "plays budget policies on recorded or synthetic rewards",
    "bench": "measures throughput against the engine-only bound",
    "report": "draws quality against cost of finished runs, on one page",
    "verify": "proves that a run's output is complete, without duplicates, and unchanged",
    "status": "says where a run stands, while it runs or after",
    "submit": "sends a command to a Ray cluster as a job",
    "manifest": "writes a run as a RayJob for Kubernetes",
    "jobs": "lists a cluster's jobs",
    "logs": "prints the output of a job",
    "cancel": "stops a job, so that the same command can go on with it",
    "demo": "compares the first draw, best-of-N and a vote on the embedded demo models",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status (0 done, 1 failed, 2 bad configuration or input, 3 rows rejected)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: raylign COMMAND [CONF.yaml ...] [key=value ...]\n")
        print("\n".join(f"  {name:8} {does}" for name, does in COMMANDS.items()))
        print("\nraylign COMMAND --help says more about one of them.")
        return 0 if arguments else 2
    command, *rest = arguments
    if command == "--version":
        print(f"raylign {version('raylign')}")
        return 0
    if command not in COMMANDS:
        known = sorted(COMMANDS)
        print(
            f"raylign: no command is called {command!r}{nearest(command, known)}; there are: {', '.join(known)}",
            file=sys.stderr,
        )
        return 2
    status: int = import_module(f"jobs.{command}").main(rest)
    return status


if __name__ == "__main__":
    sys.exit(main())
