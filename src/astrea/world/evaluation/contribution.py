"""What each expert contributes to the true answer, in nats, and whether the shares say so.

Letters: R packed rows, L length, S questions per row, Q questions of a task, E experts, N any number of values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from astrea.common.progress import SILENT, Reporter
from astrea.data.packing import CAPTION_PROMPT, PackedBatch, Packer, Turn, answer_losses
from astrea.evaluation.generate import Features
from astrea.model.modeling import AstreaForConditionalGeneration
from astrea.world.evaluation.item_calibration import item_calibration, picture_share
from astrea.world.evaluation.ranks import spearman
from astrea.world.evaluation.runner import EncodedTestSets, scene_of
from astrea.world.scenes.questions import VQA_TASKS, Question

MIN_ITEMS = 5
"""Cells with fewer items say too little to be ranked."""

NOISE = 0.002
"""Nats below which a measured contribution says nothing."""

ROWS = 16
"""Rows that are answered together, each with all questions about its picture."""

Cells = dict[str, dict[str, dict[str, float]]]
"""task -> condition of the picture -> expert -> mean."""


def turns_of(encoded: EncodedTestSets, task: str) -> list[tuple[int, Turn]]:
    """Every item of a VQA or caption task, in the order of its scores: which picture, and the question with its true
    answer (for captions the first reference, which is the canonical one)."""
    if task in VQA_TASKS:
        mine = [item for item in encoded.sets.questions if item.question.task == task]
        return [(item.scene, Turn(item.question.text, item.question.answer)) for item in mine]
    scenes = encoded.sets.described[task]
    return [(index, Turn(CAPTION_PROMPT, encoded.suite.references(scene, 0)[0])) for index, scene in enumerate(scenes)]


def pictures_of(encoded: EncodedTestSets, task: str) -> Features:
    """The features that the pictures of `turns_of` are rows of."""
    return encoded.questions if task in VQA_TASKS else encoded.described[task]


def contributions(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedTestSets,
    tasks: Sequence[str],
    *,
    batch: int = ROWS,
    report: Reporter = SILENT,
) -> dict[str, Tensor]:
    """Loss without each expert minus loss with all of them: (Q, E) nats per token of the true answer, for each task.

    Args:
        tasks: VQA and caption tasks.
        batch: rows per pass; a row holds all questions about its picture.
    """
    sources = [[task for task in tasks if task in VQA_TASKS], *([task] for task in tasks if task not in VQA_TASKS)]
    found: dict[str, Tensor] = {}
    for some in filter(None, sources):
        # Questions of all VQA tasks are about the same pictures, so they are asked together.
        turns = {task: turns_of(encoded, task) for task in some}
        everything = [turn for task in some for turn in turns[task]]
        delta_QE = _deltas(model, tokenizer, pictures_of(encoded, some[0]), everything, batch, ", ".join(some), report)
        found |= dict(zip(some, delta_QE.split([len(turns[task]) for task in some]), strict=True))
    return {task: found[task] for task in tasks}


@torch.inference_mode()
def _deltas(
    model: AstreaForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    features: Features,
    turns: Sequence[tuple[int, Turn]],
    batch: int,
    note: str,
    report: Reporter,
) -> Tensor:
    """Contributions (Q, E) of turns about the pictures of ``features``."""
    model.eval()
    experts = len(model.experts.names)
    packer = Packer(tokenizer, model.num_visual_tokens)
    delta_QE = torch.zeros(len(turns), experts)
    # Rows of like length together: little padding.
    rows = sorted(_rows(turns, model.fusion.per_question), key=len)
    for start in range(0, len(rows), batch):
        part = rows[start : start + batch]
        packed = packer.pack([[turns[at][1] for at in row] for row in part])
        pictures = torch.tensor([turns[row[0]][0] for row in part])
        shown = {name: found.rows(pictures).map(lambda t: t.to(model.device)) for name, found in features.items()}
        present_RE = torch.ones(len(part), experts, dtype=torch.bool, device=model.device)
        whole_RS = _losses(model, packed, shown, present_RE)
        for expert in range(experts):
            without_RE = present_RE.clone()
            without_RE[:, expert] = False
            delta_RS = _losses(model, packed, shown, without_RE) - whole_RS
            for row, values in zip(part, delta_RS, strict=True):
                delta_QE[row, expert] = values[: len(row)]
        report.track(f"contribution: {note}", min(start + batch, len(rows)), len(rows))
    return delta_QE


def _rows(turns: Sequence[tuple[int, Turn]], alone: bool) -> list[list[int]]:
    """Which turns share a row: those about one picture, or each one ``alone``."""
    if alone:
        return [[at] for at in range(len(turns))]
    rows: dict[int, list[int]] = {}
    for at, (picture, _) in enumerate(turns):
        rows.setdefault(picture, []).append(at)
    return list(rows.values())


def _losses(
    model: AstreaForConditionalGeneration, packed: PackedBatch, features: Features, present_RE: Tensor
) -> Tensor:
    """What each answer costs with these experts: (R, S) nats, on the processor."""
    there = {name: value.to(model.device) for name, value in packed.model_inputs().items()}
    logits_RLV = model(**there, features=features, present=present_RE, use_cache=False).logits
    return answer_losses(logits_RLV, there["labels"], there["segments"], int(packed.segments.max())).cpu()


def _by_condition(encoded: EncodedTestSets, task: str) -> Iterator[tuple[str, Tensor]]:
    """The conditions that pictures of a task have, each with its items (Q,) bool."""
    conditions = [encoded.suite.condition(scene) for scene in scene_of(encoded, task)]
    for name in encoded.suite.conditions:
        if name in conditions:
            yield name, torch.tensor([each == name for each in conditions])


def cell_means(encoded: EncodedTestSets, values: Mapping[str, Tensor], names: Sequence[str]) -> Cells:
    """The mean of each task's values (Q, E) by condition of the picture and expert; empty cells are left out."""
    return {
        task: {
            condition: dict(zip(names, values_QE[mine].mean(0).tolist(), strict=True))
            for condition, mine in _by_condition(encoded, task)
        }
        for task, values_QE in values.items()
    }


