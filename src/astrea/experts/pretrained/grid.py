"""Features of a backbone on a grid of g x g cells: SAM's encoder, and DINO, SigLIP, CLIP or ViT without a head.

They have no words: channels have no names, so the adapter starts at random, as for a student.

Letters: B batch, G cells kept, N patches, H hidden width, h w sides of the patch map, S side of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.architecture import Network
from astrea.common.errors import AstreaError
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.options import GridOptions
from astrea.experts.pretrained.slots import even, grid_places, grid_side
from astrea.experts.protocol import ExpertFeatures, Reading


@dataclass(frozen=True, slots=True)
class Backbone:
    """How a family's hidden states become maps.

    call: network and pictures -> output with ``hidden_states``.
    to_map: network, pictures and one hidden state -> (B, H, h, w).
    widths: configuration -> H of each hidden state. last: which one is read by default; None = the network's
    ``last_hidden_state``, which then is a map already, of ``last_width`` channels.
    """

    call: Callable[[Any, Tensor], Any]
    to_map: Callable[[Any, Tensor, Tensor], Tensor]
    widths: Callable[[Any], Sequence[int]]
    last: int | None = -2
    last_width: Callable[[Any], int] | None = None


def plain(model: Any, pixels: Tensor) -> Any:
    """A pass at the size that the network was made for."""
    return model(pixel_values=pixels, output_hidden_states=True)


def stretched(model: Any, pixels: Tensor) -> Any:
    """For networks that learned a position per patch: stretched to another number of patches."""
    return model(pixel_values=pixels, output_hidden_states=True, interpolate_pos_encoding=True)


def patched(model: Any, pixels: Tensor) -> Any:
    """SigLIP 2 with any size (NaFlex): the picture comes as a list of its patches."""
    size = model.config.patch_size
    rows, columns = pixels.shape[-2] // size, pixels.shape[-1] // size
    pixels = pixels[..., : rows * size, : columns * size]
    patches_BYpXqC = pixels.unflatten(2, (rows, size)).unflatten(4, (columns, size))
    patches_BNP = patches_BYpXqC.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    return model(
        pixel_values=patches_BNP,
        pixel_attention_mask=torch.ones(patches_BNP.shape[:2], dtype=torch.int32, device=pixels.device),
        spatial_shapes=torch.tensor([[rows, columns]], device=pixels.device).expand(len(pixels), 2),
        output_hidden_states=True,
    )


def patch_map(model: Any, pixels: Tensor, hidden_BNH: Tensor) -> Tensor:
    """Patches follow the class and register tokens, row by row."""
    rows, columns = (length // model.config.patch_size for length in pixels.shape[-2:])
    found: Tensor = hidden_BNH[:, -rows * columns :].transpose(1, 2).unflatten(2, (rows, columns))
    return found


def is_map(model: Any, pixels: Tensor, hidden_BHhw: Tensor) -> Tensor:
    """Hidden states that are a map already."""
    return hidden_BHhw


def channels_last(model: Any, pixels: Tensor, hidden_BhwH: Tensor) -> Tensor:
    """A map (B, H, h, w) of one whose channels come last."""
    return hidden_BhwH.permute(0, 3, 1, 2)


def one_width(config: Any) -> Sequence[int]:
    """Widths of hidden states that all have the same."""
    return [config.hidden_size] * (config.num_hidden_layers + 1)


VIT = Backbone(stretched, patch_map, one_width)
FREE = Backbone(plain, patch_map, one_width)
BACKBONES: Mapping[str, Backbone] = {
    "vit": VIT,
    "clip_vision_model": VIT,
    "siglip_vision_model": VIT,
    "dinov2": FREE,
    "dinov2_with_registers": FREE,
    "dinov3_vit": FREE,
    "siglip2_vision_model": Backbone(patched, patch_map, one_width),
    "convnextv2": Backbone(plain, is_map, lambda config: [config.hidden_sizes[0], *config.hidden_sizes], last=-1),
    "sam_vision_model": Backbone(plain, channels_last, one_width, last=None, last_width=lambda c: c.output_channels),
}


class GridCheckpoint(CheckpointExpert):
    """``tokens`` = g x g cells of one hidden state, averaged; none is ever empty."""

    kind = "features"
    accepts = GridOptions
    settings: GridOptions
    networks: ClassVar[Mapping[str, Network]] = {
        "vit": Network("ViTModel", arguments={"add_pooling_layer": False}),
        "dinov2": Network("Dinov2Model"),
        "dinov2_with_registers": Network("Dinov2WithRegistersModel"),
        "dinov3_vit": Network("DINOv3ViTModel"),
        "convnextv2": Network("ConvNextV2Model"),
        "clip_vision_model": Network("CLIPVisionModel"),
        "siglip_vision_model": Network("SiglipVisionModel"),
        "siglip2_vision_model": Network("Siglip2VisionModel"),
        "sam_vision_model": Network("SamVisionModel", fixed=True),
    }
    tags: ClassVar[int] = 0
    """How many tokens come before the grid's."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        config: Any = self.model.config
        self.backbone = BACKBONES[config.model_type]
        side = grid_side(self.settings.tokens - self.tags)
        if side is None:
            more = f" and {self.tags} for the tags" if self.tags else ""
            raise AstreaError(
                f"tokens is {self.settings.tokens}, which is no square number{more}",
                f"use one such as {16 + self.tags}",
            )
        self.side = side
        widths = list(self.backbone.widths(config))
        self.layer = self.backbone.last if self.settings.layer is None else self.settings.layer
        if self.layer is not None and not -len(widths) <= self.layer < len(widths):
            raise AstreaError(
                f"layer is {self.layer}, the checkpoint has {len(widths)} hidden states",
                f"use one from {-len(widths)} to {len(widths) - 1}; 0 is the embeddings",
            )
        if self.layer is not None:
            self.hidden = widths[self.layer]
        else:
            self.hidden = self.backbone.last_width(config) if self.backbone.last_width else widths[-1]
        self.describe_tokens(side * side, (None,) * self.hidden, {"feature": (0, self.hidden)}, ("{feature}",))

    def network_output(self, pixels_B3SS: Tensor) -> tuple[Any, Tensor]:
        """What the network returns, and the cells (B, G, H) of the hidden state that is read."""
        pixels = self.inputs(pixels_B3SS)
        out = self.backbone.call(self.model, pixels)
        if self.layer is None:
            map_BHhw = out.last_hidden_state.float()
        else:
            map_BHhw = self.backbone.to_map(self.model, pixels, out.hidden_states[self.layer]).float()
        if min(map_BHhw.shape[-2:]) < self.side:
            raise AstreaError(
                f"a grid of {self.side} x {self.side} is finer than the map of {tuple(map_BHhw.shape[-2:])} it pools",
                "lower the option tokens, raise image_size, or read an earlier layer",
            )
        return out, F.adaptive_avg_pool2d(map_BHhw, self.side).flatten(2).transpose(1, 2)

    def places(self, like_BGH: Tensor) -> Tensor:
        """Where the cells lie in the picture: (B, G, 2)."""
        cells_G2 = self.preprocess.to_picture(grid_places(self.side, like_BGH))
        return cells_G2.expand(len(like_BGH), -1, -1)

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        cells_BGH = even(self.network_output(pixels_B3HW)[1])
        return ExpertFeatures(cells_BGH, cells_BGH.new_ones(cells_BGH.shape[:2]), self.places(cells_BGH))

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        """Where there is something of its own: cells that differ from the picture's mean more than the average cell.
        There are no words for what it is."""
        cells_BGH = self(pixels_B3HW).tokens
        odd_BG = (cells_BGH - cells_BGH.mean(1, keepdim=True)).norm(dim=-1)
        seen_BYX = (odd_BG > odd_BG.mean(1, keepdim=True)).view(-1, self.side, self.side)
        return [Reading(self.kind, mask=seen.long()) for seen in seen_BYX]
