"""The interface of experts: a module that turns pixels into tokens in its own native form.

Letters: B batch, T tokens of this expert, C width of one token, H W picture height and width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from astrea.common.letterbox import Box

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class ExpertFeatures:
    """Features of one expert.

    tokens: (B, T, C) native task output, soft (probabilities, not argmax).
    confidence: (B, T) in 0..1; exactly 0 marks an empty slot, which nothing downstream reads.
    places: (B, T, 2) where each token is, x and y as fractions of the picture, or None where tokens have no place.
    """

    tokens: Tensor
    confidence: Tensor
    places: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> ExpertFeatures:
        """The same change to every tensor, such as picking or repeating samples."""
        return ExpertFeatures(
            change(self.tokens), change(self.confidence), None if self.places is None else change(self.places)
        )

    def rows(self, index: Tensor | slice) -> ExpertFeatures:
        """The features of some samples of the batch."""
        return self.map(lambda tensor: tensor[index])

    @staticmethod
    def cat(parts: Sequence[ExpertFeatures]) -> ExpertFeatures:
        """Batches one after another."""
        places = [part.places for part in parts if part.places is not None]
        return ExpertFeatures(
            torch.cat([part.tokens for part in parts]),
            torch.cat([part.confidence for part in parts]),
            torch.cat(places) if places else None,
        )


def index_select(features: Mapping[str, ExpertFeatures], index: Tensor | slice) -> dict[str, ExpertFeatures]:
    """Every expert's features of some pictures."""
    return {name: part.rows(index) for name, part in features.items()}


@dataclass(frozen=True, slots=True)
class Reading:
    """An expert's output for one picture, in a form for people.

    boxes: (x0, y0, x1, y1) as shares of the picture's width and height, 0..1.
    labels, scores: one per box; or free-standing tags if there are no boxes.
    mask: (H, W) long, 0 = background, i + 1 = region i, or None.
    caption: a sentence, or "".
    """

    expert: str
    boxes: list[Box] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    mask: Tensor | None = None
    caption: str = ""

    def on_processor(self) -> Reading:
        """The same with its mask on the CPU, for drawing."""
        return self if self.mask is None else replace(self, mask=self.mask.cpu())

    def within(self, box: Box) -> Reading:
        """The same for the part of the picture in a box: what was read in a square, told of what lies in its middle."""
        x0, y0, x1, y1 = box
        wide, high = x1 - x0, y1 - y0

        def inside(found: Box) -> Box:
            left, top, right, bottom = found
            shares = ((left - x0) / wide, (top - y0) / high, (right - x0) / wide, (bottom - y0) / high)
            return tuple(min(1.0, max(0.0, share)) for share in shares)  # type: ignore[return-value]

        mask = self.mask
        if mask is not None:
            height, width = mask.shape
            mask = mask[
                round(y0 * height) : max(round(y0 * height) + 1, round(y1 * height)),
                round(x0 * width) : max(round(x0 * width) + 1, round(x1 * width)),
            ]
        return replace(self, boxes=[inside(found) for found in self.boxes], mask=mask)

    def as_dict(self) -> dict[str, object]:
        """JSON-able form; the mask is left out (it is for drawing)."""
        return {
            "boxes": [[round(v, 3) for v in box] for box in self.boxes],
            "labels": self.labels,
            "scores": [round(s, 3) for s in self.scores],
            "caption": self.caption,
        }


