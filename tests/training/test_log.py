"""The training log: standard JSON lines, no duplicates after a resume, no half lines after a kill."""

from __future__ import annotations

import errno
import json
import math
import sys
import types

import numpy as np
import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.training.log import TrainLog


def rows(folder) -> list[dict]:
    def no_constant(name):
        raise AssertionError(f"{name} is not standard JSON")

    return [json.loads(line, parse_constant=no_constant) for line in (folder / "train.jsonl").read_text().splitlines()]


def test_each_record_is_on_disk_at_once(tmp_path):
    log = TrainLog(tmp_path / "run")
    log.write(1, {"loss": 0.5, "stage": "fuse", "expert/weights": [0.25, 0.75], "ok": True, "none": None})
    assert rows(tmp_path / "run") == [
        {"step": 1, "loss": 0.5, "stage": "fuse", "expert/weights": [0.25, 0.75], "ok": True, "none": None}
    ]
    log.close()
    log.close()


def test_nan_tensors_and_numpy_numbers(tmp_path):
    with TrainLog(tmp_path) as log:
        log.write(
            2,
            {
                "nan": math.nan,
                "inside": {"a": [math.inf, 1]},
                "tensor": torch.tensor(0.5),
                "bad": torch.tensor(math.nan),
                "numpy": np.float32(0.25),
                "count": np.int64(3),
            },
        )
        with pytest.raises(TypeError):
            log.write(3, {"object": object()})
    assert rows(tmp_path) == [
        {"step": 2, "nan": None, "inside": {"a": [None, 1]}, "tensor": 0.5, "bad": None, "numpy": 0.25, "count": 3}
    ]


def test_a_resumed_log_has_no_duplicates(tmp_path):
    with TrainLog(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.write(step, {"run": "first"})
        log.write(2, {"run": "later"})
    (tmp_path / "train.jsonl").open("a").write('not json\n{"no": "step"}\n[1]\n{"step": "1"}\n')
    with TrainLog(tmp_path) as log:
        assert log.truncate_after(2) == f"{tmp_path / 'train.jsonl'}: 4 lines that are none of a log were left out"
        log.write(3, {"run": "second"})
    assert [(row["step"], row["run"]) for row in rows(tmp_path)] == [(1, "first"), (2, "later"), (3, "second")]
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]


def test_steps_that_a_log_has_lost_are_told(tmp_path):
    with TrainLog(tmp_path) as log:
        for step in (1, 4):
            log.write(step, {})
        assert log.truncate_after(4) == f"{log.path}: the figures of 2 of the first 4 steps are missing"
        assert log.truncate_after(1) is None
    (tmp_path / "train.jsonl").unlink()
    with TrainLog(tmp_path) as log:
        assert "3 of the first 3 steps are missing" in str(log.truncate_after(3))
        log.write(4, {})
    assert rows(tmp_path) == [{"step": 4}]


def test_truncating_to_the_start_empties_it(tmp_path):
    with TrainLog(tmp_path) as log:
        log.write(1, {})
        log.truncate_after(0)
        assert rows(tmp_path) == []
        log.write(1, {})
    assert rows(tmp_path) == [{"step": 1}]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', "x" * 200_000])
@pytest.mark.parametrize("whole", ["", '{"step": 1}\n{"step": 2}\n'])
def test_a_torn_last_line_is_dropped_on_opening(tmp_path, whole, torn):
    (tmp_path / "train.jsonl").write_text(whole + torn)
    with TrainLog(tmp_path) as log:
        log.write(3, {})
    assert [row["step"] for row in rows(tmp_path)] == ([1, 2, 3] if whole else [3])


def test_a_full_disk_is_told_plainly(tmp_path, monkeypatch):
    log = TrainLog(tmp_path)

    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(log, "_file", Full())
    with pytest.raises(AstreaError, match=r"train\.jsonl: no space left"):
        log.write(1, {})


def test_a_folder_that_cannot_be_is_told_plainly(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(AstreaError, match=r"train\.jsonl"):
        TrainLog(tmp_path / "file")


def test_tensorboard_that_is_not_installed_is_told_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(AstreaError) as caught:
        TrainLog(tmp_path, ["tensorboard"])
    assert '[tensorboard]"' in caught.value.hint


def test_tensorboard_gets_the_numbers_and_forgets_what_a_cut_off_run_wrote(tmp_path, monkeypatch):
    events: list[tuple] = []

    class Writer:
        def __init__(self, folder, purge_step):
            events.append(("open", folder.removeprefix(str(tmp_path)), purge_step))

        def add_scalar(self, name, value, step):
            events.append((name, value, step))

        def close(self):
            events.append(("close",))

    monkeypatch.setitem(sys.modules, "tensorboard", types.ModuleType("tensorboard"))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    with TrainLog(tmp_path, ["jsonl", "tensorboard"]) as log:
        log.write(5, {"loss": torch.tensor(0.5), "stage": "fuse"})
        log.truncate_after(4)
        log.write(5, {"loss": 1})
    assert events == [
        ("open", "/tensorboard", 5),
        ("loss", 0.5, 5),
        ("close",),
        ("open", "/tensorboard", 5),
        ("loss", 1, 5),
        ("close",),
    ]
