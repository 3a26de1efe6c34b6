"""Fusing and tuning: instruction loss through the whole model, momentum contrast on the fused tokens, and the
calibration of the allocator by measured contribution. `fuse` and `tune` differ only in what learns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.config import Stage
from astrea.data.packing import CAPTION_PROMPT, PackedBatch, Turn, answer_losses
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.draws import RowGenerator, for_rows
from astrea.fusion.trust import Trust
from astrea.language.low_rank import adapter_parameters, is_adapter
from astrea.training.lies import draw_experts, draw_stuck
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
    groups: (R, S) index into GROUPS, -1 where a row has no such question. micro: the micro-step it is for.
    """

    index: Tensor
    which: Tensor
    rows: Tensor
    packed: PackedBatch
    groups: Tensor
    present: Tensor
    liar: Tensor
    micro: int

    def rows_of(self, own: slice) -> slice:
        """The packed rows that show some of the pictures."""
        first, last = (int((self.rows < picture).sum()) for picture in (own.start, own.stop))
        return slice(first, last)

    def weight(self, rows: slice) -> float:
        """How much some packed rows count in the batch's mean loss per token: all rows together 1."""
        told = (self.packed.labels[:, 1:] != -100) * self.packed.label_weights[:, 1:]
        return float(told[rows].sum() / told.sum().clamp_min(1e-6))


