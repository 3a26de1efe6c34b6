"""Planning scenes: which pictograms stand where, and the smallest change that makes another scene of one.

Plans depend on their seed alone, through Python's `random.Random.random`, whose stream is the same everywhere.
Overlap is counted on bit boards (a mask as one long integer): exact, and far faster than arrays of this size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from astrea.world.scenes.atlas import sprite
from astrea.world.scenes.scene import ObjectSpec, SceneSpec
from astrea.world.scenes.textures import below
from astrea.world.scenes.vocabulary import CATEGORY_OF, COLOURS, CONDITIONS, KINDS, NOVEL_EVERY, WORDS, is_novel

WORD_SHARE = 0.45
CLEAN_SHARE = 0.44
MIN_VISIBLE = 0.6
"""Share of its own pixels that every planned object keeps in sight."""

MIN_CLEAR_OF_PLATE = 0.8
"""Share of its own pixels that the word plate leaves uncovered."""

_COUNT_WEIGHTS = (1, 2, 4, 4, 2.5, 1.5)
_SIZE_WEIGHTS = (3, 4, 3)
_MAX_BOX_OVERLAP = 0.4
_TRIES = 24
_DIFFICULTY_STEPS = 128
_DEFAULT_DIFFICULTY = 50


def plan_scene(
    seed: int,
    *,
    canvas: int = 64,
    allow_novel: bool | None = False,
    require_novel: bool = False,
    difficulty: float = 0.5,
    max_objects: int = 6,
    min_objects: int = 1,
    object_canvas: int | None = None,
    clean: float | None = None,
    pairs: float = 0.0,
) -> SceneSpec:
    """Plan the scene of this seed: ``min_objects`` to ``max_objects`` pictograms (fewer where there is no room for
    more), perhaps a word, and a condition.

    canvas: side in pixels, at least 48. allow_novel: False keeps out every held-out kind x colour pair (`is_novel`),
    True or None does not care. require_novel: make at least one object such a pair (overrides ``allow_novel``).
    difficulty: 0..1, how strong night, blur, noise and clutter are; their shares stay. It is kept, in whole per cent,
    in the low bits of the plan's own ``seed``, since the plan alone must be enough to draw the scene. clean: share of
    scenes without any of them; None = `CLEAN_SHARE`. pairs: share of the others in which two hold at once.
    object_canvas: side in pixels of the canvas, at most this one's, that pictograms and print are sized for; None =
    this one's.

    Raises:
        ValueError: a value out of range.
    """
    unit = canvas if object_canvas is None else object_canvas
    if not 48 <= unit <= canvas or not 1 <= min_objects <= max_objects or not 0 <= difficulty <= 1:
        raise ValueError(
            f"a scene needs canvas >= object_canvas >= 48, max_objects >= min_objects >= 1 and difficulty in 0..1, not "
            f"{canvas=}, {object_canvas=}, {max_objects=}, {min_objects=}, {difficulty=}"
        )
    rng = Random(seed)
    looks = _plan_looks(rng, min_objects, max_objects, novel=require_novel or allow_novel is not False)
    word = WORDS[below(rng, len(WORDS))] if rng.random() < WORD_SHARE else None
    width, height = plate_size(word, unit)
    word_xy = (below(rng, canvas - width + 1), below(rng, canvas - height + 1)) if word else (0, 0)
    objects = _place(rng, looks, _Board(canvas, (*word_xy, width, height), unit))
    if require_novel and not any(is_novel(item.kind, item.colour) for item in objects):
        chosen = below(rng, len(objects))
        objects[chosen] = replace(objects[chosen], colour=novel_colour(objects[chosen].kind))
    clean = CLEAN_SHARE if clean is None else clean
    draw, others = rng.random(), len(CONDITIONS) - 1
    condition = 0 if draw < clean else 1 + int((draw - clean) / (1 - clean) * others)
    second = 0
    if condition and pairs and rng.random() < pairs:
        second = 1 + (condition + below(rng, others - 1)) % others
    own_seed = seed * _DIFFICULTY_STEPS + (round(difficulty * 100) - _DEFAULT_DIFFICULTY) % _DIFFICULTY_STEPS
    other = 0 if unit == canvas else unit
    return SceneSpec(own_seed, canvas, tuple(objects), word, word_xy, condition, second, other)


def difficulty_of(spec: SceneSpec) -> int:
    """The difficulty a scene was planned with, in per cent 0..100."""
    offset = spec.seed % _DIFFICULTY_STEPS
    if offset >= _DIFFICULTY_STEPS // 2:
        offset -= _DIFFICULTY_STEPS
    return min(100, max(0, offset + _DEFAULT_DIFFICULTY))


def novel_colour(kind: int) -> int:
    """The one colour in which this kind is held out of training."""
    return next(colour for colour in range(NOVEL_EVERY) if is_novel(kind, colour))


def plate_size(word: str | None, canvas: int) -> tuple[int, int]:
    """(width, height) in pixels of the plate a word is printed on; (0, 0) without a word."""
    if not word:
        return 0, 0
    letter, margin = canvas // 8, canvas // 32
    return len(word) * letter + margin, letter + 2 * margin


def _pick(rng: Random, weights: Sequence[float]) -> int:
    """An index drawn in proportion to its weight."""
    left = rng.random() * sum(weights)
    for index, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return index
    return len(weights) - 1


def _plan_looks(rng: Random, min_objects: int, max_objects: int, *, novel: bool) -> list[tuple[int, int, int]]:
    """(kind, colour, size) of each object. Repeats are wanted, or counting questions would all be about one."""
    weights = [_COUNT_WEIGHTS[index] if index < len(_COUNT_WEIGHTS) else 1 for index in range(max_objects)]
    weights[: min_objects - 1] = [0] * (min_objects - 1)
    theme = below(rng, 5)  # what most objects share with the first: 0 kind, 1 colour, 2 category, 3 and 4 nothing
    looks: list[tuple[int, int, int]] = []
    for _ in range(1 + _pick(rng, weights)):
        kind, colour, size = below(rng, len(KINDS)), below(rng, len(COLOURS)), _pick(rng, _SIZE_WEIGHTS)
        if looks:
            if rng.random() < 0.65:
                model, share = looks[0], theme
            else:
                model, share = looks[below(rng, len(looks))], below(rng, 6)
            if share == 0:
                kind = model[0]
            elif share == 1:
                colour = model[1]
            elif share == 2:
                kin = [other for other in range(len(KINDS)) if CATEGORY_OF[other] == CATEGORY_OF[model[0]]]
                kind = kin[below(rng, len(kin))]
        if not novel and is_novel(kind, colour):
            colour = (colour + 1 + below(rng, len(COLOURS) - 1)) % len(COLOURS)
        looks.append((kind, colour, size))
    return looks


class _Board:
    """What lies where so far: boxes, and on bit boards the pixels that are still in sight."""

    def __init__(self, canvas: int, plate: tuple[int, int, int, int], unit: int) -> None:
        self.canvas, self.unit = canvas, unit
        self.boxes: list[tuple[int, int, int, int]] = []
        self.seen: list[int] = []
        self.own: list[int] = []
        x, y, width, height = plate
        self.plate = sum(((1 << width) - 1) << (row * canvas + x) for row in range(y, y + height))

    def add(self, kind: int, size: int, x: int, y: int, *, most_overlap: float = 1.0) -> bool:
        """Lay a pictogram on top with its box's corner at (x, y), unless it would hide too much or be hidden."""
        shape = sprite(kind, size, self.unit, self.canvas)
        width, height = shape.width, shape.height
        if x < 0 or y < 0 or x + width > self.canvas or y + height > self.canvas:
            return False
        for left, top, wide, high in self.boxes:
            across = min(x + width, left + wide) - max(x, left)
            down = min(y + height, top + high) - max(y, top)
            if across > 0 and down > 0 and across * down > most_overlap * min(width * height, wide * high):
                return False
        bits = shape.bits << (y * self.canvas + x)
        seen = bits & ~self.plate
        if seen.bit_count() < MIN_CLEAR_OF_PLATE * shape.area:
            return False
        left_over = [earlier & ~bits for earlier in self.seen]
        if any(part.bit_count() < MIN_VISIBLE * own for part, own in zip(left_over, self.own, strict=True)):
            return False
        self.seen = [*left_over, seen]
        self.own.append(shape.area)
        self.boxes.append((x, y, width, height))
        return True


