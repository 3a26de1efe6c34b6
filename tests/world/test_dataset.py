"""The world as training data: features cached or fresh are the same bits, and a stale file is never used."""

from __future__ import annotations

import pytest
import torch

from astrea.data.feature_cache import FeatureCache
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures, concat_features
from astrea.recipes.recipe import World
from astrea.world.dataset import WorldData, features_of, load_world, scenes_of
from astrea.world.experts.truth import pixels_from_scenes
from astrea.world.scenes.questions import VQA_TASKS
from astrea.world.scenes.unanswerable import UNANSWERABLE

COUNT = 103  # one chunk and a bit
KINDS = {"captioning": {}, "detection": {"threshold": 0.001}}


def bank(seed: int = 0, **detection) -> ExpertBank:
    torch.manual_seed(seed)
    options = KINDS | {"detection": KINDS["detection"] | detection}
    return ExpertBank({kind: {"kind": kind, "options": found} for kind, found in options.items()})


class Watched:
    """A cache folder, and what was computed and said in a call."""

    def __init__(self, folder) -> None:
        self.cache = FeatureCache(folder)

    def load(
        self,
        experts: ExpertBank,
        world: World = World(),  # noqa: B008
        count: int = COUNT,
        per_scene: int = 8,
        **shares: float,
    ) -> WorldData:
        self.events: list[tuple[str, int, int]] = []
        self.said: list[str] = []
        return load_world(
            experts,
            world,
            count=count,
            per_scene=per_scene,
            cache=self.cache,
            progress=lambda *event: self.events.append(event),
            notify=self.said.append,
            **shares,
        )

    @property
    def looked(self) -> set[str]:
        return {text.removeprefix("encoding with ") for text, _, _ in self.events if text.startswith("encoding with ")}


@pytest.fixture(scope="module")
def experts() -> ExpertBank:
    return bank()


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Watched:
    return Watched(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def first(experts, watched) -> WorldData:
    data = watched.load(experts)
    assert watched.looked == {"captioning", "detection"}
    assert data.features["detection"].places is not None
    assert data.features["captioning"].places is None
    assert watched.events[-1] == ("encoding with detection", COUNT, COUNT)
    assert ("drawing scenes", COUNT, COUNT) in watched.events
    return data


def same(one: dict[str, ExpertFeatures], two: dict[str, ExpertFeatures]) -> bool:
    def equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
        return a is b if a is None or b is None else torch.equal(a, b)

    names = ("tokens", "confidence", "places")
    return list(one) == list(two) and all(equal(getattr(one[n], k), getattr(two[n], k)) for n in one for k in names)


def test_cached_features_are_the_fresh_ones_bit_for_bit(experts, watched, first):
    again = watched.load(experts)
    assert watched.looked == set()
    assert watched.said == []
    assert same(first.features, again.features)
    assert same(first.features, features_of(experts, list(scenes_of("train", COUNT, World()))))
    assert again.questions == first.questions
    assert again.captions == first.captions


def test_features_belong_to_their_scenes(experts, first):
    scenes = list(scenes_of("train", COUNT, World()))
    for row in (0, 50, 102):
        alone = experts(pixels_from_scenes([scenes[row]]))["captioning"]
        found = first.rows(torch.tensor([row]))["captioning"]
        assert torch.allclose(alone.tokens, found.tokens, atol=1e-4)


@pytest.mark.parametrize(
    "world", [World(seed=1), World(difficulty=0.4), World(max_objects=5), World(canvas=72)], ids=str
)
def test_another_world_is_not_taken_from_the_cache(experts, watched, first, world):
    other = watched.load(experts, world)
    assert watched.looked == {"captioning", "detection"}
    assert not same(first.features, other.features)


def test_another_number_of_scenes_is_not_taken_from_the_cache(experts, watched, first):
    fewer = watched.load(experts, count=20)
    assert watched.looked == {"captioning", "detection"}
    assert len(fewer) == 20
    assert fewer.questions == first.questions[:20]


def test_other_weights_are_not_taken_from_the_cache(experts, watched, first):
    other = bank()
    with torch.no_grad():
        other["captioning"].head.bias[0] += 1e-6
    watched.load(other)
    assert watched.looked == {"captioning"}
    # Statistics of a batch norm are weights too.
    other = bank()
    next(m for m in other["detection"].modules() if isinstance(m, torch.nn.BatchNorm2d)).running_mean += 0.1
    watched.load(other)
    assert watched.looked == {"detection"}


def test_other_options_are_not_taken_from_the_cache(watched, first):
    other = watched.load(bank(threshold=0.9))
    assert watched.looked == {"detection"}
    assert (other.features["detection"].confidence > 0).sum() < (first.features["detection"].confidence > 0).sum()


def test_a_damaged_file_is_computed_again(experts, tmp_path):
    watched = Watched(tmp_path)
    before = watched.load(experts, count=5)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    after = watched.load(experts, count=5)
    assert watched.looked == {"captioning", "detection"}
    assert len(watched.said) == 2
    assert same(before.features, after.features)


def test_what_is_asked_and_told(first):
    assert len(first) == COUNT == len(first.captions)
    for asked, told in zip(first.questions, first.captions, strict=True):
        tasks = [q.task for q in asked]
        assert len(tasks) == len(set(tasks))
        assert set(tasks) <= set(VQA_TASKS)
        assert len(told) == 3
    assert {q.task for asked in first.questions for q in asked} == set(VQA_TASKS)


def test_fewer_questions_still_come_from_every_task(experts, watched, first):
    some = watched.load(experts, per_scene=2)
    assert max(map(len, some.questions)) == 2
    assert {q.task for asked in some.questions for q in asked} == set(VQA_TASKS)
    assert some.questions == watched.load(experts, per_scene=2).questions


def test_scenes_are_drawn_as_they_are_asked_for():
    endless = scenes_of("train", 10**9, World())
    assert next(endless).image.shape == (64, 64, 3)
    small = next(scenes_of("test", 1, World(canvas=72, max_objects=1)))
    assert small.image.shape == (72, 72, 3)
    assert len(small.objects) == 1


def test_joining_and_picking_rows(first):
    parts = [first.rows(torch.tensor([0, 1])), first.rows(torch.tensor([2]))]
    assert same(concat_features(parts), first.rows(torch.arange(3)))


def test_shares_of_other_words_and_of_questions_without_an_answer(watched, experts):
    plain = watched.load(experts)
    other = watched.load(experts, paraphrases=0.5, unanswerable_share=0.2)
    pairs = [(a, b) for one, two in zip(plain.questions, other.questions, strict=True) for a, b in zip(one, two)]  # noqa: B905
    assert len(pairs) == sum(map(len, plain.questions)) == sum(map(len, other.questions))
    unanswerable = [b for _, b in pairs if b.template == UNANSWERABLE]
    assert 0.15 < len(unanswerable) / len(pairs) < 0.25
    assert {b.answer for b in unanswerable} == {"none", "cannot tell"}
    kept = [(a, b) for a, b in pairs if b.template != UNANSWERABLE]
    assert all((a.template, a.answer) == (b.template, b.answer) for a, b in kept)
    assert 0.4 < sum(a.text != b.text for a, b in kept) / len(kept) < 0.6
    assert other.groups == (*plain.groups, UNANSWERABLE)
    assert other.captions == plain.captions
    assert watched.load(experts, paraphrases=0.5, unanswerable_share=0.2).questions == other.questions
