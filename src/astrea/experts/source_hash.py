"""A hash of the code that an expert is made of."""

from __future__ import annotations

import ast
import hashlib
import inspect
from importlib.util import find_spec
from pathlib import Path

import transformers

from astrea.common.architecture import Network
from astrea.common.files import sha256_file
from astrea.common.paths import is_file, read_bytes
from astrea.experts.pretrained.base import CheckpointExpert
from astrea.experts.protocol import Expert

PACKAGED = "astrea.experts.packaged."
LONGEST = 1 << 20
"""Bytes of a module's text."""
OWN = ("astrea.experts.", "astrea.common.letterbox")
"""Modules in which an expert's code is; what else they import does not change what it sees."""


def source_hash(cls: type) -> str:
    """sha256 of the files that define an expert's class and what it inherits: an expert may change without any weight
    of it changing. Of one that holds a checkpoint, all that such experts are made of; of one whose weights come from a
    package, all that its module imports."""
    files = {inspect.getsourcefile(base) or "" for base in cls.__mro__ if issubclass(base, Expert)}
    versions = []
    if cls.__module__.startswith(PACKAGED):
        files |= imported_files(cls.__module__)
    if issubclass(cls, CheckpointExpert):
        files |= {str(path) for path in Path(inspect.getfile(CheckpointExpert)).parent.glob("*.py")}
        files.add(inspect.getfile(Network))
        versions.append(transformers.__version__)
    hashes = [sha256_file(Path(file)) for file in sorted(files) if is_file(Path(file))]  # none at a prompt
    return hashlib.sha256(" ".join([*hashes, *versions]).encode()).hexdigest()


def imported_files(module: str) -> set[str]:
    """The file of a module, and those of all modules of experts that it imports, wherever in its code."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or not name.startswith(OWN) or (file := file_of(name)) is None:
            continue
        found[name] = file
        for node in ast.walk(ast.parse(read_bytes(file, LONGEST))):
            if isinstance(node, ast.ImportFrom) and node.module:
                # Of ``from a.b import c``, c may be a module or a name in one.
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return set(found.values())


def file_of(name: str) -> str | None:
    """The file of a module; None where there is none of this name."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:  # what it would be in is no package
        return None
    return None if spec is None else spec.origin
