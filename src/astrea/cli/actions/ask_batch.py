"""What ask --batch does: a file of questions about pictures -> a file of answers, begun again where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from astrea.common.devices import Device
from astrea.common.errors import AstreaError
from astrea.common.files import write_atomic
from astrea.common.output import out, print_path
from astrea.common.paths import exists, file_guard
from astrea.common.progress import TerminalReporter
from astrea.common.terminal import counted
from astrea.model.loaded import load
from astrea.serving.errors import ApiError
from astrea.serving.features import Picture
from astrea.serving.limits import Limits
from astrea.serving.local import Asker, Pending

TOGETHER = 32
FORM = 'write a JSON object per line: {"image": "a path", "question": "..."}, or "images": ["...", "..."]'


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the questions' file. head: what its line of the answers' file begins with."""

    number: int
    question: str
    images: tuple[str, ...]
    head: dict[str, Any]


def ask_batch(
    folder: Path, questions: Path, answers: Path, *, longest: int, device: Device, trust_remote_code: bool
) -> None:
    """Answer every question of a file. Ends with status 1 if a row could not be answered; the others are."""
    lines = read_lines(questions)
    done = answered(answers, lines)
    left = [number for number in lines if number not in done]
    write_rows(answers, done)
    failed = 0
    loaded = load(folder, device=device, trust_remote_code=trust_remote_code)
    limits = Limits(running=TOGETHER, waiting=TOGETHER, tokens=longest)
    with TerminalReporter() as report, Asker(loaded, limits) as asker, file_guard(answers), answers.open("a") as file:
        for start in range(0, len(left), TOGETHER):
            lot = left[start : start + TOGETHER]
            for answer in answers_to(asker, questions, [(number, lines[number]) for number in lot], longest):
                if "error" in answer:
                    failed += 1
                    report.say(f"{questions}:{answer['row']}: {answer['error']}")
                done[answer["row"]] = answer
                file.write(json.dumps(answer) + "\n")
            file.flush()
            report.track("answering", start + len(lot), len(left))
    write_rows(answers, done)
    out.print(f"{counted(len(done) - failed, 'row')} answered, {failed:,} left out", highlight=False)
    print_path("answers", answers)
    if failed:
        raise typer.Exit(1)


def answers_to(asker: Asker, file: Path, lot: list[tuple[int, str]], longest: int) -> Iterator[dict[str, Any]]:
    """The lines of the answers' file for some lines of the questions' file; all are on their way at once."""
    waiting: list[tuple[Row | int, Pending | str]] = []
    for number, line in lot:
        try:
            row = read_row(number, line)
            pictures = [picture_of(asker, file, image) for image in row.images]
            content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": row.question}]
            waiting.append((row, asker.submit([{"role": "user", "content": content}], pictures, most=longest)))
        except AstreaError as error:
            waiting.append((number, error.message))
    for of, pending in waiting:
        if isinstance(of, int) or isinstance(pending, str):
            yield {"row": of if isinstance(of, int) else of.number, "error": str(pending)}
            continue
        try:
            text = pending.text()
        except ApiError as error:
            yield {**of.head, "error": error.message}
            continue
        weights = [{name: round(share, 4) for name, share in shares.items()} for shares in pending.job.shares]
        yield {**of.head, "answer": text, "gate_weights": weights}


def read_lines(path: Path) -> dict[int, str]:
    """The lines of a file that are not empty, by number from 1.

    Raises:
        AstreaError: it cannot be read, or there is none.
    """
    with file_guard(path):
        raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AstreaError(f"{path} is not UTF-8: {error.reason}", "save it as UTF-8") from None
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    if not lines:
        raise AstreaError(f"{path} holds no questions", FORM)
    return lines


def read_row(number: int, line: str) -> Row:
    """One question.

    Raises:
        AstreaError: the line is not one.
    """
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AstreaError(f"no JSON: {error}", FORM) from None
    if not isinstance(given, dict) or not isinstance(given.get("question"), str):
        raise AstreaError("no object with a question", FORM)
    images = given.get("images", given.get("image"))
    images = [] if images is None else images if isinstance(images, list) else [images]
    if not all(isinstance(image, str) for image in images):
        raise AstreaError("image is a path, images a list of paths", FORM)
    own = {"id": given["id"]} if isinstance(given.get("id"), str | int) else {}
    return Row(number, given["question"], tuple(images), {"row": number, **own, "question": given["question"]})


def picture_of(asker: Asker, file: Path, image: str) -> Picture:
    """A picture of a row; relative paths start at the folder of the questions' file."""
    inside = image[:5].lower() in ("data:", "file:")
    return asker.picture(image if inside else file.parent / image)


def answered(path: Path, lines: dict[int, str]) -> dict[int, dict[str, Any]]:
    """Rows that an earlier run has answered, by number. Those that failed are tried again.

    Raises:
        AstreaError: the file holds something else.
    """
    if not exists(path):
        return {}
    found: dict[int, dict[str, Any]] = {}
    with file_guard(path):
        written = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for line in written[:-1]:  # what stands behind the last end of a line was being written when the run was killed
        try:
            answer = json.loads(line)
            number, question = answer["row"], answer.get("question")
            same = question is None or read_row(number, lines[number]).question == question
        except (ValueError, KeyError, TypeError, RecursionError, AstreaError):
            same = False
        if not same:
            raise AstreaError(f"{path} holds something else than answers to these questions", "give another --out")
        if "error" not in answer:
            found[number] = answer
    return found


def write_rows(path: Path, rows: dict[int, dict[str, Any]]) -> None:
    """Write rows in the order of the questions."""
    write_atomic(path, "".join(json.dumps(rows[number]) + "\n" for number in sorted(rows)).encode())
