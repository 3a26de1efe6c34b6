"""Runs somebody else's worst: each case in a child of its own, forked from a warm parent, with its time, its memory,
and what it touched.

A case may end well or in an `AstreaError`. A traceback of any other kind, a hang, too much memory, a file read outside
of where it may, and anything executed are offences.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import sysconfig
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 10.0
"""Of processor time, and six times as much by the clock: other work may share the machine."""

MEMORY = 1 << 30
"""Bytes over what the parent holds already."""

RUNS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pickle.find_class", "socket.connect", "ctypes.dlopen")
"""Events of Python's audit hooks that mean that something is executed or fetched."""

OURS = "tokenizer_trial.py"
"""The one program that Astrea itself starts."""


@dataclass(frozen=True)
class Case:
    """One thing to try. run: does it, in the child. folder: where it may read, besides Python's own folders."""

    name: str
    run: Callable[[], object]
    folder: Path


@dataclass(frozen=True)
class Outcome:
    """What became of a case. error: "" = it ended well; otherwise the type and first line of what it raised.
    offences: what it must not have done."""

    name: str
    seconds: float
    megabytes: float
    error: str
    offences: list[str] = field(default_factory=list)


def run_case(case: Case, *, seconds: float = SECONDS, memory: int = MEMORY) -> Outcome:
    """Run one case in a child."""
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _in_the_child(case, writing, seconds, memory)
    os.close(writing)
    told = _told(reading, deadline=start + 6 * seconds)
    if told is None:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    spent = used.ru_utime + used.ru_stime
    if told:
        found = json.loads(told)
        offences = found["offences"]
        if spent > seconds:
            offences.append(f"took {spent:.1f} s")
        if found["megabytes"] * (1 << 20) > memory:
            offences.append(f"took {found['megabytes']:,.0f} MB")
        return Outcome(case.name, spent, found["megabytes"], found["error"], offences)
    code = os.waitstatus_to_exitcode(status)
    late = told is None or code == -signal.SIGXCPU
    return Outcome(case.name, spent, 0.0, f"ended by {code}", ["hang" if late else f"ended by signal {-code}"])


def _told(descriptor: int, deadline: float) -> bytes | None:
    """All that the child writes; None if the deadline passes first."""
    parts = []
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while (left := deadline - time.monotonic()) > 0:
            if select.select([pipe], [], [], left)[0]:
                part = pipe.read(1 << 16)
                if not part:
                    return b"".join(parts)
                parts.append(part)
    return None


def _in_the_child(case: Case, writing: int, seconds: float, memory: int) -> None:
    """Run the case, tell, and end: never returns."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # thousands of warnings
        base = _peak()
        hard = int(seconds * 1.5) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # Well above the limit, so that the limit is measured and the machine is safe.
        most = _addresses() + 4 * memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        watch = Watch(case.folder)
        sys.addaudithook(watch)
        os.chdir(case.folder)
        error, offences = "", []
        try:
            case.run()
        except BaseException as caught:
            error = f"{type(caught).__name__}: {(str(caught).splitlines() or [''])[0][:300]}"
            if type(caught).__name__ != "AstreaError":
                last = traceback.extract_tb(caught.__traceback__)[-1]
                offences.append(f"traceback {error} at {Path(last.filename).name}:{last.lineno}")
        watch.on = False
        offences += sorted(watch.offences)
        told = {"error": error, "megabytes": (_peak() - base) / (1 << 20), "offences": offences}
        os.write(writing, json.dumps(told).encode()[: 1 << 15])
    finally:
        os._exit(0)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _addresses() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Watch:
    """An audit hook that notes what a case reads outside of its folder, and what it executes."""

    def __init__(self, folder: Path) -> None:
        self.on = True
        self.offences: set[str] = set()
        self.folder = str(folder.resolve())
        source = Path(__file__).resolve().parents[2]
        own = [self.folder, sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path, str(source)]
        self.allowed = tuple({str(Path(place).resolve()) for place in own if place} | {"/dev", "/proc", "/sys", "/usr"})

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode = arguments[0], arguments[1]
            if isinstance(path, str | bytes) and not (isinstance(mode, str) and set(mode) & set("wax")):
                real = os.path.realpath(os.fsdecode(path))
                if not real.startswith(self.allowed):
                    self.offences.add(f"read {real}")
        elif event == "subprocess.Popen":
            if not any(str(word).endswith(OURS) for word in arguments[1]):
                self.offences.add(f"started {arguments[1]!r:.200}")
        elif event.startswith(RUNS):
            self.offences.add(f"{event} {arguments!r:.200}")
        elif event == "import" and isinstance(arguments[1], str) and arguments[1].startswith(self.folder):
            self.offences.add(f"imported {arguments[1]}")


def summary(outcomes: Iterable[Outcome], limit: int = MEMORY) -> dict[str, Any]:
    """Counts over all outcomes, and every offence by name."""
    outcomes = list(outcomes)
    kinds: Counter[str] = Counter()
    for outcome in outcomes:
        for offence in outcome.offences:
            kinds[_kind(offence)] += 1
    return {
        "cases": len(outcomes),
        "ended_well": sum(not outcome.error for outcome in outcomes),
        "astrea_errors": sum(outcome.error.startswith("AstreaError") for outcome in outcomes),
        **{kind: kinds[kind] for kind in ("tracebacks", "hangs", "killed", "memory", "reads_outside", "executed")},
        "longest_seconds": round(max((outcome.seconds for outcome in outcomes), default=0.0), 2),
        "most_megabytes": round(max((outcome.megabytes for outcome in outcomes), default=0.0), 1),
        "offences": {outcome.name: outcome.offences for outcome in outcomes if outcome.offences},
    }


def _kind(offence: str) -> str:
    if offence.startswith("took"):
        return "hangs" if offence.endswith(" s") else "memory"
    starts = {"traceback": "tracebacks", "hang": "hangs", "ended": "killed", "read": "reads_outside"}
    return next((kind for start, kind in starts.items() if offence.startswith(start)), "executed")
