"""Does the wheel work with the newest and with the oldest release of every library that it allows?

    python .ci/compat.py [--only newest|oldest] [--folder .compat] [--torch "torch==2.13.0"]

Builds the wheel, makes an environment for each end of the ranges of ``pyproject.toml`` (without constraints), installs
the wheel there and runs ``compat_check.py`` from an empty folder. Prints a table; ends with status 1 if a step failed.
torch is installed first, by the line that is given: its builds for processors are not on the package index. Of torch
itself the lowest allowed release is tried only where it is asked for.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-warn-script-location"]


def lowest(requirement: str) -> str:
    """``name==floor`` of a requirement ``name>=floor``, with whatever other bounds behind it."""
    found = re.match(r"([A-Za-z0-9._-]+)\s*>=\s*([0-9][0-9.]*)", requirement)
    if found is None:
        raise SystemExit(f"pyproject.toml: {requirement!r} has no lower bound")
    return f"{found[1]}=={found[2]}"


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))}\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout


def environment(folder: Path, torch: str, pins: list[str], wheel: Path) -> Path:
    """A new environment with the wheel; returns its Python."""
    run(sys.executable, "-m", "venv", "--clear", folder)
    python = folder / "bin" / "python"
    run(python, *PIP, torch, *[pin for pin in pins if pin.startswith("numpy==")])
    run(python, *PIP, torch, *pins, wheel)
    return python


def check(python: Path, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [str(python), "-P", str(ROOT / ".ci" / "compat_check.py")], cwd=folder, capture_output=True, text=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode:
        rows.append({"step": "the check itself", "well": False, "seen": done.stderr[-800:]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("newest", "oldest"))
    parser.add_argument("--folder", type=Path, default=ROOT / ".compat", help="for the wheel and the environments")
    parser.add_argument("--torch", default="torch==2.13.0", help="how torch is asked for; the same at both ends")
    asked = parser.parse_args()
    place = asked.folder.resolve()
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place / "wheel", ROOT)
    wheel = max((place / "wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = {"newest": [], "oldest": [lowest(need) for need in needs if not need.startswith("torch")]}
    failed = False
    for end in [asked.only] if asked.only else ["newest", "oldest"]:
        python = environment(place / end, asked.torch, pins[end], wheel)
        first, *rows = check(python, place / f"{end}-work")
        print(f"\n{end}: " + ", ".join(f"{name} {number}" for name, number in first["libraries"].items()), flush=True)
        for row in rows:
            failed |= not row["well"]
            print(f"  {row['step']:<10} {'ok' if row['well'] else 'FAILED':<7} {row['seen']}")
    raise SystemExit(int(failed))


if __name__ == "__main__":
    main()
