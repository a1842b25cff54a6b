"""Write a figure with its table and provenance, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from probing.errors import UserError
from probing.files import write_bytes, write_text
from probing.plots.curves import NothingToDraw
from probing.plots.style import house_style
from probing.plots.text import writing

DPI = 120


def draw_figure(name: str, draw: Callable[[pd.DataFrame], Figure], table: pd.DataFrame) -> Figure:
    """Draw a figure from a table, with a clear error if the table does not fit.

    Raises:
        NothingToDraw: The table was measured with less than the figure shows.
        UserError: The table does not hold what the figure shows.
    """
    try:
        return draw(table)
    except NothingToDraw:
        raise
    except (LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"The figure {name} cannot be drawn from its table ({type(error).__name__}: {reason}); "
            f"make the table again."
        ) from error


def save_figure(
    figure: Figure, table: pd.DataFrame, folder: Path, name: str, *, provenance: Mapping[str, Any]
) -> list[Path]:
    """Write ``name.png`` (120 dpi, 256 colours), ``name.pdf``, ``name.csv`` (the table) and ``name.json`` (one line).

    Args:
        figure: The figure to write.
        table: What it was drawn from; it can be drawn again from the CSV.
        folder: Folder of the files; made if missing.
        name: Name of the files, without a suffix.
        provenance: Command and sources; the table's hash and versions are added.

    Returns:
        The four paths.
    """
    png, pdf, csv, line = (folder / f"{name}.{suffix}" for suffix in ("png", "pdf", "csv", "json"))
    raster, vectors = io.BytesIO(), io.BytesIO()
    with house_style(), writing(figure):
        figure.savefig(raster, format="png", dpi=DPI)
        figure.savefig(vectors, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    text = table.to_csv(index=False, lineterminator="\n").encode()
    record = {
        **provenance,
        "figure": name,
        "table_sha256": hashlib.sha256(text).hexdigest(),
        "matplotlib": mpl.__version__,
        "pandas": pd.__version__,
    }
    write_bytes(png, with_palette(raster.getvalue()))
    write_bytes(pdf, vectors.getvalue())
    write_bytes(csv, text)
    write_text(line, json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n")
    return [png, pdf, csv, line]


def with_palette(png: bytes) -> bytes:
    """Reduce a picture to 256 colours, which makes figures three to four times smaller."""
    content = io.BytesIO()
    # An octree keeps thin lines and colour maps.
    reduced = (
        Image.open(io.BytesIO(png)).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    reduced.save(content, "png", optimize=True)
    return content.getvalue()
