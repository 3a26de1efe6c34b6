"""Fusing and tuning: instruction loss through the whole model, momentum contrast on the fused tokens, and the
calibration of the allocator by measured contribution. `fuse` and `tune` differ only in what learns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.config import Stage
from astrea.data.packing import CAPTION_PROMPT, PackedBatch, Turn, answer_losses
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.trust import Trust
from astrea.training.lies import draw_experts, with_lies
from astrea.training.loop import Objective
from astrea.training.optimizer import is_hidden_matrix
from astrea.training.seeds import generator_for, sample_indices
from astrea.training.workshop import GROUPS, Workshop

CAPTION_WEIGHT = 0.5

JUDGED, LYING = 96, 0.75
"""Pictures per step from which trust is learned, and the share of them that an expert lies about."""

QUICK = {"trust.": 5.0, "allocator.": 10.0}
"""Learning rate over the others' of parts that start from nothing and have little time."""

MEASURED = 16
"""Rows that are answered again without each expert, whenever contributions are measured."""


@dataclass(frozen=True, slots=True)
class FuseBatch:
    """Packed rows, one picture each.

    index, which: (B,) samples and the caption read of each. rows: (R,) which of the B each packed row shows; a strategy
    whose tokens depend on the question gets a row for every question, others one for every picture. present: (B, E).
    liar: (B,) the expert that is made to lie about a picture, -1 for none.
    groups: (R, S) index into GROUPS, -1 where a row has no such question.
    """

    index: Tensor
    which: Tensor
    rows: Tensor
    packed: PackedBatch
    groups: Tensor
    present: Tensor
    liar: Tensor


