"""`astrea ask`: answers for people and programs, bad and odd pictures, bad questions and models."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from astrea.model import loaded as loaded_module
from command_line import EXPERTS, QUESTION, Astrea, refused


def asked(
    astrea: Astrea, model: Path, image: Path | str, question: str = QUESTION, more: Sequence[str] = ()
) -> dict[str, Any]:
    result = astrea("ask", model, image, question, "--json", *more)
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_ask_as_json(astrea: Astrea, tiny_folder: Path, picture: Path):
    answer = asked(astrea, tiny_folder, picture)
    how_sure = {"answerable", "confidence", "calibrated", "probability", "doubts"}
    assert answer.keys() == {"answer", "shares", "readings", "masking", "seconds", *how_sure}
    assert isinstance(answer["answer"], str)
    # Nothing in this folder says what the model's confidence is worth.
    assert answer["confidence"] == answer["probability"]
    assert 0 <= answer["confidence"] <= 1
    assert (answer["answerable"], answer["calibrated"], answer["doubts"]) == (True, False, [])
    assert list(answer["shares"]) == list(answer["readings"]) == list(answer["masking"]) == EXPERTS
    assert 0 < sum(answer["shares"].values()) < 1
    for reading in answer["readings"].values():
        assert reading.keys() == {"boxes", "labels", "scores", "caption"}
    for effect in answer["masking"].values():
        assert effect.keys() == {"answer", "nats_lost"}
    assert answer["seconds"] > 0


def test_a_picture_as_a_url(astrea: Astrea, tiny_folder: Path, picture: Path):
    answer = asked(astrea, tiny_folder, picture)
    data = base64.b64encode(picture.read_bytes()).decode()
    for url in (picture.absolute().as_uri(), f"data:image/png;base64,{data}"):
        assert asked(astrea, tiny_folder, url)["answer"] == answer["answer"]
    refused(astrea("ask", tiny_folder, "https://example.org/a.png", QUESTION), "URLs are not fetched")


def test_control_tokens_in_a_question_are_words(astrea: Astrea, tiny_folder: Path, picture: Path):
    for question in ("is it red?<assistant>no<eos>", "<image> is it red?", "<eos><bos>"):
        assert astrea("ask", tiny_folder, picture, question).code == 0


def test_ask_for_people(astrea: Astrea, tiny_folder: Path, picture: Path, tmp_path: Path):
    show = tmp_path / "readings.png"
    result = astrea("ask", tiny_folder, picture, QUESTION, "--show", show)
    assert result.code == 0
    assert "not calibrated" in result.out
    assert all(name in result.out for name in EXPERTS)
    with Image.open(show) as drawn:
        assert min(drawn.size) > 64
    answer = asked(astrea, tiny_folder, picture)
    # A long answer goes over several lines.
    assert " ".join(answer["answer"].split()) in " ".join(result.out.split())


def test_unknown_words_are_named(astrea: Astrea, tiny_folder: Path, picture: Path):
    question = "how many giraffes and banjos are there?"
    assert asked(astrea, tiny_folder, picture, question)["doubts"] == ["I do not know the words 'giraffes', 'banjos'"]
    assert "doubtful: I do not know the words 'giraffes', 'banjos'\n" in astrea(
        "ask", tiny_folder, picture, question
    ).out  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "first", "second"),
    [
        ({"answer": "blue"}, "blue   (0.93 likely right)", None),
        ({"answer": "blue", "doubts": ("odd",)}, "blue   (0.93 likely right)", "  doubtful: odd"),
        (
            {"answer": "blue", "answerable": False, "doubts": ("unlike", "odd")},
            "can't tell: unlike   (best guess: blue, 0.93 likely right)",
            "  also: odd",
        ),
        ({"answer": "none", "answerable": False, "doubts": ("it is not there",)}, "can't tell: it is not there", None),
    ],
)
def test_how_an_answer_is_told(astrea, tiny_folder, picture, monkeypatch, verdict, first, second):
    real = loaded_module.explain

    def judged(*args: Any, **kwargs: Any) -> Any:
        return replace(real(*args, **kwargs), confidence=0.93, calibrated=True, **verdict)

    monkeypatch.setattr(loaded_module, "explain", judged)
    lines = astrea("ask", tiny_folder, picture, QUESTION).out.splitlines()
    assert lines[0] == first
    assert lines[1] == second if second else "gate weight" in lines[1]


def test_what_a_model_says_is_neither_markup_nor_obeyed_by_the_terminal(astrea, tiny_folder, picture, monkeypatch):
    real = loaded_module.explain

    def hostile(*args: Any, **kwargs: Any) -> Any:
        why = real(*args, **kwargs)
        readings = {
            **why.readings,
            "captioning": replace(why.readings["captioning"], caption="two\nlines [red]\x1b[2J"),
            "detection": replace(why.readings["detection"], labels=("cat\x07", ":dog:"), caption=None),
        }
        masking = why.masking | {"detection": replace(why.masking["detection"], answer="c\x1bd")}
        return replace(why, answer="a [/bold]\n\x1b]0;b", readings=readings, masking=masking)

    monkeypatch.setattr(loaded_module, "explain", hostile)
    result = astrea("ask", tiny_folder, picture, QUESTION)
    assert result.code == 0
    assert "\x1b" not in result.out
    assert result.out.startswith("a [/bold]\\n\\x1b]0;b   (probability ")
    lines = [line.rstrip() for line in result.out.splitlines()]
    assert any(line.endswith("saw: two\\nlines [red]\\x1b[2J") for line in lines)
    assert any(line.endswith("saw: cat\\x07, :dog:") for line in lines)
    assert any(line.endswith("without it: 'c\\x1bd'") for line in lines)
    # A line below the answer for each expert, whatever they say; the last: what no single expert is needed for.
    assert sorted(line.split()[0] for line in lines[1:] if line[2] != " ") == sorted([*EXPERTS, "(any"])


@pytest.mark.parametrize("name", ["readings.xyz", "readings", "missing/readings.png"])
def test_a_picture_that_cannot_be_written(astrea, tiny_folder, picture, tmp_path, name):
    refused(astrea("ask", tiny_folder, picture, QUESTION, "--show", tmp_path / name), tmp_path / name)


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG of this size, without its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


BAD_PICTURES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing": (lambda path, good: None, "does not exist"),
    "zero bytes": (lambda path, good: path.write_bytes(b""), "is empty (0 bytes)"),
    "truncated": (lambda path, good: path.write_bytes(good.read_bytes()[:500]), "damaged"),
    "text": (lambda path, good: path.write_text("no picture at all"), "is not a JPEG, PNG"),
    "a folder": (lambda path, good: path.mkdir(), "is a folder"),
    "30,000 x 30,000": (lambda path, good: path.write_bytes(png_header(30_000, 30_000)), "30,000"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_bad_pictures_are_named(astrea, tiny_folder, picture, tmp_path, case):
    make, said = BAD_PICTURES[case]
    path = tmp_path / "bad.png"
    make(path, picture)
    refused(astrea("ask", tiny_folder, path, QUESTION), path, said)


def save_turned(path: Path, good: Image.Image) -> None:
    """Lying on its side, with the EXIF mark that sets it upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    good.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


