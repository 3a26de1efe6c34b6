"""The libraries of the optional extra ``astrea[index]``."""

from __future__ import annotations

import importlib
from types import ModuleType

from astrea.errors import AstreaError


def index_library(name: str) -> ModuleType:
    """The module ``name`` (faiss or filelock).

    Raises:
        AstreaError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AstreaError(
            f"an index needs the library {name}, which is not there ({error})",
            'pip install "astrea[index]"; without it astrea retrieve searches a plain folder of pictures',
        ) from error
