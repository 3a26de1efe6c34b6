"""What a model folder keeps beside the model to know when to doubt: what is familiar, and how sure to be.

Letters: B answers, E experts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path
from astrea.common.paths import is_file
from astrea.common.weight_files import small_tensors
from astrea.confidence.calibration import Calibration
from astrea.confidence.familiarity import Familiar
from astrea.confidence.signals import SIGNS, Signs

FILE = "doubt.safetensors"
MAX_BYTES = 64 << 20
HINT = "remove it: answers then come without a calibrated confidence"
CALIBRATION = "calibration"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How far one answer is to be believed.

    confidence: probability that it is right, 0..1, or None where that was never measured. answerable: whether the
    answer is to be given at all. doubts: what speaks against it, in words.
    """

    confidence: float | None
    answerable: bool
    doubts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConfidenceEstimator:
    """familiar: by expert. calibration: None where no answers with a known truth have been measured."""

    familiar: Mapping[str, Familiar]
    calibration: Calibration | None = None

    def judge(self, signs: Signs, unknown: Sequence[Sequence[str]], names: Sequence[str]) -> list[Verdict]:
        """One verdict for each answer.

        Args:
            unknown: of each question, the words that the tokenizer does not know. names: the experts, in the order of
                ``signs.reliable``.
        """
        measured = [name for name in names if name in self.familiar]
        known = None if self.calibration is None else self.calibration.right(signs).tolist()
        verdicts = []
        for row, words in enumerate(unknown):
            strange = [name for name, far in zip(measured, signs.strange[row].tolist(), strict=True) if far > 0]
            odd = [name for name, good in zip(names, signs.reliable[row].tolist(), strict=True) if not good]
            refused = bool(signs.refused[row])
            if known is None or self.calibration is None:
                confidence, answerable = None, not (refused or strange)
            else:
                confidence = known[row]
                answerable = not refused and confidence >= float(self.calibration.threshold)
            verdicts.append(Verdict(confidence, answerable, doubts(words, strange, odd, refused, answerable)))
        return verdicts


def doubts(
    words: Sequence[str], strange: Sequence[str], odd: Sequence[str], refused: bool, answerable: bool
) -> tuple[str, ...]:
    """What speaks against an answer, the weightiest first."""
    found = []
    if strange:
        found.append(f"this picture is unlike what I was trained on ({', '.join(strange)})")
    if words:
        found.append(f"I do not know the {'word' if len(words) == 1 else 'words'} {', '.join(map(repr, words))}")
    if odd:
        found.append(f"what {' and '.join(odd)} saw does not fit what the others saw")
    if refused:
        found.append("the picture does not say")
    elif not answerable and not found:
        found.append("my answers to questions like this one are often wrong")
    return tuple(found)


def save_estimator(estimator: ConfidenceEstimator, folder: Path) -> None:
    """Write `FILE` into a model folder.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"familiar.{n}.{key}": t for n, part in estimator.familiar.items() for key, t in part.tensors().items()}
    if estimator.calibration is not None:
        tensors |= {f"{CALIBRATION}.{key}": t for key, t in estimator.calibration.tensors().items()}
    with atomic_path(folder / FILE) as partial:
        save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, partial)


def read_estimator(folder: Path, widths: Mapping[str, int]) -> ConfidenceEstimator | None:
    """What a model folder says about doubt, None where it says nothing.

    Args:
        widths: of the model's experts, by name.

    Raises:
        AstreaError: the file is damaged, or belongs to another model; names it.
    """
    path = folder / FILE
    if not is_file(path):
        return None
    tensors = small_tensors(path, MAX_BYTES, HINT)
    familiar = {}
    for name, width in widths.items():
        own = {key: tensors.pop(f"familiar.{name}.{key}", None) for key in Familiar.__dataclass_fields__}
        if any(tensor is not None for tensor in own.values()):
            numbers = 2 * width + 4
            axes = own["axes"].shape[0] if own["axes"] is not None and own["axes"].ndim else 0
            shapes = {"mean": (numbers,), "spread": (numbers,), "axes": (axes, numbers), "variance": (axes,)}
            familiar[name] = Familiar(**checked(path, own, shapes))
    calibration = None
    own = {key: tensors.pop(f"{CALIBRATION}.{key}", None) for key in Calibration.__dataclass_fields__}
    if any(tensor is not None for tensor in own.values()):
        signs = len(SIGNS)
        shapes = {"mean": (signs,), "spread": (signs,), "weights": (2, signs), "bias": (2,)}
        calibration = Calibration(**checked(path, own, shapes))
    if tensors:
        raise AstreaError(f"{path} has {min(tensors)}, which this model has no use for", HINT)
    return ConfidenceEstimator(familiar, calibration)


def checked(path: Path, own: Mapping[str, Tensor | None], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors, if all are there, finite and of these shapes (of others: a single number), and no scale is 0."""
    for name, tensor in own.items():
        wanted = shapes.get(name, ())
        if tensor is None or tuple(tensor.shape) != wanted or tensor.dtype != torch.float32:
            raise AstreaError(f"{path}: {name} is missing, or not {wanted} numbers of float32", HINT)
        scale = name in ("spread", "variance", "rest", "limit")
        if not bool(tensor.isfinite().all()) or (scale and not math.prod(wanted) == 0 and float(tensor.min()) <= 0):
            raise AstreaError(f"{path}: {name} holds numbers out of range", HINT)
    return {name: tensor for name, tensor in own.items() if tensor is not None}