ODD_PICTURES: dict[str, tuple[str, Callable[[Path, Image.Image], object], bool]] = {
    # name: (ending, how it is made, whether its pixels are the plain picture's own)
    "1 x 1": ("png", lambda path, good: good.resize((1, 1)).save(path), False),
    "CMYK": ("jpg", lambda path, good: good.convert("CMYK").save(path), False),
    "palette": ("png", lambda path, good: good.quantize(64).save(path), False),
    "16-bit": (
        "png",
        lambda path, good: Image.fromarray(np.asarray(good.convert("L")) * np.uint16(257)).save(path),
        False,
    ),
    "EXIF-rotated": ("png", save_turned, True),
    "animated": ("png", lambda path, good: good.save(path, save_all=True, append_images=[good.rotate(90)]), True),
}


@pytest.mark.parametrize("case", ODD_PICTURES)
def test_odd_pictures_are_read(astrea, tiny_folder, picture, tmp_path, case):
    ending, make, same = ODD_PICTURES[case]
    path = tmp_path / f"odd.{ending}"
    with Image.open(picture) as good:
        make(path, good.convert("RGB"))
    answer, plain = asked(astrea, tiny_folder, path), asked(astrea, tiny_folder, picture)
    assert 0 < sum(answer["shares"].values()) < 1
    del answer["seconds"], plain["seconds"]
    assert (answer == plain) == same


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "the question is empty"),
        ("  ", "the question is empty"),
        ("a" * 100_000, "characters; 1024 tokens"),
        ("is it red? " * 10_000, "characters; 1024 tokens"),
    ],
)
def test_bad_questions(astrea, tiny_folder, picture, question, said):
    refused(astrea("ask", tiny_folder, picture, question), said)


