"""How sure a score is, from the number of questions alone."""

from __future__ import annotations

import math

_Z = 1.96


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was found in ``count`` independent trials (Wilson 1927).

    Unlike share ± 1.96 standard errors it stays within 0..1 and does not shrink to a point at 0 and 1: 30 right of 30
    leave 0.886 to 1.

    Args:
        share: 0..1. count: at least 1.
    """
    spread = _Z * _Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
