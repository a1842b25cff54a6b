"""Does a probe's exact token map lie where people saw the fault, within a picture?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float

from probing.analysis.engine import (
    LOGISTIC,
    Context,
    FeatureSource,
    Recipe,
    Site,
    StoreIdentity,
    Tables,
    check_made_from,
    column_names,
    facets_of,
    read_site,
)
from probing.analysis.engine.identity import recipe_of
from probing.analysis.engine.table_input import TableInput, load_table
from probing.analysis.engine.verdicts import WORDS, correct, format_p_value
from probing.analysis.heat_maps.agreement import METRICS, centre_map, edge_map, truth_on_grid
from probing.analysis.token_maps.maps import REDUCTION, STREAM, TokenCell, as_text, cell_columns, token_cells
from probing.errors import UserError
from probing.preferences import PreferenceData, prepare
from probing.probes import LinearProbe
from probing.progress import progress
from probing.statistics import mean_interval, paired_difference

_MADE_BY = "python -m probing.measure reward-curve"
_CURVE_COLUMNS = ("control", "stream", "reduction", "facet", "sigma", "block", "cv_accuracy", "probe", "scaling")
TRAINED = "trained"
_SHUFFLES = 5
_AT_ONCE = 32
_EXAMPLES = 4
COLUMNS = column_names(
    "model data split facet stream reduction sigma block depth probe scaling kind metric control value ci_low ci_high "
    "null against difference difference_low difference_high p_value p_value_holm family verdict statement n_items "
    "n_prompts"
)
"""One row a facet's probe, kind of heat map, metric and map. ``value`` is the mean over pictures of the agreement
within a picture. ``difference`` is the trained map's less this row's (``against``), and in its own row less chance.
Holm's families are the comparisons of one metric.

``control``: ``trained``; ``random-init``, the same site of random weights; ``shuffled``, the trained map against the
heat maps of other pictures; ``edges`` and ``centre``, maps that know nothing of a reward.
"""
EXAMPLE_COLUMNS = column_names(
    "model data facet sigma block kind rank item_id prompt_id prompt auc rows columns scores truth picture"
)
"""One row a picture: its token scores, people's map on the same tokens, and the model's input as PNG in base64."""


@dataclass(frozen=True)
class HeatMapSettings:
    """Which probes' token maps, and how many pictures.

    Attributes:
        curve: Table of the reward curve that was measured on the first store; each facet's best linear probe on
            mean-pooled image tokens is refitted, and its site is read in the stores of random weights too.
        sigma: Noise level in [0, 1]; default: each facet's best by cross-validation.
        block: 0-indexed block; default: each facet's best by cross-validation.
        items: Test pictures with a heat map of each kind, spread evenly.
    """

    curve: TableInput
    sigma: float | None = None
    block: int | None = None
    items: int = 200

    def __post_init__(self) -> None:
        if self.items < 2:
            raise UserError(f"--items must be at least 2, got {self.items}.")


class _Truths(NamedTuple):
    """People's heat maps of one kind, on the tokens of the pictures in which they mark something but not everything."""

    kind: str
    items: list[str]
    maps: Float[np.ndarray, "item token"]


ReadTokens = Callable[[FeatureSource, Sequence[str], float, int], Float[np.ndarray, "item token channel"]]


