from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from astrea import cli
from astrea.evaluation import finish
from astrea.evaluation.tasks import TASKS
from astrea.scenes.draw import split_scene
from astrea.training.log import TrainLog

EXPERTS = ["captioning", "classification", "segmentation", "detection"]
QUESTION = "how many suns are there?"


class Result(NamedTuple):
    code: int
    out: str
    err: str


Astrea = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def astrea(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Astrea:
    """Runs a command in this process, through the entry point; anything but an exit status would be a traceback."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["astrea", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return Result(int(ended.value.code or 0), out, err)

    return run


def refused(result: Result, *said: object) -> None:
    """Status 1, nothing on standard output, and one error with its mend."""
    assert result.code == 1
    assert result.out == ""
    lines = [line for line in result.err.splitlines() if not line.startswith("Writing model")]
    assert len([line for line in lines if line.startswith("error: ")]) == 1
    assert len([line for line in lines if line.startswith("  -> ")]) == 1
    for words in said:
        assert str(words) in result.err


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "scene.png"
    Image.fromarray(split_scene("test", 0, 0).image).save(path)
    return path


def tensors(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


# Help and misuse

COMMANDS = (
    *("quickstart", "train", "pretrain", "join", "merge", "estimate", "validate", "evaluate", "arena", "report"),
    *("ask", "index", "retrieve", "scenes", "pack"),
)


def test_help_names_every_command(astrea: Astrea):
    result = astrea("--help")
    assert result.code == 0
    assert all(f" {name} " in result.out for name in COMMANDS)
    assert "astrea quickstart" in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(astrea: Astrea, command: str):
    result = astrea(command, "--help")
    assert result.code == 0
    assert f"Usage: astrea {command}" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["ask"],
        ["ask", "model"],
        ["ask", "model", "image", "question", "--nonsense"],
        ["retrieve", "model", "folder", "text", "--top", "0"],
        ["scenes", "--count", "many"],
        ["scenes", "--canvas", "4"],
        ["train"],
        ["train", "--resume", "run", "tiny"],
        ["train", "--resume", "run", "--out", "other"],
        ["report"],
    ],
)
def test_misuse_has_status_2(astrea: Astrea, arguments: list[str]):
    result = astrea(*arguments)
    assert result.code == 2
    assert "Usage: astrea" in result.out + result.err


# ask


def asked(astrea: Astrea, model: Path, image: Path, question: str = QUESTION) -> dict[str, Any]:
    result = astrea("ask", model, image, question, "--json")
    assert result.code == 0, result.err
    return json.loads(result.out)


def test_ask_as_json(astrea: Astrea, tiny_folder: Path, picture: Path):
    told = asked(astrea, tiny_folder, picture)
    assert told.keys() == {"answer", "confidence", "shares", "readings", "masking", "seconds"}
    assert isinstance(told["answer"], str)
    assert 0 <= told["confidence"] <= 1
    assert list(told["shares"]) == list(told["readings"]) == list(told["masking"]) == EXPERTS
    assert 0 < sum(told["shares"].values()) < 1
    for reading in told["readings"].values():
        assert reading.keys() == {"boxes", "labels", "scores", "caption"}
    for effect in told["masking"].values():
        assert effect.keys() == {"answer", "nats_lost"}
    assert told["seconds"] > 0


def test_ask_for_people(astrea: Astrea, tiny_folder: Path, picture: Path, tmp_path: Path):
    show = tmp_path / "readings.png"
    result = astrea("ask", tiny_folder, picture, QUESTION, "--show", show)
    assert result.code == 0
    assert "probability" in result.out
    assert all(name in result.out for name in EXPERTS)
    with Image.open(show) as drawn:
        assert min(drawn.size) > 64
    told = asked(astrea, tiny_folder, picture)
    # A long answer goes over several lines.
    assert " ".join(told["answer"].split()) in " ".join(result.out.split())


def test_what_a_model_says_is_neither_markup_nor_obeyed_by_the_terminal(astrea, tiny_folder, picture, monkeypatch):
    from astrea import explain

    real = explain.explain

    def hostile(*args: Any, **kwargs: Any) -> Any:
        why = real(*args, **kwargs)
        readings = {
            **why.readings,
            "captioning": replace(why.readings["captioning"], caption="two\nlines [red]\x1b[2J"),
            "detection": replace(why.readings["detection"], labels=("cat\x07", ":dog:"), caption=None),
        }
        masking = why.masking | {"detection": replace(why.masking["detection"], answer="c\x1bd")}
        return replace(why, answer="a [/bold]\n\x1b]0;b", readings=readings, masking=masking)

    monkeypatch.setattr(explain, "explain", hostile)
    result = astrea("ask", tiny_folder, picture, QUESTION)
    assert result.code == 0
    assert "\x1b" not in result.out
    assert result.out.startswith("a [/bold]\\n\\x1b]0;b   (probability ")
    assert "saw: two\\nlines [red]\\x1b[2J\n" in result.out
    assert "saw: cat\\x07, :dog:\n" in result.out
    assert "would answer 'c\\x1bd'" in result.out
    assert len(result.out.splitlines()) == 1 + len(EXPERTS) + 1  # the last line: what no single expert is needed for


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
    told, plain = asked(astrea, tiny_folder, path), asked(astrea, tiny_folder, picture)
    assert 0 < sum(told["shares"].values()) < 1
    del told["seconds"], plain["seconds"]
    assert (told == plain) == same


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "question of row 0 is empty"),
        ("  ", "question of row 0 is empty"),
        ("a" * 100_000, "characters; 1024 tokens"),
        ("is it red? " * 10_000, "characters; 1024 tokens"),
        ("what is <image>?", "<image>"),
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


# retrieve


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album [of] " + "a long name " * 8)
    for index in range(4):
        Image.fromarray(split_scene("test", index, 0).image).save(folder / f"{index}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def test_retrieve(astrea: Astrea, tiny_folder: Path, album: Path):
    result = astrea("retrieve", tiny_folder, album, "a red sun.", "--top", 3, "--json")
    assert result.code == 0
    hits = json.loads(result.out)
    assert [hit.keys() for hit in hits] == [{"image", "score"}] * 3
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert all(Path(hit["image"]).is_file() for hit in hits)
    assert "left out: image" in result.err
    plain = astrea("retrieve", tiny_folder, album, "a red sun.", "--top", 3)
    assert [line.split(maxsplit=1)[1] for line in plain.out.splitlines()] == [hit["image"] for hit in hits]


@pytest.mark.parametrize(
    ("text", "said"), [("", "text is empty"), ("a" * 100_000, "100,000 characters"), ("an <image>", "<image>")]
)
def test_retrieve_with_a_bad_text(astrea, tiny_folder, album, text, said):
    refused(astrea("retrieve", tiny_folder, album, text), said)


def test_retrieve_from_nowhere(astrea, tiny_folder, tmp_path):
    refused(astrea("retrieve", tiny_folder, tmp_path / "none", "a sun"), tmp_path / "none")
    result = astrea("retrieve", tiny_folder, tmp_path, "a sun")
    refused(result, tmp_path, "no readable picture")


# evaluate

FEW = ("data.test_questions=4", "data.test_captions=4", "data.test_retrieval_groups=2")


def test_evaluate_some_tasks(astrea, tiny_folder, few_scenes):
    result = astrea("evaluate", tiny_folder, "--tasks", "counting, retrieval_i2t", "--json", *FEW)
    assert result.code == 0, result.err
    results = json.loads(result.out)
    assert set(results["tasks"]) == {"counting", "retrieval_i2t"}
    assert results["masking"] == {}
    # Four questions do not come in all five conditions; what was not measured is null, which is JSON, unlike NaN.
    assert None in results["conditions"].values()
    plain = astrea("evaluate", tiny_folder, "--tasks", "counting", "--split", "validation", *FEW)
    assert plain.code == 0
    assert "counting" in plain.out
    assert "average" in plain.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "counting,sums"], "unknown task 'sums'"),
        (["--tasks", ""], "unknown task ''"),
        (["--split", "train"], "unknown split 'train'"),
        (["--recipe", "tyny"], "Did you mean 'tiny'?"),
        (["data.test_question=3"], "Did you mean 'data.test_questions'?"),
    ],
)
def test_evaluate_with_bad_options(astrea, tiny_folder, arguments, said):
    refused(astrea("evaluate", tiny_folder, *arguments), said)


# scenes


@pytest.mark.parametrize("split", ["train", "novel"])
def test_scenes(astrea, tmp_path, split):
    path = tmp_path / "sheet.png"
    result = astrea("scenes", "--show", path, "--count", 3, "--split", split)
    assert result.code == 0
    assert str(path) in result.out
    with Image.open(path) as sheet:
        assert min(sheet.size) >= 64


def test_scenes_that_cannot_be_drawn_or_written(astrea, tmp_path):
    refused(astrea("scenes", "--split", "dev", "--show", tmp_path / "a.png"), "unknown split 'dev'")
    refused(astrea("scenes", "--count", 1, "--show", tmp_path / "no" / "a.png"), tmp_path / "no" / "a.png")
    refused(astrea("scenes", "--count", 1, "--show", tmp_path / "a.xyz"), tmp_path / "a.xyz", ".png")


# Runs: quickstart, train, resume, report


@pytest.fixture(scope="module")
def short(small_overrides: list[str]) -> list[str]:
    return [*small_overrides, "align.steps=5", "fuse.steps=2", "tune.steps=4"]


def test_quickstart_twice_and_its_report(astrea, short, tmp_path, few_scenes, monkeypatch):
    folder = tmp_path / ("a long name " * 8 + "[run]")
    result = astrea("quickstart", "--out", folder, *short)
    assert result.code == 0, result.err
    # Paths in one line, to be copied.
    assert f"report:  {folder / 'report.html'}\n" in result.out
    assert f"model:   {folder / 'model'}\n" in result.out
    assert all(task in result.out for task in TASKS)
    wanted = {"recipe.yaml", "train.jsonl", "seconds.json", "results.json", "samples.json", "report.html"}
    assert wanted | {"model", "samples", "checkpoints"} == {path.name for path in folder.iterdir()}
    results = json.loads((folder / "results.json").read_text())
    assert tuple(results["tasks"]) == TASKS
    assert (results["strategy"], results["seed"], results["recipe"]) == ("astrea", 0, "tiny")
    assert {"features", "waiting", "align", "fuse", "tune", "evaluate"} == results["seconds"].keys()
    samples = json.loads((folder / "samples.json").read_text())
    assert len(samples) == 24
    assert all((folder / row["image"]).is_file() and (folder / row["panel"]).is_file() for row in samples)
    assert all(0 < sum(row["shares"].values()) < 1 for row in samples)

    page = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    assert astrea("report", folder).code == 0
    assert (folder / "report.html").read_bytes() == page

    weights = tensors(folder)
    with monkeypatch.context() as patch:
        patch.setattr(finish, "finish", lambda *args, **kwargs: results)
        again = astrea("quickstart", "--out", folder, *short)
    assert again.code == 0, again.err
    assert "resuming from" in again.err
    assert all(torch.equal(weights[name], value) for name, value in tensors(folder).items())
    refused(astrea("quickstart", "--out", folder, *short, "seed=5"), "has configuration")


def test_sigint_says_how_to_go_on_and_resume_gives_the_same_bits(astrea, short, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert astrea("train", "tiny", *short, "--out", whole, "--no-evaluate").code == 0
    with monkeypatch.context() as patch:
        write = TrainLog.write

        def interrupt(self: TrainLog, step: int, record: dict[str, Any]) -> None:
            write(self, step, record)
            if step == 9:
                os.kill(os.getpid(), signal.SIGINT)

        patch.setattr(TrainLog, "write", interrupt)
        result = astrea("train", "tiny", *short, "--out", stopped, "--no-evaluate")
    assert result.code == 130
    assert result.err.splitlines()[-1] == f"stopped at tune, step 2; go on with: astrea train --resume {stopped}"

    # Starting over there is refused, and the run keeps its own recipe.
    recipe = (stopped / "recipe.yaml").read_bytes()
    refused(astrea("train", "tiny", *short, "seed=3", "--out", stopped), stopped, "--resume")
    assert (stopped / "recipe.yaml").read_bytes() == recipe

    resumed = astrea("train", "--resume", stopped, "--no-evaluate")
    assert resumed.code == 0, resumed.err
    assert "resuming from step-00000009" in resumed.err
    assert not (stopped / "results.json").exists()
    mine, other = tensors(stopped), tensors(whole)
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in other)
    assert (stopped / "train.jsonl").read_bytes() == (whole / "train.jsonl").read_bytes()


def test_an_interrupt_while_evaluating_says_how_to_go_on(astrea, short, tmp_path, monkeypatch):
    def interrupted(*args: Any, **kwargs: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)

    monkeypatch.setattr(finish, "finish", interrupted)
    result = astrea("train", "tiny", *short, "tune.steps=0", "fuse.steps=0", "--out", tmp_path / "run")
    assert result.code == 130
    assert f"astrea train --resume {tmp_path / 'run'}" in result.err


def test_no_run_to_go_on_with_or_report(astrea, tmp_path):
    refused(astrea("train", "--resume", tmp_path / "none"), tmp_path / "none", "no run folder")
    refused(astrea("report", tmp_path / "none"), tmp_path / "none")
    (tmp_path / "results.json").write_text("{")
    refused(astrea("report", tmp_path), tmp_path / "results.json")


def test_a_run_folder_that_cannot_be_made(astrea, short, tmp_path):
    (tmp_path / "file").write_text("")
    refused(astrea("train", "tiny", *short, "--out", tmp_path / "file" / "run"), tmp_path / "file" / "run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fuse: {stepz: 3}", "'fuse.stepz' is not a known key|line 1|Did you mean 'fuse.steps'?"),
        ("name: x\nalign:\n  steps: many", "line 3: 'align.steps': expected a whole number, got 'many'"),
        ("name: x\nlanguage: {width: 33}", "line 2|a width of 33 is not a multiple"),
        ("name: x\nmodel: {mixer: 1}", "line 2: 'model.mixer': expected true or false"),
        ("name: [", "not valid YAML"),
        ("", "the recipe is empty"),
    ],
)
def test_recipe_mistakes_name_file_line_and_key(astrea, tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    refused(astrea("train", path, "--out", tmp_path / "run"), path, *said.split("|"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tinny"], "Did you mean 'tiny'?"),
        (["tiny", "tune.step=3"], "Did you mean 'tune.steps'?"),
        (["tiny", "tune.steps"], "is not an override"),
        (["tiny", "experts.captioning.kind=magic"], "unknown expert kind 'magic'"),
        (["tiny", "pretrain=nowhere"], "card.json"),
    ],
)
def test_bad_recipes_on_the_command_line(astrea, tmp_path, arguments, said):
    refused(astrea("train", *arguments, "--out", tmp_path / "run"), said)


# pretrain


def test_pretrain_one_part_and_keep_it(astrea, small_overrides, tmp_path):
    parts = tmp_path / "parts"
    brief = [*small_overrides, "pretraining.expert.steps=2", "pretraining.expert.batch=2"]
    result = astrea("pretrain", "tiny", *brief, "--out", parts, "--only", "detection")
    assert result.code == 0, result.err
    assert {path.name for path in parts.iterdir()} == {"detection.safetensors", "card.json"}
    before = (parts / "detection.safetensors").read_bytes()
    assert astrea("pretrain", "tiny", *brief, "--out", parts, "--only", "detection").code == 0
    other = astrea("pretrain", "tiny", *brief, "pretraining.expert.lr=1e-4", "--out", parts, "--only", "detection")
    refused(other, "detection.safetensors", "other settings")
    assert (parts / "detection.safetensors").read_bytes() == before
    refused(astrea("pretrain", "tiny", *brief, "--out", parts, "--only", "detections"), "unknown part 'detections'")


def test_a_recipe_without_parts_has_none_to_train(astrea, small_overrides, tmp_path):
    elsewhere = ["experts={boxes: {kind: detection, checkpoint: a/folder}}", "language.checkpoint=a/folder"]
    result = astrea("pretrain", "tiny", *small_overrides, *elsewhere, "--out", tmp_path / "parts")
    refused(result, "uses none of the parts", "--only")
    assert not (tmp_path / "parts").exists()


def test_a_language_model_under_the_gate_never_passes(astrea, small_overrides, tmp_path):
    brief = [*small_overrides, "pretraining.language.steps=1", "pretraining.language.batch=2", "pretraining.gate=0.9"]
    for _ in range(2):  # also when the part is found again
        result = astrea("pretrain", "tiny", *brief, "--out", tmp_path / "parts", "--only", "language")
        refused(result, "the gate is 90%", "language.safetensors")


# The real thing: status and messages of a process of its own


def test_a_real_run_is_stopped_by_ctrl_c(short, tmp_path):
    folder = tmp_path / "run"
    endless = ["tune.steps=1000000", "tune.save_every=0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "astrea.cli", "train", "tiny", *short, *endless, "--out", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = folder / "train.jsonl"
    try:
        while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 10):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in out + err
    assert f"go on with: astrea train --resume {folder}" in err
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert (folder / "checkpoints" / f"step-{steps[-1]:08d}" / "manifest.json").is_file()
