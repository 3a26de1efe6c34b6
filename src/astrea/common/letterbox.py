"""Where a picture lies in the square that it is fitted into: as large as it can be, in the middle."""

from __future__ import annotations

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares of a width and a height."""


def inner_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of a picture in a square of some side. A strip keeps at least one pixel of its width."""
    longest = max(width, height)
    return max(1, round(side * width / longest)), max(1, round(side * height / longest))


def inner_box(width: int, height: int, side: int) -> Box:
    """The part of the square that the picture covers."""
    across, down = inner_size(width, height, side)
    left, top = (side - across) // 2, (side - down) // 2
    return left / side, top / side, (left + across) / side, (top + down) / side
