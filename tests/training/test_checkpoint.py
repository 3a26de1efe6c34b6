"""Checkpoints: bit-equal round trips, and what a kill, a full disk, damage and hostile content do to them."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.common.files import sha256_file
from astrea.common.fingerprint import tensors_fingerprint
from astrea.training.checkpoint import load_checkpoint, save_checkpoint


def save(folder: Path, step: int, keep: int = 2, config_hash: str = "abc") -> Path:
    tensors = {"model": {"weight": torch.full((64, 3), float(step))}, "queue": {"pointer": torch.tensor(step)}}
    return save_checkpoint(folder, step, tensors, {"stage": "fuse", "step": step}, config_hash=config_hash, keep=keep)


def load(folder: Path, **options):
    warnings: list[str] = []
    return load_checkpoint(folder, on_warning=warnings.append, **options), warnings


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_everything_comes_back_bit_equal(tmp_path):
    base = torch.randn(4, 6)
    tied = torch.randn(5, 2, dtype=torch.bfloat16)
    model = {
        "a": tied,
        "b.tied": tied,
        "view": base[1:3],
        "transposed": base.t(),
        "nan": torch.tensor([math.nan, -0.0, math.inf]),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(3).half(),
        "empty": torch.zeros(0, 7),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    state = {"step": 9, "nested": {"list": [1, 2.5, None, "é", True]}, "nan": math.nan, "tenth": 0.1, "pair": (1, 2)}
    path = save_checkpoint(tmp_path / "run", 9, {"model": model, "empty": {}}, state, config_hash="h")
    assert path == tmp_path / "run" / "step-00000009"
    back, warnings = load(tmp_path / "run", config_hash="h")
    assert warnings == []
    assert (back.path, back.step, back.config_hash, back.world_size) == (path, 9, "h", 1)
    assert back.tensors["empty"] == {}
    assert tensors_fingerprint(back.tensors["model"]) == tensors_fingerprint(model)
    assert math.isnan(back.state.pop("nan"))
    assert back.state == {"step": 9, "nested": {"list": [1, 2.5, None, "é", True]}, "tenth": 0.1, "pair": [1, 2]}
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["files"]["state.json"]["sha256"] == sha256_file(path / "state.json")
    modes = {(path / name).stat().st_mode for name in names(path)}
    assert len(modes) == 1


def test_loaded_tensors_outlive_their_file(tmp_path):
    save(tmp_path, 1)
    back, _ = load(tmp_path)
    save(tmp_path, 2, keep=1)
    back.tensors["model"]["weight"].add_(1)
    assert back.tensors["model"]["weight"].eq(2).all()


def test_old_ones_and_leftovers_are_removed_last(tmp_path):
    for leftover in ("step-00000001.tmp-" + "a" * 32, "step-00000000.old-" + "b" * 32):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "model.safetensors").write_text("half")
    (tmp_path / ("latest.tmp-" + "c" * 32)).write_text("x")
    (tmp_path / "notes.tmp-mine").write_text("not ours")
    for step in (1, 2, 3, 10):
        save(tmp_path, step)
    assert names(tmp_path) == ["latest", "notes.tmp-mine", "step-00000003", "step-00000010"]
    assert (tmp_path / "latest").read_text() == "step-00000010\n"


def test_a_later_one_that_was_passed_over_neither_hides_nor_evicts_the_new_one(tmp_path):
    save(tmp_path, 5)
    (save(tmp_path, 9) / "state.json").unlink()
    assert load(tmp_path)[0].step == 5
    save(tmp_path, 6, keep=1)
    assert names(tmp_path) == ["latest", "step-00000006", "step-00000009"]
    assert load(tmp_path)[0].step == 6
    save(tmp_path, 9, keep=1)
    back, warnings = load(tmp_path)
    assert (back.step, warnings) == (9, [])
    assert names(tmp_path) == ["latest", "step-00000009"]


def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path):
    save(tmp_path, 4).rename(tmp_path / ("step-00000004.old-" + "0" * 32))
    assert load(tmp_path)[0].step == 4


def test_none_when_there_are_none(tmp_path):
    assert load(tmp_path / "absent") == (None, [])
    (tmp_path / ("step-00000001.tmp-" + "a" * 32)).mkdir()
    assert load(tmp_path) == (None, [])


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_link(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_empty, Path.unlink, damage_link])
@pytest.mark.parametrize("name", ["model.safetensors", "queue.safetensors", "state.json", "manifest.json"])
def test_a_damaged_one_is_passed_over_and_named(tmp_path, name, damage):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    damage(newest / name)
    back, warnings = load(tmp_path)
    assert back.step == 1
    assert back.tensors["model"]["weight"].eq(1).all()
    assert len(warnings) == 1
    assert str(newest) in warnings[0]
    assert name in warnings[0]


def test_no_flipped_bit_of_a_manifest_is_believed(tmp_path):
    whole = save(tmp_path, 1) / "manifest.json"
    data = whole.read_bytes()
    for place in range(0, len(data), 3):
        whole.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        try:
            back, _ = load(tmp_path, config_hash="abc")
        except AstreaError as error:
            assert "none of its 1" in str(error)  # noqa: PT017
        else:  # one kind of blank turned into another
            assert (back.step, back.world_size) == (1, 1)


def test_all_damaged_is_an_error(tmp_path):
    for step in (1, 2):
        (save(tmp_path, step) / "manifest.json").unlink()
    with pytest.raises(AstreaError, match="none of its 2 checkpoints is valid") as caught:
        load(tmp_path)
    assert "step 0" in caught.value.hint


def test_another_configuration_is_refused_with_both_hashes(tmp_path):
    save(tmp_path, 1, config_hash="old-hash")
    with pytest.raises(AstreaError) as caught:
        load(tmp_path, config_hash="new-hash")
    assert "'old-hash'" in caught.value.message
    assert "'new-hash'" in caught.value.message
    assert "output folder" in caught.value.hint


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {**m, "files": {**m["files"], "../../secret.safetensors": {"size": 1, "sha256": ""}}},
        lambda m: {**m, "files": {**m["files"], "/etc/hosts": {"size": 1, "sha256": ""}}},
        lambda m: {**m, "files": {**m["files"], "model.safetensors\n": {}}},
        lambda m: {**m, "files": {**m["files"], "model.pt": {"size": 1, "sha256": ""}}},
        lambda m: {**m, "files": {**m["files"], "state.json": 3}},
        lambda m: {**m, "files": {**m["files"], "state.json": {"size": [1], "sha256": None}}},
        lambda m: {**m, "files": list(m["files"])},
        lambda m: {**m, "files": {}},
        lambda m: {**m, "step": "2"},
        lambda m: {**m, "step": 1},
        lambda m: {**m, "format": 2},
        lambda m: {**m, "format": None},
        lambda m: {**m, "config_hash": 5},
        lambda m: {**m, "world_size": True},
        lambda m: {**m, "world_size": 0},
        lambda m: [m],
        lambda m: "text",
        lambda m: {**m, "padding": "x" * (1 << 20)},
    ],
)
def test_a_hostile_manifest_is_corrupt(tmp_path, change):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "manifest.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(json.dumps(seal(changed) if isinstance(changed, dict) else changed))
    back, warnings = load(tmp_path)
    assert back.step == 1
    assert "manifest.json" in warnings[0] or "state.json" in warnings[0]
    assert len(warnings[0]) < 1000


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "\x00", "[]", '{"a": ', b"\xff\xfe\xfa"])
@pytest.mark.parametrize("name", ["manifest.json", "state.json"])
def test_hostile_json_is_corrupt(tmp_path, name, text):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    relist(path)
    back, warnings = load(tmp_path)
    assert back.step == 1
    assert name in warnings[0]


@pytest.mark.parametrize("data", [b"", b"\x80\x02}q\x00.", b"\xff" * 8, (2).to_bytes(8, "little") + b"[]"])
def test_a_file_that_is_listed_and_is_no_safetensors_is_corrupt(tmp_path, data):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / "model.safetensors"
    path.write_bytes(data)
    relist(path)
    back, warnings = load(tmp_path)
    assert back.step == 1
    assert "model.safetensors" in warnings[0]


def relist(path: Path) -> None:
    """Makes the manifest agree with a changed file, as an attacker would."""
    manifest = path.with_name("manifest.json")
    if path != manifest:
        listed = json.loads(manifest.read_text())
        listed["files"][path.name] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        manifest.write_text(json.dumps(seal(listed)))


def seal(manifest: dict) -> dict:
    rest = {key: value for key, value in manifest.items() if key != "seal"}
    return {**rest, "seal": hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, "input/output error"),
    ],
)
@pytest.mark.parametrize("broken", ["mkdir", "write_bytes", "fsync", "rename"])
def test_a_save_that_fails_leaves_everything_as_it_was(tmp_path, monkeypatch, code, said, broken):
    save(tmp_path, 1)
    before = {name: sha256_file(tmp_path / "step-00000001" / name) for name in names(tmp_path / "step-00000001")}

    def fail(*args, **options):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os if broken == "fsync" else Path, broken, fail)
        with pytest.raises(AstreaError) as caught:
            save(tmp_path, 2)
    assert str(tmp_path) in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint
    assert names(tmp_path) == ["latest", "step-00000001"]
    assert {name: sha256_file(tmp_path / "step-00000001" / name) for name in before} == before
    assert save(tmp_path, 2).is_dir()


def test_a_limit_met_inside_the_tensor_writer_is_told_as_no_space(tmp_path):
    save(tmp_path, 1)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, old[1]))
    try:
        with pytest.raises(AstreaError, match="no space left"):
            save_checkpoint(tmp_path, 2, {"model": {"w": torch.zeros(1 << 16)}}, {}, config_hash="abc")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert names(tmp_path) == ["latest", "step-00000001"]


def test_what_cannot_be_saved_is_refused_before_anything_is_written(tmp_path):
    folder = tmp_path / "run"
    for state, wrong in (
        ({"a": {1: 2}}, TypeError),
        ({"a": [object()]}, TypeError),
        ({"a": "x" * (65 << 20)}, ValueError),
    ):
        with pytest.raises(wrong):
            save_checkpoint(folder, 1, {}, state, config_hash="h")
    for group in ("../model", "", "a/b", "a.b"):
        with pytest.raises(ValueError, match="group"):
            save_checkpoint(folder, 1, {group: {}}, {}, config_hash="h")
    for step, keep in ((-1, 2), (1, 0)):
        with pytest.raises(ValueError, match="step must be"):
            save_checkpoint(folder, step, {}, {}, config_hash="h", keep=keep)
    assert not folder.exists()


def test_a_file_in_the_folders_place_is_an_error(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(AstreaError, match="run"):
        save(tmp_path / "run", 1)


KILL = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from astrea.training.checkpoint import load_checkpoint, save_checkpoint
root = Path(sys.argv[1])
for round in range(8):
    folder = root / str(round)
    child = os.fork()
    if child == 0:
        step = 0
        while True:
            step += 1
            tensors = {group: {"w": torch.full((2000,), float(step))} for group in ("model", "momentum")}
            # Every third save replaces the step before it.
            save_checkpoint(folder, step - (step % 3 == 0), tensors, {"value": step}, config_hash="h", keep=1)
    while not (folder / "latest").exists():
        time.sleep(0.001)
    time.sleep(random.random() * 0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    warnings = []
    found = load_checkpoint(folder, config_hash="h", on_warning=warnings.append)
    value = float(found.state["value"])
    same = all(named["w"].eq(value).all() for named in found.tensors.values())
    print(same and not warnings and len(found.tensors) == 2)
    last = save_checkpoint(folder, found.step + 1, found.tensors, found.state, config_hash="h", keep=1)
    print(sorted(p.name for p in folder.iterdir()) == ["latest", last.name])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_in_mid_save_leaves_a_valid_one(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(KILL), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 16
