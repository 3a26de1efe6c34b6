"""Data files of every format whose rows, fields and bytes are anything at all."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import tarfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from astrea.data.packing import Packer
from astrea.data.readers.check import Checks, examine
from astrea.data.readers.mixture import Mixture
from astrea.data.readers.reader import RowReader
from astrea.data.readers.repaired import fixed_copy
from astrea.data.readers.sources import open_sources
from astrea.data.readers.trainable import Trainable
from astrea.world.language.tiny import tiny_tokenizer
from fuzz.harness import Case

DRAWN = 6
"""Samples that training takes of each file, where there is a good one."""

PICTURE = io.BytesIO()
Image.new("RGB", (8, 6), "red").save(PICTURE, "PNG")
PNG = PICTURE.getvalue()
URL = "data:image/png;base64," + base64.b64encode(PNG).decode()

PATHS = ["a.png", "b/a.png", "/etc/passwd", "../out.png", "b/../../x", "n" * 300, "a\0.png", "\udcff.png", "half\ud800"]
PATHS += [
    "",
    " ",
    ".",
    "link.png",
    "loop",
    "pipe",
    "http://127.0.0.1/a.png",
    "file:///etc/passwd",
    "C:\\a.png",
    "~/a.png",
]
PATHS += [URL, URL[:40], "data:,", "data:image/png;base64,!!!", "a.png ", "[a].png", "b", "a.png/x", "\u202egnp.a"]
TEXTS = [
    "<image>",
    "<image>" * 3,
    "a cat",
    "",
    " ",
    "<eos><user>",
    "\ud800",
    "\0",
    "\x1b[31m",
    "x" * 70_000,
    "<|im_end|>",
]
TEXTS += [
    "é\u0301" * 9,
    "{{ 7 * 7 }}",
    "{% for x in range(9**9) %}",
    "user",
    "human",
    "gpt",
    "assistant",
    "system",
]
NUMBERS = [0, -1, True, False, 1.5, 1e308, float("nan"), float("inf"), 10**30, -0.0]


def anything(rng: random.Random, depth: int = 0) -> Any:
    """A JSON value of any kind."""
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return rng.choice(TEXTS)
    if kind < 4:
        return rng.choice(PATHS)
    if kind == 4:
        return rng.choice(NUMBERS)
    if kind == 5:
        return rng.choice([None, [], {}])
    if kind == 6:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    names = ["id", "type", "text", "url", "path", "bytes", "image", "role", "content", "image_url", "from", "value"]
    return {rng.choice(names): anything(rng, depth + 1) for _ in range(rng.randrange(4))}


def spoilt(value: Any, rng: random.Random) -> Any:
    """A value with one thing somewhere within it replaced, left out or doubled."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        key = rng.choice(list(value))
        rest = {name: one for name, one in value.items() if name != key}
        return rest if rng.random() < 0.15 else {**value, key: spoilt(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        at = rng.randrange(len(value))
        extra = [value[at]] if rng.random() < 0.15 else []
        return [*value[:at], spoilt(value[at], rng), *extra, *value[at + 1 :]]
    return anything(rng)


def good_rows(form: str) -> list[dict[str, Any]]:
    said = [{"role": "user", "content": "<image>\nis there a cat?"}, {"role": "assistant", "content": "no"}]
    parts = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "is there a cat?"}]
    told = [{"from": "human", "value": "<image>\nis there a cat?"}, {"from": "gpt", "value": "no"}]
    rows: dict[str, list[dict[str, Any]]] = {
        "llava": [{"id": "1", "image": "a.png", "conversations": told, "system": "one word."}],
        "messages": [
            {"id": "1", "images": ["a.png"], "messages": said},
            {"id": "2", "messages": [{"role": "user", "content": parts}, said[1]]},
        ],
        "prompt": [{"prompt": "<image> what?", "completion": "a cat", "images": ["a.png"]}],
        "retrieval": [{"id": 1, "image": "a.png", "caption": ["a cat.", "a red cat."]}],
    }
    return rows[form]


