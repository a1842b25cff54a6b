"""Rapidata's rich human feedback (Rapidata/text-2-image-Rich-Human-Feedback): three scores, and where faults are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from probing.preferences.benchmarks.base import Benchmark
from probing.preferences.benchmarks.rated_pictures import rated_comparisons, rated_rows
from probing.preferences.images import ImageSource
from probing.preferences.images.heat_maps import HeatMappedImages
from probing.preferences.tables.parquet_file import files_of

FACETS = ("alignment", "coherence", "style")
_SCORES = [f"{facet}_score{end}" for facet in FACETS for end in ("_norm", "")]
_FOLDERS = ("data", "")
MAPS = {"misalignment": "alignment_heatmap", "artifacts": "coherence_heatmap"}
"""Kinds of heat map, and their columns: higher where more people saw a fault."""


def read(root: Path, files: Mapping[str, str]) -> tuple[pd.DataFrame, ImageSource]:
    """Compare the pictures of each prompt by their scores; a higher score is better, and a missing one is no score.

    Normalised scores are used where the file has them. Heat maps are opened by
    :meth:`probing.preferences.PreferenceData.heat_map`. There is one published split, so prompts are split 80 to 20.

    Raises:
        UserError: A file is missing or damaged, lacks a column, or a record has no prompt or picture.
    """
    names = files_of(root, next(iter(files.values())), _FOLDERS)
    rows = rated_rows(root, names, {"prompt": "prompt"}, dict.fromkeys(_SCORES, "number"), ratings=_SCORES)
    facets = {facet: f"{facet}_score_norm" if f"{facet}_score_norm" in rows else f"{facet}_score" for facet in FACETS}
    return rated_comparisons(rows, facets), HeatMappedImages(root, MAPS)


BENCHMARKS = {
    "rapidata": Benchmark(
        title="Rapidata, rich human feedback",
        hub="Rapidata/text-2-image-Rich-Human-Feedback",
        patterns=dict.fromkeys(("train", "test"), ("data/train-*.parquet",)),
        read=read,
        files={"train": "train", "test": "train"},
        rule="micro-half",
        reported="",
        randomize_sides=True,
    )
}
