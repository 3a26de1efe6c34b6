"""benchmarks/real_photographs.py keeps answers as they come, and counts as right what was written down before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from astrea.common.errors import AstreaError
from benchmark_scripts import benchmark_script

script = benchmark_script("real_photographs")


@dataclass
class Found:
    answer: str
    shares: dict[str, float]


class Model:
    """Says yes to everything about a cat, no to the rest."""

    def ask(self, picture, question: str) -> Found:
        return Found("Yes." if "cat" in question else "no", {"detection": 0.25004})


def test_every_photograph_is_asked_five_questions_with_an_answer_of_their_own():
    assert list(script.ASKED) == ["chelsea", "coffee", "rocket", "astronaut", "page"]
    for asked in script.ASKED.values():
        assert len({question for question, _ in asked}) == 5
        assert all(right for _, right in asked)


def test_answers_are_kept_as_they_come(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("skimage")
    monkeypatch.setattr(script, "load", lambda folder: Model())
    found = script.measured(Path("model"))
    first, *_, last = found["pictures"]["chelsea"]
    assert first == {"question": "is there a cat?", "answer": "Yes.", "right": True, "shares": {"detection": 0.25}}
    assert not last["right"]
    rows = [row for rows in found["pictures"].values() for row in rows]
    assert (found["right"], found["asked"]) == (sum(row["right"] for row in rows), 25)
    # A cat on the page: yes is wrong there.
    assert [row["right"] for row in found["pictures"]["page"]][:1] == [False]


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(AstreaError, match="absent"):
        script.measured(tmp_path / "absent")