def document(rng: random.Random) -> dict[str, Any]:
    images = [{"id": n, "file_name": "a.png", "width": 8, "height": 6} for n in range(3)]
    if rng.random() < 0.3:
        told = [{"raw": "a cat."}]
        return {"images": [{"cocoid": n, "filename": "a.png", "split": "train", "sentences": told} for n in range(3)]}
    if rng.random() < 0.5:
        return {"images": images, "annotations": [{"image_id": n, "caption": "a cat."} for n in range(3)]}
    boxes = [{"image_id": n, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 0} for n in range(3)]
    return {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}


def as_json(value: Any, rng: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.5, indent=1 if rng.random() < 0.2 else None)
    return text.encode("utf-8", rng.choice(["surrogatepass", "replace"]))


def rows_file(rng: random.Random) -> tuple[str, bytes]:
    rows = [row for form in rng.sample(["llava", "messages", "prompt", "retrieval"], 2) for row in good_rows(form)]
    rows += [spoilt(rng.choice(rows), rng) for _ in range(6)]
    rng.shuffle(rows)
    if rng.random() < 0.3:
        return "a.json", as_json(rows, rng)
    lines = [as_json(row, rng).replace(b"\n", b" ") for row in rows]
    return "a.jsonl", rng.choice([b"\n", b"\r\n", b"\n\n", b"\n\xef\xbb\xbf"]).join(lines)


def document_file(rng: random.Random) -> tuple[str, bytes]:
    made = document(rng)
    for _ in range(rng.randrange(1, 4)):
        made = spoilt(made, rng)
    return "a.json", as_json(made, rng)


def table_file(rng: random.Random) -> tuple[str, bytes]:
    import pyarrow
    import pyarrow.ipc
    import pyarrow.parquet

    row = dict(good_rows(rng.choice(["llava", "messages", "prompt", "retrieval"]))[0])
    for name in rng.sample(list(row), rng.randrange(len(row))):
        if rng.random() < 0.5:
            row[name] = rng.choice([None, b"\xff\0", 1.5, [[1]], {"a": 1}, "\0", [None], 10**18, True])
    row["image"] = rng.choice(["a.png", {"bytes": PNG[: rng.randrange(len(PNG) + 1)], "path": None}, PNG])
    table = pyarrow.Table.from_pylist([row] * 5)
    out = io.BytesIO()
    if rng.random() < 0.5:
        pyarrow.parquet.write_table(table, out, row_group_size=2)
        return rng.choice(["a.parquet", "a.PARQUET"]), out.getvalue()
    make = rng.choice([pyarrow.ipc.new_stream, pyarrow.ipc.new_file])
    with make(out, table.schema) as to:
        to.write_table(table)
    return "a.arrow", out.getvalue()


def shard_file(rng: random.Random) -> tuple[str, bytes]:
    out = io.BytesIO()
    packed = rng.choice(["", "gz", "xz"])
    with tarfile.open(fileobj=out, mode=f"w:{packed}") as tar:
        for number in range(rng.randrange(1, 9)):
            name = rng.choice(["a", "22.05", "._a", "d/a", "../x", "", ".", "n" * 300, f"s{number}", "\udcff"])
            info = tarfile.TarInfo(f"{name}.{rng.choice(['png', 'txt', 'json', 'jpg', 'cls', 'heic', 'TXT', ''])}")
            data = rng.choice(
                [PNG, b"a cat", b"\xff", b"", as_json(spoilt(good_rows("llava")[0], rng), rng), b"{" * 5000]
            )
            info.size = len(data)
            if rng.random() < 0.15:
                info.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"Z"])
                info.linkname, info.size, data = "/etc/passwd", 0, b""
            if rng.random() < 0.1:
                info.pax_headers = {"path": "/etc/" + "p" * rng.randrange(9000), "size": "-1"}
            tar.addfile(info, io.BytesIO(data))
    return f"a.tar{'.' + packed if packed else ''}", out.getvalue()


