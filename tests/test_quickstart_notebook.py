"""The quickstart notebook runs from its first cell to its last."""

from __future__ import annotations

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
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert text_of(cells[0]).startswith("green ")  # the bundled model on the example picture
    pictures = [cell for cell in cells if any("image/png" in output.get("data", {}) for output in cell.outputs)]
    assert len(pictures) == 3  # the readings, the gate weights of two models
    assert "existence: " in text_of(cells[-1])
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_the_stored_outputs_are_in_order_and_small():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    run = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.execution_count is not None]
    assert [cell.execution_count for cell in run] == list(range(1, len(run) + 1))
    assert text_of(run[0]).startswith("green ")
    outputs = [output for cell in run for output in cell.outputs]
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert NOTEBOOK.stat().st_size < 300_000
