"""What experts saw in pictures of one's own is kept: each looks at a picture once, whatever becomes of the file."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from astrea.data.feature_cache import PICTURES, FeatureCache
from astrea.data.picture_features import PictureFeatures, encode_once, expert_key, picture_key
from astrea.experts.protocol import ExpertFeatures

ROOM = 10**8
ONE, OTHER = b"one expert", b"other expert"


def pictures(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


class Eye:
    """Counts what it is shown."""

    def __init__(self, pixels: Tensor, places: bool = True) -> None:
        self.pixels, self.places, self.shown = pixels, places, 0

    def __call__(self, at: Tensor) -> ExpertFeatures:
        self.shown += len(at)
        tokens = self.pixels[at].flatten(2)
        return ExpertFeatures(tokens, tokens.mean(2), tokens[..., :2] if self.places else None)


def keys(pixels: Tensor) -> list[bytes]:
    return [picture_key(one) for one in pixels]


def same(a: ExpertFeatures, b: ExpertFeatures) -> None:
    assert torch.equal(a.tokens, b.tokens)
    assert torch.equal(a.confidence, b.confidence)
    assert (a.places is None) == (b.places is None)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def make(tmp_path, told):
    return lambda most=ROOM: PictureFeatures(FeatureCache(tmp_path / "cache", most), told.append)


@pytest.mark.parametrize("places", [True, False])
def test_a_picture_is_looked_at_once(make, told, places):
    pixels = pictures(6)
    twice = pixels[[0, 3, 3, 5, 0]]
    eye = Eye(twice, places)
    kept = make()
    same(encode_once(kept, ONE, keys(twice), eye), Eye(twice, places)(torch.arange(5)))
    assert eye.shown == 3
    later = Eye(pixels, places)
    same(encode_once(make(), ONE, keys(pixels), later), Eye(pixels, places)(torch.arange(6)))  # another process
    assert later.shown == 3
    assert encode_once(make(), OTHER, keys(pixels), later) is not None
    assert later.shown == 9
    assert told == []


def test_pictures_and_experts_are_told_apart():
    pixels = pictures(2)
    assert picture_key(pixels[0]) == picture_key(pixels[0].clone())
    assert len({*keys(pixels), picture_key(pixels[0].view(3, 4, 16)), picture_key(pixels[0] + 1e-6)}) == 4
    torch.manual_seed(0)
    expert = nn.Linear(2, 2)
    before = expert_key(expert, {"tokens": 4})
    assert before == expert_key(expert, {"tokens": 4})
    assert before != expert_key(expert, {"tokens": 5})
    with torch.no_grad():
        expert.weight.add_(1e-6)
    assert before != expert_key(expert, {"tokens": 4})


def spoil_entry(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("UPDATE seen SET tensors = zeroblob(40)")


def spoil_file(path: Path) -> None:
    path.write_bytes(b"no database" * 1000)
    for more in ("-wal", "-shm"):
        path.with_name(path.name + more).unlink(missing_ok=True)


@pytest.mark.parametrize("spoil", [spoil_entry, spoil_file])
def test_what_is_damaged_is_looked_at_again(make, told, tmp_path, spoil):
    pixels = pictures(3)
    kept = make()
    encode_once(kept, ONE, keys(pixels), Eye(pixels))
    kept.close()
    spoil(tmp_path / "cache" / PICTURES)
    eye = Eye(pixels)
    same(encode_once(make(), ONE, keys(pixels), eye), Eye(pixels)(torch.arange(3)))
    assert eye.shown == 3
    assert len(told) == (spoil is spoil_file)


@pytest.mark.parametrize("make_it", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_told_once_and_keeps_nobody_waiting(make, told, tmp_path, make_it):
    (tmp_path / "cache").mkdir()
    make_it(tmp_path / "cache" / PICTURES)
    kept, pixels = make(), pictures(2)
    for _ in range(2):
        same(encode_once(kept, ONE, keys(pixels), Eye(pixels)), Eye(pixels)(torch.arange(2)))
    assert len(told) == 1
    assert "no ordinary file" in told[0]


def test_a_full_file_makes_room_once_and_then_says_so(make, told):
    room = 60_000
    pixels = pictures(40)
    encode_once(make(room), ONE, keys(pixels[:20]), Eye(pixels[:20]))
    kept = make(room)
    eye = Eye(pixels)
    for start in range(0, 40, 10):  # of another expert, whose entries make room
        encode_once(kept, OTHER, keys(pixels[start : start + 10]), lambda at, s=start: eye(at + s))
    again = Eye(pixels)
    encode_once(make(room), OTHER, keys(pixels), again)
    assert 0 < again.shown < 40
    assert any("runtime.feature_cache_gb" in text for text in told)
    assert kept.path.stat().st_size <= 2 * room


def test_both_kinds_of_features_share_one_limit(tmp_path, told):
    cache, pixels = FeatureCache(tmp_path, 60_000), pictures(20)
    drawn = {name: {"tokens": torch.zeros(8000)} for name in "ab"}  # 32 kB each
    FeatureCache(tmp_path).get_or_compute({"drawn": "a"}, lambda: drawn["a"])
    encode_once(PictureFeatures(cache, told.append), ONE, keys(pixels), Eye(pixels))
    assert [entry.name for entry in cache.entries()] == [PICTURES]  # a run's own pictures, and nothing older
    cache.get_or_compute({"drawn": "b"}, lambda: drawn["b"], on_event=told.append)
    assert [entry.name for entry in cache.entries()] == [PICTURES]
    assert len(told) == 1
    later = FeatureCache(tmp_path, 60_000)  # another process, on drawn scenes
    later.get_or_compute({"drawn": "b"}, lambda: drawn["b"], on_event=told.append)
    assert [len(entry.name) for entry in later.entries()] == [64]
    assert len(told) == 1


def test_none_are_kept_where_none_are_wanted(make, tmp_path):
    pixels = pictures(2)
    encode_once(make(0), ONE, keys(pixels), Eye(pixels))
    assert not (tmp_path / "cache").exists()
