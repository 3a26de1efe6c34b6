"""Cached features must equal fresh ones bit for bit, and no damaged or foreign entry may ever be used."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import astrea.data.feature_cache as cache_module
from astrea.data.feature_cache import FeatureCache, canonical_json, fingerprint

KEY = {"expert": "dots-1", "weights": "ab" * 32, "data": {"scenes": 8, "seed": 3}, "size": 224, "version": 1}


def features(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    patches = torch.randn(4, 9, 5, generator=generator)
    return {
        "patches": patches,
        "half": patches.to(torch.bfloat16),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "mask": patches > 0,
        "scalar": torch.tensor(7),
        "none": torch.empty(0, 3),
    }


class Recorder:
    """Counts the computations and keeps the events of one cache."""

    def __init__(self, folder: Path) -> None:
        self.cache = FeatureCache(folder)
        self.computed = 0
        self.events: list[str] = []

    def get(self, key: dict[str, object] = KEY) -> dict[str, torch.Tensor]:
        return self.cache.get_or_compute(key, self.compute, on_event=self.events.append)

    def compute(self) -> dict[str, torch.Tensor]:
        self.computed += 1
        return features()


def assert_same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert tensor.shape == right[name].shape
        assert tensor.flatten().view(torch.uint8).equal(right[name].contiguous().flatten().view(torch.uint8))


def entry(folder: Path, key: dict[str, object] = KEY) -> tuple[Path, Path]:
    return folder / f"{fingerprint(key)}.safetensors", folder / f"{fingerprint(key)}.json"


def test_cached_equals_fresh(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a" / "cache")
    for _ in range(3):
        assert_same_bits(recorder.get(), features())
    assert recorder.computed == 1
    assert recorder.events == []
    assert sorted(path.suffix for path in recorder.cache.folder.iterdir()) == [".json", ".safetensors"]
    about = json.loads(entry(recorder.cache.folder)[1].read_text())
    assert about["key"] == KEY
    assert about["tensors"]["half"] == {"dtype": "bfloat16", "shape": [4, 9, 5]}


def test_odd_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0, requires_grad=True).reshape(3, 4)
    odd = {"view": base[:, 1], "transposed": base.T, "same": base, "again": base}
    for _ in range(2):
        result = FeatureCache(tmp_path).get_or_compute(KEY, lambda: odd, on_event=pytest.fail)
        assert_same_bits(result, {name: tensor.detach() for name, tensor in odd.items()})
        assert not any(tensor.requires_grad or not tensor.is_contiguous() for tensor in result.values())


def test_writing_to_loaded_features_leaves_the_file_alone(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.get()
    recorder.get()["patches"].zero_()
    assert_same_bits(recorder.get(), features())
    assert recorder.events == []


def test_every_part_of_the_key_counts(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    changes = [{}, {"size": 225}, {"weights": "cd" * 32}, {"version": 2}, {"data": {"scenes": 8, "seed": 4}}]
    for number, change in enumerate(changes, start=1):
        recorder.get({**KEY, **change})
        assert recorder.computed == number
    recorder.get(dict(reversed(KEY.items())))  # the order does not count
    assert recorder.computed == len(changes)
    with pytest.raises(TypeError):
        recorder.get({"path": tmp_path})
    with pytest.raises(ValueError, match="JSON"):
        recorder.get({"scale": float("nan")})


def test_what_compute_raises_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        FeatureCache(tmp_path).get_or_compute(KEY, lambda: 1 / 0)
    assert not list(tmp_path.iterdir())


DAMAGE = {
    "first byte flipped": lambda data, about: (bytes([data[0] ^ 1]) + data[1:], about),
    "last byte flipped": lambda data, about: (data[:-1] + bytes([data[-1] ^ 1]), about),
    "cut short": lambda data, about: (data[:-1], about),
    "emptied": lambda data, about: (b"", about),
    "longer": lambda data, about: (data + b"\0", about),
    "features missing": lambda data, about: (None, about),
    "record missing": lambda data, about: (data, None),
    "record cut": lambda data, about: (data, about[: len(about) // 2]),
    "record empty": lambda data, about: (data, b""),
    "record not UTF-8": lambda data, about: (data, b"\xff\xfe\0"),
    "record nested too deep": lambda data, about: (data, b"[" * 100_000),
    "record a list": lambda data, about: (data, b"[1]"),
    "record without sha256": lambda data, about: (data, about.replace(b'"sha256"', b'"sha"')),
    "record of another version": lambda data, about: (data, about.replace(b"features-1", b"features-0")),
    "record of another key": lambda data, about: (data, about.replace(b"224", b"448")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_reported_and_rebuilt(tmp_path: Path, damage) -> None:
    recorder = Recorder(tmp_path)
    recorder.get()
    files = entry(tmp_path)
    for path, data in zip(files, damage(*(path.read_bytes() for path in files)), strict=True):
        path.unlink() if data is None else path.write_bytes(data)
    assert_same_bits(recorder.get(), features())
    assert recorder.computed == 2
    assert len(recorder.events) == 1
    assert files[0].name in recorder.events[0]
    assert_same_bits(recorder.get(), features())
    assert recorder.computed == 2


@given(where=st.integers(0, 10**6), bit=st.integers(0, 7))
@settings(max_examples=30, deadline=None)
def test_any_flipped_bit_is_found(tmp_path_factory: pytest.TempPathFactory, where: int, bit: int) -> None:
    folder = tmp_path_factory.mktemp("flip")
    recorder = Recorder(folder)
    recorder.get()
    data = bytearray(entry(folder)[0].read_bytes())
    data[where % len(data)] ^= 1 << bit
    entry(folder)[0].write_bytes(data)
    assert_same_bits(recorder.get(), features())
    assert recorder.computed == 2


def test_an_entry_copied_from_another_key_is_foreign(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.get()
    other = {**KEY, "size": 448}
    for source, target in zip(entry(tmp_path), entry(tmp_path, other), strict=True):
        target.write_bytes(source.read_bytes())
    recorder.get(other)
    assert recorder.computed == 2
    assert "another key" in recorder.events[0]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("step", ["save_file", "sha256_file", "write_json_atomic", "atomic_path"])
def test_a_cache_that_cannot_be_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, step: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    recorder = Recorder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cache_module, step, fail)
        assert_same_bits(recorder.get(), features())
    assert len(recorder.events) == 1
    assert os.strerror(number) in recorder.events[0]
    assert not list(tmp_path.glob(".*"))
    assert_same_bits(recorder.get(), features())  # and afterwards it works again
    assert_same_bits(recorder.get(), features())
    assert recorder.computed == 2


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    recorder = Recorder(tmp_path / "cache")
    assert_same_bits(recorder.get(), features())
    assert (tmp_path / "cache").read_text() == "mine"
    assert len(recorder.events) == 1


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="permissions do not bind this user")
def test_a_read_only_folder_still_serves(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.get()
    tmp_path.chmod(0o500)
    try:
        assert_same_bits(recorder.get(), features())
        assert recorder.events == []
        assert_same_bits(recorder.get({"another": 1}), features())
        assert len(recorder.events) == 1
    finally:
        tmp_path.chmod(0o700)


def test_events_are_logged_when_nobody_listens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("")
    FeatureCache(tmp_path / "cache").get_or_compute(KEY, features)
    assert "could not be cached" in caplog.text


def test_prune_removes_the_least_recently_used(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    keys = [{**KEY, "size": size} for size in (1, 2, 3)]
    for age, key in enumerate(keys):
        recorder.get(key)
        for path in entry(tmp_path, key):
            os.utime(path, (1000 + age, 1000 + age))
    (tmp_path / "notes.txt").write_text("mine")
    sizes = [sum(path.stat().st_size for path in entry(tmp_path, key)) for key in keys]
    assert recorder.cache.prune(sum(sizes)) == 0
    recorder.get(keys[0])  # now the most recently used
    assert recorder.cache.prune(sum(sizes) - 1) == sizes[1]
    assert [entry(tmp_path, key)[0].exists() for key in keys] == [True, False, True]
    assert recorder.cache.prune(0) == sizes[0] + sizes[2]
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert recorder.events == []
    assert FeatureCache(tmp_path / "none").prune(0) == 0


def limited(folder: Path, most: int) -> Recorder:
    recorder = Recorder(folder)
    recorder.cache = FeatureCache(folder, most)
    return recorder


def test_what_was_used_longest_ago_makes_room_but_not_what_is_asked_for(tmp_path: Path) -> None:
    keys = [{**KEY, "size": size} for size in (1, 2, 3, 4)]
    for age, key in enumerate(keys[:2]):
        Recorder(tmp_path).get(key)
        for path in entry(tmp_path, key):
            os.utime(path, (1000 + age, 1000 + age))
    one = sum(path.stat().st_size for path in entry(tmp_path, keys[0]))
    recorder = limited(tmp_path, 2 * one + one // 2)
    recorder.get(keys[2])
    assert [entry(tmp_path, key)[0].exists() for key in keys] == [False, True, True, False]
    recorder.get(keys[1])  # asked for, therefore it stays
    assert_same_bits(recorder.get(keys[3]), features())
    assert [entry(tmp_path, key)[0].exists() for key in keys] == [False, True, True, False]
    assert len(recorder.events) == 1
    assert "runtime.feature_cache_gb" in recorder.events[0]


def test_features_larger_than_the_cache_cost_nothing_that_is_there(tmp_path: Path) -> None:
    Recorder(tmp_path).get()
    recorder = limited(tmp_path, 1000)
    recorder.get({"another": 1})
    assert len(recorder.events) == 1
    assert entry(tmp_path)[0].exists()


def test_a_cache_of_no_size_is_neither_written_nor_read(tmp_path: Path) -> None:
    Recorder(tmp_path).get()
    before = sorted(tmp_path.iterdir())
    recorder = limited(tmp_path, 0)
    recorder.get()
    recorder.get({"another": 1})
    assert (recorder.computed, recorder.events, sorted(tmp_path.iterdir())) == (2, [], before)


def test_prune_removes_old_leftovers_only(tmp_path: Path) -> None:
    old, young = (tmp_path / f".{'ab' * 32}.{name}.tmp" for name in ("old", "young"))
    for folder in (old, young):
        folder.mkdir()
        (folder / "half").write_bytes(b"half")
    os.utime(old, (0, 0))
    FeatureCache(tmp_path).prune(10**9)
    assert not old.exists()
    assert young.exists()


def test_canonical_json() -> None:
    assert canonical_json({"b": 1, "a": ["é", None, True]}) == '{"a":["\\u00e9",null,true],"b":1}'


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_atomic_files_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    Recorder(tmp_path).get()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1
