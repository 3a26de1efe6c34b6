"""Commands that ask without a server: many questions from a file, and a conversation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer

from astrea.cli.actions import ask_batch, chat
from astrea.common.errors import AstreaError
from astrea.serving.local import Asker

ROWS = (
    '{"image": "a.png", "question": "what colour is the cat?", "id": "first"}',
    "",
    '{"images": ["a.png", "b.png"], "question": "which?"}',
    '{"image": "none.png", "question": "what is this?"}',
    "not json",
    '{"question": "what is a cow?"}',
    '{"image": "a.png", "question": ""}',
)


@pytest.fixture(scope="module")
def questions(pictures, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("batch")
    for name, picture in zip(("a.png", "b.png"), pictures, strict=False):
        picture.save(folder / name)
    (folder / "q.jsonl").write_text("\n".join(ROWS) + "\n")
    return folder / "q.jsonl"


def run(folder: Path, questions: Path, out: Path) -> list[dict[str, object]]:
    with pytest.raises(typer.Exit) as end:
        ask_batch.ask_batch(folder, questions, out, longest=6, device="cpu", trust_remote_code=False)
    assert end.value.exit_code == 1  # some rows are bad
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_every_row_is_answered_or_told_and_a_stopped_run_goes_on(tiny_folder, loaded, questions, tmp_path, capsys):
    out = tmp_path / "answers.jsonl"
    told = run(tiny_folder, questions, out)
    assert [row["row"] for row in told] == [1, 3, 4, 5, 6, 7]
    assert [row["row"] for row in told if "error" in row] == [4, 5, 7]
    assert (
        told[0]["answer"] == loaded.ask(questions.parent / "a.png", "what colour is the cat?", max_new_tokens=6).answer
    )
    assert told[0]["id"] == "first"
    assert [len(row["gate_weights"]) for row in told if "answer" in row] == [1, 2, 0]
    errors = capsys.readouterr().err
    assert f"{questions}:4: " in errors
    assert "none.png" in errors
    # Killed while it wrote the second line: what it has is kept, and marked to see that it is.
    kept = {**told[0], "answer": "kept"}
    out.write_text(json.dumps(kept) + "\n" + json.dumps(told[1])[:20])
    assert run(tiny_folder, questions, out) == [kept, *told[1:]]


def test_answers_to_other_questions_are_not_overwritten(tiny_folder, questions, tmp_path):
    out = tmp_path / "answers.jsonl"
    out.write_text('{"row": 1, "question": "another?", "answer": "x"}\n')
    with pytest.raises(AstreaError, match="something else"):
        ask_batch.ask_batch(tiny_folder, questions, out, longest=6, device="cpu", trust_remote_code=False)
    assert "another?" in out.read_text()


def test_a_conversation_goes_on_about_its_picture(loaded, pictures, monkeypatch, capsys):
    lines = iter(["what colour is the cat?", "/without nobody", "/without detection", "and now?", "/new", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    with Asker(loaded) as asker:
        talk = chat.Talk(asker, asker.picture(pictures[0]), 6)
        talk.run()
    said = capsys.readouterr().out
    assert loaded.ask(pictures[0], "what colour is the cat?", max_new_tokens=6).answer in said
    assert "experts that can be switched off" in said
    assert said.count("detection ") >= 2
    assert "  0%" in said.split("without: detection")[1]
    assert talk.turns == []
