"""Small result tables as the analysis writes them, with known numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from probing.experiments import STUDIES
from probing.result_tables import read_result

NUM_BLOCKS = 4


def curve_table() -> pd.DataFrame:
    rows = []
    for facet in ("alignment", "quality"):
        common = {"model": "fake", "facet": facet, "n_pairs": 1234, "n_prompts": 617, "ceiling": 0.9}
        for stream, reduction in (("image", "mean"), ("text", "mean_clip")):
            for sigma in (0.005, 0.6):
                for block in range(NUM_BLOCKS - (stream == "text")):
                    depth = (block + 1) / NUM_BLOCKS
                    for control, draws in (("trained", pd.NA), ("random-init", 3), ("shuffled", 20)):
                        value = 0.5 + (0.08 * block + 0.1 * sigma if control == "trained" else 0.01)
                        where = {"stream": stream, "reduction": reduction, "sigma": sigma, "block": block}
                        ends = {"value": value, "ci_low": value - 0.03, "ci_high": value + 0.03}
                        ends |= {"draws": draws, "draw_low": value - 0.05, "draw_high": value + 0.06}
                        rows.append({**common, **where, **ends, "depth": depth, "control": control, "seed": 0})
        rows.append(
            {
                **common,
                "stream": "latents",
                "reduction": "mean",
                "sigma": np.nan,
                "block": pd.NA,
                "depth": np.nan,
                "value": 0.55,
                "ci_low": 0.52,
                "ci_high": 0.58,
                "control": "latents",
                "seed": 0,
            }
        )
    return pd.DataFrame(rows).astype({"block": "Int64", "draws": "Int64"})


def comparison_table() -> pd.DataFrame:
    rows = []
    for facet in ("alignment", "quality"):
        for scope, stream, sigma in (("stream", "image", 0.005), ("stream", "text", 0.6), ("overall", "text", 0.6)):
            for number, baseline in enumerate(("random-init", "latents")):
                difference = 0.1 - 0.09 * number
                rows.append(
                    {
                        "facet": facet,
                        "scope": scope,
                        "stream": stream,
                        "sigma": sigma,
                        "baseline": baseline,
                        "difference": difference,
                        "ci_low": difference - 0.03,
                        "ci_high": difference + 0.03,
                        "p_value_holm": 0.001 if number == 0 else 0.5,
                        "verdict": "above" if number == 0 else "not distinguished",
                        "n_pairs": 1234,
                        "n_prompts": 617,
                    }
                )
    return pd.DataFrame(rows)


def heat_map_tables() -> dict[str, pd.DataFrame]:
    """The committed tables, which have every series and a PNG a picture."""
    figures = Path(__file__).parents[2] / "figures"
    return {name: pd.read_csv(figures / f"{name}.csv") for name in ("heat_maps", "heat_map_examples")}


def study_tables():
    """The published tables of the testbed's studies."""
    folder = Path(__file__).parents[2] / "figures"
    return {
        table.name: read_result(folder / f"{table.name}.csv", "its command")
        for study in STUDIES
        for table in study.tables
    }
