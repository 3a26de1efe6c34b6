"""A model at work on many pictures at once: answers, captions, shares, and captions ranked by likelihood.

Letters: N pictures, C captions, B rows, L length, E experts, P contrast width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.data.packing import CAPTION_PROMPT, Packer, Turn
from astrea.experts.protocol import ExpertFeatures
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.model.processing import AstreaProcessor

Features = dict[str, ExpertFeatures]
Tick = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers, one per question, and the shares (B, E) the model gave its experts for each (None when blind)."""

    texts: list[str]
    shares: Tensor | None


def encode(
    model: AstreaForConditionalGeneration, processor: AstreaProcessor, pictures: Sequence[Image.Image]
) -> Features:
    """Every expert's features of some pictures, computed where the model is."""
    made = processor.image_processor(list(pictures), return_tensors="pt").to(model.device)
    found: Features = model.encode_images(made["pixel_values"], made.get("original_images"))
    return found


LOGITS = 2**27
"""At the most, of one pass that scores whole answers: with half precision beside float32 about 1.3 GB."""


class Predictor:
    """Runs a model, where it is, on pictures whose expert features are already there; what it gives is the processor's.

    Args:
        masked: names of experts to take away.
    """

    def __init__(
        self,
        model: AstreaForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase,
        *,
        masked: Sequence[str] = (),
        batch: int = 64,
    ) -> None:
        self.model, self.tokenizer, self.batch = model.eval(), tokenizer, batch
        self.packer = Packer(tokenizer, model.num_visual_tokens)
        self.keep = torch.tensor([name not in masked for name in model.experts.names])

    def present(self, count: int) -> Tensor:
        """(count, E) bool."""
        return self.keep.expand(count, -1).to(self.model.device)

    def present_for(self, questions: Sequence[str]) -> Tensor:
        """(B, E) bool, which experts each question is answered with."""
        return self.present(len(questions))

    def rows(self, features: Features, pictures: Tensor | slice) -> Features:
        """The features of some pictures."""
        return {name: part.rows(pictures).map(lambda t: t.to(self.model.device)) for name, part in features.items()}

    def prompts(self, questions: Sequence[str], *, pictures: bool) -> dict[str, Tensor]:
        """Left-padded prompts as the chat template writes them, with the question's mask."""
        made = self.packer.prompts(questions, pictures=pictures)
        return {name: value.to(self.model.device) for name, value in made.items()}

    @torch.inference_mode()
    def answer(
        self, questions: Sequence[str], features: Features | None, pictures: Tensor | None, *, longest: int = 6,
        tick: Tick = lambda done, total: None,
    ) -> Answered:  # fmt: skip
        """Greedy answers. ``pictures`` (B,) says which picture each question is about; None = blind."""
        texts: list[str] = []
        shares: list[Tensor] = []
        for start in range(0, len(questions), self.batch):
            part = questions[start : start + self.batch]
            inputs = self.prompts(part, pictures=pictures is not None)
            extra = {}
            if features is not None and pictures is not None:
                rows = pictures[start : start + self.batch]
                extra = {"features": self.rows(features, rows), "present": self.present_for(part)}
                shares.append(self.model.shares(**inputs, **extra).cpu())
            made = self.model.generate(**inputs, **extra, max_new_tokens=longest, do_sample=False).cpu()
            texts += self.tokenizer.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            tick(min(start + self.batch, len(questions)), len(questions))
        return Answered([text.strip() for text in texts], torch.cat(shares) if shares else None)

    @torch.inference_mode()
    def embed(self, features: Features, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Unit vectors of pictures (N, P) and texts (C, P)."""
        count = len(next(iter(features.values())).tokens)
        pictures = [
            self.model.embed_image(
                features=self.rows(features, slice(i, i + self.batch)),
                present=self.present(min(self.batch, count - i)),
            ).cpu()
            for i in range(0, count, self.batch)
        ]
        return torch.cat(pictures), self.embed_texts(texts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors (C, P) of texts."""
        words = []
        for i in range(0, len(texts), self.batch):
            rows = [self.packer.ids(text) for text in texts[i : i + self.batch]]
            length = max(map(len, rows))
            ids = torch.tensor([row + [self.packer.pad] * (length - len(row)) for row in rows])
            mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows])
            words.append(self.model.embed_text(ids.to(self.model.device), mask.to(self.model.device)).cpu())
        return torch.cat(words)

    @torch.inference_mode()
    def likelihood(
        self, features: Features | None, wanted: Sequence[Sequence[int]], texts: Sequence[str], *, batch: int = 8
    ) -> list[Tensor]:
        """log p(caption | picture) in nats, for the wanted captions of every picture; packed, the picture read once.

        Args:
            features: of the N pictures, or None for log p(caption) without a picture.
            wanted: for each picture, indices into ``texts``.
        """
        found: list[Tensor] = []
        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            rows = [[Turn(CAPTION_PROMPT, texts[c]) for c in captions] for captions in part]
            seen = None if features is None else self.rows(features, slice(start, start + len(part)))
            found += self.answer_likelihoods(rows, seen)
        return found

    @torch.inference_mode()
    def answer_likelihoods(self, rows: Sequence[Sequence[Turn]], seen: Features | None) -> list[Tensor]:
        """log p(answer | picture, question) in nats of every turn of each row, in one pass; in several where one would
        have more than `LOGITS` logits.

        Args:
            seen: features of the rows' pictures, one each; None = they show none.
        """
        packed = self.packer.pack(rows, pictures=seen is not None)
        fitting = max(1, LOGITS // (packed.input_ids.shape[1] * self.model.config.text_config.vocab_size))
        if len(rows) > fitting:
            parts = (slice(start, start + fitting) for start in range(0, len(rows), fitting))
            some = ((rows[part], None if seen is None else self.rows(seen, part)) for part in parts)
            return [each for turns, shown in some for each in self.answer_likelihoods(turns, shown)]
        inputs = packed.model_inputs()
        labels, segments = inputs.pop("labels"), inputs["segments"]
        del inputs["label_weights"]
        # Without labels the model needs the question's tokens: those before the answers.
        inputs.setdefault("question_mask", (labels == -100) & (segments > 0))
        extra = {} if seen is None else {"features": seen, "present": self.present(len(rows))}
        there = {name: value.to(self.model.device) for name, value in inputs.items()}
        logits = self.model(**there, **extra, use_cache=False).logits
        found = []
        # Row by row, and only tokens that count: a vocabulary may be large.
        for row, turns in enumerate(rows):
            labelled = labels[row, 1:] != -100
            of = logits[row, :-1][labelled.to(logits.device)].float()
            token = -F.cross_entropy(of, labels[row, 1:][labelled].to(of.device), reduction="none").cpu()
            sums = torch.zeros(len(turns) + 1)
            sums.index_add_(0, segments[row, 1:][labelled], token)
            found.append(sums[1:])
        return found
