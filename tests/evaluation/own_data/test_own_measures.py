"""What is measured on data of one's own beside answers: retrieval, each file by itself, what each expert gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from astrea.data.readers.sources import open_sources
from astrea.evaluation.own_data import masked
from astrea.evaluation.own_data.answers import Answers, ItemPredictor
from astrea.evaluation.own_data.held_out import measure
from astrea.evaluation.own_data.items import Item
from astrea.evaluation.own_data.retrieval import retrieval_tasks
from astrea.evaluation.own_data.score import by_source
from astrea.world.scenes.draw import split_scene
from command_line import Astrea
from html_pages import Page
from listening import Said
from original_readers import reading_originals


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("astrea.evaluation.own_data.answers.LONGEST", {True: 4, False: 2})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of questions about the same pictures, and captions of these."""
    folder = tmp_path_factory.mktemp("own")
    for number in range(4):
        Image.fromarray(split_scene("test", number, 0).image).save(folder / f"{number}.png")

    def row(number: int, question: str, answer: str) -> dict[str, Any]:
        said = [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}]
        return {"id": f"{number}", "image": f"{number}.png", "conversations": said}

    first = [row(number, "is there a cat?", "yes") for number in range(4)]
    second = [row(0, "what colour is it?", "red"), row(1, "is there a dog?", "no")]
    for name, rows in (("first", first), ("second", second)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(4)]
    told = ["a red sun", "a blue cat", "two green dogs", "one cow", "the cow is there"]
    notes = [{"id": n, "image_id": min(n, 3), "caption": text} for n, text in enumerate(told)]
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": notes}))
    return folder


@pytest.fixture(scope="module")
def asked(folder, tiny_model, tiny_processor) -> list[Item]:
    return measure(tiny_model, tiny_processor, open_sources(str(folder / "first.jsonl")), report=Said()).items


def test_every_file_is_scored_by_itself(asked):
    def one(kind: str, truth: str, source: int) -> Item:
        return replace(asked[0], kind=kind, truths=(truth,), sample=replace(asked[0].sample, source=source))

    items = [
        *(one("yes/no", "yes", 0), one("yes/no", "no", 0)),
        *(one("yes/no", "yes", 1), one("phrase", "red", 1), one("phrase", "blue", 1)),
        one("phrase", "red", 2),
    ]
    answers = Answers(["yes", "yes", "yes", "red", "no", None], ["no"] * 6, [None] * 6)
    found = by_source(items, answers, ["a.jsonl", "b.jsonl", "c.jsonl"])
    assert found["a.jsonl"] == {"n": 2, "average": 50.0, "blind_average": 50.0, "tasks": {"yes/no": 50.0}}
    assert found["b.jsonl"]["tasks"] == {"yes/no": 100.0, "phrase": 50.0}
    assert (found["b.jsonl"]["average"], found["b.jsonl"]["n"]) == (75.0, 3)
    assert "c.jsonl" not in found  # nothing of it could be answered
    assert by_source(items, answers, ["a.jsonl"] * 3)["a.jsonl"]["n"] == 5  # shards of one name


def test_a_masked_expert_is_really_away(asked, tiny_model, tiny_processor, monkeypatch):
    seen = []
    generate = type(tiny_model).generate

    def told(self, **inputs):
        seen.append(inputs["present"].tolist() if "present" in inputs else None)
        return generate(self, **inputs)

    monkeypatch.setattr(type(tiny_model), "generate", told)
    expert = list(tiny_model.experts.names)[1]
    texts = ItemPredictor(tiny_model, tiny_processor, 3).answer_without(expert, asked, Said())
    assert len(texts) == 4
    assert seen == [[[True, False, True, True]] * 3, [[True, False, True, True]]]


def test_an_expert_that_reads_pictures_as_they_are_gets_them(asked, tiny_model, tiny_processor, monkeypatch):
    wide = Image.new("RGB", (90, 30), "red")
    monkeypatch.setattr(type(asked[0].sample), "pictures", lambda self: [wide])
    with reading_originals(tiny_model, tiny_processor) as (whole, given):
        found = ItemPredictor(*whole, 2).answer(asked[:2], Said())
        assert set(map(tuple, given)) == {((3, 30, 90),) * 2}
        answer = whole.ask(wide, asked[0].question, max_new_tokens=2)
    assert found.with_pictures == [answer.answer] * 2
    assert found.shares[0].tolist() == pytest.approx(list(answer.shares.values()), abs=1e-4)


