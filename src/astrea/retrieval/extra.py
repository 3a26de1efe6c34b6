"""The library of the optional extra ``index``."""

from __future__ import annotations

from types import ModuleType

from astrea.common.installation import import_extra


def index_library(name: str) -> ModuleType:
    """The module ``name`` (faiss).

    Raises:
        AstreaError: it is not installed.
    """
    return import_extra(name, "index", "an index", "without it astrea retrieve searches a plain folder of pictures")
