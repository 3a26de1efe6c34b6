"""Classification from checkpoints: soft tags of the whole picture and features on a grid.

Tags come from a trained head (ViT, DINOv2, ConvNeXt V2, SigLIP), or from phrases that CLIP or SigLIP compares with the
picture. The text tower is asked once, when the weights are loaded; what it said of each phrase is kept as a buffer.

Letters: B batch, K classes or phrases, G cells of the grid, H hidden width, P width of the shared space, S side of the
picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.architecture import Network
from astrea.common.errors import AstreaError
from astrea.experts.pretrained.grid import GridCheckpoint
from astrea.experts.pretrained.options import TagOptions
from astrea.experts.pretrained.slots import Labels, called, class_names, even, keep_top, with_slots
from astrea.experts.protocol import ExpertFeatures, Reading

LEAST = 0.01
"""Confidence of tags that say next to nothing. Never 0: that no tag fits is a statement, too."""


def one_of_them(logits_BK: Tensor) -> Tensor:
    """Probabilities of classes that exclude each other."""
    return logits_BK.softmax(-1)


def each_by_itself(logits_BK: Tensor) -> Tensor:
    """Probabilities of classes each of which may be there."""
    return logits_BK.sigmoid()


class TagCheckpoint(GridCheckpoint):
    """One token of soft tags, and g x g tokens of features.

    The tags' token holds the ``top`` likeliest tags and the mean feature; it has no place. Confidence is the likeliest
    tag's probability.
    """

    kind = "classification"
    accepts = TagOptions
    settings: TagOptions
    tags = 1
    networks: ClassVar[Mapping[str, Network]] = {
        "vit": Network("ViTForImageClassification"),
        "dinov2": Network("Dinov2ForImageClassification"),
        "dinov2_with_registers": Network("Dinov2WithRegistersForImageClassification"),
        "convnextv2": Network("ConvNextV2ForImageClassification"),
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.settings.layer is None:
            self.layer = -1  # what the head reads
            self.hidden = list(self.backbone.widths(self.model.config))[-1]
        self.class_names = self.names()
        labels: Labels = (*self.class_names, "sure", self.kind, *([None] * self.hidden))
        slots = {"feature": (len(labels) - self.hidden, len(labels))}
        if any(self.class_names):
            slots["thing"] = (0, len(self.class_names))
        # Cells have no tags, so their second phrase is not read.
        phrases = with_slots(("{feature}", "{thing} ;"), slots)
        self.describe_tokens(1 + self.side * self.side, labels, slots, phrases)

    def names(self) -> Labels:
        """What each tag is called.

        Raises:
            AstreaError: phrases were given to a network that has classes of its own.
        """
        config: Any = self.model.config
        if self.settings.phrases:
            raise AstreaError(
                f"the {config.model_type} has classes of its own and takes no phrases",
                "phrases: [cat, dog] is an option of CLIP and SigLIP",
            )
        return class_names(config.id2label, config.num_labels)

    def probabilities(self, out: Any) -> Tensor:
        """The tags (B, K), from what the network returned."""
        several = getattr(self.model.config, "problem_type", None) == "multi_label_classification"
        return (each_by_itself if several else one_of_them)(out.logits.float())

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        out, cells_BGH = self.network_output(pixels_B3HW)
        tags_BK = keep_top(self.probabilities(out), self.settings.top)
        cells_BGH = torch.cat([cells_BGH.mean(1, keepdim=True), cells_BGH], 1)
        sure_BT = F.pad(tags_BK.amax(1, keepdim=True).clamp_min(LEAST), (0, self.side**2), value=1.0)
        tags_BTK = F.pad(tags_BK.unsqueeze(1), (0, 0, 0, self.side**2))
        named_BT2 = torch.stack([sure_BT, torch.ones_like(sure_BT)], -1)
        places_BT2 = F.pad(self.places(cells_BGH), (0, 0, 1, 0), value=float("nan"))
        return ExpertFeatures(torch.cat([tags_BTK, named_BT2, even(cells_BGH)], -1), sure_BT, places_BT2)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        found = []
        for tags_K in self(pixels_B3HW).tokens[:, 0, : len(self.class_names)]:
            score, index = tags_K.topk(min(self.settings.top, len(tags_K)))
            keep = [(s, i) for s, i in zip(score.tolist(), index.tolist(), strict=True) if s > LEAST]
            labels = [called(self.class_names[i], i) for _, i in keep]
            found.append(Reading(self.kind, labels=labels, scores=[s for s, _ in keep]))
        return found


COMPARED: Mapping[str, tuple[Callable[[Any], Tensor], Callable[[Tensor], Tensor], Callable[[Any], int]]] = {
    "clip_vision_model": (lambda out: out.image_embeds, one_of_them, lambda config: config.projection_dim),
    "siglip_vision_model": (lambda out: out.pooler_output, each_by_itself, lambda config: config.hidden_size),
    "siglip2_vision_model": (lambda out: out.pooler_output, each_by_itself, lambda config: config.hidden_size),
}
"""Per family: the picture's vector, from logits to probabilities, and P."""


class ZeroShotCheckpoint(TagCheckpoint):
    """Tags are phrases: ``probability = f(scale * cos(picture, phrase) + bias)`` (CLIP, arXiv 2103.00020: f is a
    softmax and bias 0; SigLIP, arXiv 2303.15343: f is a sigmoid)."""

    networks: ClassVar[Mapping[str, Network]] = {
        "clip_vision_model": Network("CLIPVisionModelWithProjection"),
        "siglip_vision_model": Network("SiglipVisionModel"),
        "siglip2_vision_model": Network("Siglip2VisionModel"),
    }

    phrases_KP: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.picture_vector, self.belief, width_of = COMPARED[self.model.config.model_type]
        self.register_buffer("phrases_KP", torch.zeros(len(self.settings.phrases), width_of(self.model.config)))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("bias", torch.zeros(()))

    def names(self) -> Labels:
        if not self.settings.phrases:
            raise AstreaError("there is nothing to compare a picture with", "give the option phrases: [cat, dog]")
        return self.settings.phrases

    def probabilities(self, out: Any) -> Tensor:
        picture_BP = F.normalize(self.picture_vector(out).float(), dim=-1)
        return self.belief(picture_BP @ self.phrases_KP.float().T * self.scale.float() + self.bias.float())
