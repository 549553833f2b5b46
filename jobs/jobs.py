"""``raylign jobs``: the jobs that a Ray cluster has."""

from __future__ import annotations

import sys
from datetime import datetime

from actors import job_api
from jobs.command import guarded, split
from jobs.logs import cluster_address
from pipeline.errors import ConfigError

USAGE = """
usage: raylign jobs [ADDRESS] [cluster.address=...]

Lists the jobs that were submitted to a cluster, oldest first, one per line: job, status, start, out.

  raylign jobs http://head:8265
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("jobs", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    names, overrides = split(arguments)
    if len(names) > 1:
        raise ConfigError(f"name one cluster, not {len(names)}")
    client = job_api.connect(names[0] if names else cluster_address(overrides))
    found = job_api.jobs(client)
    if not found:
        print(f"the cluster at {client.get_address()} has had no jobs yet", file=sys.stderr)
    for job in found:
        started = datetime.fromtimestamp((job.start_time or 0) / 1000).strftime("%Y-%m-%d %H:%M:%S")
        print(f"{job.submission_id}  {str(job.status).lower():9}  {started}  {(job.metadata or {}).get('out', '')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
