"""How well a map agrees with people's heat map within one picture, and maps that know nothing of the reward."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.ndimage import sobel
from scipy.stats import rankdata

from probing.preferences import prepare

MARKED = 0.5
"""Tokens are marked where people's map is above this share of its maximum."""
_EDGE_PIXELS = 256
"""Largest side at which edges are found."""


def area(map_: Float[np.ndarray, " token"], truth: Float[np.ndarray, " token"]) -> float:
    """Area under the ROC curve of a map for the marked tokens; NaN where none or all are marked."""
    marked = truth > MARKED * truth.max()
    positives, negatives = int(marked.sum()), int((~marked).sum())
    if truth.max() <= 0 or not positives or not negatives:
        return float("nan")
    ranks = rankdata(map_)
    return float((ranks[marked].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def rank_correlation(map_: Float[np.ndarray, " token"], truth: Float[np.ndarray, " token"]) -> float:
    """Spearman's ρ of a map and people's; NaN where either is constant."""
    if np.ptp(map_) == 0 or np.ptp(truth) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(map_), rankdata(truth))[0, 1])


METRICS = {"auc": (area, 0.5), "spearman": (rank_correlation, 0.0)}
"""Measures within a picture, and what each is for a map that knows nothing."""


def truth_on_grid(
    heat_map: Float[np.ndarray, "row column"], picture: Image.Image, resolution: int, resize: str, grid: tuple[int, int]
) -> Float[np.ndarray, " token"]:
    """Bring people's heat map onto the tokens of a picture: over the whole picture, cut as it is cut, then averaged.

    Args:
        heat_map: At any resolution; it covers the picture.
        picture: As published.
        resolution: Side of the model's square input.
        resize: How a picture becomes that square.
        grid: Rows and columns of tokens.
    """
    largest = float(heat_map.max())
    scaled = np.clip(255 * heat_map / largest, 0, 255) if largest > 0 else np.zeros_like(heat_map)
    grey = Image.fromarray(np.rint(scaled).astype(np.uint8)).resize(picture.size, Image.Resampling.BOX)
    square = prepare(grey.convert("RGB"), resolution, resize, "black")
    return _averaged(np.asarray(square, dtype=np.float64)[..., 0], grid) * largest / 255


def edge_map(square: Image.Image, grid: tuple[int, int]) -> Float[np.ndarray, " token"]:
    """Mean strength of edges under each token (Sobel's gradient of the grey picture)."""
    small = square.convert("L")
    small.thumbnail((_EDGE_PIXELS, _EDGE_PIXELS), Image.Resampling.BOX)
    grey = np.asarray(small, dtype=np.float64)
    return _averaged(np.hypot(sobel(grey, 0), sobel(grey, 1)), grid)


def centre_map(grid: tuple[int, int]) -> Float[np.ndarray, " token"]:
    """Nearness of each token to the centre."""
    rows, columns = (np.linspace(-1, 1, 2 * size + 1)[1::2] for size in grid)
    return -np.hypot(rows[:, None], columns[None, :]).ravel()


def _averaged(values: Float[np.ndarray, "row column"], grid: tuple[int, int]) -> Float[np.ndarray, " token"]:
    image = Image.fromarray(values.astype(np.float32)).resize((grid[1], grid[0]), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float64).ravel()
