"""`astrea validate`: a line per issue, a summary, status 1 if there is any; JSON; a copy without the bad records."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import Astrea, Result

Validate = Callable[..., Result]


@pytest.fixture
def validate(astrea: Astrea) -> Validate:
    return partial(astrea, "validate")


def row(id: str, image: str | None = "a.png", answer: str = "a cat", question: str = "<image>\nwhat?") -> dict:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": id, "conversations": turns} | ({} if image is None else {"image": image})


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    (folder / "a.png").write_bytes(buffer.getvalue())
    (folder / "cut.png").write_bytes(buffer.getvalue()[:150])
    return folder


def test_good_data(validate: Validate, photos: Path) -> None:
    path = write(photos / "train.jsonl", row("1"), row("2"))
    result = validate(path)
    assert result.code == 0
    assert str(path) not in result.out
    assert "train.jsonl" in result.out
    assert "llava" in result.out
    assert "checking train.jsonl" in result.err


def test_faults_are_lines_and_a_summary(validate: Validate, photos: Path, tmp_path: Path) -> None:
    path = write(
        tmp_path / "train.jsonl", row("1"), row("2", answer=""), row("1"), row("3", "b.png"), row("4", "cut.png")
    )
    result = validate(path, "--images", photos)
    assert result.code == 1
    lines = [line for line in result.out.splitlines() if line.startswith(str(path))]
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2 2", f"{path}:3 1", f"{path}:4 3"]
    assert "1  empty assistant turns (empty_assistant)" in result.out
    decoded = validate(path, "--images", photos, "--decode")
    assert f"{path}:5 4: picture 'cut.png' is damaged" in decoded.out
    # Without the root every picture is missing.
    assert validate(path).out.count("does not exist under") == 5
    assert validate(path).out.count("give the right root with --images") == 5


def test_what_the_data_say_is_not_obeyed_by_the_terminal(validate: Validate, tmp_path: Path) -> None:
    path = write(tmp_path / "[red]a\x1b[2J.jsonl", row("1\x1b[31m", "b\x07.png"), row("2", "[red]c.png"))
    result = validate(path)
    assert result.code == 1
    assert "\x1b" not in result.out + result.err
    assert "[red]a\\x1b[2J.jsonl:1 1\\x1b[31m: picture 'b\\x07.png' does not exist" in result.out
    assert "picture '[red]c.png' does not exist" in result.out
    assert "\n│ [red]a\\x1b[2J.jsonl " in result.out  # in the table too
    assert "checking [red]a\\x1b[2J.jsonl" in result.err


def test_json(validate: Validate, photos: Path, tmp_path: Path) -> None:
    good, bad = write(photos / "good.jsonl", row("1")), write(photos / "bad.jsonl", row("x", "../a.png"))
    result = validate(good, bad, "--json")
    assert result.code == 1
    told = json.loads(result.out)
    assert [(file["file"], file["format"], file["records"]) for file in told["files"]] == [
        (str(good), "llava", 1),
        (str(bad), "llava", 1),
    ]
    assert told["files"][1]["issues"] == {"image_path": 1}
    (issue,) = told["issues"]
    assert (issue["file"], issue["line"], issue["id"], issue["kind"]) == (str(bad), 1, "x", "image_path")
    assert issue["message"] and issue["hint"]  # noqa: PT018
    clean = validate(good, "--json")
    assert (clean.code, json.loads(clean.out)["issues"]) == (0, [])


def test_a_fixed_copy(validate: Validate, photos: Path) -> None:
    rows = [row("1"), row("1"), row("2", answer=""), row("3", question="what?")]
    path, copy = write(photos / "train.jsonl", *rows), photos / "clean.jsonl"
    result = validate(path, "--fixed", copy)
    assert result.code == 1
    assert f"fixed:   {copy} (1 record as read, 2 repaired, 1 left out)" in result.out
    assert validate(copy).code == 0
    assert [json.loads(line)["id"] for line in copy.read_text().splitlines()] == ["1", "1-2", "3"]
    again = validate(path, "--fixed", copy)
    assert again.code == 1
    assert f"{copy} exists already" in again.err
    (photos / "away").mkdir()
    assert f"paths still start at {photos}: give --images" in validate(path, "--fixed", photos / "away").out
    other = write(photos / "other.jsonl", row("1"))
    result = validate(path, other, "--images", photos, "--fixed", photos / "both", "--json")
    assert [file["fixed"]["kept"] for file in json.loads(result.out)["files"]] == [1, 1]
    assert {copied.name for copied in (photos / "both").iterdir()} == {"train.jsonl", "other.jsonl"}
    assert "two data files would be copied" in validate(path, path, "--fixed", photos / "twice").err


def test_text_only_rows(validate: Validate, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", row("1", None, question="what?"))
    assert validate(path).code == 0
    assert "the row has no picture" in validate(path, "--need-images").out


def test_length_is_held_to_a_model(validate: Validate, photos: Path, tiny_folder: Path) -> None:
    path = write(photos / "a.jsonl", row("1"), row("2", answer="cat " * 3000))
    assert validate(path).code == 0
    result = validate(path, "--model", tiny_folder)
    assert result.code == 1
    assert f"{path}:2 2: of 3," in result.out
    assert "would cut an answer" in result.out
    assert f"{path}:1 1: " in validate(path, "--model", tiny_folder, "--tokens", 10).out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "Missing argument"),
        (["a.jsonl", "--tokens", "5"], 2, "--tokens needs --model"),
        (["none.jsonl"], 1, "none.jsonl does not exist"),
        (["a.jsonl", "--format", "lava"], 1, "known formats: llava"),
        (["a.jsonl", "--images", "nowhere"], 1, "image root nowhere is not a folder"),
        (["unknown.jsonl"], 1, "its format is unknown; the first record has the keys 'question'"),
        (["*.tar"], 1, "no data file is called *.tar"),
        (["a.jsonl", "--model", "nowhere"], 1, "nowhere"),
    ],
)
def test_misuse(
    validate: Validate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", row("1"))
    write(tmp_path / "unknown.jsonl", {"question": "q"})
    result = validate(*arguments)
    assert result.code == code
    assert said in result.err
    assert result.out == ""
