"""A model on another device than the processor is evaluated, explained and searched with as it is on the processor."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from astrea.common.progress import Reporter
from astrea.evaluation.benchmarks.answers import Viewer
from astrea.evaluation.benchmarks.items import Item, Pool
from astrea.evaluation.benchmarks.ranking import rank
from astrea.evaluation.generate import Predictor
from astrea.model.explanation import explain
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.recipes.recipe import Data, World
from astrea.retrieval import rank_folder
from astrea.retrieval.build import build_index
from astrea.retrieval.search import PictureIndex, search_by_picture, search_by_text
from astrea.world.evaluation.contribution import contributions
from astrea.world.evaluation.runner import evaluate
from astrea.world.evaluation.samples import write_samples
from few_scenes import limit_scenes
from other_device import Far, moved_there

TEXT = "a red sun."
TASKS = ("counting", "caption", "retrieval_i2t")


@pytest.fixture
def same_on_both(tiny_model: AstreaForConditionalGeneration) -> Callable[[Callable[[], Any]], None]:
    def check(made: Callable[[], Any]) -> None:
        here = made()
        with moved_there(tiny_model):
            there = made()
        same(here, there)

    return check


def same(here: Any, there: Any) -> None:
    """Alike but for rounding; the order of operations is not the same in inference mode."""
    if dataclasses.is_dataclass(here):
        here, there = dataclasses.asdict(here), dataclasses.asdict(there)
    if isinstance(here, dict):
        assert list(here) == list(there)
        here, there = list(here.values()), list(there.values())
    if isinstance(here, list | tuple):
        for one, other in zip(here, there, strict=True):
            same(one, other)
    elif isinstance(here, torch.Tensor):
        assert not isinstance(there, Far)
        assert torch.equal(here, there)
    elif isinstance(here, float):
        assert there == pytest.approx(here, rel=1e-3, abs=1e-4, nan_ok=True)
    else:
        assert here == there


@pytest.fixture
def album(tmp_path: Path, pictures: list[Image.Image]) -> Path:
    (tmp_path / "album").mkdir()
    for number, picture in enumerate(pictures[:3]):
        picture.save(tmp_path / "album" / f"{number}.png")
    return tmp_path / "album"


@pytest.mark.slow
def test_table_samples_and_contributions(same_on_both, tiny_model, tiny_processor, tmp_path, monkeypatch):
    limit_scenes(monkeypatch, judged=4)
    sizes = Data(test_questions=2, test_captions=2, test_retrieval_groups=1)

    def made() -> Any:
        results, seen, outcome = evaluate(
            tiny_model, tiny_processor.tokenizer, World(), sizes, tasks=TASKS, masking=False, report=Reporter()
        )
        write_samples(tiny_model, seen, outcome, tmp_path)
        worth = contributions(tiny_model, tiny_processor.tokenizer, seen, ["counting"], report=Reporter())
        del results["seconds"]
        return results, worth["counting"].tolist(), json.loads((tmp_path / "samples.json").read_text())

    same_on_both(made)


def test_explanations(same_on_both, tiny_model, tiny_processor, pictures):
    same_on_both(lambda: explain(tiny_model, tiny_processor, pictures[0], "is it red?", longest=3))


def test_searching(same_on_both, tiny_model, tiny_processor, album, tmp_path):
    def made() -> Any:
        place = tmp_path / "index"
        build_index(tiny_model, "tiny", album, place, report=Reporter(), rebuild=True)
        index = PictureIndex(place)
        return [
            *search_by_text(tiny_model, tiny_processor, index, TEXT, top=2, rerank=2, report=Reporter()),
            *search_by_picture(tiny_model, index, album / "1.png", top=2),
            *rank_folder(tiny_model, tiny_processor, album, TEXT, top=2, report=Reporter(), shortlist=2),
        ]

    same_on_both(made)


def test_public_tasks(same_on_both, tiny_model, tiny_processor, album):
    def tick(*_: int) -> None:
        pass

    def made() -> Any:
        viewer = Viewer(Predictor(tiny_model, tiny_processor.tokenizer, batch=2), tiny_processor)
        items = [Item(n, album / f"{n % 3}.png", "", "is it red?", None) for n in range(3)]
        pool = Pool([0, 1], [item.picture for item in items[:2]], [TEXT, "a blue cow."], [0, 1])
        ranked = dataclasses.asdict(rank(viewer, pool, rerank=2, track=lambda _: tick))
        answers: list[str] = []
        viewer.answer(items, 2, tick, lambda asked, texts: answers.extend(texts))
        return answers, {name: ranks.tolist() for name, ranks in ranked.items()}

    same_on_both(made)
