"""Questions about a scene with true, balanced answers: candidates, balancer, evaluation sets, blind baseline."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from astrea.world.scenes.phrases import CATEGORY_NOUNS, NOVEL_PHRASES, RELATIONS, SceneView, with_article
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.templates import EXTREMES, MAKERS, MOST_THINGS, WORDINGS
from astrea.world.scenes.vocabulary import COLOURS, KINDS, SIZES, WORDS

VQA_TASKS: tuple[str, ...] = (
    "existence", "counting", "attribute", "spatial", "logic", "reading", "knowledge", "area",
)  # fmt: skip

CAPTION_WORDS = "a an the and is are there we see picture shows sign says reads printed word left right of above below"
"""Words of captions other than names; see `astrea.world.scenes.captions`."""

_CATEGORY: dict[str, str] = {kind.name: kind.category for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Question:
    """One question and its true answer. ``args``: what its wording was filled with."""

    task: str
    template: str
    text: str
    answer: str
    args: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Templates:
    """What a world asks of its scenes, and how.

    wordings: of each template, "task.rest". makers: of each template, a view of a scene and a source of chance -> the
    (answer, arguments) that are true of it. view: a scene as the makers read it. features: what a reader of the text
    alone could hold on to in a question's arguments. article: a noun with "a" or "an" before it. tasks: in order.
    """

    wordings: Mapping[str, tuple[str, ...]]
    makers: Mapping[str, Callable[[Any, random.Random], list[tuple[str, tuple[str, ...]]]]]
    view: Callable[[Any], Any]
    features: Callable[[tuple[str, ...]], list[object]]
    article: Callable[[str], str] = with_article
    tasks: tuple[str, ...] = VQA_TASKS

    def of(self, task: str) -> list[str]:
        """The templates of a task."""
        return [name for name in self.makers if name.startswith(task + ".")]

    def render(self, template: str, args: tuple[str, ...], answer: str, rng: random.Random) -> Question:
        """A question in one of its template's wordings."""
        wordings = self.wordings[template]
        wording = wordings[int(rng.random() * len(wordings))]
        articles = {f"a{i}": self.article(arg) for i, arg in enumerate(args)} if "{a" in wording else {}
        return Question(template.partition(".")[0], template, wording.format(*args, **articles), answer, args)


def _features(args: tuple[str, ...]) -> list[object]:
    """Each word and its place, repeats, held-out pairs."""
    found: list[object] = [(i, word) for i, arg in enumerate(args) for word in arg.split()]
    if len(args) == 2:
        first, second = args[0].split(), args[1].split()
        if not set(first).isdisjoint(second):
            found.append("repeat")
        # Scenes like to repeat a category, so two present things are akin more often than a present and an absent one.
        if first[-1] in _CATEGORY and _CATEGORY[first[-1]] == _CATEGORY.get(second[-1]):
            found.append("kin")
    if any(arg in NOVEL_PHRASES for arg in args):
        found.append("novel")
    return found


DRAWN = Templates(WORDINGS, MAKERS, SceneView, _features)
"""The questions about drawn scenes."""


def candidates(scene: Scene, rng: random.Random) -> list[Question]:
    """Several true questions per task and template, with as many different answers as the scene allows."""
    view = SceneView(scene)
    return [
        DRAWN.render(name, args, answer, rng) for name, maker in MAKERS.items() for answer, args in maker(view, rng)
    ]