def broken_file(rng: random.Random) -> tuple[str, bytes]:
    """A good file of any kind, cut short or with some bytes altered."""
    name, data = rng.choice([rows_file, document_file, table_file, shard_file])(rng)
    if rng.random() < 0.4:
        return name, data[: rng.randrange(len(data) + 1)]
    bytes_ = bytearray(data)
    for _ in range(rng.randrange(1, 20)):
        at = rng.randrange(len(bytes_)) if bytes_ else 0
        bytes_[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return name, bytes(bytes_)


def absurd_file(rng: random.Random) -> tuple[str, bytes]:
    """Few ideas and many bytes: depth, width, long numbers, compressed nothing."""
    deep = b'{"a":' * 200_000
    wide = b'{"messages":[' + b"[]," * (8 << 20) + b"[]]}"
    number = b'{"id": ' + b"9" * 200_000 + b', "image": "a.png", "caption": "a"}'
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice(["a.json", "a.jsonl"]), deep
    if kind == 1:
        return "a.jsonl", wide
    if kind == 2:
        return "a.jsonl", number
    if kind == 3:
        return "a.jsonl", b'{"image": "a.png", "caption": "' + b"x" * (70 << 20) + b'"}'
    if kind == 4:
        return "a.json", b"[" * rng.choice([1, 1000, 1_000_000])
    if kind == 5:
        return "a.jsonl", b'{"image": ["' + b'a.png","' * 100_000 + b'"], "caption": "a"}'
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(rng.choice(["a.txt", "a.png", "a.json", "a.cls"]))
        info.size = 80 << 20
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    return "a.tar.gz", gzip.compress(out.getvalue(), 1)


FAMILIES: dict[str, tuple[Callable[[random.Random], tuple[str, bytes]], int]] = {
    "rows": (rows_file, 40),
    "document": (document_file, 20),
    "table": (table_file, 8),
    "shard": (shard_file, 15),
    "broken": (broken_file, 16),
    "absurd": (absurd_file, 1),
}
"""Each with how often it is drawn, in hundredths."""


@cache
def packer() -> Packer:
    return Packer(tiny_tokenizer(), 8)


def look_over(path: Path) -> None:
    """All that `astrea validate --decode --fixed` and training do with a file."""
    sources = open_sources(str(path), images=path.parent)
    for source in sources:
        checks = Checks(decode=True)
        total = len(source.reader)
        for _, issues in examine(source.reader, source.root, checks):
            assert all(str(issue) and "\n" not in str(issue) for issue in issues)
        if isinstance(source.reader, RowReader):
            copy = path.with_name(f"fixed{path.suffix}")
            with fixed_copy(source.reader, copy, source.root, checks) as fixed:
                for index, (record, issues) in enumerate(examine(source.reader, source.root, checks)):
                    fixed.take(index, record, issues)
            assert fixed.kept + fixed.repaired + fixed.dropped == total
    mixture = Mixture(sources, check=Trainable(packer(), 512), on_issue=str)
    for position in range(min(DRAWN, len(mixture))):
        mixture.sample(position, 0, 0).pictures()


def cases(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """So many data files, each in a folder of its own with a picture, a link out of it, a loop and a pipe."""
    packer()
    names, weights = list(FAMILIES), [weight for _, weight in FAMILIES.values()]
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        family = rng.choices(names, weights)[0]
        name, data = FAMILIES[family][0](rng)
        place = folder / f"{number:05}"
        (place / "b").mkdir(parents=True)
        (place / "a.png").write_bytes(PNG)
        (place / "b/a.png").write_bytes(PNG[:30])
        (place / "link.png").symlink_to("/etc/passwd")
        (place / "loop").symlink_to("loop")
        os.mkfifo(place / "pipe")
        (place / name).write_bytes(data)
        yield Case(f"{family} {seed}/{number}", lambda path=place / name: look_over(path), place)
        for one in place.glob("a.*"):
            one.unlink()  # the large ones would add up
