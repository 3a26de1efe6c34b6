"""One micro-step of instruction tuning, as losses and the fusion strategy see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.alignment.matrix import ExpertMatrix
from astrea.common.seeds import generator_for
from astrea.experts.corruption import corrupt, draw_stuck
from astrea.experts.protocol import ExpertFeatures, index_select
from astrea.fusion.draws import RowGenerator, for_rows
from astrea.fusion.training import Answers, Output, Regularisation
from astrea.recipes.recipe import Stage
from astrea.training.borrowed_names import borrow_names
from astrea.training.context import TrainingContext
from astrea.training.leave_one_out import leave_one_out
from astrea.training.own_words import hide_features, words_told
from astrea.training.stages.batch import InstructBatch, packed_rows
from astrea.training.stages.expert_skipping import skip_experts


class InstructStep:
    """Implements `astrea.fusion.training.TrainingStep`, which has the legend.

    Attributes:
        features: what the experts saw in the P pictures of the batch. corrupted: the same, with the experts of
            ``batch.corrupted`` replaced by wrong ones, and without features that are hidden: what the model is shown.
            stage: of the recipe.
    """

    def __init__(
        self,
        ctx: TrainingContext,
        name: str,
        stage: Stage,
        weights: Mapping[str, float],
        batch: InstructBatch,
        number: int,
    ) -> None:
        self.ctx, self.name, self.stage, self.batch, self.number = ctx, name, stage, batch, number
        self.weights = weights
        self.trains_fusion = "fusion" in stage.train
        self.features = ctx.encode_trainable(batch.samples, learning="experts" in stage.train)
        self.named, read = self._own_words()
        if most := ctx.recipe.regularisation.expert_skipping:
            self.batch = skip_experts(ctx, self.batch, self.features, most, self.generator("skipped"))
        self.groups = self.batch.groups
        self.local_rows = ctx.ranks.local_slice(len(self.groups))
        stuck = draw_stuck(batch.samples.pictures, self.generator("lies"))
        self.corrupted = corrupt(read, batch.corrupted, stuck)

    def _own_words(self) -> tuple[dict[str, ExpertFeatures], dict[str, ExpertFeatures]]:
        """What the experts saw, some things called by borrowed names (in the batch, too); and the same without the
        features of some findings whose own words are right."""
        ctx, samples, settings = self.ctx, self.batch.samples, self.ctx.recipe.regularisation
        if not (settings.own_words or settings.borrowed_names) or not ctx.two_ways or not samples.pictures:
            return self.features, self.features
        told = words_told(samples, ctx.whole_words[0])
        named, renamed = borrow_names(
            self.features, ctx.two_ways, ctx.lent_labels, ctx.whole_words[0], told,
            settings.borrowed_names, self.generator("borrowed names"),
        )  # fmt: skip
        if any(renamed):
            self.batch = self.batch.reworded(
                [renamed[first] if first >= 0 else None for first in samples.first.tolist()]
            )
        return named, hide_features(named, ctx.two_ways, told, settings.own_words, self.generator("own words"))

    @property
    def settings(self) -> Regularisation:
        return self.ctx.recipe.regularisation

    @property
    def device(self) -> torch.device:
        return self.ctx.ranks.device

    @property
    def labels(self) -> Mapping[str, Sequence[str | None]]:
        experts = self.ctx.model.experts
        return {name: experts[name].labels for name in experts.names}

    @cached_property
    def complete(self) -> Tensor:
        return self.batch.complete()

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """Text inputs and labels of the local rows, on the model's device."""
        packed = packed_rows(self.batch.packed, self.local_rows)
        return {name: value.to(self.device) for name, value in packed.model_inputs().items()}

    def pictures_shown(self, purpose: str) -> tuple[dict[str, ExpertFeatures] | None, Tensor, RowGenerator]:
        """Features, present experts and random numbers (of a purpose) of the pictures in the local rows."""
        batch = self.batch
        local = batch.shown_in(self.local_rows)
        shown = batch.shown[local]
        features = index_select(self.corrupted, shown) if len(shown) else None
        generator = for_rows(
            self.generator(purpose), batch=len(batch.shown), questions=batch.groups.shape[1], start=local.start
        )
        return features, batch.present_shown(local).to(self.device), generator

    def forward(self, purpose: str, only: Tensor | None = None) -> Any:
        features, present, generator = self.pictures_shown(purpose)
        return self.ctx.model(
            **self.inputs,
            features=features,
            present=present if only is None else only.to(present).expand_as(present),
            generator=generator,
            phrase_dropout=self.ctx.recipe.regularisation.phrase_dropout,
            num_items_in_batch=self.batch.labelled,
            use_cache=False,
            answers_only=True,
        )

    def answers(self, output: Output) -> Answers:
        assert output.label_logits is not None
        inputs, count = self.inputs, self.groups.shape[1]
        labelled = inputs["labels"][:, 1:] != -100
        number = inputs.get("questions", inputs["segments"])[:, 1:][labelled] - 1
        return Answers(
            output.label_logits.float(),
            inputs["labels"][:, 1:][labelled],
            labelled.nonzero()[:, 0] * count + number.clamp(0, count - 1),
            inputs["label_weights"][:, 1:][labelled] / self.batch.labelled,
            len(labelled) * count,
        )

    def generator(self, purpose: str) -> torch.Generator:
        return step_generator(self.ctx, self.name, purpose, self.number, self.batch.micro)

    def pictures(self, count: int, generator: torch.Generator) -> dict[str, ExpertFeatures] | None:
        ctx, samples = self.ctx, self.batch.samples
        more, index = ctx.data.more_pictures(samples, count, generator)
        if not len(index):
            return None
        found = self.features if more is samples else ctx.encode_trainable(more, learning=False)
        return index_select(found, index)

    @torch.no_grad()
    def align(self, features: Mapping[str, ExpertFeatures], present_BE: Tensor) -> ExpertMatrix:
        model = self.ctx.model
        matrix: ExpertMatrix = model.with_words(model.alignment(features, present_BE))
        return matrix

    def leave_one_out(self, rows: int) -> Tensor:
        return leave_one_out(self.ctx, self.batch, self.named, rows)

    def per_row(self, shares: Tensor | None, like: Tensor) -> Tensor:
        local = self.batch.shown_in(self.local_rows)
        return by_row(shares, self.batch.row[local] - self.local_rows.start, self.groups[self.local_rows], like)

    def local_slice(self, count: int) -> slice:
        return self.ctx.ranks.local_slice(count)

    def gather(self, local: Tensor, count: int) -> Tensor:
        return self.ctx.ranks.gather(local, count)

    def any(self, flag: bool) -> bool:
        return self.ctx.ranks.any(flag)


def step_generator(ctx: TrainingContext, stage: str, purpose: str, step: int, micro: int) -> torch.Generator:
    """Random numbers of a micro-step, the same on every process."""
    # The first micro-step has no number: runs without accumulation draw as they did before there was one.
    return generator_for(ctx.recipe.seed, stage, purpose, step, *([micro] if micro else []))


def by_row(shares: Tensor | None, row: Tensor, groups: Tensor, like: Tensor) -> Tensor:
    """Shares (R, S, E) of the questions of every row, averaged over its pictures, from those that the pictures got
    (N, fewer questions, E); zeros where a row has no picture. ``like``: (E,), where and of which type they are."""
    rows = like.new_zeros(*groups.shape, len(like))
    if shares is None:
        return rows
    # Every rank's rows alike: the most questions that any row of the batch has.
    shares = F.pad(shares, (0, 0, 0, groups.shape[1] - shares.shape[1])).to(like)
    count = torch.bincount(row, minlength=len(groups)).clamp_min(1).to(like)
    return rows.index_add(0, row.to(like.device), shares) / count[:, None, None]
