"""Compact captioning: its own short caption of the salient thing, one relation, the printed word.
Weak under blur and noise.

A two-layer decoder reads the trunk's stride-4 map by cross-attention. What leaves it is not the argmax sentence but,
per step, the distribution over its vocabulary and the decoder's state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.experts.protocol import ORDINALS, ExpertFeatures, Reading
from astrea.experts.vocabulary_part import speaking_of, word_channels
from astrea.world.experts.states import CompactExpert, hand_on_states
from astrea.world.experts.trunk import Trunk, conv
from astrea.world.experts.truth import SceneTruth, per_pixel
from astrea.world.scenes.vocabulary import COLOURS, KINDS, WORDS

STRIDE = 4
STEPS = 8
RELATIONS = ("left", "right", "above", "below")
END = "end"
VOCABULARY: tuple[str, ...] = (END, *COLOURS, *(k.name for k in KINDS), *RELATIONS, "sign", *WORDS)
STATE = 64


class CaptioningExpert(CompactExpert):
    """Up to 8 decoder steps: word distribution, position in the caption, confidence, decoder state.

    Args:
        only: words it speaks of; none = all. states: whether tokens hold decoder states without the words.
    """

    kind = "captioning"
    weak_conditions: ClassVar[tuple[str, ...]] = ("blur", "noise")
    num_tokens = STEPS
    labels = (*VOCABULARY, *ORDINALS, "sure", "captioning", *([None] * STATE))
    width = len(labels)
    slots = {"word": (0, len(VOCABULARY))}
    phrases = ("{word}",)

    def __init__(self, *, only: Sequence[str] = (), states: bool = False) -> None:
        super().__init__()
        self.states = states
        if states:
            hand_on_states(self, named=len(VOCABULARY), state=0, phrases=("{feature:name}",), only=only)
            self.slots = {"feature": (self.width - STATE, self.width)}
        self.only = word_channels(only, VOCABULARY)
        self.trunk = Trunk()
        w1 = self.trunk.widths[1]
        self.memory = nn.Conv2d(w1, STATE, 1)
        self.place = nn.Parameter(torch.randn(256, STATE) * 0.1)
        self.start = nn.Parameter(torch.randn(STATE) * 0.1)
        self.words = nn.Embedding(len(VOCABULARY), STATE)
        self.steps = nn.Parameter(torch.randn(STEPS, STATE) * 0.1)
        self.blocks = nn.ModuleList(DecoderBlock(STATE, heads=4) for _ in range(2))
        self.norm = nn.LayerNorm(STATE)
        self.head = nn.Linear(STATE, len(VOCABULARY))
        self.hints = nn.Sequential(conv(w1, w1), nn.Conv2d(w1, 1 + len(KINDS) + len(COLOURS) + 1 + len(WORDS), 1))

    def encode_pixels(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Memory (B, h w, STATE) for the decoder, and the fine map."""
        _, fine, _ = self.trunk(pixels_B3HW)
        memory = self.memory(fine).flatten(2).transpose(1, 2)
        return memory + self.places(*fine.shape[-2:]), fine

    def places(self, h: int, w: int) -> Tensor:
        """What marks the cells of an h x w map: learned on the map of a 64-pixel picture, stretched to any other."""
        side = math.isqrt(len(self.place))
        if h == w == side:
            return self.place
        learned = self.place.T.reshape(1, STATE, side, side)
        return F.interpolate(learned, size=(h, w), mode="bilinear").flatten(2)[0].T

    @property
    def layers(self) -> list[DecoderBlock]:
        """The decoder's layers, by their type."""
        return list(self.blocks)  # type: ignore[arg-type]

    def decode(self, words_BT: Tensor, memory: Tensor) -> Tensor:
        """States (B, T + 1, STATE) after the start symbol and the given words (at most STEPS - 1 are read)."""
        inputs = torch.cat([self.start.expand(len(memory), 1, -1), self.words(words_BT[:, : STEPS - 1])], 1)
        x = inputs + self.steps[: inputs.shape[1]]
        for block in self.layers:
            x, _ = block(x, block.remembered(memory), None)
        found: Tensor = self.norm(x)
        return found

    def say(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest word at each step, read by the next one: logits (B, STEPS, V) and states (B, STEPS, STATE),
        those that `decode` gives for these words. Keys and values are kept from step to step."""
        remembered = [block.remembered(memory) for block in self.layers]
        past: list[Pair | None] = [None] * len(remembered)
        word = self.start.expand(len(memory), 1, -1)
        logits, states = [], []
        for step in range(STEPS):
            x = word + self.steps[step]
            for number, block in enumerate(self.layers):
                x, past[number] = block(x, remembered[number], past[number])
            states.append(self.norm(x))
            logits.append(self.head(states[-1]))
            word = self.words(logits[-1].argmax(-1))
        return torch.cat(logits, 1), torch.cat(states, 1)

    def loss(self, truth: SceneTruth, captions: Sequence[Sequence[str]]) -> Tensor:
        """Next-word cross-entropy of its own short captions + dense hints (kind, colour, word per cell) for the trunk.

        Args:
            captions: the short caption of every picture, at most STEPS words of VOCABULARY.
        """
        target = torch.full((len(captions), STEPS), -100)
        for row, words in enumerate(captions):
            ids = [VOCABULARY.index(word) for word in words][:STEPS]
            if len(ids) < STEPS:
                ids.append(0)
            target[row, : len(ids)] = torch.tensor(ids)
        memory, fine = self.encode_pixels(truth.pixels_B3HW)
        logits = self.head(self.decode(target.clamp_min(0), memory))
        caption_loss = F.cross_entropy(logits.transpose(1, 2), target)
        kind, colour, word = self.hints(fine).split([1 + len(KINDS), len(COLOURS), 1 + len(WORDS)], 1)
        instances = truth.instances_BHW[:, 1::STRIDE, 1::STRIDE]
        kinds = per_pixel(truth.kind_BN + 1, instances, 0)
        colours = torch.where(kinds > 0, per_pixel(truth.colour_BN, instances, 0), -100)
        plate = instances == 255
        word_target = torch.where(plate, truth.word_B[:, None, None] + 1, 0)
        light = torch.tensor([0.3] + [1.0] * len(KINDS))
        rare = torch.tensor([0.1] + [1.0] * len(WORDS))
        return (
            2 * caption_loss
            + F.cross_entropy(kind, kinds, light)
            + 0.5 * F.cross_entropy(colour, colours, ignore_index=-100)
            + F.cross_entropy(word, word_target, rare)
        )

    def found(self, pixels_B3HW: Tensor, *, states: bool) -> ExpertFeatures:
        memory, _ = self.encode_pixels(pixels_B3HW)
        logits, state = self.say(memory)
        probability = logits.softmax(-1)
        ended = (logits.argmax(-1) == 0).long().cumsum(1) > 0
        found = word_tokens(probability, ended, state)
        if states:
            return replace(found, tokens=found.tokens[..., len(VOCABULARY) :])
        return speaking_of(found, self.only, len(VOCABULARY))

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        features = self.found(pixels_B3HW, states=False)
        found = []
        for row in range(len(features.tokens)):
            keep = features.confidence[row] > 0
            ids = features.tokens[row, keep, : len(VOCABULARY)].argmax(-1).tolist()
            found.append(
                Reading(
                    "captioning",
                    labels=[VOCABULARY[i] for i in ids],
                    scores=features.confidence[row, keep].tolist(),
                    caption=" ".join(VOCABULARY[i] for i in ids),
                )
            )
        return found

    @classmethod
    def ideal(cls, captions: Sequence[Sequence[str]]) -> ExpertFeatures:
        """The tokens that a faultless captioner would give (to pretrain the language model, never at evaluation)."""
        ids = torch.zeros(len(captions), STEPS, dtype=torch.long)
        for row, words in enumerate(captions):
            for step, word in enumerate(words[:STEPS]):
                ids[row, step] = VOCABULARY.index(word)
        probability = F.one_hot(ids, len(VOCABULARY)).float()
        return word_tokens(probability, ids == 0, torch.zeros(len(captions), STEPS, STATE))


def word_tokens(probability_BTV: Tensor, ended_BT: Tensor, states_BTS: Tensor) -> ExpertFeatures:
    """Spell decoder steps as channels in the order of ``CaptioningExpert.labels``; steps after the end are empty."""
    sure = torch.where(ended_BT, 0, probability_BTV.amax(-1))
    place = torch.eye(STEPS, device=sure.device).expand(len(sure), -1, -1)
    tokens = torch.cat(
        [probability_BTV, place, sure.unsqueeze(-1), torch.ones_like(sure).unsqueeze(-1), states_BTS], -1
    )
    return ExpertFeatures(tokens, sure)


Pair = tuple[Tensor, Tensor]
"""Keys and values, (B, heads, L, width of a head) each."""


class DecoderBlock(nn.Module):
    """Pre-norm decoder layer: causal self-attention, cross-attention to the picture, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own = nn.MultiheadAttention(width, heads, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def remembered(self, memory: Tensor) -> Pair:
        """What cross-attention reads of the picture, the same at every step."""
        key, value = projected(self.cross, memory, 1, 3)
        return key, value

    def forward(self, x: Tensor, remembered: Pair, past: Pair | None) -> tuple[Tensor, Pair]:
        """One pass over a whole caption, or with ``past`` over its next word, (B, 1, width).

        Args:
            past: what the step before returned, or None.

        Returns:
            x, and what the next step needs as ``past``.
        """
        query, key, value = projected(self.own, self.norms[0](x), 0, 3)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        x = x + joined(self.own, F.scaled_dot_product_attention(query, key, value, is_causal=past is None))
        (asked,) = projected(self.cross, self.norms[1](x), 0, 1)
        x = x + joined(self.cross, F.scaled_dot_product_attention(asked, *remembered))
        return x + self.feed(self.norms[2](x)), (key, value)


def projected(layer: nn.MultiheadAttention, x_BLD: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
    """Some of query, key and value (numbers 0, 1, 2) of an attention layer, (B, heads, L, width of a head) each."""
    rows = slice(first * layer.embed_dim, last * layer.embed_dim)
    made = F.linear(x_BLD, layer.in_proj_weight[rows], layer.in_proj_bias[rows])
    parts: tuple[Tensor, ...] = made.unflatten(-1, (last - first, layer.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    return parts


def joined(layer: nn.MultiheadAttention, found_BHLd: Tensor) -> Tensor:
    """What an attention layer gives for what its heads found: (B, L, D)."""
    made: Tensor = layer.out_proj(found_BHLd.transpose(1, 2).flatten(2))
    return made
