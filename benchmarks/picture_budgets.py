"""What pictures that are made to cost much really cost: memory and time of each, in a process that does nothing else.

    PYTHONPATH=tests/fuzz python benchmarks/picture_budgets.py --count 1000

Every eighth asks for as much as an attacker would, the others for a tenth. Memory is the peak above what the process
held before the first (Linux: ``VmHWM`` is set back for every picture); time is processor time. Ends with 1 if a picture
took more than 1 GB or 10 s, or ended in anything but a tensor or an `AstreaError`.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

from process_memory import forget_peak, status_bytes

MOST_MEGABYTES, MOST_SECONDS, PATIENCE = 1000, 10.0, 120.0


def serve(pipe: Connection) -> None:
    """Read pictures whose paths come through a pipe; send back how each ended, megabytes and seconds."""
    from astrea import AstreaError
    from astrea.model.image_processing import AstreaImageProcessor

    warnings.simplefilter("ignore")
    processor = AstreaImageProcessor(64)
    pipe.send("ready")
    before = memory("VmRSS")  # once: what an earlier picture left allocated belongs to the peak of a later one
    while path := pipe.recv():
        forget_peak()
        began = time.process_time()
        try:
            processor(path)
            end = "read"
        except AstreaError as error:
            end = "refused: " + error.message.split(path)[-1].strip()
        except BaseException as error:
            end = f"FAILED: {error!r:.200}"
        pipe.send((end, memory("VmHWM") - before, time.process_time() - began))


def memory(what: str) -> int:
    """A line of this process's status, in MB."""
    return status_bytes(what) // 10**6


class Reader:
    """The process that reads pictures; a new one, where one does not answer."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        self.pipe.recv()  # it is ready

    def read(self, path: Path) -> tuple[str, int, float] | None:
        self.pipe.send(str(path))
        if self.pipe.poll(PATIENCE):
            return self.pipe.recv()
        self.process.kill()
        return None


def main() -> int:
    from hostile_pictures import FAMILIES, hostile_picture

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    reader = Reader()
    rows: list[tuple[str, int, str, int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture"
        for seed in range(given.count):
            large = seed // len(FAMILIES) % 8 == 0
            family, data = hostile_picture(seed, 1.0 if large else 0.1)
            path.write_bytes(data)
            found = reader.read(path)
            rows.append((family, seed, *(found or ("FAILED: no answer", 0, PATIENCE))))
            reader = reader if found else Reader()
            if seed % 50 == 49:
                print(f"{seed + 1} of {given.count}", file=sys.stderr, flush=True)
    reader.pipe.send("")
    bad = [row for row in rows if row[2].startswith("FAILED") or row[3] > MOST_MEGABYTES or row[4] > MOST_SECONDS]
    print(f"{'family':<20} {'pictures':>8} {'read':>5} {'refused':>7} {'most MB':>8} {'most s':>7}")
    for family in dict.fromkeys(row[0] for row in rows):
        mine = [row for row in rows if row[0] == family]
        ends = collections.Counter(row[2].split(":")[0] for row in mine)
        most = max(row[3] for row in mine), max(row[4] for row in mine)
        print(f"{family:<20} {len(mine):>8} {ends['read']:>5} {ends['refused']:>7} {most[0]:>8} {most[1]:>7.1f}")
    print(f"{len(bad)} of {len(rows)} above {MOST_MEGABYTES} MB or {MOST_SECONDS:.0f} s, or failed")
    for row in bad:
        print(*row)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=1))
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
