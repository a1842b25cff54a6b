"""Which image regions carry a margin: per-token scores of a linear probe on mean-pooled tokens.

A linear reward of a mean is the mean of linear token scores, w'(Σ_t x_t / n) = Σ_t (w'x_t) / n, so the map is the
reward itself, laid out; nothing is approximated or attributed. What it does not say: a token's features hold what
attention brought to it from elsewhere.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Float
from PIL import Image

from probing.analysis.engine import LOGISTIC, Facet, FeatureSource, Recipe, Site, facets_of, provenance, read_site
from probing.errors import UserError
from probing.probes import LinearProbe
from probing.result_tables import best_cell

STREAM, REDUCTION = "image", "mean"
SELECTIONS = ("highest", "lowest", "wrong")
COLUMNS = (
    "model",
    "data",
    "split",
    "facet",
    "stream",
    "reduction",
    "sigma",
    "block",
    "depth",
    "probe",
    "scaling",
    "selection",
    "rank",
    "pair_id",
    "prompt_id",
    "prompt",
    "choice",
    "margin",
    "item_id",
    "side",
    "chosen",
    "reward",
    "store_reward",
    "rows",
    "columns",
    "scores",
    "picture",
    "n_pairs",
    "n_prompts",
    "store",
    "revision",
    "config_hash",
    "data_fingerprint",
    "resolution",
    "extraction_seed",
    "package_version",
)
"""One row an item of a pair. ``selection`` is highest (surest and right), lowest (margin nearest 0) or wrong (surest
and wrong); ``margin`` is towards the chosen item. ``scores`` are the item's token scores in reading order, numbers with
spaces, ``rows`` × ``columns`` of them; ``reward`` is their mean, ``store_reward`` what the store's features give.
``picture`` is what the model saw, a PNG of at most 128 pixels a side in base64, so that a figure needs no data set."""
_LARGEST_PICTURE = 128
_TOLERANCE = 0.1
"""Of rewards read now against rewards from the store, in standard deviations of rewards: a store may be float16, or
have been made in bfloat16 on another device."""


@dataclass(frozen=True)
class TokenCell:
    """Where the probe reads: a facet's probe at one noise level and block."""

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
    """Pick each facet's best linear probe on mean-pooled image tokens, by cross-validation on training pairs.

    Args:
        table: Of :func:`probing.analysis.reward_curve`.
        facets: Which facets; all if None.
        sigma: Noise level; the best if None.
        block: Block; the best if None.
        recipe: What the table was fitted by; probe and scaling are the table's.

    Raises:
        UserError: The table has no such cell.
    """
    rows = table[(table["control"] == "trained") & (table["stream"] == STREAM) & (table["reduction"] == REDUCTION)]
    cells = []
    for facet in facets if facets is not None else sorted(table["facet"].unique()):
        here = rows[rows["facet"] == facet]
        for name, asked in (("sigma", sigma), ("block", block)):
            here = here if asked is None else here[here[name] == asked]
        if here.empty:
            asked_for = "".join(
                f", {name} {value:g}" for name, value in (("sigma", sigma), ("block", block)) if value is not None
            )
            raise UserError(
                f"The reward curve has no trained probe on the mean of image tokens for facet {facet}{asked_for}; "
                f"fit it with python -m probing.fit --streams image --reductions mean."
            )
        one = best_cell(here)
        own = replace(recipe, probe=one["probe"], scaling=one["scaling"], code_length=False)
        cells.append(TokenCell(facet, float(one["sigma"]), int(one["block"]), own))
    return cells


def choose_pairs(margins: Float[np.ndarray, " pair"], count: int) -> dict[str, np.ndarray]:
    """Pick pairs by their margin towards the chosen item.

    Args:
        margins: Above 0: ranked as people did.
        count: Of each kind, fewer where there are no more.

    Returns:
        Rows of the ``highest``, the ``lowest`` in size, and the most negative (``wrong``) margins, the most telling
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
    """Fit a cell's probe again on training pairs, and lay its rewards of a few test pairs out over their tokens.

    Args:
        store: Features of mean-pooled tokens, of which the probe is made and pairs are chosen.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        cell: Of :func:`token_cells`.
        prompts: Text of each prompt, by prompt id.
        read_tokens: Reads all image tokens of a few items at a noise level and block, with the store's settings.
        open_picture: Opens an item's picture as the model saw it, a square.
        grid: Rows and columns of tokens.
        count: Pairs of each kind.

    Returns:
        The columns :data:`COLUMNS`.

    Raises:
        UserError: A probe that is not linear, no untied test pair, or tokens whose mean is not what the store holds.
    """
    if count < 1:
        raise UserError(f"Got {count} pairs of each kind, expected 1 or more.")
    (facet,) = facets_of(store, pairs, [cell.facet])
    features = read_site(store, Site(STREAM, REDUCTION, cell.sigma, cell.block))
    probe = cell.recipe.fit(features, facet.train)
    if not isinstance(probe, LinearProbe):
        raise UserError(f"Token maps are exact for linear probes alone, and {cell.recipe.probe} is none; use logistic.")
    rewards = features.astype(np.float64) @ probe.coef_
    chosen_pairs = _chosen(facet, rewards, count)
    ids = np.asarray(store.item_ids)
    items = pd.unique(chosen_pairs[["first", "second"]].to_numpy().ravel()).tolist()
    tokens = read_tokens(items, cell.sigma, cell.block).astype(np.float64)
    scores = dict(zip(items, tokens @ probe.coef_, strict=True))
    row_of = {item: row for row, item in enumerate(ids.tolist())}
    _check(scores, {item: rewards[row_of[item]] for item in items}, float(rewards.std()))

    common = {
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
        "n_pairs": len(facet.test.table),
        "n_prompts": facet.test.table["prompt_id"].nunique(),
    }
    rows = []
    for pair in chosen_pairs.to_dict("records"):
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
    """Write a picture as a PNG of at most 128 pixels a side, in base64."""
    small = picture.convert("RGB")
    small.thumbnail((_LARGEST_PICTURE, _LARGEST_PICTURE), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    small.save(held, "PNG", optimize=True)
    return base64.b64encode(held.getvalue()).decode()


def _chosen(facet: Facet, rewards: Float[np.ndarray, " item"], count: int) -> pd.DataFrame:
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
    """Refuse tokens that are not those which the store's means were made of."""
    off = max(abs(scores[item].mean() - rewards[item]) for item in rewards)
    if off > _TOLERANCE * spread:
        raise UserError(
            f"The tokens read now differ from the store's: rewards by up to {off:.3g}, {off / spread:.2g} standard "
            f"deviations; the model, its data or its settings have changed, so extract the store again."
        )