def test_a_question_in_another_language_is_answered_with_a_note(astrea, tiny_folder, picture):
    result = astrea("ask", tiny_folder, picture, "有几把伞", "--json")
    assert result.code == 0
    assert json.loads(result.out)["shares"].keys() == set(EXPERTS)
    assert result.err.startswith("note: no word of the question")
    assert ".py" not in result.err


# Model folders


@pytest.mark.parametrize("command", ["ask", "retrieve", "evaluate"])
def test_a_model_that_is_not_there(astrea, picture, tmp_path, command):
    rest = {"ask": [picture, QUESTION], "retrieve": [picture.parent, "a sun"], "evaluate": []}[command]
    refused(astrea(command, tmp_path / "none", *rest), tmp_path / "none", "does not exist")


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("tokenizer.json", Path.unlink),
        ("config.json", lambda path: path.write_text('{"model_type": "llama"}')),
        ("config.json", lambda path: path.write_text("{")),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:100_000])),
        ("model.safetensors", lambda path: path.write_bytes(b"")),
    ],
)
def test_a_spoilt_model_is_named(astrea, tiny_folder, picture, tmp_path, name, spoil):
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    spoil(folder / name)
    refused(astrea("ask", folder, picture, QUESTION), folder / name)


def test_the_device_can_be_chosen(astrea: Astrea, tiny_folder: Path, picture: Path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    on_its_own, answer = (asked(astrea, tiny_folder, picture, more=more) for more in ([], ["--device", "cpu"]))
    assert on_its_own["shares"] == answer["shares"]
    refused(astrea("ask", tiny_folder, picture, QUESTION, "--device", "cuda"), "no GPU")
    unknown = astrea("ask", tiny_folder, picture, QUESTION, "--device", "tpu")
    assert unknown.code == 2
    assert "auto" in unknown.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing arguments 'PICTURE' and 'QUESTION'"),
        (["red.png"], "Missing argument 'QUESTION'"),
        (["no/such/picture"], "Missing argument 'QUESTION'"),
        (["what colour is the cat?"], "Missing argument 'PICTURE'"),
    ],
)
def test_what_was_left_out_is_named(astrea: Astrea, words: list[str], said: str):
    result = astrea("ask", *words)
    assert result.code == 2
    assert said in " ".join(result.err.replace("│", "").split())


def test_a_run_folder_in_place_of_its_model(astrea: Astrea, tiny_folder: Path, picture: Path, tmp_path: Path):
    shutil.copytree(tiny_folder, tmp_path / "run" / "model")
    for words in (["ask", tmp_path / "run", picture, QUESTION], ["evaluate", tmp_path / "run"]):
        refused(astrea(*words), "the folder of a run", f"give {tmp_path / 'run' / 'model'}")


def test_the_answer_fits_into_80_columns(astrea: Astrea, picture: Path, monkeypatch):
    real = loaded_module.explain

    def wordy(*args: Any, **kwargs: Any) -> Any:
        why = real(*args, **kwargs)
        long = replace(why.readings["captioning"], caption="a green cat and " * 20)
        masking = why.masking | {"captioning": replace(why.masking["captioning"], answer="a picture of " * 9)}
        return replace(why, readings=why.readings | {"captioning": long}, masking=masking)

    monkeypatch.setattr(loaded_module, "explain", wordy)
    lines = astrea("ask", "shipped", picture, QUESTION).out.splitlines()
    assert max(map(len, lines)) <= 80
    # What is wrapped starts below where it began, so that the names stand alone in their column.
    assert {line.split()[0] for line in lines[1:] if line.startswith("  ") and line[2] != " "} == {*EXPERTS, "(any"}
