"""Modules that are imported when they are first used, so that a command's help need not wait for torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


class LazyModule:
    """Stands for a module until one of its names is asked for. For type checkers, import the module itself beside it::

    if TYPE_CHECKING:
        from astrea.cli.actions import train as actions
    else:
        actions = LazyModule("astrea.cli.actions.train")
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        return getattr(importlib.import_module(self._name), attribute)


def load_object(path: str) -> Any:
    """What "module:name" names, imported now.

    Raises:
        ImportError, AttributeError, ValueError: there is no such module, or nothing of that name in it.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def lazy_names(package: str, where: Mapping[str, str]) -> Callable[[str], object]:
    """A module's ``__getattr__`` (PEP 562) for names that lie in other modules.

    Args:
        package: the module's own name. where: "module:name" of each of its names.
    """

    def find(name: str) -> object:
        # Not kept among the globals: `help(package)` would then show thousands of lines of the base classes' methods.
        if name in where:
            return load_object(where[name])
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
