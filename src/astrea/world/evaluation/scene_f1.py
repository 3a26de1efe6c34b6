"""Scene F1: how much of what a caption states is true, and how much of the scene it tells."""

from __future__ import annotations

from astrea.world.scenes.captions import Mention, parse_caption
from astrea.world.scenes.phrases import SceneView
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import COLOURS, KINDS


def scene_f1(caption: str, scene: Scene) -> float:
    """Harmonic mean of precision and recall of a caption's facts, 0 to 1.

    Facts are objects with their colour (counted), relations and the printed word. Precision is over all facts stated;
    a relation is true if it holds for any two objects that its names fit. Recall is over the objects of the scene,
    its printed word, and one relation, if two objects stand clearly apart: any true one will do.
    """
    facts = parse_caption(caption)
    view = SceneView(scene)
    present = {(COLOURS[colour], KINDS[kind].name): n for (colour, kind), n in view.pair_counts.items()}
    objects = sum(min(n, present.get(pair, 0)) for pair, n in facts.objects.items())
    relations = sum(_true(view, *relation) for relation in facts.relations)
    word = int(facts.word is not None and facts.word == scene.word)

    stated = facts.objects.total() + len(facts.relations) + (facts.word is not None)
    # A relation can only be asked for where one can be told without ambiguity, and then one is enough.
    clear = bool(view.clear_relations())
    wanted = len(view) + clear + (scene.word is not None)
    found = objects + (clear and relations > 0) + word
    true = objects + relations + word
    if true == 0 or found == 0:
        return 0.0
    precision, recall = true / stated, found / wanted
    return 2 * precision * recall / (precision + recall)


def _true(view: SceneView, first: Mention, side: str, second: Mention) -> bool:
    return any(a != b and view.holds(side, a, b) for a in _fitting(view, first) for b in _fitting(view, second))


def _fitting(view: SceneView, mention: Mention) -> list[int]:
    """Objects that a mention with or without a colour can mean."""
    colour, kind = mention
    return [
        i for i in range(len(view)) if KINDS[view.kinds[i]].name == kind and colour in (None, COLOURS[view.colours[i]])
    ]
