"""What is familiar to a model that learned from data files of one's own: what its experts saw in their pictures.

How sure to be is not known then: that takes questions that the model did not learn from (`learn_calibration`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from astrea.data.world import join_features
from astrea.doubt.doubt import Doubt
from astrea.doubt.familiar import learn_familiar
from astrea.progress import Reporter
from astrea.training.recorded import RecordData

if TYPE_CHECKING:
    from astrea.training.workshop import Workshop

PICTURES, FEWEST = 256, 48
"""How many pictures are looked at, and how many there have to be: of fewer nothing can be said about others."""
BATCH = 16


def doubt_of_records(shop: Workshop, report: Reporter) -> Doubt | None:
    """What is familiar from the pictures of ``data.train``; None where it names none, or too few. Where several
    processes share the work, each has to ask."""
    data = shop.data
    if not isinstance(data, RecordData) or not data.pictured:
        return None
    count = min(PICTURES, len(data.pairs)) // BATCH * BATCH
    if count < FEWEST:
        return None
    parts = []
    for start in range(0, count, BATCH):
        samples = data.draw(start, BATCH, shop.run.seed, pairs=True)
        parts.append(shop.seen_anew(samples, learning=False))
        report.track("what is familiar", start + BATCH, count)
    features = join_features(parts)
    return Doubt({name: learn_familiar(part) for name, part in features.items()})
