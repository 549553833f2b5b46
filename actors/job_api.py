"""Ray's job API: finding a cluster's, handing it a job, and following or stopping one that it has."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from actors.cluster import ANSWER_S, ENVIRONMENT, unreachable
from pipeline.errors import ConfigError, RunFailed

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that name a cluster, where no argument does."""
STOP_S = 60
"""How long a cancelled job may take to end cleanly before Ray kills it (its own default is three seconds)."""
SETTLE_S = 15.0
POLL_S = 0.25
YOUNG = "No available agent"
"""What a cluster says whose nodes have only just begun."""
YOUNG_S, AGAIN_S = 60.0, 2.0
"""How long such a cluster is asked again, and how often."""


def connect(address: str | None) -> JobSubmissionClient:
    """The job API of a cluster, named by its dashboard (``http://HOST:8265``), its own address, or ``auto``.

    Without an address the environment's counts. Raises ``ConfigError`` if none is named, ``RunFailed`` within seconds
    if nothing answers there.
    """
    address = address or next((os.environ[name] for name in ADDRESSES if os.environ.get(name)), None)
    if not address:
        raise ConfigError("no cluster is named: give its address (http://HOST:8265), cluster.address= or RAY_ADDRESS")
    if error := unreachable(address):
        raise RunFailed(_no_jobs(address, error))
    url = address
    if "://" not in address and address != "auto" and _is_dashboard(f"http://{address}"):
        url = f"http://{address}"
    if url.startswith("http") and not _is_dashboard(url):
        raise RunFailed(_no_jobs(address, "what answers is no Ray dashboard"))
    logging.getLogger("ray").setLevel(logging.WARNING)  # it tells of every package and socket
    try:
        with _unnamed():
            return JobSubmissionClient(url)
    except AuthenticationError:
        raise RunFailed(
            f"cluster {address!r} lets nobody in without its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH "
            "to the file that has it (or RAY_AUTH_TOKEN)"
        ) from None
    except (ConnectionError, RuntimeError, ValueError, SystemExit) as error:
        raise RunFailed(_no_jobs(address, error)) from None


def submit(client: JobSubmissionClient, entrypoint: str, folder: Path, job: str, metadata: Mapping[str, str]) -> None:
    """Hands over a folder and the command to run in it, as job ``job``. Raises ``RunFailed`` if it is refused."""
    environment = {**ENVIRONMENT, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}
    runtime = {"working_dir": str(folder), "env_vars": environment}
    until = time.monotonic() + YOUNG_S
    while True:
        try:
            client.submit_job(entrypoint=entrypoint, runtime_env=runtime, submission_id=job, metadata=dict(metadata))
            return
        except (RuntimeError, OSError, ValueError) as error:
            young = YOUNG in str(error)
            if not young or time.monotonic() > until:
                hint = "; dashboard_agent.log on its head says why that has none (a port in use, say)" if young else ""
                raise RunFailed(f"the cluster at {client.get_address()} took no job: {error}{hint}") from None
        time.sleep(AGAIN_S)


def jobs(client: JobSubmissionClient) -> list[Any]:
    """What the cluster knows of its submitted jobs (Ray's ``JobDetails``), oldest first."""
    return sorted((j for j in client.list_jobs() if j.submission_id), key=lambda j: j.start_time or 0)


def known(client: JobSubmissionClient, job: str) -> Any:
    """What the cluster knows of one job. Raises ``ConfigError`` that names the others if there is none."""
    there = {j.submission_id: j for j in jobs(client)}
    if job not in there:
        others = f"it has {', '.join(list(there)[-10:])}" if there else "it has none yet"
        raise ConfigError(f"the cluster at {client.get_address()} has no job {job!r}; {others}")
    return there[job]


def follow(client: JobSubmissionClient, job: str) -> None:
    """Prints a job's output as it comes, until the job has ended."""

    async def tail() -> None:
        async for text in client.tail_job_logs(job):
            print(text, end="", flush=True)

    asyncio.run(tail())


def ended(client: JobSubmissionClient, job: str, seconds: float) -> Any:
    """What the cluster says of a job at its end. Raises ``RunFailed`` if it hasn't ended after so long."""
    end = time.monotonic() + seconds
    while not (found := client.get_job_info(job)).status.is_terminal():
        if time.monotonic() > end:
            raise RunFailed(f"job {job} is {str(found.status).lower()} still after {seconds:g} s")
        time.sleep(POLL_S)
    return found


def exit_status(found: Any, interrupted: int) -> int:
    """The command's own exit status, of a job that has ended. Raises ``RunFailed`` if it never came so far."""
    if found.status == JobStatus.STOPPED:
        return interrupted
    if found.driver_exit_code is None and found.status == JobStatus.FAILED:
        raise RunFailed(f"job {found.submission_id} failed: {found.message}")
    return int(found.driver_exit_code or 0)


def cancel(client: JobSubmissionClient, job: str) -> Any:
    """Stops a job as SIGTERM does, and waits until it has ended; returns what the cluster says of it then."""
    client.stop_job(job)
    return ended(client, job, STOP_S + SETTLE_S)


def _is_dashboard(url: str) -> bool:
    """Whether a Ray dashboard answers there; one that wants a token does too, and Ray's own client brings it."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/api/version", timeout=ANSWER_S) as reply:
            return b"ray_version" in reply.read()
    except HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError, HTTPException):  # the last is what a server that speaks no HTTP makes of it
        return False


@contextmanager
def _unnamed() -> Iterator[None]:
    """Without the variables that would win against the address that was given."""
    before = {name: os.environ.pop(name) for name in ADDRESSES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _no_jobs(address: str, error: object) -> str:
    return (
        f"cluster {address!r}: no job API answers there ({error}); give the address of the head node's dashboard, "
        "which `ray start --head` prints (http://HOST:8265)"
    )