def measure_heat_maps(
    stores: Sequence[FeatureSource],
    pairs: pd.DataFrame,
    settings: HeatMapSettings,
    *,
    data: PreferenceData,
    grid: tuple[int, int],
    read_tokens: ReadTokens,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
) -> Tables:
    """Compare token maps with people's heat maps within each picture.

    A map is less the mean of all maps at that position: most of a linear score of a token depends on where it is. A
    fault lowers a reward, so people's map is compared with the map's negative.

    Args:
        stores: The trained store first, then any of random weights: the mean over them is one control.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        settings: Curve, site, number of pictures.
        data: Items, pictures and heat maps that the stores were made from.
        grid: Rows and columns of image tokens.
        read_tokens: Returns all image tokens of items at a noise level and block, with a store's settings.
        facets: Which facets; all of the curve if None.
        recipe: Labels and weights, if the curve does not record them.

    Returns:
        ``heat_maps`` with :data:`COLUMNS`, and ``heat_map_examples`` with :data:`EXAMPLE_COLUMNS`.

    Raises:
        UserError: No heat maps, no picture with one, another curve than the store's.
    """
    if not data.heat_map_kinds:
        raise UserError(f"{data.name} has no heat maps; rapidata, richhf and the testbed have some.")
    first = stores[0]
    curve = load_table(settings.curve, _MADE_BY, _CURVE_COLUMNS)
    recipe = recipe_of(settings.curve) or recipe
    check_made_from(settings.curve, curve, first, pairs)
    cells = token_cells(curve, facets=facets, sigma=settings.sigma, block=settings.block, recipe=recipe)
    resolution, resize, background = (first.attributes[name] for name in ("resolution", "resize", "background"))
    truths = [
        _truths(first, pairs, data, kind, grid, (int(resolution), str(resize)), settings.items)
        for kind in data.heat_map_kinds
    ]
    truths = [truth for truth in truths if len(truth.items) > 1]
    if not truths:
        raise UserError(f"No test picture of {data.name} has a heat map that marks a part of it; give more --items.")
    items = list(dict.fromkeys(item for truth in truths for item in truth.items))

    squares = {item: prepare(data.open_image(item), int(resolution), str(resize), str(background)) for item in items}
    plain = {
        "edges": {item: edge_map(square, grid) for item, square in squares.items()},
        "centre": dict.fromkeys(items, centre_map(grid)),
    }
    with progress(len(cells) * len(stores) * len(items), "heat maps", "items") as bar:
        # Store by store: each has a backbone to load.
        of_stores = [
            [_fault_maps(store, pairs, cell, items, read_tokens, bar.update) for cell in cells] for store in stores
        ]
    rows, examples = [], []
    for cell, (trained, *random) in zip(cells, zip(*of_stores, strict=True), strict=True):
        for truth in truths:
            prompts = data.items.set_index("item_id")["prompt_id"][truth.items].to_numpy()
            common = {**cell_columns(first, cell), "kind": truth.kind, "n_items": len(truth.items)}
            for metric in METRICS:
                values = {TRAINED: _agreement(metric, trained, truth)}
                if random:
                    values["random-init"] = np.mean([_agreement(metric, maps, truth) for maps in random], axis=0)
                values["shuffled"] = _shuffled_agreement(metric, trained, truth, prompts)
                values |= {name: _agreement(metric, maps, truth) for name, maps in plain.items()}
                rows += _rows(metric, values, prompts, common)
            examples += _examples(common, truth, trained, squares, data, grid)
    table = correct(pd.DataFrame(rows), "difference", by=["metric"])
    table["statement"] = [_statement(row) for row in table.to_dict("records")]
    return {
        "heat_maps": table[list(COLUMNS)],
        "heat_map_examples": pd.DataFrame(examples, columns=list(EXAMPLE_COLUMNS)),
    }


def _truths(
    store: FeatureSource,
    pairs: pd.DataFrame,
    data: PreferenceData,
    kind: str,
    grid: tuple[int, int],
    shape: tuple[int, str],
    count: int,
) -> _Truths:
    test = pairs[pairs["split"] == "test"]
    stored = set(np.asarray(store.item_ids).tolist())
    candidates = [item for item in pd.unique(test[["first", "second"]].to_numpy().ravel()) if item in stored]
    # Spread evenly, whatever the order of the pairs.
    order = np.argsort(np.arange(len(candidates)) * 0.6180339887498949 % 1.0, kind="stable")
    found: dict[str, np.ndarray] = {}
    for row in order:
        item = str(candidates[row])
        heat_map = data.heat_map(item, kind)
        if heat_map is None or heat_map.max() <= 0:
            continue
        truth = truth_on_grid(heat_map, data.open_image(item), *shape, grid)
        if np.isfinite(METRICS["auc"][0](truth, truth)):
            found[item] = truth
        if len(found) == count:
            break
    return _Truths(kind, list(found), np.array(list(found.values())))


def _fault_maps(
    store: FeatureSource,
    pairs: pd.DataFrame,
    cell: TokenCell,
    items: Sequence[str],
    read_tokens: ReadTokens,
    update: Callable[[int], Any],
) -> dict[str, Float[np.ndarray, " token"]]:
    """Fit a probe at the cell's site on the store, and return its negative token scores less the mean by position."""
    (facet,) = facets_of(store, pairs, [cell.facet])
    probe = cell.recipe.fit(read_site(store, Site(STREAM, REDUCTION, cell.sigma, cell.block)), facet.train)
    if not isinstance(probe, LinearProbe):
        raise UserError(f"Token maps are exact for linear probes alone, and {cell.recipe.probe} is none; use logistic.")
    scores = []
    for start in range(0, len(items), _AT_ONCE):
        part = items[start : start + _AT_ONCE]
        scores.append(read_tokens(store, part, cell.sigma, cell.block).astype(np.float64) @ probe.coef_)
        update(len(part))
    together = np.concatenate(scores)
    return dict(zip(items, together.mean(axis=0) - together, strict=True))


def _agreement(metric: str, maps: Mapping[str, np.ndarray], truth: _Truths) -> Float[np.ndarray, " item"]:
    measure, _ = METRICS[metric]
    return np.array([measure(maps[item], other) for item, other in zip(truth.items, truth.maps, strict=True)])


def _shuffled_agreement(
    metric: str, maps: Mapping[str, np.ndarray], truth: _Truths, prompts: np.ndarray
) -> Float[np.ndarray, " item"]:
    """Compare each map with the heat maps of pictures of other prompts, and return the mean over several."""
    measure, null = METRICS[metric]
    rng = np.random.default_rng(0)
    drawn = np.full((_SHUFFLES, len(truth.items)), np.nan)
    for values in drawn:
        for row, other in enumerate(rng.permutation(len(truth.items))):
            if prompts[row] != prompts[other]:
                values[row] = measure(maps[truth.items[row]], truth.maps[other])
    counted = np.isfinite(drawn).any(axis=0)
    return np.where(counted, np.nanmean(np.where(counted, drawn, null), axis=0), np.nan)


