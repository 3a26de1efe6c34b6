"""Long series of points made short and calm enough to be drawn."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]


def smoothed(points: Points) -> Points:
    """A centred running mean over 1/25 of the points; at the ends over as many as there are."""
    reach = len(points) // 50
    sums = [0.0, *itertools.accumulate(value for _, value in points)]
    result = []
    for index, (step, _) in enumerate(points):
        start, stop = max(0, index - reach), min(len(points), index + reach + 1)
        result.append((step, (sums[stop] - sums[start]) / (stop - start)))
    return result


def thinned(points: Points, most: int = 240) -> Points:
    """At most ``most`` points, each the mean of its neighbours; the first and the last step are kept."""
    if len(points) <= most:
        return points
    bounds = [len(points) * i // most for i in range(most + 1)]
    groups = [points[start:stop] for start, stop in itertools.pairwise(bounds)]
    thin = [(group[len(group) // 2][0], sum(value for _, value in group) / len(group)) for group in groups]
    thin[0], thin[-1] = (points[0][0], thin[0][1]), (points[-1][0], thin[-1][1])
    return thin
