"""A schedule at work: one command, given again until it succeeds, and the faults that meet it meanwhile.

Everything is real: the command in a process of its own, Ray's processes, signals, the disk. Only the engines are toys,
which take a second or two for a draw that they could make at once. The clock of a schedule is the file to which the
toy engine adds a line for every draw.
"""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import psutil

from tests.chaos import comparison
from tests.chaos.machines import Machines, holding
from tests.chaos.schedules import KILLED, NODE, SIGNALS, TITLES, Fault, Schedule, draw
from tests.e2e.commands import Command, lines
from tests.verdict import Verdict

NUMBERS = {KILLED: signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
INTERRUPTED = 130
RUN = (*dict.fromkeys(TITLES.values()), "ray::run_collect")
"""Titles of all processes that a run has on the cluster."""
SLOW = [
    "reward.latency_s=0.05",
    "generator.hang_s=4",
    "reward.hang_s=4",
    "generator.load_s=15",
    "reward.load_s=15",
    "cluster.flush_s=0.05",
]
TARGET_S = 60.0
"""How long a fault waits for a process that it can hit."""
SESSION_S = 180.0
"""No session takes so long, whatever meets it, unless it is stuck."""
LEAVE_S = 30.0
"""How long the processes of a finished run may take to end."""
RESUMES = "resumes"
TAIL = 3000
"""Characters of what a session said, of its end."""
T = TypeVar("T")


class Wrong(AssertionError):
    """A session did what none may do."""


class Chaos:
    """Schedules on one cluster. ``folder``: where their directories are made."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        self._machines, self._folder = machines, folder

    def judge(self, seed: int) -> Verdict:
        """Runs the schedule of a seed and judges what it left."""
        schedule = draw(seed)
        whole = self.undisturbed(schedule)
        made = lines(draws(whole))
        run = DisturbedRun(schedule, self._machines, self.command(schedule, made), self.place(seed), made)
        try:
            out = run.finish()
            wrong = self.remaining(out) or comparison.unverified(out) or comparison.different(out, whole)
            return Verdict(run.happened, comparison.lost(out, whole), comparison.doubled(out), wrong)
        except Wrong as error:
            return Verdict(run.happened, different=str(error))
        finally:
            run.end()

    def remaining(self, out: Path) -> str:
        """Processes of a finished run that don't end."""
        end = time.monotonic() + LEAVE_S
        while found := [*self._machines.running(RUN), *holding(out)]:
            if time.monotonic() > end:
                return f"processes are left: {found}"
            time.sleep(0.2)
        return ""

    def place(self, seed: int) -> Path:
        """Where a schedule has its directory."""
        return self._folder / f"schedule-{seed}"

    def undisturbed(self, schedule: Schedule) -> Path:
        """The directory of the run without any fault; each is made once in a folder."""
        place = self._folder / f"undisturbed-{schedule.method}-{schedule.rows}-{schedule.shard_rows}"
        if not (place / "out" / "manifest.json").exists():
            place.mkdir(exist_ok=True)
            calm = [*self._settings(schedule), *schedule.shaping, f"generator.log={place / 'draws.log'}"]
            command = Command([f"out={place / 'out'}", *calm], place / "output.txt")
            with command.start() as process:
                try:
                    status = process.wait(SESSION_S)
                finally:
                    process.kill()
            assert status == 0, command.output.read_text()
        return place / "out"

    def command(self, schedule: Schedule, made: int) -> list[str]:
        """The arguments of a schedule's command, but for its places. ``made``: draws of the undisturbed run."""
        return [*self._settings(schedule), *schedule.shaping, *schedule.cut(made), *SLOW]

    def _settings(self, schedule: Schedule) -> list[str]:
        prompts = self._folder / f"prompts-{schedule.rows}.jsonl"
        if not prompts.exists():
            prompts.write_text("".join(json.dumps({"prompt": f"prompt {i}"}) + "\n" for i in range(schedule.rows)))
        return [f"data.input={prompts}", "generator=toy", "reward=toy", f"cluster.address={self._machines.address}"]


def draws(out: Path) -> Path:
    """The log of all draws of a run."""
    return out.parent / "draws.log"


class DisturbedRun:
    """One schedule, from its first command to its last."""

    def __init__(self, schedule: Schedule, machines: Machines, arguments: list[str], place: Path, made: int) -> None:
        place.mkdir()
        self._schedule, self._machines, self._place = schedule, machines, place
        self._out, self._log = place / "out", place / "draws.log"
        self._arguments = [f"out={self._out}", f"generator.log={self._log}", *arguments]
        self._draws = made
        self._sessions = 0
        self.happened: Counter[str] = Counter()
        """Faults that hit something, by kind, and how often the command was given again."""

    def finish(self) -> Path:
        """Gives the command until it succeeds; returns the run's directory. Raises ``Wrong``."""
        self._begin()
        for fault in self._schedule.faults:
            if not self._reached(fault):
                break  # the run has finished before
            self._strike(fault)
        if (status := self._status()) != 0:
            raise self._wrong(f"ended with status {status}")
        return self._out

    def end(self) -> None:
        """Leaves no process behind, also of a schedule that went wrong."""
        self._process.kill()
        self._process.wait()
        for process in (*self._machines.running(RUN), *holding(self._out)):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def _begin(self) -> None:
        self._sessions += 1
        self._command = Command(self._arguments, self._place / f"session-{self._sessions}.txt")
        self._process = self._command.start()
        self._begun = time.monotonic()

    def _reached(self, fault: Fault) -> bool:
        """Waits for the fault's moment; whether the session still runs then."""
        moment: float | None = None
        while self._process.poll() is None:
            self._check_time()
            if moment is None and lines(self._log) >= fault.at * self._draws:
                moment = time.monotonic() + fault.pause
            if moment is not None and time.monotonic() >= moment:
                return True
            time.sleep(0.02)
        return False

    def _strike(self, fault: Fault) -> None:
        if fault.kind in SIGNALS:
            self._signal(fault.kind)
        elif fault.kind == NODE:
            if nodes := self._machines.inhabited(RUN):
                self.happened[fault.kind] += 1
                self._machines.lose(_picked(nodes, fault))
                self._machines.add()
        elif targets := self._targets(TITLES[fault.kind]):
            with contextlib.suppress(psutil.NoSuchProcess):
                _picked(targets, fault).send_signal(signal.SIGSTOP if "freezes" in fault.kind else signal.SIGKILL)
                self.happened[fault.kind] += 1

    def _signal(self, kind: str) -> None:
        """Has the driver end, and gives the command again at once."""
        works = self._command.output.stat().st_size > 0  # else Python itself may still be starting
        self._process.send_signal(NUMBERS[kind])
        status = self._status()
        if status == 0:
            return  # it had just finished
        self.happened[kind] += 1
        if works and status != (-signal.SIGKILL if kind == KILLED else INTERRUPTED):
            raise self._wrong(f"ended with status {status} on {kind}")
        self.happened[RESUMES] += 1
        self._begin()

    def _targets(self, title: str) -> list[psutil.Process]:
        """Waits for processes that a fault can hit; none if the session ends before, or has none of that kind."""
        end = time.monotonic() + TARGET_S
        while self._process.poll() is None and time.monotonic() < end:
            if found := self._machines.running([title]):
                return found
            time.sleep(0.02)
        return []

    def _status(self) -> int:
        """The session's exit status. Raises ``Wrong`` if it is stuck, or if people get to see a traceback."""
        while (status := self._process.poll()) is None:
            self._check_time()
            time.sleep(0.05)
        return status

    def _check_time(self) -> None:
        if time.monotonic() - self._begun > SESSION_S:
            raise self._wrong(f"is stuck after {SESSION_S:.0f} s")

    def _wrong(self, what: str) -> Wrong:
        said = self._command.output.read_text(errors="replace")
        return Wrong(f"session {self._sessions} {what} ({dict(self.happened)}): {said[-TAIL:]}")


def _picked(choices: Sequence[T], fault: Fault) -> T:
    return choices[int(fault.pick * len(choices))]
