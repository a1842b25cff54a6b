"""Token maps of each facet's best probe, with the model and data that its store was made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from probing.analysis.engine import LOGISTIC, Context, FeatureSource, Recipe, Tables, check_made_from
from probing.analysis.engine.identity import recipe_of
from probing.analysis.engine.table_input import TableInput, load_table
from probing.analysis.token_maps.maps import token_cells, token_maps

if TYPE_CHECKING:
    import torch

    from probing.backbones import BackboneSpec
    from probing.preferences import PreferenceData

_MADE_BY = "python -m probing.measure reward-curve"
_CURVE_COLUMNS = ("control", "stream", "reduction", "facet", "sigma", "block", "cv_accuracy", "probe", "scaling")


@dataclass(frozen=True)
class TokenMapSettings:
    """Which probe scores the tokens, of which pairs.

    Attributes:
        curve: Table of the reward curve that was measured on the store; each facet's best linear probe on mean-pooled
            image tokens is refitted.
        sigma: Noise level in [0, 1]; default: each facet's best by cross-validation.
        block: 0-indexed block; default: each facet's best by cross-validation.
        count: Test pairs of each kind: highest, lowest and wrong margin.
    """

    curve: TableInput
    sigma: float | None = None
    block: int | None = None
    count: int = 4


def measure_token_maps(
    store: FeatureSource,
    pairs: pd.DataFrame,
    settings: TokenMapSettings,
    *,
    spec: BackboneSpec,
    data: PreferenceData,
    device: torch.device,
    facets: Sequence[str] | None = None,
    recipe: Recipe = LOGISTIC,
    encoded: Path | None = None,
) -> pd.DataFrame:
    """Score the image tokens of a few test pairs of each facet.

    Args:
        store: Features with the mean of image tokens.
        pairs: As for :func:`probing.analysis.engine.measure_cells`.
        settings: Curve, site and pairs.
        spec: The store's model.
        data: The data set that the store was made from.
        device: Device of the forwards.
        facets: Which facets; all of the curve if None.
        recipe: Labels and weights, if the curve does not record them; probe and scaling come from the curve.
        encoded: Folder of encoded pictures and prompts; None keeps nothing.

    Returns:
        The columns :data:`probing.analysis.token_maps.maps.COLUMNS`.

    Raises:
        UserError: Another model, data set or curve than the store's; a bad picture.
    """
    from probing.features.kept_inputs import open_kept
    from probing.features.loading import load_for
    from probing.features.tokens import check_same_model, read_image_tokens, settings_of
    from probing.preferences import prepare

    curve = load_table(settings.curve, _MADE_BY, _CURVE_COLUMNS)
    recipe = recipe_of(settings.curve) or recipe
    check_made_from(settings.curve, curve, store, pairs)
    cells = token_cells(curve, facets=facets, sigma=settings.sigma, block=settings.block, recipe=recipe)
    extraction = settings_of(store.attributes)
    data = data.without(set(data.items["item_id"]) - set(store.item_ids))
    backbone = load_for(spec, extraction, device=device)
    check_same_model(store.attributes, backbone)
    kept = open_kept(encoded, spec, extraction, backbone.parts, device.type)
    prompts = data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"]
    tables = [
        token_maps(
            store,
            pairs,
            cell,
            prompts,
            lambda items, sigma, block: read_image_tokens(
                spec, backbone, data, items, extraction, sigma=sigma, block=block, kept=kept
            ),
            lambda item: prepare(
                data.open_image(item), extraction.resolution, extraction.resize, extraction.background
            ),
            spec.architecture.token_grid(extraction.resolution),
            count=settings.count,
        )
        for cell in cells
    ]
    return pd.concat(tables, ignore_index=True)


def run_token_maps(context: Context, settings: TokenMapSettings) -> Tables:
    """Measure the token maps of one store."""
    model, data = context.model, context.data
    assert model is not None and data is not None
    table = measure_token_maps(
        context.stores[0],
        context.pairs,
        settings,
        spec=model.spec,
        data=data,
        device=model.device,
        facets=context.facets,
        recipe=context.recipe,
        encoded=context.run.encoded,
    )
    return {"token_maps": table}


def options_token_maps(context: Context, settings: TokenMapSettings) -> dict[str, Any]:
    """Return the curve itself for the identity of the maps; its path does not identify it."""
    return {"curve": load_table(settings.curve, _MADE_BY, _CURVE_COLUMNS)}


def report_token_maps(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Summarise the margins of the selected pairs, and the agreement with the store's rewards."""
    maps = tables["token_maps"]
    lines = []
    for facet, rows in maps.groupby("facet", sort=False):
        first = rows.iloc[0]
        lines.append(
            f"{facet}: σ = {first['sigma']:g}, block {first['block']}; margins towards the chosen item, in logits"
        )
        for selection, selected in rows.groupby("selection", sort=False):
            margins = selected.drop_duplicates("pair_id").sort_values("rank")["margin"]
            lines.append(f"  {selection:<8} {', '.join(f'{margin:+.2f}' for margin in margins)}")
    difference = (maps["reward"] - maps["store_reward"]).abs().max()
    return [*lines, f"Means of token scores differ from the store's rewards by at most {difference:.2g} logits."]
