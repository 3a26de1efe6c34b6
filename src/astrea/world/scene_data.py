"""Scenes as training data, whatever world they are of: expert features beside questions and captions.

Letters: N scenes, B some of them, S side of the canvas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from astrea.common.fingerprint import tensors_fingerprint
from astrea.common.seeds import sample_indices
from astrea.data.packing import CAPTION_PROMPT, Packer, Turn
from astrea.data.protocol import Reword, Rows, Samples
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import ExpertFeatures
from astrea.experts.source_hash import source_hash
from astrea.world.scenes.questions import Question

CAPTION_WEIGHT = 0.5
"""Of a caption's tokens in the loss: captions are longer than answers."""


@dataclass(frozen=True)
class SceneData(ABC):
    """`astrea.data.worlds.WorldTrainingData`: features of N pictures, and each one's questions and captions."""

    features: dict[str, ExpertFeatures]
    questions: list[list[Question]]
    captions: list[list[str]]

    @property
    def names(self) -> Sequence[str]:
        """See `TrainingData.names`; none where things are called by one word each."""
        return ()

    @property
    def withheld(self) -> Sequence[str]:
        """See `TrainingData.withheld`."""
        return ()

    @property
    @abstractmethod
    def groups(self) -> Sequence[str]:
        """Kinds of questions, for each of which it is measured what experts contribute; captions are one."""

    @abstractmethod
    def pictures(self, index: Tensor) -> Tensor:
        """The scenes of these numbers (B,) as pictures (B, 3, S, S) in 0..1, made now."""

    def __len__(self) -> int:
        return len(self.questions)

    def rows(self, index: Tensor) -> dict[str, ExpertFeatures]:
        """Features of some pictures."""
        return {name: part.rows(index) for name, part in self.features.items()}

    def samples(self, index: Tensor) -> Samples:
        """The scenes of these numbers (B,); each is one picture."""
        texts = [self.captions[i] for i in index.tolist()]
        return Samples(
            names=[f"train scene {i}" for i in index.tolist()],
            ids=index,
            texts=texts,
            first=torch.arange(len(index)),
            pictures=len(index),
            encode=lambda names=tuple(self.features): {name: self.features[name].rows(index) for name in names},
            pixels=lambda: self.pictures(index),
            numbers=self.first_text[index],
            content=[self.questions[i] for i in index.tolist()],
        )

    @cached_property
    def first_text(self) -> Tensor:
        """(N,) the number of each scene's first caption among all of them."""
        counts = torch.tensor([len(texts) for texts in self.captions])
        return counts.cumsum(0) - counts

    def draw(self, position: int, size: int, seed: int, *, pairs: bool = False) -> Samples:
        """See `TrainingData.draw`."""
        return self.samples(sample_indices(len(self), size, position, seed))

    def pack(
        self,
        packer: Packer,
        samples: Samples,
        which: Tensor,
        *,
        per_question: bool,
        reworded: Sequence[Reword | None] | None = None,
    ) -> Rows:
        """See `TrainingData.pack`."""
        rows, groups = [], []
        changes = reworded or [None] * len(samples.texts)
        for asked, texts, c, change in zip(samples.content, samples.texts, which.tolist(), changes, strict=True):
            turns = [*(Turn(q.text, q.answer) for q in asked), Turn(CAPTION_PROMPT, texts[c], CAPTION_WEIGHT)]
            if change is not None:
                turns = [replace(turn, question=change(turn.question), answer=change(turn.answer)) for turn in turns]
            rows.append(turns)
            groups.append([self.groups.index(name) for name in (*(q.template for q in asked), "caption")])
        shown = list(range(len(rows)))
        if per_question:
            shown = [at for at, turns in enumerate(rows) for _ in turns]
            rows, groups = [[turn] for turns in rows for turn in turns], [[g] for row in groups for g in row]
        most = max(map(len, groups))
        padded = [row + [-1] * (most - len(row)) for row in groups]
        return Rows(packer.pack(rows), torch.tensor(padded), torch.tensor(shown), torch.arange(len(rows)))

    def more_pictures(self, samples: Samples, count: int, generator: torch.Generator) -> tuple[Samples, Tensor]:
        """Any pictures: features are at hand."""
        index = torch.randint(0, len(self), (count,), generator=generator)
        return self.samples(index), torch.arange(count)

    def questions_about(self, pictures: int) -> tuple[list[str], dict[str, ExpertFeatures]]:
        """See `WorldTrainingData.questions_about`."""
        rows = [row for row in range(min(pictures, len(self))) for _ in self.questions[row]]
        asked = [question.text for questions in self.questions[:pictures] for question in questions]
        return asked, self.rows(torch.tensor(rows))

    def scanned(self, seed: int) -> Iterable[str]:
        """See `TrainingData.scanned`."""
        return (text for texts in self.captions for text in texts)

    def every_text(self) -> Sequence[Sequence[str]]:
        """Every caption of every scene."""
        return self.captions


def expert_key(bank: ExpertBank, name: str) -> dict[str, Any]:
    """What an expert's features follow from beside the pictures, JSON-able."""
    expert = bank[name]
    return {
        "expert": f"{type(expert).__module__}.{type(expert).__qualname__}",
        "source": source_hash(type(expert)),
        "options": bank.options[name],
        "weights": tensors_fingerprint(expert.state_dict()),
    }


def as_tensors(features: ExpertFeatures) -> dict[str, Tensor]:
    """Features as they are stored; `ExpertFeatures` takes them as its arguments."""
    named = ((each.name, getattr(features, each.name)) for each in fields(features))
    return {name: tensor for name, tensor in named if tensor is not None}