class Balancer:
    """Chooses questions so that templates within a task, answers within a template, and answers within every word of
    a template's arguments stay balanced over the data set.

    strict: for evaluation. Where a scene only offers an answer that is already ahead of the least-used possible one,
    nothing is chosen and the caller goes on to another scene. "Possible" is learned on the way: an answer (or
    template) counts once at least `RARE` of the scenes looked at have offered it.
    surplus: for training (not strict). The least-used answer on offer is taken, unless it is used more than this many
    times the mean of its template: a scene without a printed word can only answer "nothing", and more than half of
    all readings would be just that. None never skips.
    templates: what is asked.
    """

    RARE = 0.004
    TEMPLATE_SLACK = 4

    def __init__(self, strict: bool = False, surplus: float | None = 3.0, templates: Templates = DRAWN) -> None:
        self.strict = strict
        self.asked = templates
        self.surplus = surplus
        self._templates: Counter[str] = Counter()
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)
        self._looked: Counter[str] = Counter()
        self._offered: dict[str, Counter[str]] = defaultdict(Counter)
        self._words: Counter[tuple[str, object]] = Counter()
        self._words_with: Counter[tuple[str, object, str]] = Counter()

    def choose(
        self, scene: Any, rng: random.Random, tasks: Sequence[str] | None = None, per_task: int = 1
    ) -> list[Question]:
        """Up to ``per_task`` questions of each task, at most one of each template."""
        view = self.asked.view(scene)
        chosen: list[Question] = []
        for task in self.asked.tasks if tasks is None else tasks:
            texts: set[str] = set()
            tried: set[str] = set()
            while len(texts) < per_task:
                question = self._choose_one(task, view, rng, tried)
                if question is None:
                    break
                if question.text not in texts:
                    texts.add(question.text)
                    chosen.append(question)
        return chosen

    def _choose_one(self, task: str, view: Any, rng: random.Random, tried: set[str]) -> Question | None:
        for template in sorted(self.asked.of(task), key=lambda name: (self._templates[name], rng.random())):
            if template in tried:
                continue
            if self.strict and self._templates[template] > self._least_template(task) + self.TEMPLATE_SLACK:
                break
            tried.add(template)
            question = self._try(template, view, rng)
            if question is not None:
                return question
        return None

    def _try(self, template: str, view: Any, rng: random.Random) -> Question | None:
        options: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for answer, args in self.asked.makers[template](view, rng):
            options[answer].append(args)
        self._looked[template] += 1
        offered, used = self._offered[template], self._answers[template]
        offered.update(options.keys())
        if not options:
            return None
        answer = min(options, key=lambda each: (used[each], rng.random()))
        if self._ahead(template, used[answer]):
            return None
        args = min(options[answer], key=lambda each: (self._excess(template, each, answer), rng.random()))
        self._templates[template] += 1
        used[answer] += 1
        for feature in self.asked.features(args):
            self._words[template, feature] += 1
            self._words_with[template, feature, answer] += 1
        return self.asked.render(template, args, answer, rng)

    def _ahead(self, template: str, count: int) -> bool:
        """Whether an answer used ``count`` times must wait for the others of its template."""
        offered, used = self._offered[template], self._answers[template]
        if self.strict:
            enough = self.RARE * self._looked[template]
            return count > min(used[answer] for answer, times in offered.items() if times >= enough)
        if self.surplus is None or count < 2:
            return False
        return count > self.surplus * self._templates[template] / len(offered)

    def _least_template(self, task: str) -> int:
        """Uses of the least-used template that scenes do offer now and then."""
        counts = []
        for name in self.asked.of(task):
            offers = sum(self._offered[name].values())
            if not self._looked[name] or offers >= self.RARE * self._looked[name]:
                counts.append(self._templates[name])
        return min(counts, default=0)

    def _excess(self, template: str, args: tuple[str, ...], answer: str) -> int:
        """How far this answer is ahead of an even split among the questions with the same words (summed)."""
        kinds_of_answer = len(self._offered[template])
        return sum(
            kinds_of_answer * self._words_with[template, feature, answer] - self._words[template, feature]
            for feature in self.asked.features(args)
        )


def training_questions(
    scenes: Iterable[Any], per_scene: int, seed: int, templates: Templates = DRAWN
) -> list[list[Question]]:
    """Questions about every scene, balanced over all of them.

    Args:
        per_scene: most questions about each. As many as there are tasks are of one task each, twice as many are of two
            templates of each task where it has two that the scene answers, and so on.
    """
    rng = random.Random(f"questions/{seed}")
    balancer = Balancer(templates=templates)
    per_task = ceil(per_scene / len(templates.tasks))
    chosen = []
    for scene in scenes:
        asked = balancer.choose(scene, rng, per_task=per_task)
        # Tasks come in a fixed order: the first few would always be the same ones.
        chosen.append(asked if len(asked) <= per_scene else rng.sample(asked, per_scene))
    return chosen


def build_questions(
    scenes: Iterable[Any], n_per_task: int, seed: int, tasks: Sequence[str] | None = None, templates: Templates = DRAWN
) -> list[tuple[int, Question]]:
    """A balanced evaluation set: (position of the scene in ``scenes``, question), ``n_per_task`` of each task.

    Takes at most one question of a task from a scene and stops as soon as every task is full; an endless iterator is
    welcome. A finite one that runs out gives fewer.
    """
    rng = random.Random(seed)
    balancer = Balancer(strict=True, templates=templates)
    left = dict.fromkeys(templates.tasks if tasks is None else tasks, n_per_task)
    built: list[tuple[int, Question]] = []
    if n_per_task < 1:
        return built
    for index, scene in enumerate(scenes):
        for question in balancer.choose(scene, rng, [task for task, n in left.items() if n > 0]):
            left[question.task] -= 1
            built.append((index, question))
        if not any(left.values()):
            break
    return built


def majority_baseline(train: Sequence[Question], test: Sequence[Question]) -> dict[str, float]:
    """Accuracy per task of always giving a template's most frequent training answer, without looking at the picture."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in train:
        counts[question.template][question.answer] += 1
    best = {template: min(c.items(), key=lambda item: (-item[1], item[0]))[0] for template, c in counts.items()}
    asked: Counter[str] = Counter(question.task for question in test)
    right: Counter[str] = Counter(q.task for q in test if best.get(q.template) == q.answer)
    return {task: right[task] / n for task, n in asked.items()}


def tokens(text: str) -> list[str]:
    """Lower-case words and punctuation marks."""
    return re.findall(r"[a-z0-9]+|[?.,;]", text.lower())


def text_vocabulary() -> list[str]:
    """Every token of questions, answers and captions, in a fixed order, each once."""
    texts: list[str] = ["? . , ;", *COLOURS, *SIZES, *RELATIONS]
    for kind in KINDS:
        texts += [kind.name, kind.plural, kind.fact]
    texts += [noun for pair in CATEGORY_NOUNS.values() for noun in pair]
    texts += [str(n) for n in range(MOST_THINGS + 1)] + ["yes", "no", "nothing", *WORDS]
    texts += sorted({word[0] for word in WORDS})
    texts += [re.sub(r"\{\w+\}", " ", wording) for wordings in WORDINGS.values() for wording in wordings]
    texts += [*EXTREMES.values(), CAPTION_WORDS]
    return list(dict.fromkeys(token for text in texts for token in tokens(text)))
