"""Data files as a user brings them: pictures of drawn scenes in a folder, and what is asked and told about them."""

from __future__ import annotations

import io
import json
import random
import tarfile
from pathlib import Path
from typing import Any

from PIL import Image

from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import Balancer, Question
from astrea.world.scenes.scene import Scene

Row = dict[str, Any]


def drawn(count: int, split: str = "train") -> list[Scene]:
    """The first scenes of a split."""
    return [split_scene(split, index, 0) for index in range(count)]


def asked_about(scenes: list[Scene], tasks: tuple[str, ...]) -> list[list[Question]]:
    """Balanced questions of some tasks about every scene."""
    balancer, rng = Balancer(), random.Random(0)
    return [[q for q in balancer.choose(scene, rng) if q.task in tasks] for scene in scenes]


def save_pictures(scenes: list[Scene], folder: Path) -> list[str]:
    """PNG files ``p/00000.png`` and so on under a folder; returns their paths in it."""
    (folder / "p").mkdir(parents=True, exist_ok=True)
    paths = [f"p/{number:05}.png" for number in range(len(scenes))]
    for scene, path in zip(scenes, paths, strict=True):
        Image.fromarray(scene.image).save(folder / path, compress_level=1)
    return paths


def llava_row(id: str, images: list[str], turns: list[tuple[str, str]]) -> Row:
    """One conversation, its pictures in front of the first question."""
    said = []
    for number, (question, answer) in enumerate(turns):
        marks = "<image>\n" * len(images) if number == 0 else ""
        said += [{"from": "human", "value": marks + question}, {"from": "gpt", "value": answer}]
    row: Row = {"id": id, "conversations": said}
    if images:
        row["image"] = images[0] if len(images) == 1 else images
    return row


def messages_row(row: Row) -> Row:
    """The same row as chat messages."""
    given = row.get("image", [])
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    said = [{"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    return {"id": row["id"], "images": [given] if isinstance(given, str) else given, "messages": said}


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """One row a line; a text is written as it is."""
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    """The rows as a table of chat messages."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([messages_row(row) for row in rows]), path)
    return path


def write_shards(folder: Path, rows: list[Row], count: int) -> str:
    """The rows in so many tar shards, with the pictures that lie in the folder; returns a pattern that finds them."""
    for shard in range(count):
        with tarfile.open(folder / f"shard-{shard:02}.tar", "w") as tar:
            for row in rows[shard::count]:
                images = row.get("image", [])
                names = [images] if isinstance(images, str) else images
                parts = [(f"{number}.png", (folder / name).read_bytes()) for number, name in enumerate(names)]
                parts.append(("json", json.dumps(row).encode()))
                for ending, data in parts:
                    info = tarfile.TarInfo(f"{row['id']}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    return str(folder / "shard-*.tar")


def mixed_rows(scenes: list[Scene], paths: list[str]) -> list[Row]:
    """Of every kind, one after another: a question, several turns, two pictures, no picture, a system turn, sentences
    about a picture alone."""
    questions = asked_about(scenes, ("existence", "attribute", "counting", "logic"))
    rows: list[Row] = []
    for number, (scene, path, asked) in enumerate(zip(scenes, paths, questions, strict=True)):
        turns = [(q.text, q.answer) for q in asked] or [("is there a cat?", "no")]
        told = captions(scene, 2, number)
        one = llava_row(f"one-{number}", [path], turns[:1])
        ruled = llava_row(f"ruled-{number}", [path], turns[-1:])
        ruled["conversations"].insert(0, {"from": "system", "value": "one word."})
        rows += [
            one,
            llava_row(f"turns-{number}", [path], turns[:3]),
            llava_row(f"two-{number}", [path, paths[number - 1]], [("is there a cat in both?", "no"), turns[0]]),
            llava_row(f"text-{number}", [], [("is the sun red?", "yes"), ("is the moon red?", "no")]),
            ruled,
            llava_row(f"said-{number}", [path], [("describe the picture.", told[0])]),
        ]
    return rows
