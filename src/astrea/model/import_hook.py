"""Registering Astrea with transformers when transformers is imported, however late that is.

Importing both libraries takes seconds, which ``astrea --help`` should not. So ``import astrea`` imports neither, and
leaves a hook in ``sys.meta_path`` that calls `astrea.model.registration` as soon as transformers is there, and then
goes.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]
LIBRARY = "transformers"


def register_when_imported() -> None:
    """Register now if transformers is imported already, otherwise when it will be. Calling it again changes nothing."""
    if any(isinstance(finder, _Watch) for finder in sys.meta_path):
        return
    if LIBRARY in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Watch())


def _register() -> None:
    importlib.import_module(f"{PACKAGE}.model.registration").register()


class _Watch(MetaPathFinder):
    """Sees imports of transformers and of this package's modules.

    Registering imports much of both, so it has to wait until no module of either is half-done: for the end of the
    outermost of these imports.
    """

    def __init__(self) -> None:
        self.under_way = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that the other finders have, with a loader that tells when the module is done."""
        if fullname != LIBRARY and not fullname.startswith(f"{PACKAGE}."):
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Telling(spec.loader, self)
                return spec
        return None

    def begin(self) -> None:
        self.under_way.depth = getattr(self.under_way, "depth", 0) + 1

    def end(self, completed: bool) -> None:
        self.under_way.depth -= 1
        if completed and not self.under_way.depth and LIBRARY in sys.modules and self in sys.meta_path:
            sys.meta_path.remove(self)
            _register()


class _Telling(Loader):
    """A module's own loader, and a word to the watch before and after. The module keeps its own loader for ever."""

    def __init__(self, loader: Any, watch: _Watch) -> None:
        self.loader, self.watch = loader, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader has it."""
        found: ModuleType | None = self.loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        """As the module's own loader has it, and registering after it if nothing else is under way."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.watch.begin()
        completed = False
        try:
            self.loader.exec_module(module)
            completed = True
            parent, _, name = module.__name__.rpartition(".")
            if parent:  # as the import system does a moment later, but what registers may look for it now
                setattr(sys.modules[parent], name, module)
        finally:
            self.watch.end(completed)
