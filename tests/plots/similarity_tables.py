"""Tables of similarity, stages and token maps, small and with known numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from probing.analysis.similarity import find_stages, similarity_table, stage_similarity
from probing.analysis.token_maps.maps import COLUMNS, as_text
from tests.fakes.fake_similarity import SUBJECT, measured


def similarity_tables() -> dict[str, pd.DataFrame]:
    found = measured()
    parts = []
    for control in ("trained", "random-init"):
        subject = {**SUBJECT, "control": control}
        stages = find_stages(found, subject, resamples=50)
        parts.append(
            (similarity_table(found, subject, stages, num_blocks=10), stages, stage_similarity(found, subject, stages))
        )
    similarity, stages, within = (pd.concat(tables, ignore_index=True) for tables in zip(*parts, strict=True))
    return {
        "similarity": similarity[similarity["source"] == "images"],
        "trajectory_similarity": similarity[similarity["source"] == "trajectory"],
        "stages": stages,
        "stage_similarity": within,
    }


def token_table(grid=(4, 4)) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for facet in ("alignment", "quality"):
        for selection in ("highest", "lowest", "wrong"):
            for rank in (1, 2):
                for side in ("first", "second"):
                    scores = np.round(rng.normal(size=grid[0] * grid[1]), 3) + 5 * (side == "first")
                    picture = Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8))
                    rows.append(
                        {
                            "model": "fake",
                            "facet": facet,
                            "selection": selection,
                            "rank": rank,
                            "sigma": 0.005,
                            "block": 2,
                            "pair_id": f"{facet}-{selection}-{rank}",
                            "prompt": "a small red circle",
                            "side": side,
                            "choice": 1.0,
                            "chosen": side == "first",
                            "margin": 1.5,
                            "rows": grid[0],
                            "columns": grid[1],
                            "reward": scores.mean(),
                            "scores": " ".join(f"{score:.6g}" for score in scores),
                            "picture": as_text(picture),
                            "n_pairs": 1234,
                            "n_prompts": 617,
                        }
                    )
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name in rows[0]])
