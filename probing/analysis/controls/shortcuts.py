"""Probes without a backbone: how well image statistics, or the name of the source model, predict the choice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import Fit, Fitter, Job
from probing.analysis.engine.identity import array_digest
from probing.errors import UserError

SIZE = ("log_area", "log_shape")
_SIDES = ("first", "second")


def image_stat_features(
    item_ids: np.ndarray, image_stats: pd.DataFrame, columns: list[str]
) -> Float[np.ndarray, "item statistic"] | None:
    """Return the image statistics of a store's items; None if no two items differ in any of them.

    Raises:
        UserError: An item has no statistics.
    """
    stats = image_stats.set_index("item_id").reindex(item_ids)[columns].to_numpy(dtype=np.float64)
    missing = ~np.isfinite(stats).all(axis=1)
    if missing.any():
        raise UserError(
            f"Item {item_ids[missing][0]!r} has no image statistics ({int(missing.sum())} in all); "
            f"measure the same data."
        )
    return stats if (np.ptp(stats, axis=0) > 0).any() else None


def column_features(item_ids: np.ndarray, pairs: pd.DataFrame, column: str) -> Float[np.ndarray, "item channel"] | None:
    """Return a property that pairs state of both items; None if no pair's two items differ in it.

    A number is one channel; text is one channel a name. All channels of an item without a value are 0.

    Args:
        item_ids: Items of the store.
        pairs: With ``COLUMN_first`` and ``COLUMN_second``.
        column: The property, such as ``source_model``.
    """
    names_of_side = [f"{column}_{side}" for side in _SIDES]
    if any(name not in pairs for name in names_of_side):
        return None
    complete = pairs.dropna(subset=names_of_side)
    if (complete[names_of_side[0]] == complete[names_of_side[1]]).all():
        return None
    values = pd.concat(
        [pd.Series(pairs[f"{column}_{side}"].to_numpy(), index=pairs[side].to_numpy()) for side in _SIDES]
    ).dropna()
    values = values[~values.index.duplicated()]
    if pd.api.types.is_numeric_dtype(values.infer_objects()):
        return values.astype(float).reindex(item_ids).fillna(0.0).to_numpy()[:, None]
    of_item = values.astype(str).reindex(item_ids)
    names = sorted(of_item.dropna().unique())
    if len(names) < 2:
        return None
    return (of_item.to_numpy()[:, None] == np.array(names, dtype=object)).astype(np.float64)


def fit_shortcuts(
    fitter: Fitter,
    item_ids: np.ndarray,
    pairs: pd.DataFrame,
    image_stats: pd.DataFrame | None,
    properties: Sequence[str] = (),
) -> dict[str, Fit]:
    """Fit a probe on each shortcut of the data: ``image stats``, ``size`` alone, ``source model``, named properties.

    Raises:
        UserError: The pairs lack a named property.
    """
    for name in properties:
        if any(f"{name}_{side}" not in pairs for side in _SIDES):
            raise UserError(f"The pairs have no columns {name}_first and {name}_second; leave out --shortcuts {name}.")
    columns = [] if image_stats is None else [str(name) for name in image_stats if name != "item_id"]
    size = [name for name in columns if name in SIZE]
    shortcuts = {
        "image stats": None if image_stats is None else image_stat_features(item_ids, image_stats, columns),
        "size": None if image_stats is None or not size else image_stat_features(item_ids, image_stats, size),
        "source model": column_features(item_ids, pairs, "source_model"),
    }
    for name in properties:
        features = shortcuts[name] = column_features(item_ids, pairs, name)
        # A linear probe of a number cannot say "always the one that has any".
        if features is not None and features.shape[1] == 1 and (features == 0).any():
            shortcuts[f"{name} > 0"] = (features > 0).astype(float)
    jobs = {name: features for name, features in shortcuts.items() if features is not None}
    fits = fitter.fit_facet([Job(f"shortcut/{name}/{array_digest(f)}", lambda f=f: f) for name, f in jobs.items()])  # type: ignore[misc]
    return dict(zip(jobs, fits, strict=True))
