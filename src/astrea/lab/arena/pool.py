"""Executing the runs that are not there yet, several processes at a time; what is finished is never done again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from astrea.common.errors import AstreaError
from astrea.common.files import write_json_atomic
from astrea.common.paths import exists, file_guard, open_file, size_of
from astrea.common.progress import Reporter
from astrea.lab.arena.collect import read_run
from astrea.lab.arena.run import Run

POLL = 0.2
"""Seconds between two looks at the workers."""

TELL_EVERY = 60.0
"""Seconds between two looks at what running workers say of themselves."""

TAIL = 2000
"""Characters of a failed worker's output, from its end, that are passed on."""


@dataclass
class Worker:
    """A process at work on one run. told: what it said last that was passed on."""

    run: Run
    process: subprocess.Popen[bytes]
    log: Path
    began: float
    told: str = ""

    def said(self) -> str:
        """The end of what it put out."""
        with open_file(self.log) as log:
            log.seek(max(0, size_of(self.log) - TAIL))
            return log.read().decode(errors="replace").strip()


@dataclass
class Pool:
    """Executes runs into ``folder/cells`` (or the folder of another test set), ``processes`` of them at a time.

    Attributes:
        worker: the command that executes one run; it gets the paths of the spec and of the file to write.
        failed: what went wrong, by the run's file name. seconds: how long the others took.
    """

    folder: Path
    processes: int
    report: Reporter
    worker: tuple[str, ...] = (sys.executable, "-m", "astrea.lab.arena.run")
    failed: dict[str, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def run(self, runs: Sequence[Run]) -> None:
        """Run what is missing. A run of another recipe than it would have now is stale, and is done again.

        The error of a run that fails is kept in ``failed``; the others go on. On Ctrl-C the workers are ended.

        Raises:
            AstreaError: the folder cannot be written. KeyboardInterrupt: Ctrl-C.
        """
        with file_guard(self.folder):
            for cells in {run.test.cells for run in runs}:
                (self.folder / cells).mkdir(parents=True, exist_ok=True)
        waiting = self.missing(runs)
        total = len(waiting)
        running: list[Worker] = []
        told = time.perf_counter()
        # One folder for all that workers leave behind when they are killed.
        with tempfile.TemporaryDirectory(prefix="astrea-arena-", ignore_cleanup_errors=True) as work:
            try:
                while waiting or running:
                    while waiting and len(running) < self.processes:
                        running.append(self.start(waiting.pop(0), Path(work)))
                    time.sleep(POLL)
                    if time.perf_counter() - told > TELL_EVERY:
                        told = time.perf_counter()
                        self.tell(running)
                    for worker in [each for each in running if each.process.poll() is not None]:
                        running.remove(worker)
                        self.finish(worker, total - len(waiting) - len(running), total)
            finally:
                for worker in running:
                    worker.process.kill()
                    worker.process.wait()

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Those that have no file, or a stale one."""
        found, there = [], 0
        for run in runs:
            try:
                wanted = run.digests()
            except AstreaError as error:
                self.fail(run, str(error))
                continue
            path = self.path(run)
            record = read_run(path)
            if record is not None and record["digest"] in wanted:
                there += 1
                continue
            if record is not None:
                self.report.say(f"{path.name} is stale (made with other settings); it is done again")
            elif exists(path):
                self.report.say(f"{path.name} is not a run of this version; it is done again")
            found.append(run)
        if there:
            self.report.say(f"{there} of {len(runs)} runs are there already")
        return found

    def path(self, run: Run) -> Path:
        """The file of a run."""
        return self.folder / run.test.cells / f"{run.stem}.json"

    def start(self, run: Run, work: Path) -> Worker:
        """A process for one run."""
        spec, log = work / f"{run.stem}.spec.json", work / f"{run.stem}.log"
        # Absolute, since they are read elsewhere; the working directory stays, for expert classes are imported from it.
        with file_guard(spec):
            here = self.folder.absolute()
            write_json_atomic(spec, run.spec(cache=here / "cache", work=work, models=here / "models"))
        command = [*self.worker, str(spec), str(self.path(run).absolute()), "--leash"]
        with file_guard(log):
            out = log.open("wb")
        with out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # held open: when this process dies, so do its workers
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
                start_new_session=True,  # Ctrl-C is for this process alone, which then ends the others
            )
        return Worker(run, process, log, time.perf_counter())

    def tell(self, running: Sequence[Worker]) -> None:
        """How far the running ones are: their last lines, where they are new."""
        for worker in running:
            line = worker.said().rpartition("\n")[2].strip()
            if line and line != worker.told:
                worker.told = line
                self.report.say(f"{worker.run.stem}: {line}")

    def finish(self, worker: Worker, done: int, total: int) -> None:
        """A worker has ended: report how it went and how long the rest will take."""
        took = time.perf_counter() - worker.began
        if worker.process.stdin is not None:
            worker.process.stdin.close()
        record = read_run(self.path(worker.run)) if worker.process.returncode == 0 else None
        if record is None:
            self.fail(worker.run, worker.said() or f"the process ended with status {worker.process.returncode}")
            note = "failed"
        else:
            self.seconds.append(took)
            note = f"average {record['average']:.1f}"
        left = ""
        if self.seconds and done < total:
            left = f", about {rough_time(sum(self.seconds) / len(self.seconds) * (total - done) / self.processes)} left"
        self.report.track("arena", done, total, f"{worker.run.stem}: {note}")
        self.report.say(f"{worker.run.stem}: {note} in {rough_time(took)} ({done} of {total}{left})")

    def fail(self, run: Run, said: str) -> None:
        """Keep the error of a run."""
        self.failed[run.stem] = said


def rough_time(seconds: float) -> str:
    """Seconds as a rough duration."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
