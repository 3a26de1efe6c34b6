"""Questions that a picture does not answer, with the answer that says so.

Three kinds: about something that is not there ("what colour is the cat?" without a cat: "none"), about something that
the model has no word for, and about what no picture of the world shows ("who drew this?"): "cannot tell".
"""

from __future__ import annotations

import random
from collections.abc import Callable

from astrea.world.scenes.paraphrases import PARAPHRASES, no_word, rendered
from astrea.world.scenes.phrases import NOUN, RELATION_PHRASES, SceneView
from astrea.world.scenes.questions import Question
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.templates import WORDINGS
from astrea.world.scenes.vocabulary import COLOURS, KINDS

NONE = "none"
"""The answer where a question is about something that is not there."""
CANNOT_TELL = "cannot tell"
"""The answer where no picture of the world could say."""
UNANSWERABLE = "unanswerable"
"""The task and template that all these questions count as, where figures are kept of each."""

UNKNOWN_THINGS: tuple[str, ...] = (
    "dog", "horse", "car", "house", "tree", "boat", "bird", "chair", "bottle", "banana", "lion", "tiger", "bear",
    "apple", "bed", "book", "brick", "bridge", "candle", "carrot", "castle", "chicken", "coat", "computer", "desk",
    "doll", "drum", "duck", "engine", "fence", "flower", "fork", "fox", "garden", "goat", "guitar", "hand", "helmet",
    "jacket", "kettle", "knife", "ladder", "leaf", "lizard", "magnet", "mirror", "mountain", "needle", "onion", "oven",
    "paint", "pillow", "pig", "pond", "potato", "rabbit", "rocket", "roof", "sandwich", "shark", "sheep", "shirt",
    "shoe", "snake", "sofa", "spider", "spoon", "table", "tent", "tower", "truck", "turtle", "vase", "violin", "whale",
    "wolf", "zip", "river", "robot", "wizard", "salad", "pizza", "stone", "statue", "shelf", "road", "kitchen",
    "window",
)  # fmt: skip
"""Things that the world does not have, for training. Others are asked about in the test."""

OUT_OF_SCOPE: tuple[str, ...] = (
    "who drew this?", "who made the picture?", "when was this made?", "what time is it?", "what day is it today?",
    "how old is the {0}?", "how heavy is the {0}?", "how much does the {0} cost?", "why is the {0} there?",
    "why is it {1}?", "is the {0} happy?", "does the {0} like music?", "what does the {0} think?",
    "what is the name of the {0}?", "who owns the {0}?", "where was the {0} bought?", "is the {0} hungry?",
    "what is behind the {0}?", "what happened before?", "what will happen next?", "where is this place?",
    "in which country is this?", "what is the capital of spain?", "who is the king of england?",
    "what is two plus two?", "how far away is the moon?", "tell me a joke.", "what is the meaning of life?",
    "how do you feel?", "can you speak german?", "write a poem.", "what is the weather tomorrow?",
    "is it warm there?", "how does the {0} smell?", "what sound does it make?", "can the {0} swim?",
    "did the {0} sleep well?", "how fast is the {0}?", "is the {0} made of wood?", "what material is the {0}?",
    "how many people live here?", "who won the match?", "which language is spoken here?", "what is your name?",
    "is the {0} expensive?", "what did the {0} eat yesterday?", "should i buy the {0}?", "is this art good?",
    "how long did it take?", "translate the word.", "what is the price of gold?", "is {1} a nice colour?",
)  # fmt: skip

_TAKEN_FOR_GRANTED = {
    "attribute.colour": "kind", "attribute.size": "kind", "attribute.kind": "colour", "knowledge.fact": "fact",
    "knowledge.category": "category", "spatial.side": "side", "spatial.where": "two", "logic.same": "two",
    "area.compare": "two",
}  # fmt: skip
"""Templates that take something for granted, and what: these can be asked of a scene that does not answer."""


