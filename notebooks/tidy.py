"""Make executed notebooks light: ``python notebooks/tidy.py NOTEBOOK …``.

Figures get a palette of 256 colours, and what was written to stderr goes.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import nbformat
from PIL import Image


def tidy(path: Path) -> None:
    """Rewrite a notebook."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _with_palette(data["image/png"])
    nbformat.write(notebook, path)


def _with_palette(png: str) -> str:
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    content = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    smaller = base64.b64encode(content.getvalue()).decode()
    return min(png, smaller, key=len)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        tidy(Path(name))
