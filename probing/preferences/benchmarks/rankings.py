"""Turn rankings and ratings into comparisons: every pair of a list, ties included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from probing.errors import UserError


def comparisons_by_rating(
    rows: pd.DataFrame, facets: Mapping[str, str], *, by_item: Sequence[str] = ()
) -> pd.DataFrame:
    """Compare the pictures of each prompt by each of their ratings; a facet is one rating.

    Args:
        rows: One row a picture, with ``prompt``, ``picture`` (its name, unique within a prompt) and ratings; higher is
            better, and a picture without one is in no comparison of that facet. ``list_id``, if it is there, names
            what is compared in place of the prompt.
        facets: Name of each facet, and its column.
        by_item: Columns to copy to ``…_first`` and ``…_second``.

    Returns:
        As :func:`comparisons_of`, with ``prompt`` and ``facet``; ``list_id`` is the prompt's number if there was none.
    """
    if "list_id" not in rows:
        rows = rows.assign(list_id=pd.factorize(rows["prompt"])[0].astype(str))
    parts = []
    for facet, column in facets.items():
        rated = rows.assign(ordered_by=-rows[column])[rows[column].notna()]
        kept = ["picture", "ordered_by", *by_item]
        lists = rated.groupby("list_id", sort=False).agg({"prompt": "first", **dict.fromkeys(kept, list)}).reset_index()
        lists = lists[lists["picture"].map(len) > 1].reset_index(drop=True)
        if len(lists):
            pairs = comparisons_of(
                lists, images="picture", ranks="ordered_by", by_list=("prompt",), by_item=tuple(by_item)
            )
            parts.append(pairs.assign(facet=facet, pair_id=pairs["pair_id"] + f"/{facet}"))
    if not parts:
        raise UserError("No prompt has two rated pictures, so there is nothing to compare; check the files.")
    return pd.concat(parts, ignore_index=True)


def comparisons_of(
    lists: pd.DataFrame, *, images: str, ranks: str, by_list: Sequence[str] = (), by_item: Sequence[str] = ()
) -> pd.DataFrame:
    """Make the C(n, 2) comparisons of each ranked list.

    Args:
        lists: One row a list, with ``list_id`` (unique) and the columns named below.
        images: Column with the list of pictures.
        ranks: Column with the list of their ranks, whole numbers; lower is better, equal ranks are ties.
        by_list: Columns to copy to every comparison of the list.
        by_item: Columns with a list of one value a picture; they become ``…_first`` and ``…_second``.

    Returns:
        ``pair_id`` (``LIST:i-j``, positions from 0), ``list_id``, ``first``, ``second``, ``choice`` and these columns.

    Raises:
        UserError: A list has fewer than two pictures, not one rank a picture, or a repeated picture; the message has
            its id.
    """
    sizes = lists[images].map(len).to_numpy()
    for column in (ranks, *by_item):
        counts = lists[column].map(len).to_numpy()
        if (counts != sizes).any():
            row = int(np.flatnonzero(counts != sizes)[0])
            raise UserError(
                f"List {lists['list_id'].iloc[row]!r} has {sizes[row]} pictures and {counts[row]} of {column}; "
                f"it needs one for each picture."
            )
    few = np.flatnonzero(sizes < 2)
    if len(few):
        row = int(few[0])
        raise UserError(
            f"List {lists['list_id'].iloc[row]!r} has {sizes[row]} pictures, expected at least 2; remove it."
        )
    for name, names in zip(lists["list_id"], lists[images], strict=True):
        if len(set(names)) < len(names):
            raise UserError(f"List {name!r} has a picture twice; remove one of them.")
    parts = []
    for size in np.unique(sizes):
        same = lists[sizes == size]
        left, right = np.triu_indices(size, 1)
        values = {column: np.array(same[column].tolist(), dtype=object) for column in (images, ranks, *by_item)}
        pairs = len(left)
        rank = values[ranks].astype(float)
        part = {
            "list_id": np.repeat(same["list_id"].to_numpy(), pairs),
            "order": np.repeat(np.flatnonzero(sizes == size), pairs),
            "left": np.tile(left, len(same)),
            "right": np.tile(right, len(same)),
            "first": values[images][:, left].ravel(),
            "second": values[images][:, right].ravel(),
            # The lower rank is better.
            "choice": 0.5 * (1 + np.sign(rank[:, right] - rank[:, left])).ravel(),
            **{column: np.repeat(same[column].to_numpy(), pairs) for column in by_list},
        }
        for column in by_item:
            part[f"{column}_first"] = values[column][:, left].ravel()
            part[f"{column}_second"] = values[column][:, right].ravel()
        parts.append(pd.DataFrame(part))
    table = pd.concat(parts).sort_values(["order", "left", "right"], ignore_index=True)
    table["pair_id"] = table["list_id"].astype(str) + ":" + table["left"].astype(str) + "-" + table["right"].astype(str)
    return table.drop(columns=["order", "left", "right"])
