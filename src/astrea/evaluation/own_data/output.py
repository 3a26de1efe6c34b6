"""What is kept of a measurement on data of one's own: results, every answer, some pictures, the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from astrea.common.files import write_atomic, write_json_atomic
from astrea.common.paths import file_guard
from astrea.evaluation.own_data.held_out import Measured
from astrea.evaluation.own_data.score import is_right
from astrea.experts.drawing import draw_readings
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor
from astrea.report.page import write_report

SAMPLES = 24
SIDE = 640
"""Pixels of the longest side of a sample picture in a run's folder."""


def write_measured(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, measured: Measured, folder: Path
) -> None:
    """``results.json``, ``answers.jsonl``, ``samples.json`` with its pictures, and ``report.html``.

    Raises:
        AstreaError: the folder cannot be written.
    """
    with file_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / "results.json", measured.results)
    write_answers(measured, folder / "answers.jsonl")
    write_samples(model, processor, measured, folder)
    write_report(folder)


def write_answers(measured: Measured, path: Path) -> None:
    """Every item with its question, truths and answers, one JSON object a line."""
    lines = []
    for item, answer, blind in zip(measured.items, measured.answers.with_pictures, measured.answers.blind, strict=True):
        right = None if answer is None else round(is_right(item.kind, answer, item.truths), 4)
        row = {"record": item.name, "kind": item.kind, "question": item.question, "truths": item.truths}
        lines.append(json.dumps(row | {"answer": answer, "blind": blind, "right": right}, ensure_ascii=False) + "\n")
    with file_guard(path):
        write_atomic(path, "".join(lines).encode("utf-8", "replace"))


def write_samples(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, measured: Measured, folder: Path
) -> None:
    """Some pictures with what the experts read in them, the question and the answer: ``samples.json`` and its files."""
    shown = [
        row
        for row, item in enumerate(measured.items)
        if item.sample.record.images and measured.answers.with_pictures[row] is not None
    ]
    step = max(1, len(shown) // SAMPLES)
    with file_guard(folder):
        for name in ("samples", "readings"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        written = [
            _sample(model, processor, measured, row, number, folder)
            for number, row in enumerate(shown[::step][:SAMPLES])
        ]
        write_json_atomic(folder / "samples.json", written)


def _sample(
    model: AstreaForConditionalGeneration,
    processor: AstreaProcessor,
    measured: Measured,
    row: int,
    number: int,
    folder: Path,
) -> dict[str, Any]:
    item, answers = measured.items[row], measured.answers
    picture: Image.Image = item.sample.pictures()[0]
    made = processor(images=[picture]).to(model.device)
    readings = model.experts.readings(made["pixel_values"], made.get("original_images"), [picture.size])[0]
    picture.thumbnail((SIDE, SIDE))
    image, panel = f"samples/{number:02d}.png", f"readings/{number:02d}.png"
    picture.save(folder / image)
    draw_readings(picture, readings).save(folder / panel)
    share = answers.shares[row]
    return {
        "image": image,
        "panel": panel,
        "task": item.kind,
        "question": item.question,
        "answer": answers.with_pictures[row],
        "truth": list(item.truths),
        "right": is_right(item.kind, str(answers.with_pictures[row]), item.truths) >= 0.999,
        "shares": {} if share is None else dict(zip(model.experts.names, share.tolist(), strict=True)),
    }
