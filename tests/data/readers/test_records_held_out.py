"""A share is held out by what records show: no picture on both sides, the same sides wherever files lie."""

from __future__ import annotations

import json
import shutil
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from record_rows import conversations, picture, write_jsonl, write_tar

from astrea.common.errors import AstreaError
from astrea.data.readers.issues import Issue
from astrea.data.readers.mixture import Mixture, Source
from astrea.data.readers.record import FileImage, Record
from astrea.data.readers.sources import configured_sources
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Data, Recipe
from astrea.training.identity import config_hash
from listening import Said


def sides(data: Data) -> list[list[Record]]:
    """The records that are learned from and those that are held out."""
    return [
        [found for source in configured_sources(data, key=key) for found in source.reader.examine()]
        for key in ("train", "validation")
    ]


def shown(records: list[Record]) -> set[str]:
    return {image.path for record in records for image in record.images if isinstance(image, FileImage)}


def ids(records: list[Record]) -> list[str | None]:
    return [record.id for record in records]


def test_no_picture_is_learned_from_and_measured_on(root: Path):
    rows = conversations()
    path = write_jsonl(root / "a.jsonl", rows)
    said = Said()
    learned, held = sides(Data(train=str(path), validation=0.3))
    configured_sources(Data(train=str(path), validation=0.3), said)
    assert not shown(learned) & shown(held)
    assert 0.2 < len(shown(held)) / 50 < 0.4
    left = {row["id"] for row in rows} - {*ids(learned), *ids(held)}
    # Only records with two pictures can show both sides.
    assert left <= {row["id"] for row in rows if isinstance(row.get("image"), list)}
    assert f"held out {len(held)} records of 200; {len(left)} records with pictures of both sides left out" in said.text
    # Records of one picture go with it, text-only ones by their own words.
    texts = [sum(not record.images for record in side) for side in (learned, held)]
    assert sum(texts) == 50
    assert min(texts) > 5


def test_sides_are_the_same_in_another_place_order_and_file(root: Path, tmp_path_factory: pytest.TempPathFactory):
    rows = conversations()
    whole = sides(Data(train=str(write_jsonl(root / "a.jsonl", rows)), validation=0.25))
    there = tmp_path_factory.mktemp("elsewhere") / "data"
    shutil.copytree(root / "p", there / "p")
    backwards = write_jsonl(there / "b.jsonl", rows[::-1])
    for one, other in zip(whole, sides(Data(train=str(backwards), validation=0.25)), strict=True):
        assert ids(other) == ids(one)[::-1]
    # Under another name, from another root, and in two files: a picture is known by its bytes.
    renamed = [{**rows[0], "image": "x.png"}, {**rows[4], "image": rows[4]["image"].removeprefix("p/")}]
    shutil.copy(root / rows[0]["image"], there / "p" / "x.png")
    other = write_jsonl(there / "c.jsonl", renamed)
    data = Data(train=({"path": str(other), "images": str(there / "p")},), validation=0.25)  # type: ignore[arg-type]
    for one, two in zip(whole, sides(data), strict=True):
        assert set(ids(two)) == set(ids(one)) & {rows[0]["id"], rows[4]["id"]}


def test_a_larger_share_holds_out_what_a_smaller_one_does(root: Path):
    path = str(write_jsonl(root / "a.jsonl", [row for row in conversations() if isinstance(row.get("image"), str)]))
    held = [set(ids(sides(Data(train=path, validation=share))[1])) for share in (0.1, 0.3, 0.8)]
    assert held[0] < held[1] < held[2]


