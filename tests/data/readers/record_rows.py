"""Small pictures, and the same two hundred conversations in every format."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WORDS = ["sun", "moon", "tree", "house", "cat", "dog", "red", "left", "above", "two", "ä", "日本", "🙂"]


def picture(seed: int, format: str = "PNG") -> bytes:
    """A small picture of its own."""
    values = np.random.default_rng(seed).integers(0, 256, (8, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format)
    return buffer.getvalue()


def conversations(count: int = 200) -> list[dict[str, Any]]:
    """Rows as LLaVA writes them: of one, several or no pictures, one or several turns, marks at many places."""
    rng = np.random.default_rng(3)
    rows = []
    for number in range(count):
        said = [" ".join(rng.choice(WORDS, 5)) for _ in range(6)]
        pictures = [f"p/{(number * 7 + k) % 50:03}.png" for k in range([1, 0, 2, 1][number % 4])]
        question = {
            0: said[0],
            1: f"<image>\n{said[0]}" if number % 3 else f"{said[0]} <image> {said[1]}",
            2: f"<image>\n<image>\n{said[0]}" if number % 8 < 4 else f"{said[0]} <image> {said[1]} <image>?",
        }[len(pictures)]
        turns = [("human", question), ("gpt", said[2])]
        if number % 5 == 0:
            turns += [("human", said[3]), ("gpt", said[4])]
        row: dict[str, Any] = {"id": f"row-{number}"}
        if pictures:
            row["image"] = pictures[0] if len(pictures) == 1 else pictures
        row["conversations"] = [{"from": who, "value": text} for who, text in turns]
        rows.append(row)
    return rows


def image_list(row: dict[str, Any]) -> list[str]:
    """The paths of a LLaVA row's pictures."""
    given = row.get("image", [])
    return [given] if isinstance(given, str) else given


def role(turn: dict[str, str]) -> str:
    """The chat role of a LLaVA turn."""
    return {"human": "user", "gpt": "assistant"}[turn["from"]]


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """One row a line."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def data_url(data: bytes) -> str:
    """A picture as a URL."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar file of these members."""
    with tarfile.open(path, mode) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path
