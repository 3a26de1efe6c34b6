"""The photograph world as training data and as a test, with the compact experts, which look at any pixels."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from astrea.common.errors import AstreaError
from astrea.common.progress import Reporter
from astrea.confidence.signals import strangeness
from astrea.confidence.unfamiliar import unfamiliar_pictures
from astrea.data.feature_cache import FeatureCache
from astrea.data.packing import Packer
from astrea.data.worlds import open_world
from astrea.experts.bank import ExpertBank
from astrea.recipes.loader import load_recipe
from astrea.recipes.recipe import Recipe
from astrea.report.results import parse_results
from astrea.world.evaluation import tasks
from astrea.world.evaluation.tasks import CAPTION_TASKS, GROUP_SIZE, TASKS, collect_test_sets
from astrea.world.photographs import dataset
from astrea.world.photographs.captions import caption_f1, captions, parse_caption
from astrea.world.photographs.dataset import PhotographData, features_of
from astrea.world.photographs.evaluate import source_of
from astrea.world.photographs.templates import MAKERS, NAMING, WORDINGS
from astrea.world.photographs.world import PhotographWorld
from astrea.world.scenes.questions import VQA_TASKS, Balancer, majority_baseline
from cut_out_folder import write_cut_outs

COUNT = 90


class Watched(Reporter):
    """What was said and tracked."""

    def __init__(self) -> None:
        self.labels: Counter[str] = Counter()

    def track(self, label: str, done: int, total: int, note: str = "") -> None:
        self.labels[label] += 1


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = write_cut_outs(tmp_path_factory.mktemp("cut-outs"))
    return load_recipe(
        Recipe,
        "tiny",
        [
            f"world={{kind: photographs, canvas: 64, options: {{folder: {folder}, held_out: 3}}}}",
            f"data={{train_scenes: {COUNT}, test_questions: 3, test_captions: 3, test_retrieval_groups: 2}}",
        ],
    )


@pytest.fixture(scope="module")
def world(recipe: Recipe) -> PhotographWorld:
    found = open_world(recipe)
    assert isinstance(found, PhotographWorld)
    return found


@pytest.fixture(scope="module")
def bank() -> ExpertBank:
    torch.manual_seed(0)
    return ExpertBank({"classification": {"kind": "classification"}, "detection": {"kind": "detection"}})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def data(world: PhotographWorld, bank: ExpertBank, cache: FeatureCache) -> PhotographData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "CHUNK", 40)
        return world.training_data(bank, cache=cache)


def test_features_are_those_of_the_pictures(data: PhotographData, bank: ExpertBank) -> None:
    some = torch.tensor([0, 41, COUNT - 1])
    fresh = bank(data.pictures(some))
    for name, kept in data.rows(some).items():
        assert torch.allclose(kept.tokens, fresh[name].tokens, atol=1e-4)
    assert len(data) == COUNT == len(data.questions) == len(data.captions)
    assert set(data.names) == set(data.made.catalogue.trained)
    assert "race car" in {*data.names, *data.made.catalogue.new}


def test_what_was_encoded_is_never_encoded_again(
    data: PhotographData, world: PhotographWorld, bank: ExpertBank, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "CHUNK", 40)
    monkeypatch.setattr(dataset._Chunk, "pixels", property(lambda self: pytest.fail("painted again")))
    report = Watched()
    again = world.training_data(bank, cache=cache, report=report)
    assert all(torch.equal(again.features[name].tokens, kept.tokens) for name, kept in data.features.items())
    assert again.questions == data.questions
    assert {"composing pictures", "encoding pictures"} <= set(report.labels)


def test_each_picture_is_a_row_with_its_questions(data: PhotographData, tiny_processor: Any) -> None:
    samples = data.draw(0, 6, seed=1)
    packer = Packer(tiny_processor.tokenizer, 4)
    rows = data.pack(packer, samples, torch.zeros(6, dtype=torch.long), per_question=False)
    assert len(rows.groups) == 6
    told = {data.groups[group] for group in rows.groups.flatten().tolist() if group >= 0}
    assert "caption" in told
    assert told <= {*WORDINGS, "caption"}
    changes = ["{} cat".format, *[None] * 5]
    again = data.pack(packer, samples, torch.zeros(6, dtype=torch.long), per_question=False, reworded=changes)
    before, after = (each.packed.attention_mask.sum(1) for each in (rows, again))
    turns = len(data.questions[int(samples.ids[0])]) + 1
    assert (after - before).tolist() == [2 * turns, 0, 0, 0, 0, 0]
    asked, features = data.questions_about(3)
    assert len(asked) == sum(map(len, data.questions[:3])) == len(features["detection"].tokens)


def test_training_asks_about_no_new_thing(data: PhotographData) -> None:
    new = data.made.catalogue.new
    words = " ".join(f"{q.text} {q.answer}" for asked in data.questions for q in asked)
    words += " ".join(text for texts in data.captions for text in texts)
    assert not any(name in words for name in new)


def test_every_template_is_asked_and_answered_truly(world: PhotographWorld) -> None:
    """Twice over: the truth is looked up in the scene's own things."""
    made = world.made
    rng, seen = random.Random(0), Counter[str]()
    for scene in made.scenes("train", 150):
        view = made.view(scene)
        names = Counter(thing.name for thing in scene.things)
        for name, maker in MAKERS.items():
            for answer, args in maker(view, rng):
                seen[name] += 1
                if name == "existence.thing":
                    assert (answer == "yes") == (args[0] in names)
                elif name == "counting.all":
                    assert int(answer) == len(scene.things)
                elif name in NAMING:
                    assert answer in names
                elif name == "reading.word":
                    assert answer == scene.word
                elif name in ("attribute.painted", "attribute.colour"):
                    assert answer in {thing.colour for thing in scene.things}
                elif name == "spatial.where":
                    (thing,) = (thing for thing in scene.things if thing.name == args[0])
                    x, y = (value / 64 for value in thing.centroid)
                    assert answer == f"{'top' if y < 0.5 else 'bottom'} {'left' if x < 0.5 else 'right'}"
                elif name == "area.compare":
                    big, small = (next(t for t in scene.things if t.name == arg) for arg in args)
                    assert (answer == "yes") == (big.area > small.area)
    assert set(seen) == set(MAKERS) == set(WORDINGS)


