"""Massive activations: channels whose magnitude dwarfs the rest, by block and stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.source import FeatureSource, Place, places, read_site
from probing.probes import MASSIVE
from probing.progress import progress as show_progress

COLUMNS = (
    "model",
    "stream",
    "reduction",
    "sigma",
    "block",
    "median",
    "largest",
    "ratio",
    "massive",
    "channels",
    "share_of_power",
    "items",
)


def massive_activations(
    store: FeatureSource, *, item_ids: Sequence[str] | None = None, times: float = MASSIVE, progress: bool = True
) -> pd.DataFrame:
    """Report how far the largest channels stand above the others (after Sun et al. 2024, "Massive activations").

    Args:
        store: Features.
        item_ids: Which items are looked at, such as those of the training prompts; all that are written if None.
        times: A channel is massive if its root mean square over items (and tokens) is so many times the median one's.
        progress: Whether to show a progress bar, on a terminal.

    Returns:
        One row a place: root mean square of the ``median`` and of the ``largest`` channel, their ``ratio``, how many
        are ``massive``, which (``channels``, numbers with spaces, largest first), their ``share_of_power`` (of the sum
        of squares), and how many ``items`` were looked at.
    """
    wanted = np.asarray(store.written).copy()
    if item_ids is not None:
        wanted &= np.isin(np.asarray(store.item_ids), list(item_ids))
    rows = []
    there = places(store)
    with show_progress(len(there), "massive activations", "sites", enabled=progress) as bar:
        for place in there:
            rows.append(_row(store, place, wanted, times))
            bar.update()
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(store: FeatureSource, place: Place, wanted: np.ndarray, times: float) -> dict[str, Any]:
    features = read_site(store, place)[wanted]
    power = np.mean(np.square(features.reshape(-1, features.shape[-1]), dtype=np.float64), axis=0)
    size = np.sqrt(power)
    median = float(np.median(size))
    order = np.argsort(size)[::-1]
    found = order[size[order] > times * median]
    return {
        "model": store.attributes.get("model"),
        **place._asdict(),
        "median": median,
        "largest": float(size.max()),
        "ratio": float(size.max() / median) if median > 0 else float("inf"),
        "massive": len(found),
        "channels": " ".join(map(str, found)),
        "share_of_power": float(power[found].sum() / power.sum()) if power.sum() > 0 else 0.0,
        "items": int(wanted.sum()),
    }
