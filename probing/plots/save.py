"""Write a figure with its table and a line of provenance beside it, the same bytes each time; read tables again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from probing.plots.style import house_style

DPI = 200
_WHOLE = (
    "block", "baseline_block", "first", "second", "channels", "draws", "n_models", "step", "stages_step",
)  # fmt: skip


def read_table(path: Path) -> pd.DataFrame:
    """Read a table as the analysis wrote it, from parquet or from the CSV beside a figure."""
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    table = pd.read_csv(path)
    # Latents have no block, and images no step: CSV would make all such numbers fractions.
    return table.astype({name: "Int64" for name in _WHOLE if name in table})


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
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf, csv, line = (folder / f"{name}.{suffix}" for suffix in ("png", "pdf", "csv", "json"))
    with house_style():
        figure.savefig(png, dpi=DPI, metadata={"Software": None})
        figure.savefig(pdf, metadata={"CreationDate": None, "Producer": None, "Creator": None})
    text = table.to_csv(index=False, lineterminator="\n").encode()
    csv.write_bytes(text)
    said = {
        **provenance,
        "figure": name,
        "table_sha256": hashlib.sha256(text).hexdigest(),
        "matplotlib": mpl.__version__,
        "pandas": pd.__version__,
    }
    line.write_text(json.dumps(said, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return [png, pdf, csv, line]
