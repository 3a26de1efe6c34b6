"""The compact experts' own scores, each by its own field's metric, overall and per condition."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from astrea.evaluation.metrics.captions import cider_d
from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import Expert, ExpertFeatures
from astrea.world.experts.captioning import CaptioningExpert
from astrea.world.experts.classification import ClassificationExpert
from astrea.world.experts.detection import NAMED, DetectionExpert, boxes_from_tokens
from astrea.world.experts.segmentation import SegmentationExpert
from astrea.world.experts.slots import SlotExpert
from astrea.world.experts.states import CompactExpert
from astrea.world.experts.truth import collate_truth, per_pixel, pixels_from_scenes
from astrea.world.scenes.captions import short_caption
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import CATEGORIES, CONDITIONS, KINDS

Scores = dict[str, float]


@torch.inference_mode()
def expert_scores(bank: ExpertBank, scenes: Sequence[Scene]) -> tuple[dict[str, Scores], dict[str, dict[str, Scores]]]:
    """Scores 0..100 per expert, and per expert and condition. Experts without a metric here are left out."""
    by_condition = defaultdict(list)
    for scene in scenes:
        by_condition[CONDITIONS[scene.condition]].append(scene)
    overall: dict[str, Scores] = {}
    split: dict[str, dict[str, Scores]] = {}
    for name in bank.names:
        judge = next((j for cls, j in JUDGES.items() if isinstance(bank[name], cls)), None)
        if judge is None:
            continue
        overall[name] = judge(bank[name], scenes)
        split[name] = {c: judge(bank[name], by_condition[c]) for c in CONDITIONS if by_condition[c]}
    return overall, split


def judge_detection(expert: Expert, scenes: Sequence[Scene]) -> Scores:
    """AP at IoU 0.5 over the detector's own vocabulary (named kinds and "object"), by pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    size = scenes[0].image.shape[0]
    named = {kind: i for i, kind in enumerate(NAMED)}
    truth: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    features = expert_features(expert, scenes)
    assert isinstance(expert, SlotExpert)
    boxes = boxes_from_tokens(features.tokens, zoom=expert.zoom(size)) * size
    for image, scene in enumerate(scenes):
        for item in scene.objects:
            if item.area:
                x0, y0, x1, y1 = item.box
                truth.append(
                    {"id": len(truth) + 1, "image_id": image, "category_id": named.get(item.kind, len(NAMED)),
                     "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0), "iscrowd": 0}
                )  # fmt: skip
        for slot in (features.confidence[image] > 0).nonzero().flatten().tolist():
            x0, y0, x1, y1 = boxes[image, slot].tolist()
            probability = features.tokens[image, slot, : len(NAMED) + 1]
            best = int(probability.argmax())
            found.append(
                {"image_id": image, "category_id": best, "bbox": [x0, y0, x1 - x0, y1 - y0],
                 "score": float(features.confidence[image, slot] * probability[best])}
            )  # fmt: skip
    if not found:
        return {"AP50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i, "width": size, "height": size} for i in range(len(scenes))],
            "annotations": truth,
            "categories": [{"id": i, "name": str(i)} for i in range(len(NAMED) + 1)],
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.params.iouThrs = np.array([0.5])
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][0, :, :, 0, 2]
    return {"AP50": 100 * float(precision[precision > -1].mean())}


def judge_segmentation(expert: Expert, scenes: Sequence[Scene]) -> Scores:
    """Mean IoU over the coarse categories and background, at stride 2."""
    truth = collate_truth(scenes)
    wanted = per_pixel(truth.category_BN + 1, truth.instances_BHW[:, ::2, ::2], 0)
    guess = expert.dense(truth.pixels_B3HW.to(place_of(expert)))[0].argmax(1).cpu()  # type: ignore[operator]
    ious = []
    for label in range(len(CATEGORIES) + 1):
        union = ((wanted == label) | (guess == label)).sum()
        if union:
            ious.append(float(((wanted == label) & (guess == label)).sum() / union))
    return {"mIoU": 100 * sum(ious) / len(ious)}


def judge_classification(expert: Expert, scenes: Sequence[Scene]) -> Scores:
    """mAP over the kinds, and F1 of the tags at 0.5 (micro)."""
    truth = torch.zeros(len(scenes), len(KINDS), dtype=torch.bool)
    for row, scene in enumerate(scenes):
        for item in scene.objects:
            truth[row, item.kind] |= item.area > 0
    belief = expert_features(expert, scenes).tokens[:, :-1, : len(KINDS)].sum(1)
    precisions = [average_precision(belief[:, k], truth[:, k]) for k in range(len(KINDS)) if truth[:, k].any()]
    guess = belief > 0.5
    both = (guess & truth).sum().item()
    return {
        "mAP": 100 * sum(precisions) / len(precisions),
        "F1": 200 * both / max(1, guess.sum().item() + truth.sum().item()),
    }


def place_of(expert: Expert) -> torch.device:
    """Where an expert computes."""
    return next(expert.parameters()).device


def expert_features(expert: Expert, scenes: Sequence[Scene]) -> ExpertFeatures:
    """A compact expert's features of drawn pictures, with names whatever it hands on; kept on the processor."""
    assert isinstance(expert, CompactExpert)
    return expert.found(pixels_from_scenes(scenes).to(place_of(expert)), states=False).map(Tensor.cpu)


def average_precision(score: Tensor, truth: Tensor) -> float:
    """Mean precision at each true item's rank."""
    order = truth[score.argsort(descending=True)].float()
    hits = order.cumsum(0)
    return float((hits / torch.arange(1, len(order) + 1) * order).sum() / order.sum())


def judge_captioning(expert: Expert, scenes: Sequence[Scene]) -> Scores:
    """CIDEr-D (x100) of its short captions, and the share of printed words read right."""
    said = [reading.caption for reading in expert.readings(pixels_from_scenes(scenes).to(place_of(expert)))]
    truth = [[" ".join(short_caption(scene))] for scene in scenes]
    worded = [(s, scene.word) for s, scene in zip(said, scenes, strict=True) if scene.word]
    read = [s.endswith(f"sign {word}") for s, word in worded]
    return {
        "CIDEr-D": 100 * cider_d(said, truth).corpus,
        "word_accuracy": 100 * sum(read) / max(1, len(read)),
    }


JUDGES: dict[type[Expert], Callable[[Expert, Sequence[Scene]], Scores]] = {
    DetectionExpert: judge_detection,
    SegmentationExpert: judge_segmentation,
    ClassificationExpert: judge_classification,
    CaptioningExpert: judge_captioning,
}