def test_the_change_is_that_of_the_score_without_an_expert(asked, tiny_model, tiny_processor, monkeypatch):
    """Of the same items, of which no more are asked than is said."""
    monkeypatch.setattr(masked, "MOST", 3)
    counts: list[int] = []

    def without(self, expert, items, report):
        counts.append(len(items))
        return ["no", "yes", "no"] if expert == "detection" else ["yes"] * 3

    monkeypatch.setattr(ItemPredictor, "answer_without", without)
    predictor = ItemPredictor(tiny_model, tiny_processor)
    # Three of the four are asked: the first, one in the middle, the last. All are right with every expert.
    answers = Answers(["yes"] * 4, ["no"] * 4, [None] * 4)
    found = masked.score_changes(predictor, asked, answers, Said())
    assert counts == [3] * 4
    wanted = dict.fromkeys(tiny_model.experts.names, 0.0) | {"detection": -200 / 3}
    assert found["masking"] == pytest.approx(wanted)
    assert found["masking_by_task"] == {name: {"yes/no": pytest.approx(change)} for name, change in wanted.items()}
    nothing = Answers([None] * 4, [None] * 4, [None] * 4)
    assert masked.score_changes(predictor, asked, nothing, Said()) == {}


def test_captions_find_their_pictures(folder, tiny_model, tiny_processor, monkeypatch):
    """With vectors that know, every caption finds its picture but one that tells of another."""
    items = measure(tiny_model, tiny_processor, open_sources(str(folder / "captions.json")), report=Said()).items
    assert [len(one.truths) for one in items] == [1, 1, 1, 2]
    pictures = torch.eye(4)
    words = torch.stack([pictures[0], pictures[1], pictures[1], pictures[3], pictures[3]])
    monkeypatch.setattr("astrea.evaluation.generate.Predictor.embed_texts", lambda self, texts: words[: len(texts)])
    kind = type(tiny_model)
    monkeypatch.setattr(kind, "embed_image", lambda self, features: pictures[: len(features["detection"].tokens)])
    found = retrieval_tasks(tiny_model, tiny_processor, items, Said())
    assert (found["retrieval_t2i"]["score"], found["retrieval_t2i"]["n"]) == (80.0, 5)
    # Two captions tell of the second picture: a wrong one that scores alike is put before the right one.
    assert found["retrieval_i2t"]["score"] == 50.0
    assert found["retrieval_i2t"]["blind"] == 25.0
    assert found["retrieval_i2t"]["secondary"]["recall@5"] == 100.0
    assert retrieval_tasks(tiny_model, tiny_processor, items[:1], Said()) == {}
    assert retrieval_tasks(tiny_model, tiny_processor, [*items[:1], *items[:1]], Said()) == {}  # one picture


def test_all_of_it_on_the_command_line(astrea: Astrea, folder: Path, tiny_folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("astrea.evaluation.own_data.output.SAMPLES", 1)
    out = tmp_path / "out"
    result = astrea("evaluate", tiny_folder, "--data", folder / "*.json*", "--limit", 2, "--masking", "--out", out)
    assert result.code == 0, result.err
    results = json.loads((out / "results.json").read_text())
    assert set(results["sources"]) == {"first.jsonl", "second.jsonl", "captions.json"}
    assert set(results["masking"]) == {"captioning", "classification", "segmentation", "detection"}
    assert {"retrieval_i2t", "retrieval_t2i", "caption", "yes/no"} <= set(results["tasks"])
    answered = [task["score"] for name, task in results["tasks"].items() if not name.startswith("retrieval")]
    assert results["average"] == pytest.approx(sum(answered) / len(answered))
    page = Page((out / "report.html").read_text())
    assert all(piece in page.text for piece in ("Data files", "second.jsonl", "Without one expert", "retrieval i2t"))


def test_one_file_unmasked_has_neither(folder, tiny_model, tiny_processor):
    found = measure(tiny_model, tiny_processor, open_sources(str(folder / "second.jsonl")), limit=1, report=Said())
    assert not {"masking", "sources", "retrieval_i2t"} & {*found.results, *found.results["tasks"]}