def _place(rng: Random, looks: list[tuple[int, int, int]], board: _Board) -> list[ObjectSpec]:
    """Find a place for each object on the empty board, at last as a small one; what fits nowhere is left out (never the
    first)."""
    canvas, unit = board.canvas, board.unit
    placed: list[ObjectSpec] = []
    for kind, colour, size in looks:
        for attempt in range(_TRIES):
            if attempt == _TRIES // 2:
                size = 0
            shape = sprite(kind, size, unit)
            x, y = below(rng, canvas - shape.width + 1), below(rng, canvas - shape.height + 1)
            if board.add(kind, size, x, y, most_overlap=_MAX_BOX_OVERLAP):
                placed.append(ObjectSpec(kind, colour, size, x, y))
                break
    if not placed:  # a wide plate in the middle of a small canvas; a corner always has room beside or above it
        kind, colour, _ = looks[0]
        shape = sprite(kind, 0, unit)
        corners = [(x, y) for y in (0, canvas - shape.height) for x in (0, canvas - shape.width)]
        x, y = next(((x, y) for x, y in corners if board.add(kind, 0, x, y)), corners[0])
        placed.append(ObjectSpec(kind, colour, 0, x, y))
    return placed


def swap_attribute(spec: SceneSpec, rng: Random) -> tuple[SceneSpec, str]:
    """A near-duplicate of ``spec`` that differs in one attribute, and which: 'colour', 'kind', 'place' or 'word'.

    'place' turns a clear left/right or above/below of two different pictograms around. No object becomes a held-out
    pair. Background, noise and all else stay, pixel for pixel.
    """
    attributes = ["colour", "kind", "place", "word"]
    while attributes:
        attribute = attributes.pop(below(rng, len(attributes)))
        swapped = _SWAPS[attribute](spec, rng)
        if swapped is not None:
            return swapped, attribute
    raise ValueError("nothing in this scene can be swapped")


