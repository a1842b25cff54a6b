"""The notebooks run, on a small setting, and their committed outputs are there and whole."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


PICTURES = {
    "01_layer_probe": 5,
    "02_similarity_and_stages": 3,
    "03_stage_combinations": 1,
    "04_noise_levels": 2,
    "05_scaling": 2,
    "06_controls": 1,
}
"""How many each shows at least."""


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Stores that the notebooks share, as they do where a person runs one after the other."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_a_notebook_runs_from_top_to_bottom(path, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PROBING_CACHE", str(cache))
    monkeypatch.setenv("PROBING_MODEL", "testbed-xs")
    monkeypatch.setenv("PROBING_LIMIT", "400")
    monkeypatch.setenv("PROBING_FEW", "24")
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) >= PICTURES[path.stem]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_whole(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [
        output
        for cell in cells
        for output in cell.outputs
        if output.output_type in ("error", "stream") and output.get("name") == "stderr"
    ]
    assert not [cell for cell in cells if "def " in cell.source]
    assert any(cell.outputs for cell in cells)
