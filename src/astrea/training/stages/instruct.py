"""Fusing and tuning: instruction loss through the whole model, momentum contrast on the fused tokens, and the
calibration of the allocator by measured contribution. `fuse` and `tune` differ only in what learns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astrea.common.memory import give_back
from astrea.common.seeds import generator_for
from astrea.data.packing import PackedBatch, answer_losses
from astrea.data.protocol import Samples, index_select, sample_names
from astrea.experts.protocol import ExpertFeatures
from astrea.fusion.astrea import AstreaFusion
from astrea.fusion.draws import RowGenerator, for_rows
from astrea.fusion.reliability import ReliabilityHead
from astrea.language.low_rank import adapter_parameters, is_adapter
from astrea.recipes.recipe import Stage
from astrea.training.context import CaptionBatch, TrainingContext
from astrea.training.corruption import corrupt, draw_experts, draw_stuck
from astrea.training.loop import Objective
from astrea.training.optimizer import is_hidden_matrix

JUDGED, LYING = 256, 0.75
"""Pictures per step from which trust is learned, and the share of them that an expert lies about."""

QUICK = {"trust.": 20.0, "allocator.": 10.0}
"""Learning rate over the others' of parts that start from nothing and have little time."""

MEASURED = 16
"""Rows that are answered again without each expert, whenever contributions are measured."""


@dataclass(frozen=True, slots=True)
class InstructBatch:
    """Packed rows with the pictures that they show.

    Letters: B samples, P pictures, R rows, N pictures as rows show them, S questions per row, E experts.
    samples, captions: B samples and the text that is read of each. packed, groups, shown, row: see
    `astrea.data.protocol.Rows`; a strategy whose tokens depend on the question gets a row for every question.
    present: (P, E). corrupted: (P,) the expert whose features are replaced by wrong ones, -1 for none. micro: the
    micro-step it is for.
    """

    samples: Samples
    captions: CaptionBatch
    packed: PackedBatch
    groups: Tensor
    shown: Tensor
    row: Tensor
    present: Tensor
    corrupted: Tensor
    micro: int

    def shown_in(self, rows: slice) -> slice:
        """The pictures, of the N, that stand in some rows."""
        return slice(int((self.row < rows.start).sum()), int((self.row < rows.stop).sum()))

    def whole(self) -> Tensor:
        """Rows (R,) with pictures, about which every expert has its say and tells the truth."""
        sound = (self.present.all(1) & (self.corrupted < 0))[self.shown]
        count = torch.bincount(self.row, minlength=len(self.groups))
        return (count > 0) & (torch.bincount(self.row[sound], minlength=len(self.groups)) == count)

    @property
    def labelled(self) -> float:
        """What the weights of all labels of the batch add up to: its mean loss per token is over so many."""
        return float(((self.packed.labels[:, 1:] != -100) * self.packed.label_weights[:, 1:]).sum())


def packed_rows(packed: PackedBatch, rows: slice | Tensor) -> PackedBatch:
    """Some rows of a packed batch, as long as they all are."""
    parts = {field.name: getattr(packed, field.name) for field in fields(packed)}
    return replace(packed, **{name: part[rows] for name, part in parts.items() if isinstance(part, Tensor)})


def by_row(shares: Tensor | None, row: Tensor, groups: Tensor, like: Tensor) -> Tensor:
    """Shares (R, S, E) of the questions of every row, averaged over its pictures, from those that the pictures got
    (N, fewer questions, E); zeros where a row has no picture. ``like``: (E,), where and of which type they are."""
    whole = like.new_zeros(*groups.shape, len(like))
    if shares is None:
        return whole
    # Every rank's rows alike: the most questions that any row of the batch has.
    shares = F.pad(shares, (0, 0, 0, groups.shape[1] - shares.shape[1])).to(like)
    count = torch.bincount(row, minlength=len(groups)).clamp_min(1).to(like)
    return whole.index_add(0, row.to(like.device), shares) / count[:, None, None]


def backfill(has: Tensor) -> Tensor:
    """(B,) each sample's own place, or that of the next one, round and round, that has what is asked for."""
    there = has.nonzero()[:, 0]
    following = torch.searchsorted(there, torch.arange(len(has)))
    return there[following % len(there)]


def captions_at(captions: CaptionBatch, place: Tensor) -> CaptionBatch:
    """The texts at some places."""
    numbers = None if captions.numbers is None else captions.numbers[place]
    return CaptionBatch(
        captions.which[place], [captions.tokens[at] for at in place.tolist()], captions.ids[place], numbers
    )


