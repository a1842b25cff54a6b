"""Alignment pairs with a planted shortcut: a mark in a corner that predicts the choice in training and not in test.

A probe of alignment has the same accuracy with the mark on the chosen and on the rejected image. A probe that uses the
shortcut has a high accuracy on the first and a low one on the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from PIL import Image

from probing.preferences import DrawnImages, PreferenceData
from probing.testbed.preferences import (
    CLEAN,
    ITEM_COLUMNS,
    RENDERER,
    TEMPERATURE,
    VERSION,
    Drawing,
    choose,
    drawing_version,
    prompts,
    reward_of,
)

PROMPTS = {"train": 1000, "test": 500}
MARKED_CHOSEN = {"train": 0.85, "test": 0.5}
"""Share of pairs with the mark on the chosen image."""
MARK = 6
"""Side of the mark in pixels; it is in the lower right corner, one pixel from the edges."""
_OPACITY = 0.7
_SEED = 1_000_003
"""Added to the seed, so that prompts and images differ from those of the data without the shortcut."""


@dataclass(frozen=True)
class _Marked:
    drawing: Drawing
    marked: bool

    def open(self) -> Image.Image:
        image = self.drawing.open()
        return mark(image) if self.marked else image


def mark(image: Image.Image) -> Image.Image:
    """Blend two light and two dark squares into the lower right corner; they are visible on any background."""
    pixels = np.asarray(image).astype(np.float64)
    fields = np.kron([[255.0, 0.0], [0.0, 255.0]], np.ones((MARK // 2, MARK // 2)))[..., None]
    corner = (slice(-MARK - 1, -1), slice(-MARK - 1, -1))
    pixels[corner] += _OPACITY * (fields - pixels[corner])
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def load(*, split: str | None = None, seed: int = 0) -> PreferenceData:
    """Make the pairs; images are drawn when they are opened.

    Args:
        split: ``train``, ``test``, or None for both.
        seed: Decides prompts, images, choices and marks.

    Returns:
        Data as of :func:`probing.testbed.preferences.load` with the facet ``alignment`` only and two more columns of
        pairs: ``marked`` (``first`` or ``second``) and ``marked_chosen`` (whether the chosen image has the mark).
    """
    items, drawings, pairs = _make(seed)
    if split is not None:
        pairs = pairs[pairs["split"] == split].reset_index(drop=True)
        items = items[items["prompt_id"].isin(pairs["prompt_id"])].reset_index(drop=True)
    return PreferenceData(
        name="testbed-shortcut",
        items=items.copy(),
        pairs=pairs.copy(),
        images=DrawnImages(lambda item_id: drawings[item_id].open(), f"shortcut-{drawing_version(seed)}"),
        settings={"version": VERSION, "seed": seed, "temperature": TEMPERATURE, "marked_chosen": MARKED_CHOSEN},
    )


@lru_cache(maxsize=2)
def _make(seed: int) -> tuple[pd.DataFrame, dict[str, _Marked], pd.DataFrame]:
    shifted_seed = _SEED + seed
    items, compared, drawings = [], [], {}
    for prompt in prompts(shifted_seed, PROMPTS):
        pair = []
        for number, (name, scene) in enumerate((("right", prompt.scene), ("wrong", prompt.wrong))):
            item_id = f"{prompt.prompt_id}-{name}"
            drawings[item_id] = Drawing(scene, prompt.scene, CLEAN, 0.0, (shifted_seed, prompt.index, 2, number))
            caption = prompt.scene.caption
            items.append((item_id, prompt.prompt_id, caption, reward_of(number, 0.0), number, CLEAN, 0.0, RENDERER))
            pair.append(item_id)
        compared.append((prompt.prompt_id, prompt.split, "alignment", prompt.attribute, *pair))
    table = pd.DataFrame(items, columns=list(ITEM_COLUMNS)).assign(image=lambda t: t["item_id"])
    pairs = choose(table, compared, shifted_seed)
    # The mark depends on the choice, like a bias of annotators or of data collection; the reward does not include it.
    rng = np.random.default_rng([shifted_seed, 4])
    on_chosen = np.zeros(len(pairs), dtype=bool)
    for split, part in pairs.groupby("split", sort=False).indices.items():
        on_chosen[rng.permutation(part)[: round(MARKED_CHOSEN[str(split)] * len(part))]] = True
    on_first = on_chosen == (pairs["choice"].to_numpy() == 1.0)
    pairs = pairs.assign(marked=np.where(on_first, "first", "second"), marked_chosen=on_chosen)
    marked_items = set(np.where(on_first, pairs["first"], pairs["second"]))
    return table, {name: _Marked(drawing, name in marked_items) for name, drawing in drawings.items()}, pairs
