"""Questions: answers that are true, balanced, and not to be guessed from the text."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from astrea.world.scenes.captions import captions, short_caption
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.questions import (
    DRAWN,
    VQA_TASKS,
    Balancer,
    Question,
    build_questions,
    candidates,
    majority_baseline,
    text_vocabulary,
    tokens,
    training_questions,
)
from astrea.world.scenes.scene import Scene, SceneObject
from astrea.world.scenes.vocabulary import COLOURS, KINDS, SIZES, is_novel

YES_NO = {
    "existence.pair", "existence.kind", "existence.category", "spatial.side", "logic.both", "logic.either",
    "logic.more", "logic.same", "logic.every", "knowledge.exists", "area.compare",
}  # fmt: skip
NOUNS = {
    "animal": "animal", "weather symbol": "weather", "chess piece": "chess", "card": "card", "tool": "tool",
    "sign": "sign", "gadget": "thing",
}  # fmt: skip


@pytest.fixture(scope="module")
def train() -> list[Scene]:
    return [split_scene("train", index, 0) for index in range(700)]


@pytest.fixture(scope="module")
def test() -> list[Scene]:
    return [split_scene("test", index, 0) for index in range(900)]


@pytest.fixture(scope="module")
def novel() -> list[Scene]:
    return [split_scene("novel", index, 0) for index in range(60)]


# ---- the truth, worked out a second time from the words alone


def fits(thing: SceneObject, phrase: str) -> bool:
    """Whether an object can be called ``phrase``: a kind, colour + kind, category noun, plural or fact."""
    kind, colour = KINDS[thing.kind], COLOURS[thing.colour]
    singular = phrase.removesuffix("s")
    names = {kind.name, kind.plural, kind.fact, f"{colour} {kind.name}", f"{colour} things"}
    return phrase in names or kind.category in (NOUNS.get(phrase), NOUNS.get(singular))


def only(scene: Scene, phrase: str) -> SceneObject:
    found = [thing for thing in scene.objects if fits(thing, phrase)]
    assert len(found) == 1, f"{phrase!r} is ambiguous"
    return found[0]


def count(scene: Scene, phrase: str) -> int:
    return sum(fits(thing, phrase) for thing in scene.objects)


def groups(pattern: str, text: str) -> tuple[str, ...]:
    found = re.fullmatch(pattern, text)
    assert found is not None, f"{text!r} does not match {pattern!r}"
    return found.groups()


def gap(a: SceneObject, b: SceneObject, scene: Scene) -> dict[str, float]:
    dx, dy = ((a.centroid[i] - b.centroid[i]) * 64 / scene.spec.canvas for i in (0, 1))
    return {"left": -dx, "right": dx, "above": -dy, "below": dy}


ASK = "(?:is there|do you see|does the picture show)"


def truth(question: Question, scene: Scene) -> str:
    text, name = question.text.rstrip("?"), question.template
    things = scene.objects
    yes: bool | None = None
    if name in ("existence.pair", "existence.kind", "existence.category"):
        (phrase,) = groups(ASK + " an? (.+)", text)
        yes = count(scene, phrase) > 0
    elif name == "knowledge.exists":
        (fact,) = groups(ASK + " something that (.+)", text)
        yes = count(scene, fact) > 0
    elif name == "counting.all":
        return str(len(things))
    elif name.startswith("counting."):
        (phrase,) = groups("how many (.+?) (?:are there|do you see)", text)
        return str(count(scene, phrase))
    elif name in ("attribute.colour", "knowledge.category", "knowledge.fact"):
        (phrase,) = groups("(?:what|which) colour (?:is|does) the (?:thing that )?(.+?)(?: have)?", text)
        return COLOURS[only(scene, phrase).colour]
    elif name == "attribute.kind":
        (colour,) = groups("(?:which thing is|what is the) (\\w+)(?: thing)?", text)
        (thing,) = [thing for thing in things if COLOURS[thing.colour] == colour]
        return KINDS[thing.kind].name
    elif name == "attribute.size":
        (phrase,) = groups("(?:how big|what size) is the (.+)", text)
        return SIZES[only(scene, phrase).size]
    elif name == "spatial.side":
        a, side, b = groups("(?:is|does) the (.+?) (?:lie )?(left|right|above|below)(?: of)? the (.+)", text)[:3]
        apart = gap(only(scene, a), only(scene, b), scene)[side]
        assert abs(apart) >= 8
        yes = apart > 0
    elif name == "spatial.where":
        a, b = groups("where is the (.+) (?:compared to|seen from) the (.+)", text)
        sides = gap(only(scene, a), only(scene, b), scene)
        best = max(sides, key=sides.__getitem__)
        across = ("above", "below") if best in ("left", "right") else ("left", "right")
        assert sides[best] >= max(8, 1.5 * max(sides[side] for side in across))
        return best
    elif name == "spatial.extreme":
        (place,) = groups("(?:which thing|what) is (.+)", text)
        axis, sign = {"furthest left": (0, 1), "furthest right": (0, -1), "highest": (1, 1), "lowest": (1, -1)}[place]
        order = sorted(things, key=lambda thing: sign * thing.centroid[axis])
        assert abs(order[0].centroid[axis] - order[1].centroid[axis]) >= 4
        return KINDS[order[0].kind].name
    elif name == "logic.both":
        a, b = groups("(?:is there|do you see both) an? (.+) and an? (.+)", text)
        assert a != b
        yes = count(scene, a) > 0 and count(scene, b) > 0
    elif name == "logic.either":
        a, b = groups("(?:is there|do you see) an? (.+) or an? (.+)", text)
        yes = count(scene, a) > 0 or count(scene, b) > 0
    elif name == "logic.more":
        a, b = groups("(?:are there|do you see) more (.+) than (.+)", text)
        assert count(scene, a) != count(scene, b)
        yes = count(scene, a) > count(scene, b)
    elif name == "logic.same":
        a, b = groups("(?:are|do) the (.+) and the (.+?) (?:have )?the same colour", text)
        yes = only(scene, a).colour == only(scene, b).colour
    elif name == "logic.every":
        noun, colour = groups("is (?:every|each) (.+) (\\w+)", text)
        assert count(scene, noun) > 0
        yes = all(COLOURS[thing.colour] == colour for thing in things if fits(thing, noun))
    elif name == "reading.word":
        return scene.word or "nothing"
    elif name == "reading.letter":
        assert scene.word is not None
        return scene.word[0]
    elif name == "area.compare":
        a, b = groups(
            "do(?:es|) (?:you see more of )?the (.+?) (?:cover more of the picture )?(?:of )?than (?:of )?the (.+)",
            text,
        )
        big, small = only(scene, a).area, only(scene, b).area
        assert max(big, small) >= 1.3 * min(big, small)
        yes = big > small
    else:
        shares: Counter[int] = Counter()
        for thing in things:
            shares[thing.colour if name == "area.colour" else id(thing)] += thing.area
        (best, most), *rest = shares.most_common()
        assert rest
        assert most >= 1.3 * rest[0][1]
        if name == "area.colour":
            return COLOURS[best]
        assert name == "area.thing"
        return next(KINDS[thing.kind].name for thing in things if id(thing) == best)
    return "yes" if yes else "no"


def test_every_candidate_is_true(train: list[Scene], novel: list[Scene]) -> None:
    rng = random.Random(1)
    seen = Counter()
    for scene in train[:200] + novel:
        for question in candidates(scene, rng):
            assert question.answer == truth(question, scene), (question, scene.objects)
            assert question.task == question.template.split(".")[0]
            seen[question.template] += 1
    assert set(seen) == set(DRAWN.makers)


def test_margins_scale_with_the_canvas() -> None:
    rng = random.Random(2)
    for index in range(40):
        scene = split_scene("train", index, 3, canvas=128)
        for question in candidates(scene, rng):
            if question.template in ("spatial.side", "spatial.where"):
                assert question.answer == truth(question, scene)


def test_training_questions_never_name_a_held_out_pair(train: list[Scene]) -> None:
    held_out = {f"{COLOURS[c]} {KINDS[k].name}" for k, c in itertools.product(range(32), range(8)) if is_novel(k, c)}
    rng = random.Random(3)
    for scene in train[:200]:
        for question in candidates(scene, rng):
            words = question.text.rstrip("?").split()
            assert held_out.isdisjoint(f"{a} {b}" for a, b in itertools.pairwise(words))


# ---- balance


def spread(counts: Counter[str]) -> int:
    return max(counts.values()) - min(counts.values())


def by_template(questions: list[Question]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[question.template][question.answer] += 1
    return counts


def test_evaluation_set_is_full_balanced_and_true(test: list[Scene]) -> None:
    built = build_questions(iter(test), 80, seed=5)
    assert Counter(question.task for _, question in built) == dict.fromkeys(VQA_TASKS, 80)
    for index, question in built:
        assert question.answer == truth(question, test[index])
    counts = by_template([question for _, question in built])
    for name, answers in counts.items():
        assert spread(answers) <= 2, name
        if name in YES_NO:
            assert set(answers) == {"yes", "no"}
            assert spread(answers) <= 1, name
    for task, names in {task: DRAWN.of(task) for task in VQA_TASKS}.items():
        assert spread(Counter({name: counts[name].total() for name in names})) <= 12, task


def test_build_questions_is_reproducible_and_ends(test: list[Scene]) -> None:
    assert build_questions(test[:60], 10, seed=1) == build_questions(test[:60], 10, seed=1)
    assert build_questions(test[:60], 10, seed=1) != build_questions(test[:60], 10, seed=2)
    assert build_questions(test, 0, seed=1) == []
    assert len(build_questions(test[:3], 50, seed=1)) <= 3 * len(VQA_TASKS)
    # An endless iterator is left as soon as all is full.
    assert len(build_questions(itertools.cycle(test), 5, seed=1, tasks=("logic",))) == 5


def test_training_choice_is_balanced(train: list[Scene]) -> None:
    rng, balancer = random.Random(6), Balancer()
    questions = [question for scene in train for question in balancer.choose(scene, rng)]
    assert len(questions) > 6 * len(train)
    counts = by_template(questions)
    for name in YES_NO:
        assert spread(counts[name]) <= 2 + 0.05 * counts[name].total(), name
    words = counts["reading.word"]
    assert words["nothing"] <= 4 * words.total() / len(words)


def test_choose_respects_tasks_and_number(train: list[Scene]) -> None:
    rng = random.Random(7)
    for scene in train[:30]:
        chosen = Balancer().choose(scene, rng, tasks=("counting", "reading"), per_task=2)
        assert {question.task for question in chosen} <= {"counting", "reading"}
        assert max(Counter(question.task for question in chosen).values()) <= 2
        assert len({question.text for question in chosen}) == len(chosen)


@pytest.mark.parametrize(("per_scene", "each"), [(3, 1), (8, 1), (16, 2), (24, 3)])
def test_training_asks_so_many_questions_of_a_task_about_a_scene(train, per_scene, each):
    asked = training_questions(train[:150], per_scene, seed=0)
    assert len(asked) == 150
    assert max(map(len, asked)) <= per_scene
    most = max(max(Counter(question.task for question in chosen).values()) for chosen in asked)
    assert most == each
    for chosen in asked:
        assert len({question.template for question in chosen}) == len(chosen)


def test_more_questions_are_asked_where_more_are_allowed(train):
    few, more = (sum(map(len, training_questions(train[:150], count, seed=0))) for count in (8, 16))
    assert more > 1.5 * few


def test_surplus_none_never_skips(train: list[Scene]) -> None:
    rng, balancer = random.Random(8), Balancer(surplus=None)
    assert all(len(balancer.choose(scene, rng, tasks=("reading",))) == 1 for scene in train[:200])


# ---- blind readers


def features(question: Question) -> list[tuple[str, object]]:
    words = tokens(question.text)
    return [(question.template, word) for word in words] + [(question.template, at) for at in enumerate(words)]


def blind_accuracy(train: list[Question], test: list[Question]) -> float:
    """Naive Bayes over words and their places, per template, with add-one smoothing."""
    index: dict[tuple[str, object], int] = {}
    for question in train:
        for feature in features(question):
            index.setdefault(feature, len(index))
    counts = np.ones((2, len(index)))
    for question in train:
        counts[int(question.answer == "yes"), [index[f] for f in features(question)]] += 1
    weights = np.log(counts / counts.sum(1, keepdims=True))
    guesses = [weights[:, [index[f] for f in features(q) if f in index]].sum(1).argmax() for q in test]
    return float(np.mean([guess == (q.answer == "yes") for guess, q in zip(guesses, test, strict=True)]))


def test_text_alone_does_not_tell_yes_from_no(train: list[Scene], test: list[Scene]) -> None:
    tasks = ("existence", "spatial", "logic", "knowledge", "area")

    def asked(scenes: list[Scene], balancer: Balancer) -> list[Question]:
        rng = random.Random(9)
        chosen = [question for scene in scenes for question in balancer.choose(scene, rng, tasks, per_task=3)]
        return [question for question in chosen if question.template in YES_NO]

    learned, held_out = asked(train, Balancer())[:3000], asked(test, Balancer(strict=True))
    assert len(learned) == 3000
    assert len(held_out) > 1000
    assert blind_accuracy(learned, held_out) <= 0.58
    # The reader is able to find a leak where there is one.
    leaky = [
        Question(q.task, q.template, q.text + (" sun" if q.answer == "yes" else " cow"), q.answer) for q in learned
    ]
    assert blind_accuracy(leaky, leaky) > 0.9


def test_majority_baseline(train: list[Scene], test: list[Scene]) -> None:
    a = [Question("logic", "logic.both", "", answer) for answer in ("yes", "yes", "no")]
    b = [Question("logic", "logic.both", "", answer) for answer in ("yes", "no", "no", "no")]
    assert majority_baseline(a, b) == {"logic": 0.25}
    assert majority_baseline([], b) == {"logic": 0.0}
    rng, balancer = random.Random(10), Balancer()
    learned = [question for scene in train for question in balancer.choose(scene, rng)]
    held_out = [question for _, question in build_questions(test, 80, seed=4)]
    blind = majority_baseline(learned, held_out)
    assert set(blind) == set(VQA_TASKS)
    assert max(blind.values()) <= 0.55
    assert np.mean(list(blind.values())) <= 0.32


# ---- words


def test_vocabulary_is_closed(train: list[Scene], novel: list[Scene]) -> None:
    words = text_vocabulary()
    assert words == text_vocabulary()
    assert len(words) == len(set(words))
    known, rng = set(words), random.Random(11)
    for scene in train[:200] + novel:
        texts = [text for q in candidates(scene, rng) for text in (q.text, q.answer)]
        for text in texts + captions(scene, 8) + [" ".join(short_caption(scene))]:
            assert text == text.lower()
            assert known.issuperset(tokens(text)), text
    assert all(re.fullmatch("[a-z]+|[0-6]|[?.,;]", word) for word in words)


def test_answers_are_one_word(train: list[Scene]) -> None:
    rng = random.Random(12)
    assert all(len(tokens(question.answer)) == 1 for scene in train[:100] for question in candidates(scene, rng))
