"""Finding expert classes by kind, building them, and keeping a set of them frozen side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from astrea.common.errors import AstreaError
from astrea.common.float32 import in_full
from astrea.common.letterbox import inner_box
from astrea.common.registry import Registry
from astrea.experts.names import wrong_with
from astrea.experts.packaged.kinds import PACKAGED
from astrea.experts.phrases import read_phrases
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.pretrained.kinds import CHECKPOINTS
from astrea.experts.protocol import Expert, ExpertFeatures, Reading

COMPACT: Mapping[str, str] = {
    "captioning": "astrea.world.experts.captioning:CaptioningExpert",
    "classification": "astrea.world.experts.classification:ClassificationExpert",
    "segmentation": "astrea.world.experts.segmentation:SegmentationExpert",
    "detection": "astrea.world.experts.detection:DetectionExpert",
}
"""The built-in compact experts, in the order in which they are aligned: nearest to language first."""

NAMED: Mapping[str, str] = {**COMPACT, "student": "astrea.world.experts.student:StudentExpert", **PACKAGED}
BUILT_IN = frozenset([*NAMED, *CHECKPOINTS])
"""Every kind that needs no import: the compact experts, the student that a run teaches itself (`Recipe.distill`), those
of packages, and what `experts.pretrained.entry` makes of a checkpoint."""

Originals = Sequence[Tensor]
"""Pictures as they are, (3, H, W) each: bytes, or shares in 0..1."""

EXPERTS = Registry("expert", NAMED, group="astrea.experts")


def expert_class(kind: str, *, allow_import: bool) -> type[Expert]:
    """The class of a kind: built in, registered under the ``astrea.experts`` entry points, or "module:Class".

    Args:
        allow_import: as in `Registry.find`.

    Raises:
        AstreaError: unknown kind (lists the known ones), an import that fails, or a class that is no `Expert` or
            declares what does not fit together.
    """
    if kind in CHECKPOINTS:
        return CHECKPOINTS[kind]
    found = EXPERTS.find(kind, allow_import=allow_import)
    if kind in NAMED:
        return found  # type: ignore[no-any-return]
    if not (isinstance(found, type) and issubclass(found, Expert)):
        raise AstreaError(f"expert {kind!r} is not a subclass of astrea.Expert", "derive it from astrea.Expert")
    declared = [getattr(found, name, None) for name in ("num_tokens", "width", "labels")]
    if None in declared or len(found.labels) != found.width:
        raise AstreaError(
            f"expert {kind!r} declares num_tokens={declared[0]}, width={declared[1]} and "
            f"{len(declared[2] or ())} labels",
            "set all three as class attributes, with one label (or None) per channel",
        )
    read_phrases(kind, found)
    missing = ", ".join(sorted(found.__abstractmethods__))
    if missing:
        raise AstreaError(f"expert {kind!r} does not define {missing}", "write the methods that astrea.Expert asks for")
    return found


def expert_specs(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, type[Expert] | Expert]:
    """What declares ``num_tokens``, ``width`` and ``labels`` of each expert, before any of them is built: an instance
    without memory, as options may change them, or of a kind of somebody else's its class."""
    found: dict[str, type[Expert] | Expert] = {}
    for name, entry in entries.items():
        if entry["kind"] in BUILT_IN:
            with torch.device("meta"):
                found[name] = ExpertBank({name: entry})[name]
        else:
            found[name] = expert_class(entry["kind"], allow_import=True)
    return found


