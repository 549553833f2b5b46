"""One run at a time in an output directory: the run that writes there holds a lease, a small file with a heartbeat.

Leases are numbered files ``_lease/NNNNNN.json``; the highest number holds. To take a directory over is to create the
next number, which the file system lets one alone do (see ``Folder.create``). Whoever finds a lease asks whether its
holder still lives:

- on the same machine, from the process's number and birth: a killed run's lease ends at once;
- elsewhere, from the heartbeat, renewed every 5 s: a run that was seen in the last 30 s lives. An older heartbeat is
  watched for a while before the lease is taken, so that a wrong clock alone never takes it from a run that lives.

A holder that finds another in its place (it was asleep, say) stops. A journal needs no lease: each run adds parts
under its own name.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import RaylignError, RunDirectoryError, RunFailed
from pipeline.storage.folder import Folder

FOLDER = "_lease"
BEAT_S = 5.0
EXPIRY_S = 30.0
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""The variable in which a Ray job finds what it was submitted with."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease. ``place``: the machine and its process numbers' space; ``born``: the process's start there.

    ``since`` and ``beat`` are seconds since 1970 by the holder's own clock. ``job``: the Ray job that it is, if any.
    """

    token: str
    host: str
    place: str
    pid: int
    born: str
    since: float
    beat: float
    job: str = ""

    def describe(self) -> str:
        """For a person: who, where, since when, and when it was last seen."""
        since = datetime.fromtimestamp(self.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        seen = max(0, round(time.time() - self.beat))
        who = f"process {self.pid} on {self.host}" + (f" (Ray job {self.job})" if self.job else "")
        return f"{who}, there since {since}, last seen {seen} s ago"


class Lease:
    """A lease held by this process, renewed by a thread of its own until ``release``."""

    def __init__(self, folder: Folder, number: int, holder: Holder, existed: bool) -> None:
        self._folder, self._number, self._holder, self._existed = folder, number, holder, existed
        self._lost: str | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises ``RunFailed`` if another run has taken the directory over."""
        if self._lost is not None:
            raise RunFailed(self._lost)

    def release(self) -> None:
        """Ends it. The directory goes too where this lease made it and nothing else was written."""
        self._done.set()
        self._thread.join()
        with contextlib.suppress(OSError, RaylignError):  # a lease that stays ends with this process
            number, holder = current(self._folder)
            if holder is not None and holder.token == self._holder.token:
                self._folder.remove(_name(number))
            self._folder.remove_empty(FOLDER)
            if not self._existed:
                self._folder.remove_empty("")

    def _renew(self) -> None:
        while not self._done.wait(BEAT_S):
            try:
                self._beat()
            except Exception:  # a storage that fails for a while; the next beat may reach it
                continue
            if self._lost is not None:
                return

    def _beat(self) -> None:
        number, holder = current(self._folder)
        if holder is None or holder.token != self._holder.token:
            who = "another run" if holder is None else holder.describe()
            self._lost = (
                f"{self._folder.url} was taken over by {who}, since this run gave no sign of life for more than "
                f"{EXPIRY_S:.0f} s; nothing that was drawn is lost: the same command goes on when that run has ended"
            )
            return
        self._folder.write(_name(number), _to_json(_now(self._holder)))


def take(folder: Folder) -> Lease:
    """The lease of a directory. Raises ``RunDirectoryError`` that names the run that holds it."""
    existed = folder.exists("")
    while True:
        before = set(folder.names(FOLDER, ".json"))
        number = refuse_if_held(folder)
        holder, ours = _ourselves(), _name(number + 1)
        if folder.create(ours, _to_json(holder)):
            if {*folder.names(FOLDER, ".json")} - {ours.removeprefix(f"{FOLDER}/")} <= before:
                break
            # others have come and gone meanwhile, or a listing missed one that was taking over: look again
            folder.remove(ours)
    for old in range(number, 0, -1):
        if not folder.exists(_name(old)):
            break
        folder.remove(_name(old))
    return Lease(folder, number + 1, holder, existed)


def refuse_if_held(folder: Folder) -> int:
    """Raises ``RunDirectoryError`` if a living run holds the directory; else the number of the lease left there."""
    number, holder = current(folder)
    if holder is not None and alive(folder, holder):
        here = holder.place == _place()
        after = "" if here else f" A run that has crashed holds it for {EXPIRY_S:.0f} s after it was last seen."
        stop = f"stop it (`raylign cancel ADDRESS {holder.job}`)" if holder.job else "stop it"
        raise RunDirectoryError(
            f"{folder.url} is in use by another run: {holder.describe()}. Wait for it or {stop}, "
            f"or choose another out=.{after}"
        )
    return number


def current(folder: Folder) -> tuple[int, Holder | None]:
    """The highest lease's number and holder; 0 and None if there is none."""
    while names := folder.names(FOLDER, ".json"):
        name = names[-1]
        with contextlib.suppress(FileNotFoundError):  # it was released, or taken over: look again
            return int(name.removesuffix(".json")), Holder(**folder.read_json(f"{FOLDER}/{name}"))
    return 0, None


def alive(folder: Folder, holder: Holder) -> bool:
    """Whether the holder still runs. At once, but for a heartbeat that seems to have ended, which is watched."""
    if holder.place == _place():
        return _born(holder.pid) == holder.born
    if abs(time.time() - holder.beat) <= EXPIRY_S:
        return True
    time.sleep(2.5 * BEAT_S)
    _, now = current(folder)
    return now is not None and now != holder


def _name(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"


def _ourselves() -> Holder:
    now = time.time()
    me = os.getpid()
    return Holder(uuid.uuid4().hex, socket.gethostname(), _place(), me, _born(me), now, now, _job())


def _job() -> str:
    """The Ray job that this process is, as Ray tells its driver; empty if it is none."""
    told = json.loads(os.environ.get(JOB, "{}"))
    return str(told.get("metadata", {}).get("job_submission_id", ""))


def _now(holder: Holder) -> Holder:
    return Holder(**{**asdict(holder), "beat": time.time()})


def _to_json(holder: Holder) -> bytes:
    return json.dumps(asdict(holder), indent=1).encode()


def _place() -> str:
    """Where process numbers mean the same: one boot of one machine, or of one container on it."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return f"{socket.gethostname()} {boot.read_text().strip()} {space.readlink()}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode():x}"


def _born(pid: int) -> str:
    """What tells a process from a later one of the same number; empty if there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return "" if Path("/proc/self").exists() or not _signalled(pid) else "running"
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _signalled(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
