"""The names under which model folders know the classes of checkpoint experts."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.captioning import CaptionCheckpoint
from astrea.experts.pretrained.classification import TagCheckpoint, ZeroShotCheckpoint
from astrea.experts.pretrained.detection import DetectionCheckpoint
from astrea.experts.pretrained.grid import GridCheckpoint
from astrea.experts.pretrained.segmentation import SegmentationCheckpoint

CHECKPOINTS: Mapping[str, type[CheckpointExpert]] = {
    "transformers/detection": DetectionCheckpoint,
    "transformers/segmentation": SegmentationCheckpoint,
    "transformers/classification": TagCheckpoint,
    "transformers/zero-shot": ZeroShotCheckpoint,
    "transformers/features": GridCheckpoint,
    "transformers/captioning": CaptionCheckpoint,
}


def kind_of(expert: type[CheckpointExpert]) -> str:
    """The name of a class."""
    return next(name for name, cls in CHECKPOINTS.items() if cls is expert)
