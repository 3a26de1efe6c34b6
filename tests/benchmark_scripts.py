"""Benchmarks are scripts, not a package: how tests get at them."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

from repository import BENCHMARKS


def benchmark_script(name: str) -> ModuleType:
    """``benchmarks/NAME.py`` as a fresh module."""
    spec = importlib.util.spec_from_file_location(f"{name}_benchmark", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    if str(BENCHMARKS) not in sys.path:  # where a script that is run finds its neighbours
        sys.path.append(str(BENCHMARKS))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their module up
    spec.loader.exec_module(module)
    return module
