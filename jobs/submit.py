"""``raylign submit``: sends a command to a Ray cluster as a job."""

from __future__ import annotations

import dataclasses
import secrets
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.job_submission import JobSubmissionClient

from actors import job_api
from jobs.backtest import BacktestConfig
from jobs.command import INTERRUPTED, guarded, split
from jobs.display import checking
from jobs.relabel import with_rescore
from jobs.shipment import SETTINGS, placed, ship
from pipeline.config import build, load_section, merge
from pipeline.errors import ConfigError
from pipeline.plugin import nearest
from pipeline.sweep.plan import base_files, load_sweep

USAGE = """
usage: raylign submit [ADDRESS] COMMAND [CONF.yaml ...] [key=value ...] [--wait]

Sends a command (align, relabel, sweep, backtest) to a Ray cluster as a job. The configuration is checked here, before
anything is sent; the code travels with it. ADDRESS is the head node's dashboard, http://HOST:8265, or what
cluster.address or RAY_ADDRESS would name. Paths must hold on all nodes: name URLs, or a shared file system.

  raylign submit http://head:8265 align conf/job/best_of_n.yaml data.input=s3://b/prompts.parquet out=s3://b/run
  raylign submit align job.yaml out=s3://b/run --wait

--wait (or wait=true) shows the job's output and ends with its exit status. The same command again resumes the run.
`raylign jobs`, `raylign logs JOB` and `raylign cancel JOB` look after it. Exit status: 0 the cluster has the job; 1 it
doesn't answer; 2 bad configuration.
"""
WAIT = ("--wait", "wait=true")
WITH_STATUS = ("align", "relabel", "sweep")
Settings = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("submit", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    address, command, rest = parse([a for a in arguments if a not in (*WAIT, "wait=false")])
    settings = CHECKS[command](rest)
    address = address or (settings.get("cluster") or {}).get("address")
    settings, local = placed(settings if command == "backtest" else in_job(settings))
    for path in local:
        print(f"warning: every node of the cluster must see the same under {path}", file=sys.stderr)
    client = job_api.connect(address)
    job = f"raylign-{command}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory() as folder:
        ship(settings, Path(folder))
        job_api.submit(
            client, entrypoint(command), Path(folder), job, {"command": command, "out": str(settings["out"])}
        )
    print(f"job {job}: {command} -> {settings['out']}")
    if any(a in WAIT for a in arguments):
        return followed(client, job)
    print(f"  raylign logs {client.get_address()} {job} --wait\n  raylign cancel {client.get_address()} {job}")
    if command in WITH_STATUS:
        print(f"  raylign status {settings['out']}")
    return 0


def entrypoint(command: str) -> str:
    """What the head's shell runs: the interpreter at the place of ours if it has one there, else its ``python``."""
    lacking = (
        f"neither {sys.executable} nor python is there: start Ray in the environment that Raylign is installed in "
        "(its bin folder on PATH)"
    )
    return (
        f'python={shlex.quote(sys.executable)}; command -v "$python" >/dev/null || python=python; '
        f'command -v "$python" >/dev/null || {{ echo {shlex.quote(lacking)} >&2; exit 127; }}; '
        f'exec "$python" -m jobs {command} {SETTINGS}'  # exec: signals reach the command, not a shell
    )


def parse(arguments: list[str]) -> tuple[str | None, str, list[str]]:
    """Address (if there is one), command, and its arguments. Raises ``ConfigError``."""
    address = None
    if arguments and arguments[0].startswith("cluster.address="):
        address, arguments = arguments[0].partition("=")[2], arguments[1:]
    elif (len(arguments) > 1 and arguments[0] not in CHECKS and arguments[1] in CHECKS) or _is_url(arguments[:1]):
        address, arguments = arguments[0], arguments[1:]
    names = ", ".join(CHECKS)
    if not arguments:
        raise ConfigError(f"name the command that the cluster is to run: {names}")
    if arguments[0] not in CHECKS:
        near = nearest(arguments[0], list(CHECKS))
        raise ConfigError(f"{arguments[0]!r} is no command that runs as a job{near}; these do: {names}")
    return address, arguments[0], arguments[1:]


def _is_url(arguments: list[str]) -> bool:
    return any(argument.startswith(("http://", "https://", "ray://")) for argument in arguments)


def followed(client: JobSubmissionClient, job: str) -> int:
    """Shows a job's output until its end; returns its exit status. Ctrl-C leaves the job alone."""
    try:
        job_api.follow(client, job)
        found = job_api.ended(client, job, job_api.SETTLE_S)
    except KeyboardInterrupt:
        print(f"\njob {job} goes on; stop it with: raylign cancel {client.get_address()} {job}", file=sys.stderr)
        return INTERRUPTED
    return job_api.exit_status(found, INTERRUPTED)


def _align(arguments: list[str]) -> Settings:
    settings = merge(*split(arguments))
    build(settings)
    return settings


def _relabel(arguments: list[str]) -> Settings:
    settings = with_rescore(merge(*split(arguments)))
    build(settings)
    return settings


def _sweep(arguments: list[str]) -> Settings:
    files, overrides = split(arguments)
    load_sweep(files, overrides, checking)
    base = base_files(merge(files, overrides).get("base"))  # a file of this machine: its settings travel in its place
    return {key: value for key, value in merge([*base, *files], overrides).items() if key != "base"}


def _backtest(arguments: list[str]) -> Settings:
    return dataclasses.asdict(load_section(BacktestConfig, arguments))


def in_job(settings: Mapping[str, Any]) -> Settings:
    """What a run is told inside its job, where the cluster is at hand."""
    return {**settings, "cluster": {**(settings.get("cluster") or {}), "address": "auto"}}


CHECKS: dict[str, Callable[[list[str]], Settings]] = {
    "align": _align,
    "relabel": _relabel,
    "sweep": _sweep,
    "backtest": _backtest,
}
"""By command: what its arguments come to, as they were written (``auto`` is decided on the cluster). All raise
``ConfigError`` for what the command itself would refuse."""


if __name__ == "__main__":
    sys.exit(main())