def _rows(
    metric: str, values: Mapping[str, np.ndarray], prompts: np.ndarray, common: Mapping[str, Any]
) -> list[dict[str, Any]]:
    null, rows = METRICS[metric][1], []
    for control, of_items in values.items():
        measured = np.isfinite(of_items)
        against = np.full_like(of_items, null) if control == TRAINED else of_items
        mean = mean_interval(of_items[measured], prompts[measured])
        difference = paired_difference(values[TRAINED][measured], against[measured], prompts[measured])
        rows.append(
            {
                **common,
                "metric": metric,
                "control": control,
                "value": mean.estimate,
                "ci_low": mean.low,
                "ci_high": mean.high,
                "null": null,
                "against": "chance" if control == TRAINED else control,
                "difference": difference.estimate,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "p_value": difference.p_value,
                "smallest_p_value": difference.smallest_p_value,
                "n_prompts": len(np.unique(prompts[measured])),
            }
        )
    return rows


def _statement(row: Mapping[Any, Any]) -> str:
    """Say how a trained map compares with chance or with a control."""
    against = {"chance": "chance", "shuffled": "other pictures' heat maps", "random-init": "random weights"}
    name = against.get(row["against"], f"the {row['against']}")
    measured = f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
    return (
        f"the map of {row['facet']} on {row['kind']} {WORDS[row['verdict']]} {name} by {row['metric']}: "
        f"{measured}{format_p_value(row['verdict'], row['p_value_holm'])}."
    )


def _examples(
    common: Mapping[str, Any],
    truth: _Truths,
    maps: Mapping[str, np.ndarray],
    squares: Mapping[str, Any],
    data: PreferenceData,
    grid: tuple[int, int],
) -> list[dict[str, Any]]:
    """Show pictures from the best to the worst agreement, evenly, so that none is chosen for its beauty."""
    areas = _agreement("auc", maps, truth)
    order = np.argsort(-areas, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, _EXAMPLES).round().astype(int))]
    by_item = data.items.set_index("item_id")
    return [
        {
            **{name: common[name] for name in ("model", "data", "facet", "sigma", "block", "kind")},
            "rank": int(np.flatnonzero(order == row)[0]) + 1,
            "item_id": truth.items[row],
            "prompt_id": by_item.loc[truth.items[row], "prompt_id"],
            "prompt": by_item.loc[truth.items[row], "prompt"],
            "auc": areas[row],
            "rows": grid[0],
            "columns": grid[1],
            "scores": _text(-maps[truth.items[row]]),
            "truth": _text(truth.maps[row]),
            "picture": as_text(squares[truth.items[row]]),
        }
        for row in chosen
    ]


def _text(values: np.ndarray) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def run_heat_maps(context: Context, settings: HeatMapSettings) -> Tables:
    """Read the tokens of every store's backbone, and compare."""
    from probing.backbones import Backbone
    from probing.features.kept_inputs import open_kept
    from probing.features.loading import load_for
    from probing.features.tokens import check_same_model, read_image_tokens, settings_of

    model, data = context.model, context.data
    assert model is not None and data is not None
    stores = [context.trained, *(store for store in context.stores if StoreIdentity(store).control == "random-init")]
    ids = set.intersection(*(set(store.item_ids) for store in stores))
    data = data.without(set(data.items["item_id"]) - ids)
    loaded: dict[int, Backbone] = {}

    def read_tokens(store: FeatureSource, items: Sequence[str], sigma: float, block: int) -> np.ndarray:
        extraction = settings_of(store.attributes)
        if id(store) not in loaded:
            # One backbone at a time: a large one fills the device.
            loaded.clear()
            loaded[id(store)] = load_for(model.spec, extraction, device=model.device)
            check_same_model(store.attributes, loaded[id(store)])
        backbone = loaded[id(store)]
        kept = open_kept(context.run.encoded, model.spec, extraction, backbone.parts, model.device.type)
        return read_image_tokens(model.spec, backbone, data, items, extraction, sigma=sigma, block=block, kept=kept)

    return measure_heat_maps(
        stores,
        context.pairs,
        settings,
        data=data,
        grid=model.spec.architecture.token_grid(int(str(stores[0].attributes["resolution"]))),
        read_tokens=read_tokens,
        facets=context.facets,
        recipe=context.recipe,
    )


def options_heat_maps(context: Context, settings: HeatMapSettings) -> dict[str, Any]:
    """Return the curve itself for the identity of the tables; its path does not identify it."""
    return {"curve": load_table(settings.curve, _MADE_BY, _CURVE_COLUMNS)}


def report_heat_maps(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """State the area under the curve of each trained map against chance and every control."""
    table = tables["heat_maps"]
    return list(table.loc[table["metric"] == "auc", "statement"])
