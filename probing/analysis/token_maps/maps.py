"""Token maps: scores of a linear probe on mean-pooled tokens, one for each image token.

A linear reward of a mean is the mean of linear token scores, w'(Σ_t x_t / n) = Σ_t (w'x_t) / n, so the map is exact:
its mean is the reward. A token's features also carry what attention brought from other tokens.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from probing.analysis.engine import (
    LOGISTIC,
    Facet,
    FeatureSource,
    Recipe,
    Site,
    column_names,
    facets_of,
    provenance,
    read_site,
)
from probing.errors import UserError
from probing.probes import LinearProbe
from probing.result_tables import best_cell

STREAM, REDUCTION = "image", "mean"
COLUMNS = column_names(
    "model data split facet stream reduction sigma block depth probe scaling selection rank pair_id prompt_id prompt "
    "choice margin item_id side chosen reward store_reward rows columns scores picture n_pairs n_prompts"
)
"""One row an item of a pair. ``selection`` is highest (largest margin), lowest (margin nearest 0) or wrong (most
negative margin); ``margin`` is towards the chosen item. ``scores`` are the item's token scores in reading order,
numbers with spaces, ``rows`` × ``columns`` of them; ``reward`` is their mean, ``store_reward`` that of the store's
features. ``picture`` is the model's input, a PNG of at most 128 pixels a side in base64, so that a figure needs no data
set."""
_LARGEST_PICTURE = 128
_TOLERANCE = 0.1
"""Largest difference of token means to the store's rewards, in standard deviations of rewards: a store may be float16,
or have been made in bfloat16 on another device."""


@dataclass(frozen=True)
class TokenCell:
    """A facet's probe at one noise level and block."""

    facet: str
    sigma: float
    block: int
    recipe: Recipe


def token_cells(
    table: pd.DataFrame,
    *,
    facets: Sequence[str] | None = None,
    sigma: float | None = None,
    block: int | None = None,
    recipe: Recipe = LOGISTIC,
) -> list[TokenCell]:
    """Select each facet's best linear probe on mean-pooled image tokens, by cross-validation on training pairs.

    Args:
        table: Cells of :func:`probing.analysis.reward_curve.measure_curve`.
        facets: Which facets; all if None.
        sigma: Noise level; the best if None.
        block: Block; the best if None.
        recipe: Recipe of the table; probe and scaling come from the table.

    Raises:
        UserError: The table has no such cell.
    """
    rows = table[(table["control"] == "trained") & (table["stream"] == STREAM) & (table["reduction"] == REDUCTION)]
    cells = []
    for facet in facets if facets is not None else sorted(table["facet"].unique()):
        candidates = rows[rows["facet"] == facet]
        requested = {name: value for name, value in (("sigma", sigma), ("block", block)) if value is not None}
        for name, value in requested.items():
            candidates = candidates[candidates[name] == value]
        if candidates.empty:
            values = "".join(f", {name} {value:g}" for name, value in requested.items())
            raise UserError(
                f"The reward curve has no trained probe on the mean of image tokens for facet {facet}{values}; measure "
                f"it with python -m probing.measure reward-curve --streams image --reductions mean."
            )
        cell = best_cell(candidates)
        refit = replace(recipe, probe=cell["probe"], scaling=cell["scaling"], code_length=False)
        cells.append(TokenCell(facet, float(cell["sigma"]), int(cell["block"]), refit))
    return cells


def cell_columns(store: FeatureSource, cell: TokenCell) -> dict[str, Any]:
    """Return the columns that say which probe of which store was read, on test pairs."""
    return {
        **provenance(store),
        "split": "test",
        "facet": cell.facet,
        "stream": STREAM,
        "reduction": REDUCTION,
        "sigma": cell.sigma,
        "block": cell.block,
        "depth": (cell.block + 1) / store.num_blocks,
        "probe": cell.recipe.probe,
        "scaling": cell.recipe.scaling,
    }


def choose_pairs(margins: Float[np.ndarray, " pair"], count: int) -> dict[str, np.ndarray]:
    """Select pairs by their margin towards the chosen item.

    Args:
        margins: Margins; above 0 if the pair is ranked as people did.
        count: Number of pairs of each kind; fewer if there are no more.

    Returns:
        Rows of the ``highest``, the ``lowest`` in size, and the most negative (``wrong``) margins, the most extreme
        first; none twice.
    """
    order = np.argsort(-margins, kind="stable")
    highest = order[:count][margins[order[:count]] > 0]
    wrong = order[::-1][:count]
    wrong = wrong[margins[wrong] < 0]
    taken = np.concatenate([highest, wrong])
    lowest = [row for row in np.argsort(np.abs(margins), kind="stable") if row not in taken][:count]
    return {"highest": highest, "lowest": np.array(lowest, dtype=int), "wrong": wrong}


