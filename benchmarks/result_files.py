"""Reading and writing result files of benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from astrea.common.files import write_json_atomic


def read_results(path: Path) -> dict[str, Any]:
    """What a result file holds; nothing where there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return found


def write_results(path: Path, results: Mapping[str, Any]) -> dict[str, Any]:
    """Write a result file, its folder with it, and say where; returns what reading it would."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json_atomic(path, results)
    print(f"results: {path}")
    found: dict[str, Any] = json.loads(json.dumps(results))
    return found