def packed_rows(packed: PackedBatch, rows: slice | Tensor) -> PackedBatch:
    """Some rows of a packed batch, as long as they all are."""
    parts = {field.name: getattr(packed, field.name) for field in fields(packed)}
    return replace(packed, **{name: part[rows] for name, part in parts.items() if isinstance(part, Tensor)})


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
            language = model.language_model
            # With low-rank tuning the language model's own weights stay as they are.
            own = language.named_parameters() if model.config.low_rank is None else adapter_parameters(language)
            yield from ((f"language_model.{n}", p, scale) for n, p in own)

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        hidden = name.startswith("language_model.") and not is_adapter(name)
        return hidden and is_hidden_matrix(self.shop.model.language_model, parameter)

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
            micro,
        )

    def draws(self, purpose: str, step: int, micro: int) -> torch.Generator:
        """What is random in a micro-step, alike on every rank."""
        # The first micro-step has no number: runs without accumulation draw as they did before there was one.
        return generator_for(self.shop.run.seed, self.name, purpose, step, *([micro] if micro else []))

    def row_draws(self, batch: FuseBatch, rows: slice, step: int) -> RowGenerator:
        """What fusion draws for some packed rows of the batch."""
        whole, questions = batch.groups.shape
        generator = self.draws("residual", step, batch.micro)
        return for_rows(generator, batch=whole, questions=questions, start=rows.start)

    def inputs(self, packed: PackedBatch) -> dict[str, Tensor]:
        """Keyword arguments for the model, where it is."""
        return {name: value.to(self.shop.ranks.device) for name, value in packed.model_inputs().items()}

    def loss(self, batch: FuseBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        shop, model, weights, ranks = self.shop, self.shop.model, self.stage.losses, self.shop.ranks
        own = ranks.own(len(batch.index))
        rows = batch.rows_of(own)
        if (model.config.low_rank or {}).get("dropout"):
            # peft draws from torch's own generator, so that one is made a function of the step too.
            torch.manual_seed(self.draws("dropout", step, batch.micro).initial_seed())
        stuck = draw_stuck(len(batch.index), self.draws("lies", step, batch.micro))
        told = shop.told_rows(batch.index, batch.liar, stuck, own)
        if isinstance(model.fusion, AstreaFusion):
            done = min(1.0, step / max(1, self.stage.steps))
            model.fusion.residual_keep.fill_(self.keep[0] + (self.keep[1] - self.keep[0]) * done)
        pictures = batch.rows[rows] - own.start
        out = model(
            **self.inputs(packed_rows(batch.packed, rows)),
            features={name: part.rows(pictures) for name, part in told.items()},
            present=batch.present[own][pictures].to(ranks.device),
            generator=self.row_draws(batch, rows, step),
            use_cache=False,
        )
        parts = {"lm": weights.lm * out.loss * batch.weight(rows)}
        trust = model.fusion.trust if isinstance(model.fusion, AstreaFusion) else None
        if weights.trust and trust is not None and "fusion" in self.stage.train:
            parts["trust"] = weights.trust * self.judging(trust, step, batch.micro)
        if out.visual.auxiliary is not None:
            # Balanced on each process by itself, as Switch Transformers do: the only loss that knows of a division.
            parts["auxiliary"] = out.visual.auxiliary * ((rows.stop - rows.start) / len(batch.rows))
        if weights.itc:
            parts["itc"] = weights.itc * self.contrast(batch, told, own)
        allocator = model.fusion.allocator if isinstance(model.fusion, AstreaFusion) else None
        if allocator is not None:
            parts |= self.sharing(batch, rows, out.shares, allocator.load_bias, step)
        figures = {name: part.item() for name, part in parts.items()}
        return sum(parts.values()), figures  # type: ignore[return-value]

    def sharing(self, batch: FuseBatch, rows: slice, shares: Tensor, load_bias: Tensor, step: int) -> dict[str, Tensor]:
        """Takes in the shares (R, S, E) that the own ``rows`` got, and calibrates them by measured contribution if that
        has a weight. Here each row is one picture."""
        shop, regular, weight = self.shop, self.shop.run.regular, self.stage.losses.contribution
        asked, groups = batch.groups >= 0, batch.groups
        # Every rank's rows alike: the most questions that any row of the batch has.
        shares = F.pad(shares, (0, 0, 0, groups.shape[1] - shares.shape[1]))
        whole = batch.present.all(1) & (batch.liar < 0)
        everyone = shop.ranks.gather(shares.detach(), len(whole))
        self.shares.append(everyone[whole][asked[whole]])
        if not (weight and regular.contribution_every):
            return {}
        if step % regular.contribution_every == 0:
            self.measure(batch)
        known = shop.contributions
        target = known.targets(load_bias.cpu())[groups]
        counts = asked & whole.unsqueeze(1) & (known.seen[groups] > 0)
        share = shares[counts[rows]].clamp_min(1e-6)
        wanted = target[rows][counts[rows]].to(share)
        # A small batch may have no whole row: nothing to learn from, and a mean over nothing would be NaN.
        kl = F.kl_div(share.log(), wanted, reduction="sum") / max(1, int(counts.sum()))
        return {"contribution": weight * kl}

    def judging(self, trust: Trust, step: int, micro: int) -> Tensor:
        """Telling honest experts from lying ones, on pictures of its own: lies must be common to be learned from, and
        rare where answers are learned. Experts go missing as elsewhere; adapters do not learn from this."""
        shop, ranks = self.shop, self.shop.ranks
        generator, own = self.draws("judging", step, micro), ranks.own(JUDGED)
        index = torch.randint(0, len(shop.data), (JUDGED,), generator=generator)
        experts = len(shop.model.experts.names)
        liar = draw_experts(JUDGED, experts, LYING, generator)
        lost = draw_experts(JUDGED, experts, shop.run.regular.expert_dropout, generator)
        present, honest = (who.unsqueeze(1) != torch.arange(experts) for who in (lost, liar))
        told = shop.told_rows(index, liar, draw_stuck(JUDGED, generator), own)
        here, honest = present[own].to(ranks.device), honest[own].to(ranks.device)
        with torch.no_grad():
            matrix = shop.model.alignment(told, here)
        trust.observe(matrix, lambda rows: ranks.gather(rows, JUDGED))
        logits, wanted = trust(matrix)[here], honest[here].float()
        # Where there are more processes than pictures, some have none, and a mean over nothing would be NaN.
        wrong = F.binary_cross_entropy_with_logits(logits, wanted) if len(wanted) else logits.sum()
        return wrong * (len(wanted) / max(1, int(present.sum())))

    def contrast(self, batch: FuseBatch, told: dict[str, ExpertFeatures], own: slice) -> Tensor:
        """Momentum contrast between the fused tokens and the caption (beyond the batch: the queue). The keys come from
        every expert, and from what it really saw."""
        shop, model, ranks, size = self.shop, self.shop.model, self.shop.ranks, len(batch.index)
        index, frozen = batch.index[own], "language_model" not in self.stage.train
        states = shop.caption_states(index, batch.which[own], frozen=frozen)
        ids = shop.ids(batch.index, batch.which).to(ranks.device)
        picture = model.picture_vectors(told, batch.present[own].to(ranks.device))
        text = model.alignment.text_head(states)
        with torch.no_grad():
            seen = model.picture_vectors(shop.rows(index), alignment=shop.contrast.copy)
            picture_key = ranks.gather(seen, size)
            text_key = ranks.gather(shop.contrast.copy.text_head(states), size)
        self.pending.append((picture_key, text_key, ids))
        soft = shop.run.contrast.soft_targets
        return shop.contrast.loss(picture, text, picture_key, text_key, ids, soft, own=own)

    @torch.no_grad()
    def measure(self, batch: FuseBatch, rows: int = MEASURED) -> None:
        """Counterfactual passes on a few rows: what would each expert's absence cost each task group, in nats?

        The first rows of the whole batch, shared out so that every rank has equally many: the last ones may take a row
        twice, and it counts once.
        """
        shop, model, ranks = self.shop, self.shop.model, self.shop.ranks
        experts = len(model.experts.names)
        rows = min(rows, len(batch.index))
        each = -(-rows // ranks.world)
        mine = torch.arange(each * ranks.rank, each * (ranks.rank + 1)).clamp_max(rows - 1)
        again = mine.repeat(experts + 1)
        inputs = self.inputs(packed_rows(batch.packed, again))
        seen = shop.rows(batch.index[again])
        present = torch.cat([torch.ones(1, experts), 1 - torch.eye(experts)]).bool().repeat_interleave(each, 0)
        logits = model(**inputs, features=seen, present=present.to(ranks.device), use_cache=False).logits
        count = batch.groups.shape[1]
        loss = answer_losses(logits, inputs["labels"], inputs["segments"], count)
        base, without = loss[:each], loss[each:].view(experts, each, count)
        delta = ranks.gather((without - base).permute(1, 2, 0), each * ranks.world)[:rows].cpu()
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