class InstructObjective(Objective):
    """The objective of the stages ``fuse`` and ``tune``."""

    def __init__(
        self, ctx: TrainingContext, name: str, stage: Stage, *, offset: int, keep: tuple[float, float]
    ) -> None:
        self.ctx, self.name, self.stage, self.offset = ctx, name, stage, offset
        self.keep = keep
        self.fusion, self.packer = ctx.model.fusion, ctx.packer
        self.pending: list[tuple[Tensor, Tensor, Tensor]] = []
        self.shares: list[Tensor] = []
        ctx.contrast.queue.clear()

    def trainable(self) -> Iterable[tuple[str, nn.Parameter, float]]:
        model, learns = self.ctx.model, self.stage.train
        if "adapters" in learns:
            yield from ((f"adapters.{n}", p, 1.0) for n, p in model.alignment.adapters.named_parameters())
        if "heads" in learns and self.stage.losses.itc:
            for head in ("picture_head", "text_head"):
                yield from ((f"{head}.{n}", p, 1.0) for n, p in getattr(model.alignment, head).named_parameters())
            yield "contrast.log_temperature", self.ctx.contrast.log_temperature, 1.0
        if "fusion" in learns:
            for name, parameter in model.fusion.named_parameters():
                rate = next((rate for part, rate in QUICK.items() if name.startswith(part)), 1.0)
                yield f"fusion.{name}", parameter, rate
        if "language_model" in learns:
            scale = self.stage.llm_lr_scale
            language = model.language_model
            # With low-rank tuning the language model's own weights stay as they are.
            own = language.named_parameters() if model.config.low_rank is None else adapter_parameters(language)
            yield from ((f"language_model.{n}", p, scale) for n, p in own)
        if "experts" in learns:
            for name in self.ctx.recipe.learning_experts:
                own = model.experts[name].named_parameters()
                yield from ((f"experts.{name}.{n}", p, self.stage.experts_lr_scale) for n, p in own)

    def is_hidden(self, name: str, parameter: nn.Parameter) -> bool:
        hidden = name.startswith("language_model.") and not is_adapter(name)
        return hidden and is_hidden_matrix(self.ctx.model.language_model, parameter)

    def batch(self, step: int, micro: int, size: int) -> InstructBatch:
        ctx, seed = self.ctx, self.ctx.recipe.seed
        position = (self.offset + step * self.stage.accumulate + micro) * size
        samples = ctx.data.draw(position, size, seed)
        captions = ctx.captions(samples, self.name, step, micro)
        rows = ctx.data.pack(self.packer, samples, captions.which, per_question=self.fusion.per_question)
        generator = generator_for(seed, self.name, "present", step, micro)
        experts = len(ctx.model.experts.names)
        lost = draw_experts(samples.pictures, experts, ctx.recipe.regularisation.expert_dropout, generator)
        return InstructBatch(
            samples,
            captions,
            rows.packed,
            rows.groups,
            rows.shown,
            rows.row,
            lost.unsqueeze(1) != torch.arange(experts),
            draw_experts(samples.pictures, experts, ctx.recipe.regularisation.corruption, generator),
            micro,
        )

    def draws(self, purpose: str, step: int, micro: int) -> torch.Generator:
        """What is random in a micro-step, alike on every rank."""
        # The first micro-step has no number: runs without accumulation draw as they did before there was one.
        return generator_for(self.ctx.recipe.seed, self.name, purpose, step, *([micro] if micro else []))

    def picture_draws(self, batch: InstructBatch, own: slice, step: int) -> RowGenerator:
        """What fusion draws for some of the pictures in the rows."""
        generator = self.draws("residual", step, batch.micro)
        return for_rows(generator, batch=len(batch.shown), questions=batch.groups.shape[1], start=own.start)

    def inputs(self, packed: PackedBatch) -> dict[str, Tensor]:
        """Keyword arguments for the model, where it is."""
        return {name: value.to(self.ctx.ranks.device) for name, value in packed.model_inputs().items()}

    def loss(self, batch: InstructBatch, step: int) -> tuple[Tensor, dict[str, float]]:
        ctx, model, weights, ranks = self.ctx, self.ctx.model, self.stage.losses, self.ctx.ranks
        rows = ranks.local_slice(len(batch.groups))
        mine = batch.shown_in(rows)
        if (model.config.low_rank or {}).get("dropout"):
            # peft draws from torch's own generator, so that one is made a function of the step too.
            torch.manual_seed(self.draws("dropout", step, batch.micro).initial_seed())
        seen = ctx.encode_trainable(batch.samples, learning="experts" in self.stage.train)
        heard = corrupt(
            seen, batch.corrupted, draw_stuck(batch.samples.pictures, self.draws("lies", step, batch.micro))
        )
        if isinstance(model.fusion, AstreaFusion):
            done = min(1.0, step / max(1, self.stage.steps))
            model.fusion.residual_keep.fill_(self.keep[0] + (self.keep[1] - self.keep[0]) * done)
        trust = model.fusion.trust if isinstance(model.fusion, AstreaFusion) else None
        judged = {}
        if weights.reliability and trust is not None and "fusion" in self.stage.train:
            judged["reliability"] = weights.reliability * self.judging(trust, batch, seen, step)
        # Before the pass that keeps its activations: the two together would need twice the memory.
        if self.measures(step):
            self.measure(batch, seen)
        shown = batch.shown[mine]
        out = model(
            **self.inputs(packed_rows(batch.packed, rows)),
            features=index_select(heard, shown) if len(shown) else None,
            present=batch.present[shown].to(ranks.device),
            generator=self.picture_draws(batch, mine, step),
            num_items_in_batch=batch.labelled,
            use_cache=False,
        )
        parts = {"lm": weights.lm * out.loss} | judged
        auxiliary = out.aux_loss
        if ranks.any(auxiliary is not None):
            # Balanced on each process by itself, as Switch Transformers do: the only loss that knows of a division.
            # Where a process has no pictures it still names the figure, as the others do.
            own = out.loss.new_zeros(()) if auxiliary is None else auxiliary
            parts["auxiliary"] = own * ((rows.stop - rows.start) / len(batch.groups))
        if weights.itc and batch.samples.pictures:
            parts["itc"] = weights.itc * self.contrast(batch, seen, heard)
        allocator = model.fusion.allocator if isinstance(model.fusion, AstreaFusion) else None
        if allocator is not None:
            shares = by_row(out.shares, batch.row[mine] - rows.start, batch.groups[rows], allocator.load_bias)
            parts |= self.sharing(batch, rows, shares, allocator.load_bias)
        figures = {name: part.item() for name, part in parts.items()}
        return sum(parts.values()), figures  # type: ignore[return-value]

    def measures(self, step: int) -> bool:
        """Whether contributions are measured in this step: now and then, where shares are calibrated by them."""
        every = self.ctx.recipe.regularisation.contribution_every
        shares = isinstance(self.fusion, AstreaFusion) and self.fusion.allocator is not None
        return shares and bool(self.stage.losses.contribution and every) and step % every == 0

    def sharing(self, batch: InstructBatch, rows: slice, shares: Tensor, load_bias: Tensor) -> dict[str, Tensor]:
        """Takes in the shares (R, S, E) that the own ``rows`` got, and calibrates them by measured contribution if that
        has a weight."""
        ctx, regularisation, weight = self.ctx, self.ctx.recipe.regularisation, self.stage.losses.contribution
        asked, groups, whole = batch.groups >= 0, batch.groups, batch.whole()
        everyone = ctx.ranks.gather(shares.detach(), len(whole))
        self.shares.append(everyone[whole][asked[whole]])
        if not (weight and regularisation.contribution_every):
            return {}
        known = ctx.contributions
        target = known.targets(load_bias.cpu())[groups]
        counts = asked & whole.unsqueeze(1) & (known.seen[groups] > 0)
        share = shares[counts[rows]]
        share = torch.cat([share, 1 - share.sum(1, keepdim=True)], 1).clamp_min(1e-6)
        wanted = target[rows][counts[rows]].to(share)
        # A small batch may have no whole row: nothing to learn from, and a mean over nothing would be NaN.
        kl = F.kl_div(share.log(), wanted, reduction="sum") / max(1, int(counts.sum()))
        return {"contribution": weight * kl}

    def judging(
        self, trust: ReliabilityHead, batch: InstructBatch, seen: dict[str, ExpertFeatures], step: int
    ) -> Tensor:
        """Telling honest experts from lying ones, on more pictures than are answered about: lies must be common to be
        learned from, and rare where answers are learned. Experts go missing as elsewhere; adapters do not learn from
        this."""
        ctx, ranks = self.ctx, self.ctx.ranks
        generator = self.draws("judging", step, batch.micro)
        samples, pictures = ctx.data.judged(batch.samples, JUDGED, generator)
        count, experts = len(pictures), len(ctx.model.experts.names)
        if not count:
            return next(trust.parameters()).sum() * 0
        own = ranks.local_slice(count)
        corrupted = draw_experts(count, experts, LYING, generator)
        lost = draw_experts(count, experts, ctx.recipe.regularisation.expert_dropout, generator)
        present, reliable = (who.unsqueeze(1) != torch.arange(experts) for who in (lost, corrupted))
        looked = index_select(
            seen if samples is batch.samples else ctx.encode_trainable(samples, learning=False), pictures
        )
        heard = corrupt(looked, corrupted, draw_stuck(count, generator))
        here, reliable = present[own].to(ranks.device), reliable[own].to(ranks.device)
        with torch.no_grad():
            matrix = ctx.model.alignment(index_select(heard, own), here)
        trust.observe(matrix, lambda rows: ranks.gather(rows, count))
        logits, wanted = trust(matrix)[here], reliable[here].float()
        # Where there are more processes than pictures, some have none, and a mean over nothing would be NaN.
        wrong = F.binary_cross_entropy_with_logits(logits, wanted) if len(wanted) else logits.sum()
        return wrong * (len(wanted) / max(1, int(present.sum())))

    def contrast(
        self, batch: InstructBatch, seen: dict[str, ExpertFeatures], heard: dict[str, ExpertFeatures]
    ) -> Tensor:
        """Momentum contrast between the fused tokens and the text (beyond the batch: the queue). The keys come from
        every expert, and from what it really saw."""
        ctx, model, ranks, size = self.ctx, self.ctx.model, self.ctx.ranks, len(batch.captions.tokens)
        # A text without a picture has nothing to be compared with: the next one that has takes its place.
        place = backfill(batch.samples.first >= 0)
        said, first = captions_at(batch.captions, place), batch.samples.first[place]
        own, frozen = ranks.local_slice(size), "language_model" not in self.stage.train
        states = ctx.text_states(said, own, frozen=frozen)
        ids = said.ids.to(ranks.device)
        picture = model.picture_vectors(index_select(heard, first[own]), batch.present[first[own]].to(ranks.device))
        text = model.alignment.text_head(states)
        with torch.no_grad():
            key = model.picture_vectors(index_select(seen, first[own]), alignment=ctx.contrast.copy)
            picture_key = ranks.gather(key, size)
            text_key = ranks.gather(ctx.contrast.copy.text_head(states), size)
        self.pending.append((picture_key, text_key, ids))
        soft = ctx.recipe.contrast.soft_targets
        return ctx.contrast.loss(picture, text, picture_key, text_key, ids, soft, own=own)

    @torch.no_grad()
    def measure(self, batch: InstructBatch, seen: dict[str, ExpertFeatures], rows: int = MEASURED) -> None:
        """Counterfactual passes on a few rows: what would each expert's absence cost each task group, in nats?

        The first rows of the whole batch, shared out so that every rank has equally many: the last ones may take a row
        twice, and it counts once.
        """
        give_back()
        ctx, model, ranks = self.ctx, self.ctx.model, self.ctx.ranks
        experts = len(model.experts.names)
        rows = min(rows, len(batch.groups))
        each = -(-rows // ranks.world)
        mine = torch.arange(each * ranks.rank, each * (ranks.rank + 1)).clamp_max(rows - 1)
        again = mine.repeat(experts + 1)
        inputs = self.inputs(packed_rows(batch.packed, again))
        at = torch.cat([(batch.row == row).nonzero()[:, 0] for row in mine.tolist()])
        shown = batch.shown[at].repeat(experts + 1)
        present = torch.cat([torch.ones(1, experts), 1 - torch.eye(experts)]).bool().repeat_interleave(len(at), 0)
        features = index_select(seen, shown) if len(shown) else None
        # With the labels' sum, rows that nothing is learned from are no error.
        logits = model(
            **inputs,
            features=features,
            present=present.to(ranks.device),
            num_items_in_batch=batch.labelled,
            use_cache=False,
        ).logits
        count = batch.groups.shape[1]
        loss = answer_losses(logits, inputs["labels"], inputs.get("questions", inputs["segments"]), count)
        base, without = loss[:each], loss[each:].view(experts, each, count)
        delta = ranks.gather((without - base).permute(1, 2, 0), each * ranks.world)[:rows].cpu()
        for group in range(len(ctx.data.groups)):
            mine = batch.groups[:rows] == group
            if mine.any():
                ctx.contributions.learn(group, delta[mine].mean(0))

    def after_step(self, step: int) -> None:
        ctx = self.ctx
        ctx.contrast.follow(ctx.model.alignment)
        for keys in self.pending:
            ctx.contrast.queue.push(*keys)
        self.pending.clear()
        fusion = ctx.model.fusion
        if isinstance(fusion, AstreaFusion) and fusion.allocator is not None and self.shares:
            fusion.allocator.update_load(torch.cat(self.shares), rate=ctx.recipe.regularisation.load_rate)
        self.shares.clear()

    def describe(self, batch: InstructBatch) -> str:
        return sample_names(batch.samples)
