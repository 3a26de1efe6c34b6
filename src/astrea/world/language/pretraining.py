"""Pretraining the small language model on the text of the world, before it has ever seen a picture.

In practice one starts from a pretrained language model. The tiny one learns its words, its facts and how to bind them
from scenes *described in words*: the prefix is the output of faultless experts, every token the mixture of the language
model's own word embeddings (see `LabelWords`). Some of the time it is wrong or incomplete, as that of real experts is.
No expert's weights, no pixels and no test scene are involved.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from astrea.alignment.matrix import ExpertMatrix
from astrea.data.packing import CAPTION_PROMPT, NOTE_PROMPT, PackedBatch, Packer, Turn, answers_right
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.mixer import Mixer
from astrea.language.attention import attention_mask, picture_blocks, position_ids, word_match, word_match_start
from astrea.language.defaults import WORD_MATCH
from astrea.language.labels import LabelWords
from astrea.language.loss import weighted_loss
from astrea.world.experts.captioning import CaptioningExpert
from astrea.world.experts.classification import ClassificationExpert
from astrea.world.experts.compact import COMPACT
from astrea.world.experts.detection import DetectionExpert
from astrea.world.experts.segmentation import SegmentationExpert
from astrea.world.experts.truth import collate_truth
from astrea.world.language.objective import WholeModelObjective
from astrea.world.scenes.captions import captions, short_caption
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.phrases import SceneView
from astrea.world.scenes.questions import Balancer
from astrea.world.scenes.scene import Scene, SceneObject
from astrea.world.scenes.vocabulary import COLOURS, KINDS

CAPTION_WEIGHT = 0.3

UNMATCHED = 0.2
"""Share of rows without word match."""

APART = 0.2
"""Share of rows whose prefix leaves it to the language model to combine the tokens of one place."""

NOTE_WEIGHT = 0.5

SIDE = 64.0
"""Of the picture, in the steps that a `SceneView` measures in."""


@dataclass(frozen=True, slots=True)
class LanguageBatch:
    """Packed rows and what their prefixes say.

    features: of each expert, in their own channels. present: (B, E). joined: (B,) whether the tokens of one place are
    added up, as the mixer starts. matched: (B,) whether words find their tokens. source: which scenes, for messages.
    """

    packed: PackedBatch
    features: dict[str, ExpertFeatures]
    present: Tensor
    joined: Tensor
    matched: Tensor
    source: str


def notes(scene: Scene, rng: random.Random, count: int = 12) -> str:
    """Terse facts, such as "sun red . cat no . red sun yes . sun from cow ? left": dense supervision of the look-ups
    and comparisons that questions ask for once in many words."""
    kinds = Counter(item.kind for item in scene.objects)
    pairs = {(item.kind, item.colour) for item in scene.objects}
    single = [item for item in scene.objects if kinds[item.kind] == 1]
    found = []
    for _ in range(count):
        draw = rng.random()
        item = rng.choice(scene.objects)
        if draw < 0.24 and single:
            item = rng.choice(single)
            found.append(f"{KINDS[item.kind].name} {COLOURS[item.colour]}")
        elif draw < 0.32:
            kind = item.kind if rng.random() < 0.5 else rng.randrange(len(KINDS))
            found.append(f"{KINDS[kind].name} {kinds[kind] or 'no'}")
        elif draw < 0.46:
            colour = item.colour if rng.random() < 0.5 else rng.choice(scene.objects).colour
            says = "yes" if (item.kind, colour) in pairs else "no"
            found.append(f"{COLOURS[colour]} {KINDS[item.kind].name} {says}")
        elif draw < 0.92 and len(single) > 1:
            one, other = rng.sample(single, 2)
            found.append(comparison(one, other, rng))
        else:
            found.append(f"{KINDS[item.kind].name} {KINDS[item.kind].category}")
    return " . ".join(found)


def whereabouts(scene: Scene, rng: random.Random, count: int = 2) -> list[Turn]:
    """In which quarter of the picture some things are. No task asks for that, but all questions about places begin with
    reading one: without these the language model did not discover it (see the lab notes)."""
    view = SceneView(scene)
    named = view.named()
    middle = SIDE / 2
    turns = []
    for index, name in rng.sample(named, min(count, len(named))):
        side = "left" if view.x[index] < middle else "right"
        turns.append(Turn(f"where is the {name}?", f"{side} {'above' if view.y[index] < middle else 'below'}"))
    return turns


def comparison(one: SceneObject, other: SceneObject, rng: random.Random) -> str:
    """A note that compares two things: by place, by visible area, or by colour."""
    a, b = KINDS[one.kind].name, KINDS[other.kind].name
    draw = rng.random()
    if draw < 0.5:
        return seen_from(one, other)
    if draw < 0.75:
        return f"{a} more {b} ? {'yes' if one.area > other.area else 'no'}"
    return f"{a} same {b} ? {'yes' if one.colour == other.colour else 'no'}"


def seen_from(one: SceneObject, other: SceneObject) -> str:
    """A note on which side of the other the one lies."""
    dx, dy = (p - q for p, q in zip(one.centroid, other.centroid, strict=True))
    side = ("left" if dx < 0 else "right") if abs(dx) > abs(dy) else ("above" if dy < 0 else "below")
    return f"{KINDS[one.kind].name} from {KINDS[other.kind].name} ? {side}"


def ideal_features(scenes: list[Scene]) -> dict[str, ExpertFeatures]:
    """The features of these scenes that faultless experts would give."""
    truth = collate_truth(scenes)
    features = {
        "captioning": CaptioningExpert.ideal([short_caption(scene) for scene in scenes]),
        "classification": ClassificationExpert.ideal(truth),
        "segmentation": SegmentationExpert.ideal(truth),
        "detection": DetectionExpert.ideal(truth),
    }
    return {name: features[name] for name in COMPACT}


def garble(features: ExpertFeatures, generator: torch.Generator, amount_of_it: float = 1.0) -> ExpertFeatures:
    """Corrupt features now and then: tokens blurred with, or replaced by, those of other scenes; slots dropped.

    ``amount_of_it`` 0 changes nothing, 1 corrupts as often as real experts might.
    """
    tokens, sure = features.tokens, features.confidence
    batch, slots = sure.shape
    other = torch.randperm(batch, generator=generator)
    draw = torch.rand(batch, slots, generator=generator) / max(amount_of_it, 1e-6)
    strength = torch.rand(batch, slots, generator=generator) * 0.5
    amount = torch.where(draw < 0.02, 1.0, torch.where(draw < 0.3, strength, 0.0))
    amount = amount * ((sure > 0) & (sure[other] > 0))
    mixed = torch.lerp(tokens, tokens[other], amount.unsqueeze(-1))
    dropped = torch.rand(batch, slots, generator=generator) < 0.05 * amount_of_it
    return ExpertFeatures(mixed, sure.masked_fill(dropped, 0.0), features.places)


class LanguageObjective(WholeModelObjective):
    """Next-token loss on answers and captions, given scenes described in the language model's own words.

    The question balancer remembers what it has asked, so batches must be taken in order: this one cannot be resumed.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        *,
        canvas: int = 64,
        difficulty: float = 0.5,
        per_task: int = 2,
        steps: int = 1,
    ) -> None:
        super().__init__(model)
        self.seed, self.canvas, self.difficulty, self.per_task, self.steps = seed, canvas, difficulty, per_task, steps
        # As fusion starts: everything that is said about one place is added up.
        self.join = Mixer(model.config.hidden_size, 1).requires_grad_(False)
        self.gamma = word_match_start(model.config.num_attention_heads, WORD_MATCH)
        self.words = {name: LabelWords(expert.labels, tokenizer) for name, expert in COMPACT.items()}
        self.packer = Packer(tokenizer, sum(expert.num_tokens for expert in COMPACT.values()))
        self.balancer = Balancer()

    def batch(self, step: int, micro: int, size: int) -> LanguageBatch:
        rng = random.Random(f"{self.seed}/warm/{step}/{micro}")
        first = rng.getrandbits(40)
        scenes = [
            split_scene("train", first + i, self.seed, canvas=self.canvas, difficulty=self.difficulty)
            for i in range(size)
        ]
        rows = [self.turns(scene, rng) for scene in scenes]
        generator = torch.Generator().manual_seed(rng.getrandbits(60))
        done = min(1.0, step / self.steps)
        # First without faults: binding is a phase transition, and they only put it off. Then as real experts would.
        fault = min(1.0, max(0.0, (done - 0.4) / 0.3))
        features = {name: garble(ideal, generator, fault) for name, ideal in ideal_features(scenes).items()}
        # Each row may lose one expert, or now and then all of them.
        lost = torch.randint(0, len(features), (size,), generator=generator)
        lost[torch.rand(size, generator=generator) > 0.3 * fault] = len(features)
        blind = torch.rand(size, generator=generator) < 0.03 * fault
        present = (lost.unsqueeze(1) != torch.arange(len(features))) & ~blind.unsqueeze(1)
        joined = torch.rand(size, generator=generator) > APART
        matched = torch.rand(size, generator=generator) > UNMATCHED
        return LanguageBatch(self.packer.pack(rows), features, present, joined, matched, f"scenes from index {first}")

    def turns(self, scene: Scene, rng: random.Random) -> list[Turn]:
        """What is asked and said about a scene: questions, places, notes and a caption."""
        asked = self.balancer.choose(scene, rng, per_task=self.per_task)
        turns = [*(Turn(q.text, q.answer) for q in asked), *whereabouts(scene, rng)]
        turns.append(Turn(NOTE_PROMPT, notes(scene, rng), NOTE_WEIGHT))
        return [*turns, Turn(CAPTION_PROMPT, rng.choice(captions(scene, 3, rng.getrandbits(30))), CAPTION_WEIGHT)]

    def logits(
        self,
        batch: PackedBatch,
        features: Mapping[str, ExpertFeatures],
        present: Tensor | None = None,
        joined: Tensor | None = None,
        matched: Tensor | None = None,
    ) -> Tensor:
        """The language model's logits (B, L, V), reading the prefix in its own word embeddings."""
        table = self.model.get_input_embeddings().weight
        size = len(batch.input_ids)
        columns = [features[name].tokens @ self.words[name].embed(table) for name in features]
        counts = torch.tensor([column.shape[1] for column in columns])
        nowhere = torch.tensor(float("nan"))
        matrix = ExpertMatrix(
            torch.cat(columns, 1),
            torch.cat([part.confidence for part in features.values()], 1),
            torch.cat([part.confidence > 0 for part in features.values()], 1),
            torch.ones(size, len(features), dtype=torch.bool),
            torch.arange(len(features)).repeat_interleave(counts),
            torch.cat(
                [
                    nowhere.expand(*part.confidence.shape, 2) if part.places is None else part.places
                    for part in features.values()
                ],
                1,
            ),
        )
        if present is not None:
            matrix = matrix.with_presence(present)
        added = self.join(matrix)
        words = normalize(matrix.tokens, dim=-1)
        if matched is not None:
            words = words * matched[:, None, None]
        tokens = matrix.tokens + (added if joined is None else added * joined[:, None, None])
        is_image = batch.input_ids == self.packer.image
        embeds = self.model.get_input_embeddings()(batch.input_ids)
        keys = torch.zeros_like(embeds).masked_scatter(is_image.unsqueeze(-1), words)
        match = word_match(embeds, keys, self.gamma)
        embeds = embeds.masked_scatter(is_image.unsqueeze(-1), tokens)
        real = batch.attention_mask.bool()
        mask = attention_mask(
            real.masked_scatter(is_image, matrix.valid),
            picture_blocks(is_image),
            batch.segments,
            None,
            match,
            queries=is_image.shape[1],
            dtype=embeds.dtype,
        )
        positions = position_ids(is_image, real, batch.segments)
        found: Tensor = self.model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits
        return found

    def loss(self, batch: LanguageBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        logits = self.logits(batch.packed, batch.features, batch.present, batch.joined, batch.matched)
        return weighted_loss(logits, batch.packed.labels, batch.packed.label_weights), {}

    def describe(self, batch: LanguageBatch) -> str:
        return batch.source


@torch.no_grad()
def reading_accuracy(objective: LanguageObjective, scenes: int = 300, seed: int = 1) -> dict[str, float]:
    """Share of right answers per VQA task on faultless descriptions of validation scenes: the gate's figure."""
    objective.model.eval()
    balancer, rng = Balancer(strict=True), random.Random(seed)
    right: dict[str, list[float]] = {}
    for start in range(0, scenes, 25):
        drawn = [split_scene("validation", start + i, seed, canvas=objective.canvas) for i in range(25)]
        asked = [balancer.choose(scene, rng) for scene in drawn]
        keep = [i for i, questions in enumerate(asked) if questions]
        packed = objective.packer.pack([[Turn(q.text, q.answer) for q in asked[i]] for i in keep])
        features = {name: f.rows(torch.tensor(keep)) for name, f in ideal_features(drawn).items()}
        scores = answers_right(objective.logits(packed, features), packed)
        for row, i in enumerate(keep):
            for column, question in enumerate(asked[i]):
                right.setdefault(question.task, []).append(float(scores[row, column]))
    objective.model.train()
    return {task: sum(values) / len(values) for task, values in sorted(right.items())}
