"""The notebooks run, on a small setting, and their committed outputs are complete."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest
from PIL import Image

if TYPE_CHECKING:
    from jupyter_client.manager import KernelManager

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PICTURES = {
    "00_your_own_pairs": 2,
    "01_layer_probe": 5,
    "02_similarity_and_stages": 3,
    "03_stage_combinations": 1,
    "04_noise_levels": 2,
    "05_scaling": 2,
    "06_controls": 1,
    "07_heat_maps": 3,
    "08_causal": 3,
    "09_policy": 3,
}
"""Number of pictures in each notebook's outputs."""
ONE_FACET = "facet == 'quality'"
IMAGE = {'"image", "text"': '"image"'}
SMALLER = {
    "00_your_own_pairs": {'os.environ.get("PROBING_LIMIT", "2000")': "160", "[0.005, 0.3]": "[0.005]", **IMAGE},
    "01_layer_probe": {"0.005, 0.3, 0.6": "0.005"},
    "02_similarity_and_stages": {"0.005, 0.3, 0.6": "0.6"},
    "03_stage_combinations": {"0.005, 0.3, 0.6": "0.6", "(0.005, 0.6)": "(0.6,)", **IMAGE},
    "04_noise_levels": {"0.005, 0.3, 0.6": "0.005, 0.6", **IMAGE},
    "05_scaling": {"(0.005, 0.3, 0.6), (0.005, 0.6)": "(0.6,), (0.6,)", **IMAGE},
    "06_controls": {"0.005, 0.3, 0.6": "0.005", **IMAGE},
    "07_heat_maps": {"facet in ['alignment', 'quality']": "facet == 'quality'", "0.005, 0.6": "0.005"},
    "08_causal": {"(-8, -4, 0, 4, 8)": "(-8, 8)"},
    "09_policy": {},
}
"""What is read here in place of the notebook's own: fewer noise levels, streams and pictures."""


def test_every_notebook_has_its_number_of_pictures():
    assert [path.stem for path in NOTEBOOKS] == list(PICTURES)


def test_a_tidy_notebook_is_light_and_stays_as_it_is(tmp_path: Path):
    tidy = runpy.run_path(str(Path(__file__).parents[1] / "notebooks" / "tidy.py"))["tidy"]
    content = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(content, "png")
    png = base64.b64encode(content.getvalue()).decode()
    outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("display_data", {"image/png": png}),
    ]
    cell = nbformat.v4.new_code_cell("1", outputs=outputs, metadata={"execution": {"iopub.status.busy": "now"}})
    path = tmp_path / "n.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("words"), cell]), path)
    tidy(path)
    once = path.read_bytes()
    (output,) = json.loads(once)["cells"][1]["outputs"]
    assert len(output["data"]["image/png"]) < len(png) and b"iopub" not in once
    tidy(path)
    assert path.read_bytes() == once


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelManager]:
    """One kernel and one cache for all notebooks: libraries are imported once, stores are extracted once."""
    from jupyter_client.manager import start_new_kernel

    settings = {
        "PROBING_CACHE": str(tmp_path_factory.mktemp("cache")),
        "PROBING_MODEL": "testbed-xs",
        "PROBING_LIMIT": "200",
        "PROBING_FEW": "12",
        "PROBING_OTHERS": "testbed-s",
        "PROBING_SEEDS": "1",
        "PROBING_STEPS": "2",
        "PROBING_UPDATES": "1",
        "PROBING_FIGURES": str(Path(__file__).parents[1] / "figures"),
        "OMP_NUM_THREADS": "1",  # Several workers of pytest on few cores otherwise slow each other down.
    }
    folder = tmp_path_factory.mktemp("folder")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(folder), env={**os.environ, **settings})
    yield manager
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_notebook_runs(path, kernel):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        # One facet, of which every prompt has pairs: few prompts are enough, and each probe is fitted once.
        cell.source = re.sub(r"limit=(ITEMS|FEW)\)", rf"limit=\1, where={ONE_FACET!r})", cell.source)
        for own, smaller in SMALLER[path.stem].items():
            cell.source = cell.source.replace(own, smaller)
    # No name of an earlier notebook is left.
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    NotebookClient(notebook, km=kernel, timeout=600).execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == PICTURES[path.stem]


def code_cells(path):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_complete(path):
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert any(cell["outputs"] for cell in cells)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_defines_no_function(path):
    sources = ["".join(cell["source"]) for cell in code_cells(path)]
    assert not [source for source in sources if "def " in source or "lambda" in source]
