"""Make executed notebooks light: ``python notebooks/tidy.py NOTEBOOK …``.

Figures get a palette, as saved ones have; what was written to stderr, and the times of execution, go.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import nbformat

from probing.plots.save import with_palette


def tidy(path: Path) -> None:
    """Rewrite a notebook."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                png = base64.b64decode(data["image/png"])
                data["image/png"] = base64.b64encode(min(png, with_palette(png), key=len)).decode()
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        tidy(Path(name))
