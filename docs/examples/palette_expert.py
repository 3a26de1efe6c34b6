"""A fifth expert in one file: which colours a picture holds, and where. Nothing in it is trained.

Letters: B pictures, K colours, H W picture height and width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from astrea import Expert, ExpertFeatures, Reading
from astrea.experts.protocol import bin_labels, soft_bins

COLOURS = {
    "red": (225, 40, 40),
    "orange": (245, 140, 20),
    "yellow": (245, 225, 50),
    "green": (50, 180, 70),
    "blue": (50, 105, 235),
    "purple": (145, 60, 200),
    "pink": (250, 140, 195),
    "white": (245, 245, 245),
}
BINS = 16


class PaletteExpert(Expert):
    """One token per colour: its name, the middle of its pixels, and as confidence how much of it there is.

    Args:
        threshold: a colour with a smaller share of the picture has an empty slot.
        tolerance: how far (in RGB, 0..1) a pixel may be from a colour to count as half of it.
    """

    num_tokens = len(COLOURS)
    labels = (*COLOURS, *bin_labels("x", BINS), *bin_labels("y", BINS), "palette")
    width = len(labels)

    anchors: Tensor

    def __init__(self, *, threshold: float = 0.005, tolerance: float = 0.15) -> None:
        super().__init__()
        self.threshold = threshold
        self.tolerance = tolerance
        self.register_buffer("anchors", torch.tensor(list(COLOURS.values())) / 255)

    def shares(self, pixels_B3HW: Tensor) -> Tensor:
        """How much of each pixel is each colour: (B, K, H, W), 0..1; what is near no colour is none of them."""
        near = (pixels_B3HW.unsqueeze(1) - self.anchors[:, :, None, None]).square().sum(2) / self.tolerance**2
        # One more competitor, "no colour", as if at the distance of the tolerance.
        nothing = torch.ones_like(near[:, :1])
        return torch.softmax(-4 * torch.cat([near, nothing], 1), 1)[:, :-1]

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        shares = self.shares(pixels_B3HW)
        batch, _, height, width = shares.shape
        area = shares.mean((2, 3))
        xs = (torch.arange(width, device=shares.device) + 0.5) / width
        ys = (torch.arange(height, device=shares.device) + 0.5) / height
        mass = shares.sum((2, 3)).clamp_min(1e-6)
        x, y = (shares.sum(2) * xs).sum(-1) / mass, (shares.sum(3) * ys).sum(-1) / mass
        names = torch.eye(self.num_tokens, device=shares.device).expand(batch, -1, -1)
        tokens = torch.cat([names, soft_bins(x, BINS), soft_bins(y, BINS), torch.ones_like(x).unsqueeze(-1)], -1)
        # Exactly 0 marks an empty slot, which nothing downstream reads.
        confidence = (area / 0.05).clamp(max=1).masked_fill(area <= self.threshold, 0.0)
        return ExpertFeatures(tokens, confidence, places=torch.stack([x, y], -1))

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        found = []
        for row in self.shares(pixels_B3HW).mean((2, 3)):
            seen = [(share, name) for share, name in zip(row.tolist(), COLOURS, strict=True) if share > self.threshold]
            seen.sort(reverse=True)
            found.append(Reading("palette", labels=[name for _, name in seen], scores=[share for share, _ in seen]))
        return found
