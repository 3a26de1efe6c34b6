"""A hash of the code that an expert is made of."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path

import transformers

from astrea.common.architecture import Network
from astrea.common.files import sha256_file
from astrea.common.paths import is_file
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.protocol import Expert


def source_hash(cls: type) -> str:
    """sha256 of the files that define an expert's class and what it inherits: an expert may change without any weight
    of it changing. Of one that holds a checkpoint, or comes from a package, all that such experts are made of."""
    files = {inspect.getsourcefile(base) or "" for base in cls.__mro__ if issubclass(base, Expert)}
    versions = []
    if cls.__module__.startswith("astrea.experts.packaged."):
        files |= {str(path) for path in Path(inspect.getfile(cls)).parent.glob("*.py")}
    if issubclass(cls, CheckpointExpert):
        files |= {str(path) for path in Path(inspect.getfile(CheckpointExpert)).parent.glob("*.py")}
        files.add(inspect.getfile(Network))
        versions.append(transformers.__version__)
    hashes = [sha256_file(Path(file)) for file in sorted(files) if is_file(Path(file))]  # none at a prompt
    return hashlib.sha256(" ".join([*hashes, *versions]).encode()).hexdigest()
