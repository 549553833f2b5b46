"""``raylign logs``: the output of a job on a Ray cluster."""

from __future__ import annotations

import sys

from actors import job_api
from jobs.command import guarded, split
from jobs.submit import WAIT, followed
from pipeline.errors import ConfigError

USAGE = """
usage: raylign logs [ADDRESS] JOB [cluster.address=...] [--wait]

Prints what a submitted job has written so far. --wait goes on until the job ends, and ends with its exit status.

  raylign logs http://head:8265 raylign-align-1c0ffee5
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("logs", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    address, job = named_job([a for a in arguments if a not in WAIT])
    client = job_api.connect(address)
    job_api.known(client, job)
    if any(a in WAIT for a in arguments):
        return followed(client, job)
    print(client.get_job_logs(job), end="")
    return 0


def named_job(arguments: list[str]) -> tuple[str | None, str]:
    """Address, if one is given, and job of a command about one job. Raises ``ConfigError``."""
    names, overrides = split(arguments)
    address = cluster_address(overrides)
    if len(names) not in (1, 2):
        raise ConfigError(f"name one job, after the cluster's address if need be, not {len(names)} things")
    if "://" in names[-1]:
        raise ConfigError(f"name one job, after {names[-1]}: `raylign jobs {names[-1]}` lists them")
    return (names[0] if len(names) == 2 else address), names[-1]


def cluster_address(overrides: list[str]) -> str | None:
    """What ``cluster.address=`` says; nothing else can be set. Raises ``ConfigError``."""
    address = None
    for override in overrides:
        key, _, address = override.partition("=")
        if key != "cluster.address":
            raise ConfigError(f"unknown key {key!r}; valid here: cluster.address")
    return address


if __name__ == "__main__":
    sys.exit(main())