def _with(spec: SceneSpec, changed: dict[int, ObjectSpec]) -> SceneSpec:
    return replace(spec, objects=tuple(changed.get(index, item) for index, item in enumerate(spec.objects)))


def _fits(spec: SceneSpec) -> bool:
    """Whether every object lies inside the canvas and stays well in sight."""
    plate = (*spec.word_xy, *plate_size(spec.word, spec.sized_for))
    board = _Board(spec.canvas, plate, spec.sized_for)
    return all(board.add(item.kind, item.size, item.x, item.y, most_overlap=0.6) for item in spec.objects)


def _centre(item: ObjectSpec, unit: int) -> tuple[int, int]:
    """Twice the centre of an object's box, in pixels (twice, to stay whole)."""
    shape = sprite(item.kind, item.size, unit)
    return 2 * item.x + shape.width, 2 * item.y + shape.height


def _at(item: ObjectSpec, centre: tuple[int, int], spec: SceneSpec) -> ObjectSpec:
    """The object moved so that twice its box's centre is ``centre``, pushed inside the canvas where it stands out."""
    shape = sprite(item.kind, item.size, spec.sized_for)
    x = min(max((centre[0] - shape.width) // 2, 0), spec.canvas - shape.width)
    y = min(max((centre[1] - shape.height) // 2, 0), spec.canvas - shape.height)
    return replace(item, x=x, y=y)


def _swap_colour(spec: SceneSpec, rng: Random) -> SceneSpec | None:
    index = below(rng, len(spec.objects))
    item = spec.objects[index]
    colours = [colour for colour in range(len(COLOURS)) if colour != item.colour and not is_novel(item.kind, colour)]
    return _with(spec, {index: replace(item, colour=colours[below(rng, len(colours))])})


def _swap_kind(spec: SceneSpec, rng: Random) -> SceneSpec | None:
    for _ in range(_TRIES):
        index, kind = below(rng, len(spec.objects)), below(rng, len(KINDS))
        item = spec.objects[index]
        if kind == item.kind or is_novel(kind, item.colour):
            continue
        swapped = _with(spec, {index: _at(replace(item, kind=kind), _centre(item, spec.sized_for), spec)})
        if _fits(swapped):
            return swapped
    return None


def _swap_place(spec: SceneSpec, rng: Random) -> SceneSpec | None:
    clear = 2 * spec.canvas // 8  # twice the distance of centres from which a relation is plain to see
    pairs = [(i, j) for i in range(len(spec.objects)) for j in range(len(spec.objects)) if i != j]
    while pairs:
        first, second = pairs.pop(below(rng, len(pairs)))
        mover, anchor = spec.objects[first], spec.objects[second]
        if (mover.kind, mover.colour) == (anchor.kind, anchor.colour):
            continue
        (x, y), (anchor_x, anchor_y) = _centre(mover, spec.sized_for), _centre(anchor, spec.sized_for)
        if max(abs(x - anchor_x), abs(y - anchor_y)) < clear:
            continue
        mirrored = (2 * anchor_x - x, y) if abs(x - anchor_x) > abs(y - anchor_y) else (x, 2 * anchor_y - y)
        for swapped in (
            _with(spec, {first: _at(mover, mirrored, spec)}),
            _with(
                spec,
                {
                    first: _at(mover, (anchor_x, anchor_y), spec),
                    second: _at(anchor, (x, y), spec),
                },
            ),
        ):
            if _turned(spec, swapped, first, second, clear) and _fits(swapped):
                return swapped
    return None


def _turned(before: SceneSpec, after: SceneSpec, first: int, second: int, clear: int) -> bool:
    """Whether a clear left/right or above/below of two objects has become its clear opposite."""
    for axis in range(2):
        gaps = [
            _centre(spec.objects[first], spec.sized_for)[axis] - _centre(spec.objects[second], spec.sized_for)[axis]
            for spec in (before, after)
        ]
        if min(map(abs, gaps)) >= clear and gaps[0] * gaps[1] < 0:
            return True
    return False


def _swap_word(spec: SceneSpec, rng: Random) -> SceneSpec | None:
    if spec.word is None:
        return None
    # Of the same length, so that the plate stays as it is.
    words = [word for word in WORDS if word != spec.word and len(word) == len(spec.word)]
    return replace(spec, word=words[below(rng, len(words))])


_SWAPS = {"colour": _swap_colour, "kind": _swap_kind, "place": _swap_place, "word": _swap_word}
