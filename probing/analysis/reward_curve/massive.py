"""Massive activations: channels much larger than the median channel, by site."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from probing.analysis.engine import ALL, FeatureSource, Site, column_names, read_site
from probing.probes import MASSIVE
from probing.progress import progress as show_progress

COLUMNS = column_names(
    "model stream reduction sigma block median largest ratio massive channels share_of_power items",
    with_provenance=False,
)


def massive_activations(
    store: FeatureSource, *, item_ids: Sequence[str] | None = None, times: float = MASSIVE, progress: bool = True
) -> pd.DataFrame:
    """Compare the largest channels with the median channel (after Sun et al. 2024, "Massive activations").

    Args:
        store: Features.
        item_ids: Which items, such as those of the training prompts; all written ones if None.
        times: A channel is massive if its root mean square over items and tokens is more than this multiple of the
            median channel's.
        progress: Show a progress bar on a terminal.

    Returns:
        One row a site: root mean square of the ``median`` and of the ``largest`` channel, their ``ratio``, the
        number of ``massive`` channels, their numbers (``channels``, with spaces, largest first), their
        ``share_of_power`` (of the sum of squares), and the number of ``items``.
    """
    used = np.asarray(store.written).copy()
    if item_ids is not None:
        used &= pd.Index(store.item_ids).isin(list(item_ids))
    rows = []
    sites = ALL.of(store)
    with show_progress(len(sites), "massive activations", "sites", enabled=progress) as bar:
        for site in sites:
            rows.append(_row(store, site, used, times))
            bar.update()
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(store: FeatureSource, site: Site, used: np.ndarray, times: float) -> dict[str, Any]:
    features = read_site(store, site)[used]
    power = np.mean(np.square(features.reshape(-1, features.shape[-1]), dtype=np.float64), axis=0)
    size = np.sqrt(power)
    median = float(np.median(size))
    order = np.argsort(size)[::-1]
    massive = order[size[order] > times * median]
    return {
        "model": store.attributes.get("model"),
        **site._asdict(),
        "median": median,
        "largest": float(size.max()),
        "ratio": float(size.max() / median) if median > 0 else float("inf"),
        "massive": len(massive),
        "channels": " ".join(map(str, massive)),
        "share_of_power": float(power[massive].sum() / power.sum()) if power.sum() > 0 else 0.0,
        "items": int(used.sum()),
    }