def calibration(
    encoded: EncodedTestSets,
    shares: Mapping[str, Tensor],
    contribution: Mapping[str, Tensor],
    load_bias_E: Tensor | None = None,
) -> dict[str, Any]:
    """Whether the experts with the larger shares are those that contribute more.

    Args:
        shares: task -> shares (Q, E). contribution: task -> contributions (Q, E) of the same items. load_bias_E: of the
            gate that the shares are weights of; None where they are not.

    Returns:
        rank_correlation: Spearman over the cells (task, condition, expert), contributions in nats. relative: the same
        with contributions as parts of their (task, condition)'s total, which is all that shares of a sum can say.
        per_task: as the first, over the cells (task, expert). All NaN where one side is constant or there is no cell.
        picture_share: see `astrea.world.evaluation.item_calibration.picture_share`.
        cells: how many of the first. min_items: cells of fewer items are left out. items: see
        `astrea.world.evaluation.item_calibration`; only for weights of a gate.
    """
    fine: list[tuple[Tensor, Tensor]] = []
    coarse: list[tuple[Tensor, Tensor]] = []
    for task, contribution_QE in contribution.items():
        if len(contribution_QE) >= MIN_ITEMS:
            coarse.append((shares[task].mean(0), contribution_QE.mean(0)))
        for _, mine in _by_condition(encoded, task):
            if int(mine.sum()) >= MIN_ITEMS:
                fine.append((shares[task][mine].mean(0), contribution_QE[mine].mean(0)))
    items = {}
    if load_bias_E is not None:
        templates = {task: _asked(encoded, task, attrgetter("template")) for task in contribution}
        items = {"items": item_calibration(shares, contribution, load_bias_E, templates)}
    texts = {task: _asked(encoded, task, attrgetter("text")) for task in contribution}
    return {
        "rank_correlation": _correlation(fine),
        "relative": _correlation([(share, _parts(mean_E)) for share, mean_E in fine]),
        "per_task": _correlation(coarse),
        "picture_share": picture_share({task: shares[task] for task in contribution}, texts),
        "cells": sum(len(share) for share, _ in fine),
        "min_items": MIN_ITEMS,
        **items,
    }


def _asked(encoded: EncodedTestSets, task: str, key: Callable[[Question], str]) -> list[str]:
    """What ``key`` tells of the question of every item of a task; of a caption the task."""
    if task in VQA_TASKS:
        return [key(item.question) for item in encoded.sets.questions if item.question.task == task]
    return [task] * len(encoded.sets.described[task])


def _parts(contribution_E: Tensor) -> Tensor:
    """Contributions as parts of their sum. Less than `NOISE` cannot be told from nothing."""
    gain_E = contribution_E.clamp_min(0) + NOISE
    return gain_E / gain_E.sum()


def _correlation(pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
    if not pairs:
        return float("nan")
    return spearman(*(torch.cat(side).double().numpy() for side in zip(*pairs, strict=True)))
