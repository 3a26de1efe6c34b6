"""The classes of the compact experts, by kind."""

from __future__ import annotations

from collections.abc import Mapping

from astrea.experts.protocol import Expert
from astrea.world.experts.captioning import CaptioningExpert
from astrea.world.experts.classification import ClassificationExpert
from astrea.world.experts.detection import DetectionExpert
from astrea.world.experts.segmentation import SegmentationExpert

COMPACT: Mapping[str, type[Expert]] = {
    "captioning": CaptioningExpert,
    "classification": ClassificationExpert,
    "segmentation": SegmentationExpert,
    "detection": DetectionExpert,
}
"""In the order in which they are aligned: nearest to language first (as `astrea.experts.bank.COMPACT`)."""