class Expert(nn.Module, ABC):
    """A vision expert. Subclass it, set ``num_tokens``, ``width`` and ``labels``, write `forward` and `readings`.

    Attributes:
        num_tokens: how many tokens `forward` returns per picture; asserted at every call of the expert matrix.
        width: channels per token.
        labels: one word or phrase per channel, or None where a channel has no name. Where channels have names,
            the adapter starts as the weighted mixture of the language model's embeddings of those names.
        slots: groups of channels that stand in phrases: name -> the first channel and the one behind the last.
        phrases: how a finding is written for the language model, in words and slots; see `astrea.experts.phrases`.
        multi_label: slots of which any number of names may hold at once; their channels are probabilities, each for
            itself.
        picture: what `forward` and `readings` are given: "square", pictures fitted into one square (B, 3, H, W), or
            "original", a list of B pictures (3, H, W), each of its own size, as they are. Places and boxes are shares
            of what is given. Where only squares are at hand, the list holds those.
    """

    num_tokens: int
    width: int
    labels: tuple[str | None, ...]
    slots: Mapping[str, tuple[int, int]] = {}
    phrases: tuple[str, ...] = ()
    multi_label: tuple[str, ...] = ()
    picture: Literal["square", "original"] = "square"

    @classmethod
    def kept_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """What a model's configuration keeps of a recipe's options; by default the same. An expert may add what it must
        know of its weights in order to be built without them.

        Raises:
            AstreaError: the weights are not installed.
        """
        return dict(options)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Called with the language model's tokenizer when a model is assembled or loaded: for experts whose slot
        ``text`` holds ids of its word pieces. By default nothing happens."""

    @abstractmethod
    def forward(self, pixels_B3HW: Tensor) -> ExpertFeatures:
        """Features of pictures (B, 3, H, W) with values in 0..1."""

    @abstractmethod
    def readings(self, pixels_B3HW: Tensor) -> list[Reading]:
        """The output in a form for people, one `Reading` per picture."""


def soft_bins(value: Tensor, bins: int) -> Tensor:
    """Two-hot code of values in 0..1: (..., ) -> (..., bins), linear between the two nearest bin centres.

    `from_bins` inverts it exactly, so a coordinate loses nothing when it is written as a mixture of words.
    """
    position = value.clamp(0, 1) * (bins - 1)
    centres = torch.arange(bins, device=value.device, dtype=value.dtype)
    return (1 - (position.unsqueeze(-1) - centres).abs()).clamp_min(0)


def from_bins(code: Tensor) -> Tensor:
    """Inverse of `soft_bins`: (..., bins) -> (...,)."""
    bins = code.shape[-1]
    centres = torch.linspace(0, 1, bins, device=code.device, dtype=code.dtype)
    return (code * centres).sum(-1)


def bin_labels(prefix: str, bins: int) -> tuple[str, ...]:
    """Names of coordinate bins, such as ``x0 .. x15``."""
    return tuple(f"{prefix}{i}" for i in range(bins))


PLACE_WORDS = ("left", "right", "above", "below")


def place_words(centre_BT2: Tensor) -> Tensor:
    """How far a place (x, y as fractions of the picture) is to each side of the centre, in the order of `PLACE_WORDS`:
    (B, T, 2) -> (B, T, 4) in 0..1. Words, because questions about places use them."""
    x, y = (2 * centre_BT2 - 1).unbind(-1)
    return torch.stack([-x, x, -y, y], -1).clamp(0, 1)


ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
"""Names of a token's rank, in a caption or from left to right."""


def left_to_right(confidence_BT: Tensor, x_BT: Tensor) -> Tensor:
    """The order (B, T) that puts slots from left to right, empty ones last. It gives slots a rank."""
    return torch.where(confidence_BT > 0, x_BT, 2.0).argsort(dim=1, stable=True)


def in_order(values: Tensor, order_BT: Tensor) -> Tensor:
    """(B, T, ...) values, slots rearranged."""
    index = order_BT.view(*order_BT.shape, *[1] * (values.ndim - 2)).expand_as(values)
    return values.gather(1, index)


def ranks(confidence_BT: Tensor) -> Tensor:
    """One-hot rank of every filled slot: (B, T) -> (B, T, T)."""
    filled = confidence_BT > 0
    return torch.eye(filled.shape[1], device=filled.device).expand(len(filled), -1, -1) * filled.unsqueeze(-1)


def concat_features(parts: Sequence[Mapping[str, ExpertFeatures]]) -> dict[str, ExpertFeatures]:
    """Features of several lots of pictures, one lot after another."""
    return {name: ExpertFeatures.cat([part[name] for part in parts]) for name in parts[0]}
