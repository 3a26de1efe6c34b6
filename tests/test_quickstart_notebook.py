"""The quickstart notebook runs from its first cell to its last."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from repository import ROOT

NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"


def text_of(cell: nbformat.NotebookNode) -> str:
    """What a cell has printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


@pytest.mark.slow
def test_every_cell_runs_and_shows_what_it_promises(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("NOTEBOOK_STEPS", "2")
    monkeypatch.setenv("NOTEBOOK_RUN", str(tmp_path / "run"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = [text_of(cell) for cell in notebook.cells if cell.cell_type == "code"]
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    untrained = 4  # cells about the bundled model, which is the same everywhere
    assert [text_of(cell) for cell in cells[:untrained]] == stored[:untrained]
    pictures = [cell for cell in cells if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert len(pictures) == 3  # the readings, the gate weights of two models
    assert "existence: " in text_of(cells[-1])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_stored_outputs_are_those_of_one_whole_run_and_name_no_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert text_of(cells[0]).startswith("green ")
    assert "existence: " in text_of(cells[-1])
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    texts = [output.get("text") or output.data["text/plain"] for output in outputs]
    assert not [text for text in texts if re.search(r"(^|[\s'\"])(/|[A-Z]:\\)\w|0x[0-9a-f]{6}| \d+ s\b", text)]
    assert not any(cell.metadata for cell in cells)  # such as when it began
    assert NOTEBOOK.stat().st_size < 300_000
