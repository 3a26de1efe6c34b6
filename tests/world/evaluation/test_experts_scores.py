from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from astrea.experts.bank import ExpertBank
from astrea.experts.protocol import Expert, ExpertFeatures, Reading
from astrea.world.evaluation.experts import (
    average_precision,
    expert_scores,
    judge_captioning,
    judge_classification,
    judge_detection,
    judge_segmentation,
)
from astrea.world.experts.captioning import CaptioningExpert
from astrea.world.experts.classification import ClassificationExpert, tag_tokens
from astrea.world.experts.detection import DetectionExpert, slot_tokens
from astrea.world.experts.segmentation import SegmentationExpert
from astrea.world.experts.truth import SceneTruth, collate_truth, per_pixel
from astrea.world.scenes.captions import short_caption
from astrea.world.scenes.draw import split_scene
from astrea.world.scenes.scene import Scene
from astrea.world.scenes.vocabulary import CATEGORIES, CONDITIONS, KINDS

SCENES = [split_scene("test", index, 0) for index in range(40)]
BY_PIXELS = {scene.image.tobytes(): scene for scene in SCENES}


def scenes_in(pixels: Tensor) -> list[Scene]:
    images = (pixels * 255).round().byte().permute(0, 2, 3, 1).contiguous()
    return [BY_PIXELS[image.numpy().tobytes()] for image in images]


def truth_in(pixels: Tensor) -> SceneTruth:
    return collate_truth(scenes_in(pixels))


class TrueDetection(DetectionExpert):
    def found(self, pixels: Tensor, *, states: bool) -> ExpertFeatures:
        return DetectionExpert.ideal(truth_in(pixels))


class TrueSegmentation(SegmentationExpert):
    shift = 0

    def dense(self, pixels: Tensor) -> tuple[Tensor, ...]:
        truth = truth_in(pixels)
        labels = per_pixel(truth.category_BN + 1, truth.instances_BHW[:, ::2, ::2], 0)
        labels = (labels + self.shift) % (len(CATEGORIES) + 1)
        return (torch.nn.functional.one_hot(labels, len(CATEGORIES) + 1).permute(0, 3, 1, 2).float(),)


class WrongSegmentation(TrueSegmentation):
    shift = 1


class TrueClassification(ClassificationExpert):
    def found(self, pixels: Tensor, *, states: bool) -> ExpertFeatures:
        return ClassificationExpert.ideal(truth_in(pixels))


class TrueCaptioning(CaptioningExpert):
    said: Callable[[Scene], str] = staticmethod(lambda scene: " ".join(short_caption(scene)))

    def readings(self, pixels: Tensor) -> list[Reading]:
        return [Reading("captioning", caption=self.said(scene)) for scene in scenes_in(pixels)]


class MuteCaptioning(TrueCaptioning):
    said = staticmethod(lambda scene: "")


def bank_of(**experts: Expert) -> ExpertBank:
    bank = ExpertBank({})
    bank.experts.update(experts)
    return bank


def test_faultless_experts_score_100_in_every_condition():
    bank = bank_of(d=TrueDetection(), s=TrueSegmentation(), c=TrueClassification(), t=TrueCaptioning())
    overall, split = expert_scores(bank, SCENES)
    assert overall["s"] == {"mIoU": pytest.approx(100)}
    assert overall["c"] == {"mAP": pytest.approx(100), "F1": pytest.approx(100)}
    assert overall["t"]["word_accuracy"] == 100
    assert overall["d"]["AP50"] > 99
    present = [name for index, name in enumerate(CONDITIONS) if any(s.condition == index for s in SCENES)]
    assert len(present) > 1
    for name, conditions in split.items():
        assert list(conditions) == present
        for scores in conditions.values():
            assert scores.keys() == overall[name].keys()
            assert all(value > 99 for metric, value in scores.items() if metric in ("AP50", "mIoU", "mAP", "F1"))
    # CIDEr-D of the reference itself: as high as for nothing else.
    other = judge_captioning(TrueCaptioning(), SCENES)["CIDEr-D"]
    assert other == overall["t"]["CIDEr-D"] > 300


def test_experts_that_see_nothing_score_0():
    class Blind(DetectionExpert):
        def found(self, pixels: Tensor, *, states: bool) -> ExpertFeatures:
            return TrueDetection.found(self, pixels, states=states).map(torch.zeros_like)

    class NoTags(ClassificationExpert):
        def found(self, pixels: Tensor, *, states: bool) -> ExpertFeatures:
            return TrueClassification.found(self, pixels, states=states).map(torch.zeros_like)

    assert judge_detection(Blind(), SCENES) == {"AP50": 0.0}
    assert judge_classification(NoTags(), SCENES)["F1"] == 0.0
    assert judge_segmentation(WrongSegmentation(), SCENES) == {"mIoU": 0.0}
    assert judge_captioning(MuteCaptioning(), SCENES) == {"CIDEr-D": 0.0, "word_accuracy": 0.0}


