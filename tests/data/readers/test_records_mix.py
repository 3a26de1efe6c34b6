"""Mixing: a pure function of position, seed and epoch; exact proportions; one order for any number of processes."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_rows import write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers import ImageRoot, Where
from astrea.data.readers.check import Checks
from astrea.data.readers.interleave import BLOCK, block_plan, counts_before
from astrea.data.readers.issues import BadRow, Issue
from astrea.data.readers.mixture import Mixture, Sample, Source
from astrea.data.readers.permutation import Permutation
from astrea.data.readers.reader import ListReader
from astrea.data.readers.record import FileImage, Message, Record
from astrea.data.readers.shuffle import GroupedOrder
from astrea.data.readers.sources import configured_sources, open_sources
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, Recipe


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers())
def test_a_permutation_holds_every_number_once(size: int, seed: int) -> None:
    shuffled = Permutation(size, seed)
    found = shuffled(np.arange(size))
    assert sorted(found) == list(range(size))
    assert [shuffled(place) for place in range(0, size, 97)] == list(found[::97])


def test_permutations_never_change_and_are_spread() -> None:
    # Fixed values: a run that is resumed with a later version must go on in the same order.
    assert [Permutation(1000, 0, "a")(place) for place in range(6)] == FIRST_OF_1000
    huge = Permutation(10**15, 1)
    assert len({huge(place) for place in range(1000)}) == 1000
    places = np.array([Permutation(6, seed)(0) for seed in range(3000)])
    counts = np.bincount(places, minlength=6)
    assert counts.sum() == 3000
    assert (abs(counts - 500) < 110).all()  # five standard deviations
    moved = Permutation(100_000, 5)(np.arange(100_000))
    assert abs(np.corrcoef(moved, np.arange(100_000))[0, 1]) < 0.02


FIRST_OF_1000 = [488, 75, 477, 444, 370, 503]


@settings(deadline=None)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.data())
def test_counts_add_up_and_never_fall(shares: list[int], data: st.DataObject) -> None:
    total = sum(shares)
    place = data.draw(st.integers(0, total - 1))
    now, then = counts_before(place, shares), counts_before(place + 1, shares)
    assert sum(now) == place
    assert sum(b - a for a, b in zip(now, then, strict=True)) == 1
    assert all(b >= a for a, b in zip(now, then, strict=True))
    assert counts_before(total, shares) == shares
    assert all(abs(count - place * share / total) <= len(shares) for count, share in zip(now, shares, strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_takes_every_draw_once_and_in_order(shares: list[int], seed: int, epoch: int) -> None:
    blocks = [block_plan(k, tuple(shares), seed, epoch) for k in range(-(-sum(shares) // BLOCK))]
    sources = np.concatenate([sources for sources, _ in blocks])
    draws = np.concatenate([draws for _, draws in blocks])
    for source, share in enumerate(shares):
        assert list(draws[sources == source]) == list(range(share))


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20).filter(sum), st.integers(0, 9))
def test_a_grouped_order_holds_every_record_once_and_stays_in_its_window(sizes: list[int], seed: int) -> None:
    order = GroupedOrder(sizes, seed)
    found = [order(place) for place in range(sum(sizes))]
    assert sorted(found) == list(range(sum(sizes)))
    ends = np.cumsum(sizes)
    groups = np.searchsorted(ends, found, side="right")
    switches = [set(part) for part in np.split(groups, np.flatnonzero(np.diff(groups)) + 1)]
    # A group that is left behind for more than a window's worth of others is never come back to.
    first, last = {}, {}
    for place, group in enumerate(groups):
        first.setdefault(group, place)
        last[group] = place
    for group in first:
        assert len({*groups[first[group] : last[group] + 1]}) <= 4
    assert len(switches) >= len({*groups})


def source(name: str, size: int, weight: float = 1.0) -> Source:
    turns = (Message("user", "q"), Message("assistant", "a"))
    records: list[Record | Issue] = [Record(f"{name}{n}", Where(name, n + 1), messages=turns) for n in range(size)]
    return Source(ListReader(Path(name), "test", records), ImageRoot("."), weight)


def ids(samples: Any, count: int) -> list[str]:
    return [str(sample.record.id) for sample in islice(samples, count)]


def mixture() -> Mixture:
    return Mixture([source("a", 700), source("b", 90, 2.0), source("c", 200, 0.5)])


def test_every_record_comes_as_often_as_its_weight_says() -> None:
    mixed = mixture()
    assert len(mixed) == 700 + 180 + 100
    epochs = [Counter(mixed.sample(p, 3, epoch).record.id for p in range(len(mixed))) for epoch in range(2)]
    for epoch in epochs:
        assert {epoch[f"a{n}"] for n in range(700)} == {1}
        assert {epoch[f"b{n}"] for n in range(90)} == {2}
        assert sum(epoch[f"c{n}"] for n in range(200)) == 100
    # A weight of a half takes the other half in the next epoch.
    assert {epochs[0][f"c{n}"] + epochs[1][f"c{n}"] for n in range(200)} == {1}


def test_proportions_hold_all_along() -> None:
    told = ids(mixture().shard(seed=1), 980)
    for end in range(BLOCK, 980, BLOCK):
        counts = Counter(name[0] for name in told[:end])
        assert all(abs(counts[k] - end * share / 980) <= 3 for k, share in (("a", 700), ("b", 180), ("c", 100)))


def test_a_sample_is_a_function_of_position_seed_and_epoch() -> None:
    mixed, told = mixture(), ids(mixture().shard(seed=7), 2 * 980)
    for place in (1959, 3, 980, 979, 500, 3):
        epoch, position = divmod(place, 980)
        assert mixed.sample(position, 7, epoch).record.id == told[place]
    assert told[:980] != told[980:]
    assert told[:980] != ids(mixture().shard(seed=8), 980)
    assert told == ids(mixture().shard(seed=7), 2 * 980)
    with pytest.raises(IndexError):
        mixed.sample(980, 7, 0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(0, 3000))
def test_any_number_of_processes_reads_the_same_order(world: int, start: int) -> None:
    mixed = mixture()
    whole = ids(mixed.shard(seed=2, start=start), 60)
    parts = [ids(mixed.shard(rank, world, seed=2, start=start), 60) for rank in range(world)]
    assert [parts[place % world][place // world] for place in range(60)] == whole
    assert whole[7:] == ids(mixed.shard(seed=2, start=start + 7), 53)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(5):
        members = [(f"{shard}-{n}.txt", b"words") for n in range(30 + shard)]
        write_tar(folder / f"{shard}.tar", members)
    return folder


def streamed(shards: Path, **options: Any) -> Mixture:
    (found,) = open_sources(str(shards / "*.tar"))
    return Mixture([found, source("x", 60)], buffer=20, **options)


def test_streams_mix_and_resume_and_shard_alike(shards: Path) -> None:
    assert len(streamed(shards)) == 160 + 60
    told = ids(streamed(shards).shard(seed=4), 500)
    everything = [f"{shard}-{n}" for shard in range(5) for n in range(30 + shard)]
    for epoch in (told[:220], told[220:440]):
        assert sorted(name for name in epoch if "-" in name) == sorted(everything)
    assert told[:220] != told[220:440]
    firsts = list(dict.fromkeys(name[0] for name in told[:220] if "-" in name))
    assert firsts != sorted(firsts)
    assert ids(streamed(shards).shard(seed=4, start=333), 100) == told[333:433]
    parts = [ids(streamed(shards).shard(rank, 3, seed=4), 100) for rank in range(3)]
    assert [parts[place % 3][place // 3] for place in range(300)] == told[:300]
    # Going back is allowed, if slow.
    mixed = streamed(shards)
    assert [mixed.sample(p, 4, 0).record.id for p in (150, 20, 21)] == [told[p] for p in (150, 20, 21)]


def test_a_parquet_source(tmp_path: Path) -> None:
    rows = [{"id": n, "messages": [{"role": "user", "content": "q"}]} for n in range(300)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=25)
    (found,) = open_sources(str(tmp_path / "a.parquet"))
    told = ids(Mixture([found]).shard(seed=0), 300)
    assert sorted(map(int, told)) == list(range(300))
    assert told[:40] != sorted(told[:40], key=int)


def test_a_bad_record_is_an_error_or_replaced_in_its_place(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"id": n, "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a" * (n != 5)}]}
        for n in range(20)
    ]
    rows[11] = {"id": 11}
    (found,) = open_sources(str(write_jsonl(tmp_path / "a.jsonl", rows)))
    with pytest.raises(AstreaError, match=r"a\.jsonl:(6 5|12 11): "):
        ids(Mixture([found], check=Checks()).shard(seed=0), 20)
    told: list[Issue] = []
    mixed = Mixture([found], check=Checks(), on_issue=told.append)
    good = ids(mixed.shard(seed=0), 20)
    assert len(good) == 20
    assert {int(name) for name in good} == set(range(20)) - {5, 11}
    assert {(issue.where.number, issue.kind) for issue in told} == {(6, "empty_assistant"), (12, "wrong_type")}
    plain = [found.reader.read(mixed._feeds[0]._order[1](place)) for place in range(20)]  # type: ignore[index, union-attr]
    same = [mine == theirs.id for mine, theirs in zip(good, plain, strict=True) if isinstance(theirs, Record)]
    assert same.count(False) == 1  # only the places of the bad ones were given to others


def test_bad_samples_of_a_stream_are_replaced(tmp_path: Path) -> None:
    members = [(f"{n}.json", b"{" if n % 7 == 3 else json.dumps({"caption": f"c{n}"}).encode()) for n in range(50)]
    (found,) = open_sources(str(write_tar(tmp_path / "a.tar", members)))
    issues: list[Issue] = []
    told = ids(Mixture([found], buffer=8, on_issue=issues.append).shard(seed=1), 50)
    bad = {str(n) for n in range(50) if n % 7 == 3}
    assert set(told) == {str(n) for n in range(50)} - bad
    assert {issue.id for issue in issues} == bad
    again = Mixture([found], buffer=8, on_issue=issues.append)
    assert ids(again.shard(seed=1, start=30), 20) == told[30:]
    with pytest.raises(AstreaError, match=r"a\.tar:\d+ \d+: not valid JSON"):
        ids(Mixture([found], buffer=8).shard(seed=1), 50)


def test_nothing_to_mix(tmp_path: Path) -> None:
    with pytest.raises(AstreaError, match="no data"):
        Mixture([])
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(AstreaError, match="holds no record"):
        Mixture(open_sources(str(tmp_path / "a.jsonl")))
    with pytest.raises(AstreaError, match="no data file is called"):
        open_sources(str(tmp_path / "*.tar"))
    write_jsonl(tmp_path / "b.jsonl", [{"conversations": 1}])
    nothing_good = Mixture(open_sources(str(tmp_path / "b.jsonl")), on_issue=lambda issue: None)
    with pytest.raises(AstreaError, match="holds no good record"):
        nothing_good.sample(0, 0, 0)


def test_pictures_of_a_sample(root: Path, pictures: dict[str, bytes]) -> None:
    turns = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
    rows = [{"id": "x", "image": name, "conversations": turns} for name in ("p/001.png", "p/none.png")]
    (found,) = open_sources(str(write_jsonl(root / "a.jsonl", rows)))
    samples: dict[str, Sample] = {s.record.images[0].path: s for s in islice(Mixture([found]).shard(seed=0), 2)}
    assert [image.size for image in samples["p/001.png"].pictures()] == [(10, 8)]
    with pytest.raises(AstreaError, match=r"a\.jsonl:2 x: picture 'p/none\.png' does not exist"):
        samples["p/none.png"].pictures()


def test_the_recipe_names_the_data(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    a, b = (write_jsonl(tmp_path / f"{n}.jsonl", [{"conversations": turns}] * 3) for n in "ab")
    (tmp_path / "photos").mkdir()
    recipe = load_recipe(Recipe, "tiny", [f"data.train={a}"])
    assert recipe.data.train == str(a)
    (only,) = configured_sources(recipe.data)
    assert (only.weight, only.root.folder, len(only.reader)) == (1.0, tmp_path, 3)
    two = f"data.train=[{a}, {{path: {b}, weight: 0.5, images: {tmp_path}, format: llava}}]"
    recipe = load_recipe(Recipe, "tiny", [two, f"data.images={tmp_path / 'photos'}"])
    found = configured_sources(recipe.data)
    assert [one.weight for one in found] == [1.0, 0.5]
    assert [one.root.folder for one in found] == [tmp_path / "photos", tmp_path]
    # What is told about a missing picture names what the recipe says it with.
    for source, option in zip(found, ("data.images", f"`images` of {b} in data.train"), strict=True):
        with pytest.raises(BadRow) as caught:
            source.root.load(FileImage("none.png"))
        assert caught.value.hint.endswith(f"give the right root with {option}")
        with pytest.raises(BadRow) as caught:
            source.root.load(FileImage("/none.png"))
        assert caught.value.hint.endswith(f"give the root with {option}")
    with pytest.raises(AstreaError, match="is not a folder") as refused:
        configured_sources(recipe.data.model_copy(update={"images": "nowhere"}))
    assert refused.value.hint.endswith("with data.images")
    assert configured_sources(Data()) == []
    for wrong, said in (("[{path: a, wieght: 2}]", "weight"), ("[{path: a, weight: 0}]", "weight"), ("7", "text")):
        with pytest.raises(AstreaError, match=said):
            load_recipe(Recipe, "tiny", [f"data.train={wrong}"])
