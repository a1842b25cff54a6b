"""Pictures that the testbed's own models made, shipped as one sheet, with what the judge says of each.

They are shipped and not made again, so that their bytes are the same on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from probing.testbed.render import RESOLUTION

FOLDER = Path(__file__).parent / "weights" / "generated"
SHEET, TABLE = "pictures.png", "pictures.csv"
COLUMNS = 40
"""Pictures in a row of the sheet."""
SEED = 0
"""Of the preference data whose prompts have generated pictures."""
EVERY = 4
"""Every fourth prompt has them, train and test alike."""


@dataclass(frozen=True)
class Generated:
    """The sheet and its table.

    Attributes:
        folder: Holds both.
        items: One row a picture, in the sheet's order: ``item_id, prompt_id, prompt, source_model`` (size or size and
            checkpoint), ``steps, guidance, seed``, one column an attribute (1 obeyed, 0 not, empty where the caption
            does not speak of it), ``things`` (how many are seen), ``wrong`` (how many attributes), ``fidelity``,
            ``kind``, ``strength`` (1 − fidelity), ``reward``.
    """

    folder: Path
    items: pd.DataFrame

    @cached_property
    def _pixels(self) -> np.ndarray:
        with Image.open(self.folder / SHEET) as sheet:
            return np.asarray(sheet.convert("RGB"))

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {item_id: row for row, item_id in enumerate(self.items["item_id"])}

    def open(self, item_id: str) -> Image.Image:
        """Cut one picture out of the sheet."""
        row, column = divmod(self._row_of[item_id], COLUMNS)
        y, x = RESOLUTION * row, RESOLUTION * column
        return Image.fromarray(self._pixels[y : y + RESOLUTION, x : x + RESOLUTION])

    def pairs(self) -> Iterator[tuple[str, str, list[str]]]:
        """Pair the pictures of each prompt: its id, the two models, the two items."""
        for prompt_id, pair in self.items.groupby("prompt_id", sort=False):
            yield str(prompt_id), "+".join(sorted(set(pair["source_model"]))), list(pair["item_id"])


def load(folder: Path | None = None) -> Generated | None:
    """Read what is shipped; None where nothing is."""
    folder = folder or FOLDER
    if not (folder / TABLE).exists():
        return None
    # "none" is a kind of damage and no gap.
    texts = {"item_id": str, "prompt_id": str, "source_model": str, "kind": str}
    return Generated(folder, pd.read_csv(folder / TABLE, dtype=texts, keep_default_na=False, na_values=[""]))


def digest(folder: Path | None = None) -> str | None:
    """Hash what is shipped: other pictures are other data."""
    folder = folder or FOLDER
    if not (folder / TABLE).exists():
        return None
    content = hashlib.sha256((folder / TABLE).read_bytes())
    content.update((folder / SHEET).read_bytes())
    return content.hexdigest()[:16]


def make_sheet(images: list[Image.Image]) -> Image.Image:
    """Lay pictures of 64×64 out in rows."""
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * RESOLUTION, rows * RESOLUTION))
    for number, image in enumerate(images):
        row, column = divmod(number, COLUMNS)
        sheet.paste(image, (RESOLUTION * column, RESOLUTION * row))
    return sheet
