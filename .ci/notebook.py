"""Run ``docs/quickstart.ipynb`` from its first cell to its last and store what the cells put out: ``make notebook``.

It runs in an empty folder of its own. What is of the machine and not of the package is not stored: when a cell began,
which release of Python ran it, and warnings, which are printed here instead.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "quickstart.ipynb"


def main() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    metadata = dict(notebook.metadata)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=3600, record_timing=False, resources=resources).execute()
    notebook.metadata = nbformat.from_dict(metadata)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = kept(cell.outputs)
    nbformat.write(notebook, NOTEBOOK)
    print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size:,} bytes")


def kept(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Outputs without warnings; a picture that comes in two formats as PNG alone."""
    found = []
    for output in outputs:
        if output.get("name") == "stderr":
            sys.stderr.write(output.text)
            continue
        if "image/png" in output.get("data", {}):
            output.data.pop("image/jpeg", None)
        found.append(output)
    return found


if __name__ == "__main__":
    main()
