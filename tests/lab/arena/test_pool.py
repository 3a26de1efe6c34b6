"""The pool with workers that only pretend: what is missing is run, what is there is not, what fails is told."""

from __future__ import annotations

import _thread
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from astrea.lab.arena import pool as pool_module
from astrea.lab.arena.pool import Pool, rough_time
from astrea.lab.arena.run import Run
from astrea.lab.arena.variants import Variant

STUB = """
import json, os, sys, time
from pathlib import Path
spec, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
stem = out.stem
here = Path(os.environ["STUB"])
with open(here / "ran", "a") as log:
    log.write(f"{stem} {os.getpid()} {os.environ['OMP_NUM_THREADS']}\\n")
if os.environ.get("SLOW"):
    print("align: 1 of 9\\n\\ntune: 3 of 9, 5 s left", flush=True), time.sleep(0.6)
if "mova" in stem:
    print("this one cannot be"), sys.exit(3)
if "mova" in stem:
    time.sleep(60)
record = json.loads((here / "record.json").read_text())
digests = json.loads((here / "digests.json").read_text())
out.write_text(json.dumps({**record, "name": spec["variant"]["name"], "digest": digests[stem]}))
"""


def one(name: str, *base: str) -> Run:
    return Run("tiny", base, Variant(name, "strategy", (f"model.strategy={name}",), ""), 0)


@pytest.fixture
def stub(tmp_path: Path, make_record, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for a worker that writes what it is asked for, and what it did into ``ran``."""
    here = tmp_path / "stub"
    here.mkdir()
    (here / "stub.py").write_text(STUB)
    (here / "record.json").write_text(json.dumps(make_record()))
    (here / "ran").write_text("")
    monkeypatch.setenv("STUB", str(here))
    return here


def execute(stub: Path, said, *runs: Run, processes: int = 2) -> Pool:
    known = {each.stem: each.digest() for each in runs if "tune.step=" not in "".join(each.base)}
    (stub / "digests.json").write_text(json.dumps(known))
    pool = Pool(stub.parent / "arena", processes, said, worker=(sys.executable, str(stub / "stub.py")))
    pool.run(runs)
    return pool


def ran(stub: Path) -> list[str]:
    return sorted(line.split()[0] for line in (stub / "ran").read_text().splitlines())


def test_what_is_there_is_not_done_again(stub, said):
    execute(stub, said, one("average"))
    path = stub.parent / "arena" / "cells" / "strategy-average-0.json"
    before = path.stat().st_mtime_ns
    pool = execute(stub, said, one("average"), one("astrea"))
    assert ran(stub) == ["strategy-astrea-0", "strategy-average-0"]
    assert path.stat().st_mtime_ns == before
    assert "1 of 2 runs are there already" in said.text
    assert pool.failed == {}
    assert said.done == [1, 1]
    assert {line.split()[2] for line in (stub / "ran").read_text().splitlines()} == {"1"}  # one thread each


def test_a_stale_run_is_reported_and_done_again(stub, said):
    execute(stub, said, one("average"))
    execute(stub, said, one("average", "tune.steps=11"))
    assert ran(stub) == ["strategy-average-0"] * 2
    assert "strategy-average-0.json is stale" in said.text


def test_a_torn_file_is_done_again(stub, said):
    execute(stub, said, one("average"))
    path = stub.parent / "arena" / "cells" / "strategy-average-0.json"
    path.write_text(path.read_text()[:100])
    execute(stub, said, one("average"))
    assert "not a run of this version" in said.text
    assert json.loads(path.read_text())["name"] == "average"


def test_a_failing_run_is_reported_and_the_others_go_on(stub, said):
    pool = execute(stub, said, one("mova"), one("average"), processes=1)
    assert pool.failed == {"strategy-mova-0": "this one cannot be"}
    assert (stub.parent / "arena" / "cells" / "strategy-average-0.json").is_file()
    assert not (stub.parent / "arena" / "cells" / "strategy-mova-0.json").exists()
    again = execute(stub, said, one("mova"), one("average"), processes=1)
    assert ran(stub) == ["strategy-average-0", "strategy-mova-0", "strategy-mova-0"]
    assert list(again.failed) == ["strategy-mova-0"]


def test_what_a_running_one_says_last_is_passed_on_once(stub, said, monkeypatch):
    monkeypatch.setenv("SLOW", "1")
    monkeypatch.setattr(pool_module, "TELL_EVERY", 0.1)
    execute(stub, said, one("average"))
    assert said.text.count("strategy-average-0: tune: 3 of 9, 5 s left") == 1
    assert "align" not in said.text


def test_a_variant_that_is_no_recipe_fails_before_anything_runs(stub, said):
    pool = execute(stub, said, one("average", "tune.step=5"))
    assert "tune.step" in pool.failed["strategy-average-0"]
    assert ran(stub) == []


def test_ctrl_c_ends_the_workers(stub, said):
    def interrupt() -> None:
        while not ran(stub):
            time.sleep(0.05)
        _thread.interrupt_main()

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        execute(stub, said, one("mova"))
    pid = int((stub / "ran").read_text().split()[1])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_folder_that_cannot_be_written(tmp_path, said):
    (tmp_path / "file").write_text("")
    with pytest.raises(AstreaError, match="file"):
        Pool(tmp_path / "file", 1, said).run([one("average")])


def test_a_worker_ends_with_its_parent(tmp_path):
    (tmp_path / "spec.json").write_text("{}")
    code = "import sys, time, astrea.lab.arena.run as run\n"
    code += "run.measure = lambda spec, report: print('up', flush=True) or time.sleep(60)\n"
    code += "run.main(sys.argv[1:])"
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "spec.json"), str(tmp_path / "out.json"), "--leash"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"up\n"
    assert worker.poll() is None
    worker.communicate(timeout=20)  # closes standard input, as a parent's death does
    assert worker.returncode == 1
    assert not (tmp_path / "out.json").exists()


def test_rough_durations():
    assert [rough_time(s) for s in (59.6, 600, 3 * 3600)] == ["60 s", "10 min", "3.0 h"]