def unanswerable(scene: Scene, rng: random.Random, *, reworded: float = 0.5) -> Question:
    """One question that this scene does not answer: half of them about something that is not there.

    Args:
        reworded: share of the questions in the words of `astrea.world.scenes.paraphrases`.
    """
    makers: tuple[Callable[[], Question], ...] = (
        lambda: false_premise(scene, rng, reworded=reworded),
        lambda: false_premise(scene, rng, reworded=reworded),
        lambda: about_unknown(scene, rng, nouns=UNKNOWN_THINGS, reworded=reworded),
        lambda: out_of_scope(scene, rng),
    )
    return rng.choice(makers)()


def false_premise(scene: Scene, rng: random.Random, *, reworded: float = 0.0, held_out: bool = False) -> Question:
    """A question that takes for granted what is not there; its answer is `NONE`."""
    view = SceneView(scene)
    absent = {name: _absent(view, what, rng) for name, what in _TAKEN_FOR_GRANTED.items()}
    found = {name: args for name, args in absent.items() if args}
    if not view.word:
        found["reading.letter"] = ()
    template = rng.choice(list(found))
    args = found[template]
    return _question(template, args, NONE, rng, reworded=reworded, held_out=held_out)


def about_unknown(
    scene: Scene,
    rng: random.Random,
    *,
    nouns: tuple[str, ...],
    made_up: float = 0.4,
    reworded: float = 0.0,
    held_out: bool = False,
) -> Question:
    """A question about something that the world has no word for; its answer is `CANNOT_TELL`.

    Args:
        nouns: such things. made_up: share of the questions about what is no word at all.
    """
    view = SceneView(scene)
    noun = no_word(rng) if rng.random() >= 1 - made_up else rng.choice(nouns)
    here = KINDS[rng.choice(view.kinds)].name
    args: dict[str, tuple[str, ...]] = {
        "existence.kind": (noun,),
        "counting.kind": (f"{noun}s",),
        "attribute.colour": (noun,),
        "attribute.size": (noun,),
        "spatial.where": rng.choice(((noun, here), (here, noun))),
        "logic.same": rng.choice(((noun, here), (here, noun))),
        "existence.pair": (f"{rng.choice(COLOURS)} {noun}",),
    }
    template = rng.choice(list(args))
    return _question(template, args[template], CANNOT_TELL, rng, reworded=reworded, held_out=held_out)


def out_of_scope(scene: Scene, rng: random.Random, texts: tuple[str, ...] = OUT_OF_SCOPE) -> Question:
    """A question that no picture of the world answers, though it may be about something in it."""
    shown = rng.choice(scene.objects)
    text = rng.choice(texts).format(KINDS[shown.kind].name, COLOURS[shown.colour])
    return Question(UNANSWERABLE, UNANSWERABLE, text, CANNOT_TELL)


def _question(
    template: str, args: tuple[str, ...], answer: str, rng: random.Random, *, reworded: float, held_out: bool
) -> Question:
    wordings = WORDINGS[template]
    if held_out:
        wordings = PARAPHRASES[template].held_out
    elif rng.random() < reworded:
        wordings = PARAPHRASES[template].learned
    return Question(UNANSWERABLE, UNANSWERABLE, rendered(rng.choice(wordings), args), answer, args)


def _absent(view: SceneView, what: str, rng: random.Random) -> tuple[str, ...]:
    """Arguments of a question of which at least one is not in the scene; () where there is nothing to leave out."""
    kinds = [kind for number, kind in enumerate(KINDS) if number not in view.kind_counts]
    absent = rng.choice(kinds)
    if what == "kind":
        return (absent.name,)
    if what == "fact":
        return (absent.fact,)
    if what in ("colour", "category"):
        names, there = (COLOURS, view.colour_counts) if what == "colour" else (NOUN, view.category_counts)
        gone = [name for number, name in enumerate(names) if number not in there]
        return (rng.choice(gone),) if gone else ()
    shown = [KINDS[kind].name for kind in view.kinds]
    other = rng.choice(shown if rng.random() < 0.8 else [kind.name for kind in kinds if kind is not absent])
    one, two = rng.choice(((absent.name, other), (other, absent.name)))
    return (one, rng.choice(list(RELATION_PHRASES.values())), two) if what == "side" else (one, two)
