"""Pretraining the small language model on plain sentences of the world: the neutral language model.

It learns what any language model knows before it meets pictures: words, sentences, facts. It meets no picture's tokens,
no answer to a question, no mixer and no word match, so no strategy of fusion finds its own input format in it.

Letters: B rows, L length.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from astrea.language.loss import weighted_loss
from astrea.world.language.objective import WholeModelObjective
from astrea.world.scenes.captions import captions
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.phrases import CATEGORY_NOUNS, with_article
from astrea.world.scenes.questions import Balancer
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import KINDS

FACTS, QUESTIONS = 2, 2
"""Sentences of either sort beside a scene's captions."""


@dataclass(frozen=True, slots=True)
class SentenceBatch:
    """Rows of sentences, each between a beginning and an end.

    input_ids, attention_mask, labels: (B, L) long; labels are -100 where there is padding. source: which scenes.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    source: str


def sentences(scene: Scene, balancer: Balancer, rng: random.Random) -> list[str]:
    """Captions of a scene that nobody sees, facts about any kinds of things, and questions without their answers."""
    asked = [question.text for question in balancer.choose(scene, rng)]
    kinds = rng.sample(KINDS, FACTS)
    of = {kind.name: f"is {with_article(CATEGORY_NOUNS[kind.category][0])}" for kind in kinds}
    said = [f"{with_article(kind.name)} {kind.fact if rng.random() < 0.5 else of[kind.name]}." for kind in kinds]
    found = [*captions(scene, 2, rng.getrandbits(30)), *said, *rng.sample(asked, min(QUESTIONS, len(asked)))]
    rng.shuffle(found)
    return found


class SentenceObjective(WholeModelObjective):
    """Next-token loss on every word of plain sentences, of scenes of the training split. Like the other language
    model's, it must take its batches in order."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        seed: int,
        *,
        canvas: int = 64,
        difficulty: float = 0.5,
    ) -> None:
        super().__init__(model)
        self.tokenizer = tokenizer
        self.seed, self.canvas, self.difficulty = seed, canvas, difficulty
        self.balancer = Balancer()

    def batch(self, step: int, micro: int, size: int) -> SentenceBatch:
        rng = random.Random(f"{self.seed}/sentences/{step}/{micro}")
        first = rng.getrandbits(40)
        return self.rows("train", range(first, first + size), self.seed, self.balancer, rng)

    def rows(
        self, split: str, numbers: Iterable[int], seed: int, balancer: Balancer, rng: random.Random
    ) -> SentenceBatch:
        """The sentences of some scenes, a row for each."""
        rows = []
        for number in numbers:
            scene = split_scene(split, number, seed, canvas=self.canvas, difficulty=self.difficulty)
            rows.append([self.ids(text) for text in sentences(scene, balancer, rng)])
        texts = [torch.tensor([index for text in row for index in text]) for row in rows]
        pad = nn.utils.rnn.pad_sequence
        ids_BL = pad(texts, batch_first=True, padding_value=int(self.tokenizer.pad_token_id))
        real_BL = pad([torch.ones_like(text) for text in texts], batch_first=True)
        return SentenceBatch(ids_BL, real_BL, ids_BL.masked_fill(real_BL == 0, -100), f"{split} scenes")

    def ids(self, text: str) -> list[int]:
        """The ids of one sentence with its beginning and end."""
        tokenizer = self.tokenizer
        inner = tokenizer(text, add_special_tokens=False).input_ids
        return [int(tokenizer.bos_token_id), *inner, int(tokenizer.eos_token_id)]

    def loss(self, batch: SentenceBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
        return weighted_loss(logits, batch.labels, None), {}

    def describe(self, batch: SentenceBatch) -> str:
        return batch.source


@torch.no_grad()
def sentence_perplexity(objective: SentenceObjective, scenes: int = 200, seed: int = 1) -> float:
    """exp of the mean loss per word on sentences of validation scenes."""
    objective.model.eval()
    balancer, rng = Balancer(), random.Random(seed)
    total, words = 0.0, 0
    for start in range(0, scenes, 20):
        batch = objective.rows("validation", range(start, min(start + 20, scenes)), seed, balancer, rng)
        count = int((batch.labels[:, 1:] != -100).sum())
        total += float(objective.loss(batch, 0)[0]) * count
        words += count
    objective.model.train()
    return float(torch.tensor(total / words).exp())