class ExpertBank(nn.Module):
    """The experts of a model, always in evaluation mode, and frozen unless a stage lets them learn. Names are the
    recipe's."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]], *, allow_import: bool = False) -> None:
        super().__init__()
        self.experts = nn.ModuleDict()
        self.options = {name: dict(entry.get("options", {})) for name, entry in entries.items()}
        for name, entry in entries.items():
            if (why := wrong_with(name)) is not None:
                raise AstreaError(why, "rename it in the recipe")
            built = expert_class(entry["kind"], allow_import=allow_import)
            try:
                self.experts[name] = built(**self.options[name])
            except AstreaError as error:
                raise AstreaError(f"expert {name!r}: {error.message}", error.hint) from error
            except TypeError as error:
                raise AstreaError(f"expert {name!r}: {error}", "check the expert's options in the recipe") from error
            read_phrases(name, self[name])
        self.requires_grad_(False)
        self.eval()
        # Under this name transformers asks the parts of a model which of their tensors are to be saved only once.
        self.all_tied_weights_keys = shared_names(self)

    def train(self, mode: bool = True) -> ExpertBank:
        """Experts never leave evaluation mode: batch statistics must not drift while the rest learns."""
        return super().train(False)

    def __getitem__(self, name: str) -> Expert:
        return self.experts[name]  # type: ignore[return-value]

    @property
    def names(self) -> list[str]:
        """The experts' names, in order."""
        return list(self.experts)

    def use_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Let every expert know the language model's tokenizer."""
        for name in self.names:
            self[name].use_tokenizer(tokenizer)

    @property
    def wants_originals(self) -> bool:
        """Whether any expert reads pictures as they are."""
        return any(self.takes_original(name) for name in self.names)

    def takes_original(self, name: str) -> bool:
        """Whether an expert reads pictures as they are."""
        return self[name].picture == "original"

    def forward(
        self, pixels_B3HW: Tensor, names: Sequence[str] | None = None, originals: Originals | None = None
    ) -> dict[str, ExpertFeatures]:
        """The features of every expert, or of those named, checked against what each declares.

        Args:
            originals: the same pictures as they are, for experts that read those; None = they get the squares. Places
                are shares of the square in any case, so that those of different experts agree.
        """
        wanted = self.names if names is None else names
        return {name: checked(name, self[name], self.encode_with(name, pixels_B3HW, originals)) for name in wanted}

    def encode_with(self, name: str, pixels_B3HW: Tensor, originals: Originals | None = None) -> ExpertFeatures:
        """One expert's features, computed where the expert is, and brought to where the pictures are."""
        found: ExpertFeatures = self._run(name, pixels_B3HW, originals, "forward").map(
            lambda tensor: tensor.to(pixels_B3HW.device)
        )
        if originals is None or not self.takes_original(name) or found.places is None:
            return found
        boxes = [inner_box(*size_of(one), pixels_B3HW.shape[-1]) for one in originals]
        box_B14 = torch.tensor(boxes, device=pixels_B3HW.device).unsqueeze(1)
        return replace(found, places=box_B14[..., :2] + found.places * (box_B14[..., 2:] - box_B14[..., :2]))

    def _run(self, name: str, pixels_B3HW: Tensor, originals: Originals | None, method: str) -> Any:
        """A method of an expert on pictures, brought to its place and into a type that it computes in.

        Networks of checkpoints compute in the type that they are kept in, and so do those whose weights come from the
        disk as they are used; all others in float32.
        """
        expert = self[name]
        held = next(expert.parameters(), None)
        dtype = held.dtype if held is not None and held.is_meta else torch.float32
        place = self.place_of(name, pixels_B3HW)
        if self.takes_original(name):
            given = list(pixels_B3HW) if originals is None else as_shares(originals, len(pixels_B3HW))
            return getattr(expert, method)([one.to(place, torch.float32) for one in given])
        pixels = pixels_B3HW.to(place, dtype)
        if isinstance(expert, CheckpointExpert):
            return getattr(expert, "__call__" if method == "forward" else method)(pixels)
        return in_full(expert, pixels, method=None if method == "forward" else method, dtype=torch.float32)

    def place_of(self, name: str, pixels_B3HW: Tensor) -> torch.device:
        """Where an expert is; one without weights is wherever the pictures are."""
        return next(self[name].parameters(), pixels_B3HW).device

    def readings(
        self,
        pixels_B3HW: Tensor,
        originals: Originals | None = None,
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Reading]]:
        """Per picture, each expert's reading; people look at it, so masks are on the processor.

        Args:
            originals: as in `forward`. sizes: width and height of each picture before it was fitted into the square:
                boxes and masks are then those of the picture. None = they are those of the square.
        """
        columns = {name: self._run(name, pixels_B3HW, originals, "readings") for name in self.names}
        found = [
            {name: column[row].on_processor() for name, column in columns.items()} for row in range(len(pixels_B3HW))
        ]
        if sizes is None:
            return found
        whole = {name for name in self.names if originals is not None and self.takes_original(name)}
        boxes = [inner_box(width, height, pixels_B3HW.shape[-1]) for width, height in sizes]
        return [
            {name: reading if name in whole else reading.within(box) for name, reading in one.items()}
            for one, box in zip(found, boxes, strict=True)
        ]


def size_of(original_3HW: Tensor) -> tuple[int, int]:
    """Width and height of a picture."""
    return original_3HW.shape[2], original_3HW.shape[1]


def as_shares(originals: Originals, count: int) -> list[Tensor]:
    """Pictures (3, H, W) in 0..1, from bytes or from what is that already.

    Raises:
        AstreaError: they are not as many as the squares, or no pictures.
    """
    if len(originals) != count or any(one.ndim != 3 or one.shape[0] != 3 for one in originals):
        shapes = ", ".join(str(tuple(one.shape)) for one in list(originals)[:4])
        raise AstreaError(
            f"{count} squares come with {len(originals)} original pictures ({shapes})", "give one (3, H, W) for each"
        )
    return [one if one.is_floating_point() else one.float() / 255 for one in originals]


def shared_names(module: nn.Module) -> dict[str, str]:
    """Further names of tensors that a module holds under several: name -> the one that stands for it.

    Networks of transformers say themselves which of theirs are shared, also while they are still being loaded and
    nothing is shared yet; for all others it shows.
    """
    found: dict[str, str] = {}
    for place, part in module.named_modules():
        if isinstance(part, PreTrainedModel):
            found |= {f"{place}.{k}": f"{place}.{v}" for k, v in part.all_tied_weights_keys.items()}
    stands: dict[int, str] = {}
    held = module.state_dict(keep_vars=True)
    stands |= {id(held[name]): name for name in found.values() if name in held}
    for name, tensor in held.items():
        if name not in found and (one := stands.setdefault(id(tensor), name)) != name:
            found[name] = one
    return found


def checked(name: str, expert: Expert, features: ExpertFeatures) -> ExpertFeatures:
    """Features as they came, if their shape is what the expert declares; otherwise an error that says both."""
    wanted, got = (expert.num_tokens, expert.width), tuple(features.tokens.shape[1:])
    if got != wanted or features.confidence.shape != features.tokens.shape[:2]:
        raise AstreaError(
            f"expert {name!r} declares {wanted[0]} tokens of width {wanted[1]} but returned tokens "
            f"{tuple(features.tokens.shape)} with confidence {tuple(features.confidence.shape)}",
            "set num_tokens and width to what forward returns",
        )
    if features.places is not None and features.places.shape != (*features.confidence.shape, 2):
        raise AstreaError(
            f"expert {name!r} returned places {tuple(features.places.shape)} for {got[0]} tokens",
            "places are x and y of every token, (B, T, 2), or None",
        )
    return features
