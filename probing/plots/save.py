"""Write a figure with its table and provenance beside it, the same bytes each time."""

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

from probing.errors import UserError
from probing.files import write_bytes, write_text
from probing.plots.series import NothingToDraw
from probing.plots.style import house_style
from probing.plots.text import writing

DPI = 200


def draw_figure(name: str, draw: Callable[[pd.DataFrame], Figure], table: pd.DataFrame) -> Figure:
    """Draw a figure from a table that a person keeps.

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


def find_table(results: Path, table: str, figure: str) -> Path | None:
    """Look for a figure's table: ``TABLE.parquet`` among results, or ``FIGURE.csv`` beside figures drawn before.

    Args:
        results: Folder to look in.
        table: Name of the table.
        figure: Name of a figure that is drawn from it.

    Returns:
        The first that is there; None if neither is.
    """
    candidates = (results / f"{table}.parquet", results / f"{figure}.csv")
    return next((path for path in candidates if path.is_file()), None)


def save_figure(
    figure: Figure, table: pd.DataFrame, folder: Path, name: str, *, provenance: Mapping[str, Any]
) -> list[Path]:
    """Write ``name.png`` (200 dpi), ``name.pdf``, ``name.csv`` (what is drawn) and ``name.json`` (one line).

    Args:
        figure: What to write.
        table: What it was drawn from; it can be drawn again from the CSV.
        folder: Where; made if it is not there.
        name: Of the files, without a suffix.
        provenance: Command and sources; the table's hash and versions are added.

    Returns:
        The four paths.
    """
    png, pdf, csv, line = (folder / f"{name}.{suffix}" for suffix in ("png", "pdf", "csv", "json"))
    pixels, vectors = io.BytesIO(), io.BytesIO()
    with house_style(), writing(figure):
        figure.savefig(pixels, format="png", dpi=DPI, metadata={"Software": None})
        figure.savefig(vectors, format="pdf", metadata={"CreationDate": None, "Producer": None, "Creator": None})
    text = table.to_csv(index=False, lineterminator="\n").encode()
    record = {
        **provenance,
        "figure": name,
        "table_sha256": hashlib.sha256(text).hexdigest(),
        "matplotlib": mpl.__version__,
        "pandas": pd.__version__,
    }
    write_bytes(png, pixels.getvalue())
    write_bytes(pdf, vectors.getvalue())
    write_bytes(csv, text)
    write_text(line, json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n")
    return [png, pdf, csv, line]
