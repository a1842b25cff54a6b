"""RichHF-18K with its pictures (Exploration/richhf_18k_with_images): four scores, and where faults are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.errors import UserError
from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rated_pictures import rated_comparisons, rated_rows
from probing.preferences.images import ImageSource
from probing.preferences.images.heat_maps import HeatMappedImages
from probing.preferences.tables.parquet_file import files_of

FACETS = {
    "alignment": "misalignment_score",
    "plausibility": "artifact_score",
    "aesthetics": "aesthetics_score",
    "overall": "overall_score",
}
"""Scores, all of them higher for a better picture."""
MAPS = {"misalignment": "misalignment_map", "artifacts": "artifact_map"}
_FOLDERS = ("data", "")
_MIRROR = "Exploration/richhf_18k_with_images"


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Compare the pictures of each prompt by their scores; heat maps are as in ``rapidata``.

    A facet whose scores are all equal, as ``overall`` is in the mirror, has ties only.

    Raises:
        UserError: A file is missing or damaged, lacks a column, or a record has no prompt or picture; or the folder
            holds the published TFRecord files, which have neither.
    """
    if any(root.rglob("*.tfrecord")) and not any(root.rglob("*.parquet")):
        raise UserError(
            f"{root} holds TFRecord files, which have neither prompts nor pictures; give the Parquet "
            f"files of the hub's {_MIRROR}."
        )
    parts = []
    scores = list(FACETS.values())
    for split, name in files.items():
        names = files_of(root, name, _FOLDERS)
        rows = rated_rows(root, names, {"prompt": "prompt"}, dict.fromkeys(scores, "number"), ratings=scores)
        parts.append(rated_comparisons(rows, FACETS).assign(split=split))
    table = pd.concat(parts, ignore_index=True)
    table["pair_id"] = table["split"] + table["pair_id"]
    table["list_id"] = table["split"] + table["list_id"]
    return table, HeatMappedImages(root, MAPS)


_FILES = {"train": "train", "validation": "dev", "test": "test"}
BENCHMARKS = {
    "richhf": Benchmark(
        title="RichHF-18K",
        hub=_MIRROR,
        patterns={split: (f"data/{name}-*.parquet",) for split, name in _FILES.items()},
        read=read,
        files=_FILES,
        rule="micro-half",
        reported="",
        randomize_sides=True,
    )
}