def token_maps(
    store: FeatureSource,
    pairs: pd.DataFrame,
    cell: TokenCell,
    prompts: pd.Series,
    read_tokens: Callable[[Sequence[str], float, int], Float[np.ndarray, "item token channel"]],
    open_picture: Callable[[str], Image.Image],
    grid: tuple[int, int],
    *,
    count: int = 4,
) -> pd.DataFrame:
    """Refit a cell's probe on training pairs, and score the tokens of a few test pairs.

    Args:
        store: Features of mean-pooled tokens, on which the probe is fitted and pairs are selected.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        cell: A cell of :func:`token_cells`.
        prompts: Text of each prompt, by prompt id.
        read_tokens: Returns all image tokens of a few items at a noise level and block, with the store's settings.
        open_picture: Returns an item's picture as given to the model, a square.
        grid: Rows and columns of tokens.
        count: Number of pairs of each kind.

    Returns:
        The columns :data:`COLUMNS`.

    Raises:
        UserError: A probe that is not linear, no untied test pair, or tokens whose mean differs from the store's.
    """
    if count < 1:
        raise UserError(f"Got {count} pairs of each kind, expected 1 or more.")
    (facet,) = facets_of(store, pairs, [cell.facet])
    features = read_site(store, Site(STREAM, REDUCTION, cell.sigma, cell.block))
    probe = cell.recipe.fit(features, facet.train)
    if not isinstance(probe, LinearProbe):
        raise UserError(f"Token maps are exact for linear probes alone, and {cell.recipe.probe} is none; use logistic.")
    rewards = features.astype(np.float64) @ probe.coef_
    selected = _select(facet, rewards, count)
    ids = np.asarray(store.item_ids)
    items = pd.unique(selected[["first", "second"]].to_numpy().ravel()).tolist()
    tokens = read_tokens(items, cell.sigma, cell.block).astype(np.float64)
    scores = dict(zip(items, tokens @ probe.coef_, strict=True))
    row_of = {item: row for row, item in enumerate(ids.tolist())}
    _check(scores, {item: rewards[row_of[item]] for item in items}, float(rewards.std()))

    common = {
        **cell_columns(store, cell),
        "n_pairs": len(facet.test.table),
        "n_prompts": facet.test.table["prompt_id"].nunique(),
    }
    rows = []
    for pair in selected.to_dict("records"):
        for side in ("first", "second"):
            item = pair[side]
            rows.append(
                {
                    **common,
                    **{name: pair[name] for name in ("selection", "rank", "pair_id", "prompt_id", "choice", "margin")},
                    "prompt": prompts[pair["prompt_id"]],
                    "item_id": item,
                    "side": side,
                    "chosen": (pair["choice"] > 0.5) == (side == "first"),
                    "reward": scores[item].mean(),
                    "store_reward": rewards[row_of[item]],
                    "rows": grid[0],
                    "columns": grid[1],
                    "scores": " ".join(f"{score:.6g}" for score in scores[item]),
                    "picture": as_text(open_picture(item)),
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def as_text(picture: Image.Image) -> str:
    """Return a picture as a PNG of at most 128 pixels a side, in base64."""
    small = picture.convert("RGB")
    small.thumbnail((_LARGEST_PICTURE, _LARGEST_PICTURE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _select(facet: Facet, rewards: Float[np.ndarray, " item"], count: int) -> pd.DataFrame:
    test = facet.test
    sign = np.sign(test.choices - 0.5)
    untied = np.flatnonzero(sign)
    margins = sign[untied] * (rewards[test.first] - rewards[test.second])[untied]
    parts = []
    for selection, rows in choose_pairs(margins, count).items():
        table = test.table.iloc[untied[rows]]
        parts.append(table.assign(selection=selection, rank=np.arange(1, len(rows) + 1), margin=margins[rows]))
    return pd.concat(parts, ignore_index=True)


def _check(scores: dict[str, np.ndarray], rewards: dict[str, float], spread: float) -> None:
    """Refuse tokens whose means differ from the store's."""
    difference = max(abs(scores[item].mean() - rewards[item]) for item in rewards)
    if difference > _TOLERANCE * spread:
        raise UserError(
            f"The tokens read now differ from the store's: rewards by up to {difference:.3g}, "
            f"{difference / spread:.2g} standard deviations; the model, its data or its settings have changed, so "
            f"extract the store again."
        )
