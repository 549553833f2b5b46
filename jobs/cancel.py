"""``raylign cancel``: stops a job on a Ray cluster, so that the same command can go on with it."""

from __future__ import annotations

import sys

from actors import job_api
from jobs.command import guarded
from jobs.logs import named_job

USAGE = """
usage: raylign cancel [ADDRESS] JOB [cluster.address=...]

Stops a submitted job as Ctrl-C stops a command: what was drawn is kept, and the same submit goes on from there.

  raylign cancel http://head:8265 raylign-align-1c0ffee5
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("cancel", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    address, job = named_job(arguments)
    client = job_api.connect(address)
    found = job_api.known(client, job)
    if found.status.is_terminal():
        print(f"job {job} has ended already: {str(found.status).lower()}")
        return 0
    found = job_api.cancel(client, job)
    print(f"job {job} is {str(found.status).lower()}; submit the same command to go on where it stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