def test_experts_without_a_metric_are_left_out():
    class Other(Expert):
        def forward(self, pixels: Tensor) -> ExpertFeatures:
            raise AssertionError

        def readings(self, pixels: Tensor) -> list[Reading]:
            raise AssertionError

    overall, split = expert_scores(bank_of(other=Other(), c=TrueClassification()), SCENES[:4])
    assert list(overall) == list(split) == ["c"]


def slots(*found: tuple[int, tuple[float, float, float, float], float]) -> ExpertFeatures:
    """Detections (class, box in shares, confidence) of one picture."""
    classes = torch.tensor([kind for kind, _, _ in found])
    probability = torch.nn.functional.one_hot(classes, len(DetectionExpert.class_names)).float()
    boxes = torch.tensor([box for _, box, _ in found])
    return slot_tokens(probability[None], boxes[None], torch.tensor([[sure for *_, sure in found]]))


@pytest.mark.parametrize(
    ("right", "wrong", "ap"),
    [
        # Both found: the false one comes after them, before them, between them, or is not there.
        ([0.9, 0.8], 0.1, 100.0),
        ([0.9, 0.8], 0.95, 100 * 2 / 3),
        ([0.9, 0.8], 0.85, 100 * (51 + 50 * 2 / 3) / 101),
        ([0.9, 0.8], 0.0, 100.0),
        # One of two found: recall ends at a half, which is 51 of the 101 recalls that are averaged.
        ([0.9], 0.1, 100 * 51 / 101),
        ([0.9], 0.95, 100 * 0.5 * 51 / 101),
    ],
)
def test_ap50_of_a_known_case(monkeypatch, right, wrong, ap):
    scene = next(
        s
        for s in SCENES
        if len(s.objects) >= 2 and all(o.area for o in s.objects) and s.objects[0].box != s.objects[1].box
    )
    truth = collate_truth([scene])
    # As if the picture held two objects of the same, unnamed class.
    two = [type(o)(1, o.colour, o.size, o.box, o.area, o.occlusion, o.centroid) for o in scene.objects[:2]]
    scene = type(scene)(
        scene.spec, scene.image, scene.instances, tuple(two), scene.word, scene.word_box, scene.condition
    )
    assert KINDS[1].name not in DetectionExpert.class_names
    unnamed = len(DetectionExpert.class_names) - 1
    boxes = [tuple(truth.box_BN4[0, i].tolist()) for i in range(2)]
    found = [(unnamed, box, sure) for box, sure in zip(boxes, right, strict=False)]
    expert = DetectionExpert()
    features = slots(*found, (unnamed, (0.0, 0.0, 0.02, 0.02), wrong))
    monkeypatch.setattr(expert, "found", lambda pixels, states: features)
    assert judge_detection(expert, [scene])["AP50"] == pytest.approx(ap, abs=0.1)


def test_a_box_half_off_or_of_another_class_does_not_count(monkeypatch):
    scene = next(s for s in SCENES if len(s.objects) == 1 and s.objects[0].area)
    truth = collate_truth([scene])
    kind = int(DetectionExpert.ideal(truth).tokens[0, 0, : len(DetectionExpert.class_names)].argmax())
    x0, y0, x1, y1 = truth.box_BN4[0, 0].tolist()
    shift = (x1 - x0) * (0.4 if x0 < 0.5 else -0.4)
    expert = DetectionExpert()
    for found in [(kind, (x0 + shift, y0, x1 + shift, y1), 0.9), ((kind + 1) % 10, (x0, y0, x1, y1), 0.9)]:
        monkeypatch.setattr(expert, "found", lambda pixels, states, found=found: slots(found))
        assert judge_detection(expert, [scene])["AP50"] == 0.0
    monkeypatch.setattr(expert, "found", lambda pixels, states: slots((kind, (x0, y0, x1, y1), 0.9)))
    assert judge_detection(expert, [scene])["AP50"] == pytest.approx(100)


def test_average_precision_of_a_known_case():
    score = torch.tensor([0.7, 0.9, 0.8, 0.1])
    assert average_precision(score, torch.tensor([True, True, False, False])) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(score, torch.tensor([False, False, False, True])) == pytest.approx(1 / 4)
    assert average_precision(score, torch.tensor([False, True, True, False])) == pytest.approx(1)


def test_f1_counts_tags_over_all_pictures(monkeypatch):
    expert = ClassificationExpert()
    truth = collate_truth(SCENES)
    tags = torch.zeros(len(SCENES), len(KINDS))
    b, n = truth.valid_BN.nonzero(as_tuple=True)
    tags[b, truth.kind_BN[b, n]] = 1.0
    told = int(tags.sum())
    tags[20:] = 0
    kept = int(tags.sum())
    zeros = torch.zeros(len(SCENES), len(CONDITIONS)), torch.zeros(len(SCENES), 6), torch.zeros(len(SCENES), 1)
    monkeypatch.setattr(expert, "found", lambda pixels, states: tag_tokens(tags, *zeros))
    assert judge_classification(expert, SCENES)["F1"] == pytest.approx(200 * kept / (kept + told))
