"""What a model folder keeps beside the model to know which experts contradict the others, for `WordAgreement`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors.torch import save_file

from astrea.common.errors import AstreaError
from astrea.common.files import atomic_path
from astrea.common.paths import is_file
from astrea.common.weight_files import small_tensors
from astrea.experts.corruption_kinds import Labels
from astrea.experts.word_agreement import MOST_EXPERTS, Usual, WordAgreement

FILE = "agreement.safetensors"
MAX_BYTES = 16 << 20
HINT = "remove it: experts that the others contradict are then not left out"
PARTS = tuple(field.name for field in fields(Usual))


def save_agreement(agreement: WordAgreement, folder: Path) -> None:
    """Write `FILE` into a model folder.

    Raises:
        OSError: it cannot be written.
    """
    tensors = {f"{name}.{part}": getattr(usual, part) for name, usual in agreement.usual.items() for part in PARTS}
    with atomic_path(folder / FILE) as partial:
        save_file({name: tensor.float().contiguous() for name, tensor in tensors.items()}, partial)


def read_agreement(folder: Path, labels: Mapping[str, Labels]) -> WordAgreement | None:
    """What a model folder says about agreement, None where it says nothing.

    Args:
        labels: of the channels of the model's experts, in its order. Experts that the file does not know, because they
            were added later, are not judged.

    Raises:
        AstreaError: the file is damaged, or belongs to another model; names it.
    """
    path = folder / FILE
    if not is_file(path):
        return None
    tensors = small_tensors(path, MAX_BYTES, HINT)
    known = [name for name in labels if any(f"{name}.{part}" in tensors for part in PARTS)]
    unknown = set(tensors) - {f"{name}.{part}" for name in known for part in PARTS}
    if unknown or not 1 < len(known) <= MOST_EXPERTS:
        said = f"has {min(unknown)}, which this model has no use for" if unknown else f"is about {len(known)} experts"
        raise AstreaError(f"{path} {said}", HINT)
    usual = {}
    for name in known:
        own = {part: tensors.get(f"{name}.{part}") for part in PARTS}
        mean = own["mean"]
        count = 0 if mean is None or mean.ndim != 1 else len(mean)
        shapes = {"covariance": (count, count), "limits": (2 ** (len(known) - 1),)}
        for part, tensor in own.items():
            wanted = shapes.get(part, (count,))
            if tensor is None or tuple(tensor.shape) != wanted or tensor.dtype != torch.float32:
                raise AstreaError(f"{path}: {name}.{part} is missing, or not {wanted} numbers of float32", HINT)
            if not bool(tensor.isfinite().all()) or (part in ("spread", "limits") and not bool((tensor > 0).all())):
                raise AstreaError(f"{path}: {name}.{part} holds numbers out of range", HINT)
        usual[name] = Usual(**{part: tensor for part, tensor in own.items() if tensor is not None})
    return WordAgreement(labels, usual)
