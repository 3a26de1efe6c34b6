"""The names under which model folders know the classes of checkpoint experts."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.experts.checkpoint.base import CheckpointExpert
from astrea.experts.checkpoint.captioning import CaptionCheckpoint
from astrea.experts.checkpoint.classification import TagCheckpoint, ZeroShotCheckpoint
from astrea.experts.checkpoint.detection import DetectionCheckpoint
from astrea.experts.checkpoint.grid import GridCheckpoint
from astrea.experts.checkpoint.segmentation import SegmentationCheckpoint

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