def samples(count: int) -> list[tuple[str, bytes]]:
    """Members of a shard: each picture twice, in two samples."""
    members = []
    for number in range(count):
        talk = {"conversations": [{"from": "human", "value": f"<image>\n{number}"}, {"from": "gpt", "value": "a"}]}
        members += [(f"{number:03}.png", picture(number // 2)), (f"{number:03}.json", json.dumps(talk).encode())]
    return members


def test_shards_tables_and_files_agree(tmp_path: Path):
    members = samples(60)
    write_tar(tmp_path / "s-0.tar", members[:50])
    write_tar(tmp_path / "s-1.tar", members[50:])
    write_tar(tmp_path / "z.tar.gz", members, "w:gz")
    rows = [(json.loads(members[i + 1][1])["conversations"], members[i][1]) for i in range(0, 120, 2)]
    talks = [talk for talk, _ in rows]
    images = [{"bytes": data, "path": None} for _, data in rows]
    pq.write_table(pa.table({"conversations": talks, "image": images}), tmp_path / "t.parquet", row_group_size=7)
    found = []
    for name in ("s-*.tar", "z.tar.gz", "t.parquet"):
        data = Data(train=str(tmp_path / name), validation=0.3)
        found.append([[record.messages[0].text for record in side] for side in sides(data)])
        assert [len(source.reader) for source in configured_sources(data)] == [len(found[-1][0])]
    assert found[0] == found[1] == found[2]
    learned, held = ({int(text.split("\n")[1]) for text in side} for side in found[0])
    assert len(learned) + len(held) == 60
    assert {number // 2 for number in held}.isdisjoint(number // 2 for number in learned)


@pytest.mark.parametrize("name", ["s-0.tar", "t.parquet", "a.jsonl"])
def test_each_side_is_an_order_that_can_be_entered_anywhere(root: Path, name: str):
    rows = [{**row, "conversations": row["conversations"][:2]} for row in conversations(80)]
    if name == "s-0.tar":
        write_tar(root / name, samples(40))
    elif name == "t.parquet":
        plain = [row for row in rows if "image" not in row]
        pq.write_table(pa.table({"conversations": [r["conversations"] for r in plain]}), root / name, row_group_size=3)
    else:
        write_jsonl(root / name, rows)
    for key in ("train", "validation"):
        (source,) = configured_sources(Data(train=str(root / name), validation=0.4), key=key)  # type: ignore[arg-type]
        whole = list(islice(Mixture([source]).shard(seed=3), 2 * len(source.reader)))
        epoch = [sample.record.source.number for sample in whole[: len(source.reader)]]
        assert sorted(epoch) == sorted(record.source.number for record in source.reader)
        later = list(islice(Mixture([source]).shard(1, 2, seed=3, start=4), 5))
        assert [sample.record for sample in later] == [sample.record for sample in whole[5:15:2]]


def test_bad_records_are_training_s_to_tell_of(root: Path):
    rows = [*conversations(40), {"id": "gone", "image": "p/none.png", "conversations": []}]
    path = write_jsonl(root / "a.jsonl", rows)
    path.write_text(path.read_text() + "{broken\n")
    learned, held = sides(Data(train=str(path), validation=0.5))
    assert any(isinstance(found, Issue) for found in learned)
    assert "gone" in ids([found for found in learned if isinstance(found, Record)])
    assert all(isinstance(found, Record) for found in held)


def test_an_empty_side_is_an_error(root: Path):
    path = write_jsonl(root / "a.jsonl", [row for row in conversations(4) if isinstance(row.get("image"), str)])
    with pytest.raises(AstreaError, match=r"data.validation=1e-09 holds out none of the 2 records of a\.jsonl"):
        configured_sources(Data(train=str(path), validation=1e-9), key="validation")
    with pytest.raises(AstreaError, match="holds out all of the 2 records"):
        configured_sources(Data(train=str(path), validation=1 - 1e-9))


def test_the_share_of_a_recipe(root: Path):
    path = write_jsonl(root / "a.jsonl", conversations())
    run, more, file, none = (
        load_recipe(Recipe, "tiny", [f"data.train={path}", f"data.validation={said}"])
        for said in ("0.1", "0.2", path, "null")
    )
    assert run.data.validation == 0.1
    assert run.data.named_files == [str(path)]
    # What is learned depends on a share, and not on a file that is only measured on.
    assert len({config_hash(run), config_hash(more), config_hash(none)}) == 3
    assert config_hash(file) == config_hash(none)
    for wrong in ("0", "1", "1.5", "-0.1"):
        with pytest.raises(AstreaError, match="between 0 and 1"):
            load_recipe(Recipe, "tiny", [f"data.train={path}", f"data.validation={wrong}"])
    with pytest.raises(AstreaError, match=r"share of data\.train, which names no file"):
        load_recipe(Recipe, "tiny", ["data.validation=0.1"])


def test_sources_without_a_record_on_a_side_are_left_out(root: Path):
    some = write_jsonl(root / "a.jsonl", conversations(40))
    one = write_jsonl(root / "one.jsonl", [{"id": "x", "conversations": conversations(2)[1]["conversations"]}])
    found: list[list[Source]] = [
        configured_sources(Data(train=(str(some), str(one)), validation=0.3), key=key)  # type: ignore[arg-type]
        for key in ("train", "validation")
    ]
    assert sorted(len(each) for each in found) == [1, 2]
