"""Lay a probe's rewards out over image tokens, for telling pairs: ``python -m probing.tokens --store STORE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from probing.analysis.identity import check_made_from, identify
from probing.analysis.recipe import Recipe
from probing.analysis.token_maps import SELECTIONS, TokenCell, token_cells, token_maps
from probing.backbones import COMPUTE_DTYPES, load_backbone, pick_device, resolve
from probing.commands import CommandParser, add_transformer_option, check_output_folder, run_command, words
from probing.data_options import add_data_options, add_split_options, load_data, split_pairs
from probing.errors import UserError
from probing.features import FeatureStore
from probing.features.tokens import check_same_model, read_image_tokens, settings_of
from probing.preferences import prepare
from probing.result_tables import read_result

CURVE = "reward_curve.parquet"


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.tokens", description=__doc__)
    add = parser.add_argument
    add(
        "--store", type=Path, required=True, help="feature store with the mean of image tokens; its pairs lie beside it"
    )
    add(
        "--results",
        type=Path,
        default=Path("cache/results"),
        help="folder of probing.fit's tables; this one goes there",
    )
    add("--model", help="name or folder of the store's model; the store's own name if not given")
    add_transformer_option(parser)
    add_data_options(parser)
    add("--facets", type=words, help="with commas; all of the reward curve if not given")
    add("--sigma", type=float, help="noise level in [0, 1]; each facet's best by cross-validation if not given")
    add("--block", type=int, help="0-indexed; each facet's best by cross-validation if not given")
    add_split_options(parser)
    add("--seed", type=int, default=0, help="of the split; it, labels and weights as probing.fit was told")
    add("--labels", default="choice", metavar="COLUMN", help="column of the pairs that the probe is trained on")
    add("--weights", metavar="COLUMN", help="column that says how much each training pair counts")
    add("--pairs", type=int, default=4, help=f"test pairs of each kind: {', '.join(SELECTIONS)} margin")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--output", type=Path, help="folder of the table; --results if not given")
    add("--overwrite", action="store_true", help="replace the table of another model or store too")
    return parser


def run(arguments: argparse.Namespace) -> None:
    output = arguments.output or arguments.results
    check_output_folder(output)
    store = FeatureStore.open(arguments.store)
    pairs, table = split_pairs(store.read_pairs(), arguments), _read_curve(arguments.results)
    recipe = Recipe(labels=arguments.labels, weights=arguments.weights)
    check_made_from(arguments.results / CURVE, table, store, pairs, recipe)
    cells = token_cells(table, facets=arguments.facets, sigma=arguments.sigma, block=arguments.block, recipe=recipe)
    options = {"cells": [str(cell) for cell in cells], "pairs": arguments.pairs}
    identity = identify([store], pairs, options)
    identity.refuse_others([output / "token_maps.parquet"], overwrite=arguments.overwrite)
    settings = settings_of(store.attributes)
    # A name such as sd35-medium+tuned says that the store was made with --transformer.
    named, _, replaced = str(store.attributes["model"]).partition("+")
    if replaced and arguments.model is None and arguments.transformer is None:
        raise UserError(f"The store was made with another transformer, {replaced}; give its folder by --transformer.")
    spec = resolve(arguments.model or named, arguments.transformer)
    data = load_data(arguments, split=None)
    data = data.without(set(data.items["item_id"]) - set(store.item_ids))
    backbone = load_backbone(
        spec,
        device=pick_device(arguments.device),
        compute_dtype=COMPUTE_DTYPES[settings.compute_dtype],
        random_init=settings.random_init,
        seed=settings.seed,
        t5_length=settings.t5_length,
        use_t5=settings.use_t5,
    )
    check_same_model(store.attributes, backbone)

    def maps_of(cell: TokenCell) -> pd.DataFrame:
        return token_maps(
            store,
            pairs,
            cell,
            data.items.drop_duplicates("prompt_id").set_index("prompt_id")["prompt"],
            lambda items, sigma, block: read_image_tokens(
                spec, backbone, data, items, settings, sigma=sigma, block=block
            ),
            lambda item: prepare(data.open_image(item), settings.resolution, settings.resize, settings.background),
            spec.architecture.token_grid(settings.resolution),
            count=arguments.pairs,
        )

    maps = pd.concat([maps_of(cell) for cell in cells], ignore_index=True)
    identity.write({"token_maps": maps}, output)
    _report(maps)
    print(
        f"Table:    token_maps.parquet ({len(maps):,} pictures) in {output}\n"
        f"Next:     python -m probing.figures --results {output}"
    )


def _read_curve(results: Path) -> pd.DataFrame:
    path = results / CURVE
    if not path.is_file():
        raise UserError(f"There is no {path}; run python -m probing.fit first, or give its folder by --results.")
    columns = ("control", "stream", "reduction", "facet", "sigma", "block", "cv_accuracy", "probe", "scaling")
    return read_result(path, "python -m probing.fit", columns)


def _report(maps: pd.DataFrame) -> None:
    for facet, own in maps.groupby("facet", sort=False):
        one = own.iloc[0]
        print(f"{facet}: σ = {one['sigma']:g}, block {one['block']}; margins towards the chosen item, in logits")
        for selection, rows in own.groupby("selection", sort=False):
            margins = rows.drop_duplicates("pair_id").sort_values("rank")["margin"]
            print(f"  {selection:<8} {', '.join(f'{margin:+.2f}' for margin in margins)}")
    off = (maps["reward"] - maps["store_reward"]).abs().max()
    print(f"Means of token scores differ from the store's rewards by at most {off:.2g} logits.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