def test_text_alone_does_not_tell(world: PhotographWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "MAJORITY_SCENES", 4)
    made = world.made
    balancer, rng = Balancer(templates=made.questions), random.Random(0)
    training = [q for scene in made.scenes("train", 200) for q in balancer.choose(scene, rng)]
    sets = collect_test_sets(
        source_of(made, made.questions),
        world.recipe.data.model_copy(update={"test_questions": 30, "test_retrieval_groups": 1}),
    )
    majority = majority_baseline(training, [item.question for item in sets.questions])
    assert majority.keys() == set(VQA_TASKS)
    assert max(majority.values()) <= 0.6
    for task in ("existence", "logic"):
        answers = Counter(item.question.answer for item in sets.questions if item.question.task == task)
        assert abs(answers["yes"] - answers["no"]) <= 4


def test_retrieval_groups_differ_in_one_attribute(world: PhotographWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    made = world.made
    monkeypatch.setattr(tasks, "MAJORITY_SCENES", 4)
    sets = collect_test_sets(source_of(made, made.questions), world.recipe.data)
    assert len(sets.pool) == len(set(sets.pool_captions)) == 2 * GROUP_SIZE
    for scene, text in zip(sets.pool, sets.pool_captions, strict=True):
        assert made.caption_score(text, scene) == 1.0


def test_references_state_all_that_counts_and_nothing_else(world: PhotographWorld) -> None:
    made = world.made
    for number, scene in enumerate(made.scenes("test", 60)):
        view = made.view(scene)
        told = captions(view, 3, number)
        assert told[0] == captions(view, 3, number + 1)[0]
        assert [caption_f1(text, view, made.catalogue) for text in told] == [1.0, 1.0, 1.0]
        assert caption_f1("", view, made.catalogue) == 0.0
        assert caption_f1(f"{told[0]} a unicorn. the sign says zebra.", view, made.catalogue) < 1 or scene.word


def test_captions_are_parsed_tolerantly() -> None:
    names = ("car", "race car", "frog", "scissors")
    facts = parse_caption(
        "A red race car, two things and a pair of scissors. The frog is to the left of the race car!", names
    )
    assert facts.things == Counter({("red", "race car"): 1, (None, "scissors"): 1})
    assert facts.relations == {((None, "frog"), "left of", (None, "race car"))}
    assert parse_caption("the sign says Stop. the sign says go.", names).word == "stop"
    assert parse_caption("\x00 %s {} " * 50, names).things == Counter()


@pytest.fixture(scope="module")
def results(
    world: PhotographWorld, tiny_model: Any, tiny_processor: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "MAJORITY_SCENES", 40)
        return world.evaluate(tiny_model, tiny_processor, folder, split="test"), folder


def test_the_twelve_tasks_with_blind_masks_and_samples(results: Any) -> None:
    table, folder = results
    assert tuple(table["tasks"]) == TASKS
    assert set(table["masking"]) == set(table["load"]["mean"])
    assert (folder / "samples.json").is_file()
    assert len(list((folder / "samples").glob("*.png"))) == 24
    parsed = parse_results(table, "results.json")
    assert parsed.average == pytest.approx(table["average"])
    assert set(parsed.conditions) == {"clear", "blurred", "covered"}


def test_naming_and_new_things_are_scored_apart(results: Any) -> None:
    table, _ = results
    assert {name.partition(".")[0] for name in table["templates"]} == set(VQA_TASKS)
    for task in VQA_TASKS:
        some = [row for name, row in table["templates"].items() if name.startswith(f"{task}.")]
        mean = sum(row["score"] * row["n"] for row in some) / sum(row["n"] for row in some)
        assert mean == pytest.approx(table["tasks"][task]["score"])
    assert table["naming"].keys() == {"score", "blind", "n"}
    names = [table["templates"][name] for name in NAMING if name in table["templates"]]
    assert table["naming"]["n"] == sum(row["n"] for row in names) > 0
    assert set(table["new_things"]) == {"existence", "place", "name"}
    assert all(row["n"] > 0 and 0 <= row["blind"] <= 100 for row in table["new_things"].values())


def test_some_tasks_can_be_measured_alone(
    world: PhotographWorld, tiny_model: Any, tiny_processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAJORITY_SCENES", 40)
    table = world.measure(tiny_model, tiny_processor, tasks=("existence", CAPTION_TASKS[0]))
    assert tuple(table["tasks"]) == ("existence", "caption")
    assert table["masking"] == {}


def test_questions_of_the_drawn_world_are_refused(recipe: Recipe) -> None:
    said = recipe.model_copy(update={"data": recipe.data.model_copy(update={"paraphrases": 0.5})})
    with pytest.raises(AstreaError, match=r"data\.paraphrases") as error:
        open_world(said).training_data(ExpertBank({}), cache=FeatureCache(Path("unused")))
    assert "data.paraphrases=0" in error.value.hint


def test_other_pictures_are_unlike_those_of_training(
    world: PhotographWorld, tiny_model: Any, tiny_processor: Any
) -> None:
    """The model of a run is told so: noise is unlike, compositions that it never saw mostly are not."""
    doubt = world.learn_confidence(tiny_model, tiny_processor.tokenizer)
    assert doubt.calibration is None
    assert list(doubt.familiar) == tiny_model.experts.names
    shown = list(world.made.scenes("test", 24))
    known = strangeness(doubt.familiar, features_of(tiny_model.experts, world.made, shown))
    pages = torch.from_numpy(unfamiliar_pictures(12, 64, 0).transpose(0, 3, 1, 2).astype("float32") / 255)
    strange = strangeness(doubt.familiar, tiny_model.encode_images(pages))
    assert (known > 0).any(1).float().mean() < 0.5 < (strange > 0).any(1).float().mean()


def test_how_far_word_ids_are_from_others_means_nothing(world: PhotographWorld, tiny_model: Any) -> None:
    expert = tiny_model.experts["detection"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(expert), "slots", {"text": (0, 4)})
        assert "detection" not in world.learn_confidence(tiny_model, None).familiar
