"""Fit a probe on every cell of a feature store, with its controls: ``python -m probing.fit --store STORE``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from probing.analysis import (
    CellResults,
    compare,
    compare_blocks,
    fit_cells,
    linearity,
    massive_activations,
    measures,
    reward_curve,
)
from probing.analysis.blocks import DELTA
from probing.analysis.identity import identify
from probing.analysis.journal import clear
from probing.analysis.published import add_published_curve
from probing.analysis.recipe import Recipe
from probing.analysis.references import reference
from probing.analysis.reward_curve import SHUFFLES
from probing.analysis.rewards import rewards_of_best
from probing.commands import CommandParser, blocks, check_output_folder, named_values, numbers, run_command, words
from probing.errors import UserError
from probing.features import FeatureStore
from probing.preferences.options import add_split_options, split_pairs
from probing.preferences.rewards import read_rewards
from probing.probes import PROBES, SCALINGS
from probing.result_tables import best_cell
from probing.statistics import LEVEL

TABLES = ("reward_curve", "comparisons", "outcomes", "margins", "measures", "blocks", "massive", "rewards")
"""Written always; ``linearity`` where asked for."""
NETWORKS = ("mlp", "mlp_paper", "attention")


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.fit", description=__doc__)
    add = parser.add_argument
    add("--store", type=Path, required=True, help="feature store; its pairs lie beside it as NAME.pairs.parquet")
    add("--random-init-store", type=Path, help="store of the same items in the same architecture with fresh weights")
    add(
        "--reference",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="another model's rewards of the same items (item_id, reward; .csv, .parquet or .jsonl), as a line in the "
        "reward curve; give several",
    )
    add("--probe", choices=sorted(PROBES), default="logistic", help="what is fitted")
    add("--scale", choices=(*SCALINGS, "auto"), default="standard", help="how features are scaled; auto: out of fold")
    add("--code-length", action="store_true", help="measure description lengths too, by online coding (logistic)")
    add(
        "--linearity",
        metavar="PROBE",
        choices=NETWORKS,
        help="also fit this network on the trained cells, and say whether it reads more: " + ", ".join(NETWORKS),
    )
    add(
        "--delta",
        type=float,
        default=DELTA,
        help="difference of accuracy that matters, in comparisons of blocks and probes; 0.01 is one point",
    )
    add("--labels", default="choice", help="column of the pairs to train on, such as share_first of the annotators")
    add("--weights", help="column that says how much each training pair counts, such as confidence")
    add("--device", default="auto", help="of networks and of matrix products: auto, cpu, or as torch names it")
    add("--streams", type=words, help="with commas; all of the store if not given")
    add("--reductions", type=words, help="with commas; all of the store if not given")
    add("--sigmas", type=numbers, help="noise levels with commas; all of the store if not given")
    add("--blocks", type=blocks, default="all", help="'all', or 0-indexed numbers with commas")
    add("--facets", type=words, help="with commas; all of the pairs' if not given")
    add_split_options(parser)
    add("--shuffles", type=int, default=SHUFFLES, help="shuffles of the training choices, as a control")
    add("--seed", type=int, default=0, help="of shuffles and bootstrap")
    add("--workers", type=int, default=1, help="cells' places fitted at once")
    add("--output", type=Path, default=Path("cache/results"), help="folder of the tables")
    add("--overwrite", action="store_true", help="replace tables of another model or store too")
    return parser


def run(arguments: argparse.Namespace) -> None:
    if not arguments.delta > 0:
        raise UserError(f"Got --delta {arguments.delta}, expected a number above 0; 0.01 is one point.")
    check_output_folder(arguments.output)
    store = FeatureStore.open(arguments.store)
    fresh = None if arguments.random_init_store is None else FeatureStore.open(arguments.random_init_store)
    pairs = split_pairs(store.read_pairs(), arguments)
    # Validate references and the output folder before the slow fits.
    given = named_values("--reference", arguments.reference, "HPSv3=scores.parquet")
    rewards = {name: read_rewards(Path(file)) for name, file in given.items()}
    others = [
        reference(name, scores, store, pairs, facets=arguments.facets, seed=arguments.seed)
        for name, scores in rewards.items()
    ]
    journal = arguments.output / "cells"
    recipe = Recipe(
        arguments.probe, arguments.scale, arguments.code_length, arguments.labels, arguments.weights, arguments.device
    )
    asked: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("streams", "reductions", "sigmas", "blocks", "facets", "seed", "workers")
    }
    options = {name: value for name, value in asked.items() if name != "workers"}
    options |= {"recipe": vars(recipe), "shuffles": arguments.shuffles, "delta": arguments.delta}
    options |= {"linearity": arguments.linearity, "references": rewards}
    identity = identify([store] if fresh is None else [store, fresh], pairs, options)
    names = [*TABLES, *(["linearity"] if arguments.linearity else [])]
    identity.refuse_others([arguments.output / f"{name}.parquet" for name in names], overwrite=arguments.overwrite)
    results = reward_curve(
        store, pairs, random_init=fresh, recipe=recipe, shuffles=arguments.shuffles, journal=journal, **asked
    )
    results = CellResults.join(results, *others)
    comparisons = compare(results, seed=arguments.seed)
    measured = measures(results, pairs, seed=arguments.seed)
    found = (
        add_published_curve(results.table),
        comparisons,
        results.outcomes,
        results.margins,
        measured,
        compare_blocks(results, delta=arguments.delta, seed=arguments.seed),
        massive_activations(store, item_ids=_training_items(pairs)),
        rewards_of_best(store, pairs, results.table, recipe),
    )
    tables = dict(zip(TABLES, found, strict=True))
    if arguments.linearity:
        network = replace(recipe, probe=arguments.linearity, scaling="standard", code_length=False)
        other = fit_cells(store, pairs, recipe=network, journal=journal, **asked)
        tables["linearity"] = linearity(_trained(results), other, margin=arguments.delta, seed=arguments.seed)
    identity.write(tables, arguments.output)
    clear(journal)
    _report(results, comparisons, measured, tables)
    print(
        f"Tables:   {', '.join(f'{name}.parquet' for name in tables)} in {arguments.output}\n"
        f"Next:     python -m probing.figures --results {arguments.output}"
    )


def _training_items(pairs: pd.DataFrame) -> list[str]:
    return pd.unique(pairs.loc[pairs["split"] == "train", ["first", "second"]].to_numpy().ravel()).tolist()


def _trained(results: CellResults) -> CellResults:
    return CellResults(results.table[results.table["control"] == "trained"], results.outcomes, results.margins)


def _report(
    results: CellResults, comparisons: pd.DataFrame, measured: pd.DataFrame, tables: dict[str, pd.DataFrame]
) -> None:
    print("Best cell of each facet, chosen on training pairs; accuracy on test pairs [95% interval over prompts]:")
    for facet, cells in results.table[results.table["control"] == "trained"].groupby("facet"):
        cell = best_cell(cells)
        print(
            f"  {facet}: {cell['stream']} {cell['reduction']}, σ = {cell['sigma']:g}, block {cell['block']}: "
            f"{100 * cell['value']:.1f}% [{100 * cell['ci_low']:.1f}, {100 * cell['ci_high']:.1f}], "
            f"{cell['n_pairs']:,} pairs of {cell['n_prompts']:,} prompts"
        )
        if blocks := _may_be_best(measured, cell):
            print(f"    blocks of this curve that may be its best (95% confidence set): {', '.join(map(str, blocks))}")
        if needed := _needed(tables["blocks"], cell):
            print(f"    {needed}")
    if "linearity" in tables:
        _report_linearity(tables["linearity"])
    for statement in comparisons.loc[comparisons["scope"] == "overall", "statement"]:
        print(f"  {statement}")


def _may_be_best(measured: pd.DataFrame, cell: pd.Series) -> list[int]:
    same = measured[
        (measured["metric"] == "may_be_best") & (measured["value"] == 1) & (measured["control"] == "trained")
    ]
    for key in ("facet", "stream", "reduction", "sigma"):
        same = same[same[key] == cell[key]]
    return sorted(same["block"].astype(int))


def _needed(blocks: pd.DataFrame, cell: pd.Series) -> str:
    """Say how many test pairs would tell the chosen block from its runner-up."""
    rivals = blocks[blocks["chosen_cell"] == cell["cell"]]
    if not len(rivals):
        return ""
    rival = rivals.iloc[int(rivals["difference"].to_numpy().argmin())]
    return (
        f"to tell it from block {rival['block']} by {100 * rival['delta']:g} points (power 80%, level 5%): "
        f"{rival['pairs_needed']:,} test pairs of {rival['prompts_needed']:,} prompts; here are {rival['n_pairs']:,}"
    )


def _report_linearity(table: pd.DataFrame) -> None:
    """Count, for each facet, the cells where the network reads more, and where the two are shown to be the same."""
    for facet, cells in table.groupby("facet"):
        more = (cells["p_value_holm"] <= LEVEL) & (cells["difference"] > 0)
        print(
            f"  {facet}, {cells['other'].iloc[0]} less {cells['probe'].iloc[0]}: above in {int(more.sum())} of "
            f"{len(cells)} cells after Holm's correction; the same to within {100 * cells['margin'].iloc[0]:g} points "
            f"in {int(cells['equivalent'].sum())}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