class FuseObjective(Objective):
    """The objective of the stages ``fuse`` and ``tune``."""

    def __init__(self, shop: Workshop, name: str, stage: Stage, *, offset: int, keep: tuple[float, float]) -> None:
        self.shop, self.name, self.stage, self.offset = shop, name, stage, offset
        self.keep = keep
        self.fusion, self.packer = shop.model.fusion, shop.packer
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self.shares: list[Tensor] = []
        shop.contrast.queue.clear()

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        model, learns = self.shop.model, self.stage.train
        if "adapters" in learns:
            yield from ((f"adapters.{n}", p, 1.0) for n, p in model.alignment.adapters.named_parameters())
        if "heads" in learns and self.stage.losses.itc:
            for head in ("picture_head", "text_head"):
                yield from ((f"{head}.{n}", p, 1.0) for n, p in getattr(model.alignment, head).named_parameters())
            yield "contrast.log_temperature", self.shop.contrast.log_temperature, 1.0
        if "fusion" in learns:
            for name, parameter in model.fusion.named_parameters():
                rate = next((rate for part, rate in QUICK.items() if name.startswith(part)), 1.0)
                yield f"fusion.{name}", parameter, rate
        if "language_model" in learns:
            scale = self.stage.language_lr_scale
            yield from ((f"language_model.{n}", p, scale) for n, p in model.language_model.named_parameters())

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        return name.startswith("language_model.") and is_hidden_matrix(self.shop.model.language_model, parameter)

    def batch(self, step: int, micro: int, size: int) -> FuseBatch:
        shop, seed = self.shop, self.shop.run.seed
        position = (self.offset + step * self.stage.accumulate + micro) * size
        index = sample_indices(len(shop.data), size, position, seed)
        which = shop.pick_captions(index, self.name, step, micro)
        rows, groups = [], []
        for i, c in zip(index.tolist(), which.tolist(), strict=True):
            asked = shop.data.questions[i]
            told = Turn(CAPTION_PROMPT, shop.data.captions[i][c], CAPTION_WEIGHT)
            rows.append([*(Turn(q.text, q.answer) for q in asked), told])
            groups.append([*(GROUPS.index(q.task) for q in asked), GROUPS.index("caption")])
        owner = list(range(size))
        if self.fusion.per_question:
            owner = [at for at, turns in enumerate(rows) for _ in turns]
            rows, groups = [[turn] for turns in rows for turn in turns], [[g] for row in groups for g in row]
        most = max(map(len, groups))
        generator = generator_for(seed, self.name, "present", step, micro)
        experts = len(shop.model.experts.names)
        lost = draw_experts(size, experts, shop.run.regular.expert_dropout, generator)
        return FuseBatch(
            index,
            which,
            torch.tensor(owner),
            self.packer.pack(rows),
            torch.tensor([row + [-1] * (most - len(row)) for row in groups]),
            lost.unsqueeze(1) != torch.arange(experts),
            draw_experts(size, experts, shop.run.regular.lies, generator),
        )

    def loss(self, batch: FuseBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        shop, model, weights = self.shop, self.shop.model, self.stage.losses
        features = shop.data.rows(batch.index)
        told = with_lies(features, batch.liar, generator_for(shop.run.seed, self.name, "lies", step))
        if isinstance(model.fusion, AstreaFusion):
            done = min(1.0, step / max(1, self.stage.steps))
            model.fusion.residual_keep.fill_(self.keep[0] + (self.keep[1] - self.keep[0]) * done)
        generator = generator_for(shop.run.seed, self.name, "residual", step)
        out = model(
            **batch.packed.model_inputs(),
            features={name: part.rows(batch.rows) for name, part in told.items()},
            present=batch.present[batch.rows],
            generator=generator,
            use_cache=False,
        )
        parts = {"lm": weights.lm * out.loss}
        asked = batch.groups >= 0
        whole = (batch.present.all(1) & (batch.liar < 0))[batch.rows]
        self.shares.append(out.shares[whole][asked[whole]].detach())
        trust = model.fusion.trust if isinstance(model.fusion, AstreaFusion) else None
        if weights.trust and trust is not None and "fusion" in self.stage.train:
            parts["trust"] = weights.trust * self.judging(trust, step)
        if out.visual.auxiliary is not None:
            parts["auxiliary"] = out.visual.auxiliary
        if weights.itc:
            parts["itc"] = weights.itc * self.contrast(batch, told, features)
        every = shop.run.regular.contribution_every
        allocator = model.fusion.allocator if isinstance(model.fusion, AstreaFusion) else None
        if weights.contribution and every and allocator is not None:
            if step % every == 0:
                self.measure(batch, features)
            known = shop.contributions
            target = known.targets(allocator.load_bias)[batch.groups]
            rows = asked & whole.unsqueeze(1) & (known.seen[batch.groups] > 0)
            share = out.shares[rows].clamp_min(1e-6)
            # A small batch may have no whole row: nothing to learn from, and a mean over nothing would be NaN.
            kl = F.kl_div(share.log(), target[rows], reduction="sum") / max(1, len(share))
            parts["contribution"] = weights.contribution * kl
        figures = {name: part.item() for name, part in parts.items()}
        return sum(parts.values()), figures  # type: ignore[return-value]

    def judging(self, trust: Trust, step: int) -> Tensor:
        """Telling honest experts from lying ones, on pictures of its own: lies must be common to be learned from, and
        rare where answers are learned. Experts go missing as elsewhere; adapters do not learn from this."""
        shop = self.shop
        generator = generator_for(shop.run.seed, self.name, "judging", step)
        index = torch.randint(0, len(shop.data), (JUDGED,), generator=generator)
        experts = len(shop.model.experts.names)
        liar = draw_experts(JUDGED, experts, LYING, generator)
        lost = draw_experts(JUDGED, experts, shop.run.regular.expert_dropout, generator)
        present, honest = (who.unsqueeze(1) != torch.arange(experts) for who in (lost, liar))
        with torch.no_grad():
            matrix = shop.model.alignment(with_lies(shop.data.rows(index), liar, generator), present)
        trust.observe(matrix)
        return F.binary_cross_entropy_with_logits(trust(matrix)[present], honest[present].float())

    def contrast(
        self, batch: FuseBatch, told: dict[str, ExpertFeatures], features: dict[str, ExpertFeatures]
    ) -> Tensor:
        """Momentum contrast between the fused tokens and the caption (beyond the batch: the queue). The keys come from
        every expert, and from what it really saw."""
        shop, model = self.shop, self.shop.model
        states = shop.caption_states(batch.index, batch.which, frozen="language_model" not in self.stage.train)
        ids = shop.ids(batch.index, batch.which)
        picture, text = model.picture_vectors(told, batch.present), model.alignment.text_head(states)
        with torch.no_grad():
            picture_key = model.picture_vectors(features, alignment=shop.contrast.copy)
            text_key = shop.contrast.copy.text_head(states)
        self.pending.append((picture_key, text_key, ids))
        return shop.contrast.loss(picture, text, picture_key, text_key, ids, shop.run.contrast.soft_targets)

    @torch.no_grad()
    def measure(self, batch: FuseBatch, features: dict[str, ExpertFeatures], rows: int = MEASURED) -> None:
        """Counterfactual passes on a few rows: what would each expert's absence cost each task group, in nats?"""
        shop, model = self.shop, self.shop.model
        experts = len(model.experts.names)
        rows = min(rows, len(batch.index))
        inputs = {name: value[:rows].repeat(experts + 1, 1) for name, value in batch.packed.model_inputs().items()}
        again = torch.arange(rows).repeat(experts + 1)
        seen = {name: part.rows(again) for name, part in features.items()}
        present = torch.cat([torch.ones(1, experts), 1 - torch.eye(experts)]).bool().repeat_interleave(rows, 0)
        logits = model(**inputs, features=seen, present=present, use_cache=False).logits
        count = batch.groups.shape[1]
        loss = answer_losses(logits, inputs["labels"], inputs["segments"], count)
        base, without = loss[:rows], loss[rows:].view(experts, rows, count)
        delta = (without - base).permute(1, 2, 0)
        for group in range(len(GROUPS)):
            mine = batch.groups[:rows] == group
            if mine.any():
                shop.contributions.learn(group, delta[mine].mean(0))

    def after_step(self, step: int) -> None:
        shop = self.shop
        shop.contrast.follow(shop.model.alignment)
        for keys in self.pending:
            shop.contrast.queue.push(*keys)
        self.pending.clear()
        fusion = shop.model.fusion
        if isinstance(fusion, AstreaFusion) and fusion.allocator is not None and self.shares:
            fusion.allocator.update_load(torch.cat(self.shares), rate=shop.run.regular.load_rate)
        self.shares.clear()

    def describe(self, batch: FuseBatch) -> str:
        return "train scenes " + ", ".join(map(str, batch.index[:6].tolist())) + " ..."
