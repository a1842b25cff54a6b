"""Pairs of made-up pictures, for benchmarks of extraction."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from probing.preferences import DrawnImages, PreferenceData


def made_up(items: int, side: int) -> PreferenceData:
    """Make pairs of two pictures of noise under a prompt of their own, drawn when they are opened."""
    rows = pd.DataFrame({"item_id": [f"i{n}" for n in range(items)]})
    rows["prompt_id"] = [f"p{n // 2}" for n in range(items)]
    rows["prompt"] = [f"a picture of number {n // 2} on a white background" for n in range(items)]
    rows["image"] = rows["item_id"]
    pairs = pd.DataFrame(
        [(f"q{n}", f"p{n}", f"i{2 * n}", f"i{2 * n + 1}", 1.0, "train", "all") for n in range(items // 2)],
        columns=["pair_id", "prompt_id", "first", "second", "choice", "split", "facet"],
    )

    def draw(item: str) -> Image.Image:
        return Image.fromarray(np.random.default_rng(int(item[1:])).integers(0, 256, (side, side, 3), dtype=np.uint8))

    return PreferenceData(name="noise", items=rows, pairs=pairs, images=DrawnImages(draw))
