"""Detection from checkpoints: the best object slots of DETR, RT-DETR v2, D-FINE, YOLOS and Grounding DINO.

All of them give a fixed number of queries with class logits and a box; they differ in how logits become probabilities.

Letters: B batch, Q queries, K classes or phrases, T slots kept, L length of the phrases' text, H hidden width,
S side of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from astrea.common.architecture import Network
from astrea.common.errors import AstreaError
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.options import DetectionOptions
from astrea.experts.pretrained.slots import (
    PLACED,
    Labels,
    box_labels,
    box_order,
    box_tokens,
    called,
    class_names,
    placed_slots,
    with_slots,
)
from astrea.experts.protocol import ExpertFeatures, Reading, in_order


def against_nothing(logits_BQK: Tensor) -> Tensor:
    """The last class is "no object" (DETR, arXiv 2005.12872)."""
    return logits_BQK.softmax(-1)[..., :-1]


def each_by_itself(logits_BQK: Tensor) -> Tensor:
    """Every class has a belief of its own (focal loss)."""
    return logits_BQK.sigmoid()


OPEN = "grounding-dino"
CLASSES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "detr": against_nothing,
    "yolos": against_nothing,
    "rt_detr": each_by_itself,
    "rt_detr_v2": each_by_itself,
    "d_fine": each_by_itself,
    OPEN: each_by_itself,
}
"""From a family's logits to probabilities (B, Q, K); Grounding DINO's are per piece of the text."""


class DetectionCheckpoint(CheckpointExpert):
    """The best ``tokens`` boxes: class probabilities, box in soft bins, confidence, the query's hidden state."""

    kind = "detection"
    accepts = DetectionOptions
    settings: DetectionOptions
    networks: ClassVar[Mapping[str, Network]] = {
        "detr": Network("DetrForObjectDetection"),
        "rt_detr": Network("RTDetrForObjectDetection", step=32, untied=True),
        "rt_detr_v2": Network("RTDetrV2ForObjectDetection", step=32, untied=True),
        "d_fine": Network("DFineForObjectDetection", step=32, untied=True),
        "yolos": Network("YolosForObjectDetection", step=16),
        OPEN: Network("GroundingDinoForObjectDetection", untied=True),
    }

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        config: Any = self.model.config
        self.open = config.model_type == OPEN
        chosen = self.settings
        if self.open != bool(chosen.phrases) or len(chosen.spans) != len(chosen.phrases):
            wanted = "needs" if self.open else "has classes of its own and takes no"
            raise AstreaError(
                f"the {config.model_type} {wanted} phrases", "phrases: [cat, dog] is an option of open vocabularies"
            )
        # Not config.max_text_len: a text shorter than that is padded with beliefs of exactly 0.
        if any(not start < stop <= len(chosen.prompt_ids) for start, stop in chosen.spans):
            raise AstreaError("the phrases' spans do not fit their text", "let the recipe give the phrases only")
        names: Labels = chosen.phrases if self.open else class_names(config.id2label, config.num_labels)
        self.class_names = names
        queries = getattr(config, "num_queries", None) or config.num_detection_tokens
        if chosen.tokens > queries:
            raise AstreaError(f"tokens: {chosen.tokens}, the checkpoint has {queries} queries", "ask for fewer")
        hidden = getattr(config, "d_model", config.hidden_size)
        labels = box_labels(names, self.kind, chosen.tokens, hidden)
        slots = placed_slots(labels, names, hidden)
        self.describe_tokens(chosen.tokens, labels, slots, with_slots(PLACED, slots))

    def encode(self, pixels_B3SS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All queries: probabilities (B, Q, K), boxes (B, Q, 4) as corners in shares of the picture, hidden states."""
        pixels = self.inputs(pixels_B3SS)
        if self.open:
            text_L = torch.tensor(self.settings.prompt_ids, device=pixels.device)
            out = self.model(pixel_values=pixels, input_ids=text_L.expand(len(pixels), -1))
        else:
            out = self.model(pixel_values=pixels)
        probability = CLASSES[self.model.config.model_type](out.logits.float())
        if self.open:
            # As strong as the strongest of a phrase's pieces, which is what transformers' thresholds mean too.
            probability = torch.stack([probability[..., a:b].amax(-1) for a, b in self.settings.spans], -1)
        queries = probability.shape[1]
        centre, half = out.pred_boxes.float()[..., :2], out.pred_boxes.float()[..., 2:] / 2
        corners = torch.stack([centre - half, centre + half], -2).clamp(0, 1)
        boxes = self.preprocess.to_picture(corners).flatten(-2)
        # YOLOS hands out the picture's own tokens too; its queries are the last ones.
        return probability, boxes, out.last_hidden_state[:, -queries:]

    def best(self, pixels_B3SS: Tensor) -> tuple[ExpertFeatures, Tensor]:
        """The best queries as tokens, left to right, and their boxes (B, T, 4) in the same order."""
        probability_BQK, box_BQ4, hidden_BQH = self.encode(pixels_B3SS)
        score_BT, best_BT = probability_BQK.amax(-1).topk(self.num_tokens, 1)
        probability_BTK, box_BT4, hidden_BTH = (
            values.gather(1, best_BT.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
            for values in (probability_BQK, box_BQ4, hidden_BQH)
        )
        sure_BT = torch.where(score_BT > self.settings.threshold, score_BT, 0)
        features = box_tokens(probability_BTK, box_BT4, sure_BT, hidden_BTH)
        return features, in_order(box_BT4, box_order(box_BT4, sure_BT))

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        return self.best(pixels_B3HW)[0]

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        features, boxes = self.best(pixels_B3HW)
        found = []
        for row in range(len(boxes)):
            keep = features.confidence[row] > 0
            classes = features.tokens[row, keep, : len(self.class_names)].argmax(-1).tolist()
            found.append(
                Reading(
                    self.kind,
                    boxes=[(box[0], box[1], box[2], box[3]) for box in boxes[row, keep].tolist()],
                    labels=[called(self.class_names[index], index) for index in classes],
                    scores=features.confidence[row, keep].tolist(),
                )
            )
        return found
