"""Experiments beyond the reward curve: ``python -m probing.analyse EXPERIMENT --store STORE [--store STORE …]``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probing.analysis.combinations import LARGEST, combinations
from probing.analysis.controls import controls
from probing.analysis.journal import clear
from probing.analysis.noise import noise
from probing.analysis.recipe import Recipe
from probing.analysis.results import was_made_from
from probing.analysis.reward_curve import SHUFFLES
from probing.analysis.scaling import DEPTHS, scaling
from probing.analysis.stage_runs import parse_stages
from probing.commands import blocks, named_values, numbers, run_command, words
from probing.errors import UserError
from probing.features import FeatureStore
from probing.preferences.audit import item_looks
from probing.preferences.options import add_data_options, add_split_options, load_data, split_pairs
from probing.probes import PROBES, SCALINGS


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m probing.analyse", description=__doc__)
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    said = {
        "combinations": "probes on two blocks and more, within and across stages; is it stages, or width?",
        "noise": "accuracy over block and noise level; several levels or draws together; what redrawn noise moves",
        "scaling": "accuracy against parameters, FLOPs and training steps, over all stores",
        "controls": "the best cell beside random weights, other prompts, latents, shortcuts and shuffled choices",
    }
    for name, help_ in said.items():
        own = experiments.add_parser(
            name, help=help_, description=help_, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        _add_common(own, name)
        _OPTIONS[name](own)
    return parser


def _add_common(parser: argparse.ArgumentParser, experiment: str) -> None:
    add = parser.add_argument
    stores = {
        "combinations": "feature store; give several for several models",
        "noise": "feature store; further ones of other --seed, or of --pair-noise shared, are other draws of the noise",
        "scaling": "feature store; give one for each model",
        "controls": "feature store; the trained one, and any of random-init, --prompts foreign, --prompts empty",
    }[experiment]
    add("--store", type=Path, action="append", required=True, help=stores)
    add("--probe", choices=sorted(PROBES), default="logistic", help="what is fitted")
    add("--scale", choices=(*SCALINGS, "auto"), default="standard", help="how features are scaled")
    add("--streams", type=words, help="with commas; all of the store if not given")
    add("--reductions", type=words, help="with commas; all of the store if not given")
    add("--sigmas", type=numbers, help="noise levels with commas; all of the store if not given")
    if experiment != "scaling":
        add("--blocks", type=blocks, default="all", help="'all', or 0-indexed numbers with commas")
    add("--facets", type=words, help="with commas; all of the pairs' if not given")
    add_split_options(parser)
    add("--seed", type=int, default=0, help="of the bootstrap, and of whatever is drawn")
    add("--workers", type=int, default=1, help="probes fitted at once")
    add("--output", type=Path, default=Path("cache/results"), help="folder of the tables")
    add("--keep", action="store_true", help="leave a table that was made from these stores as they are, however asked")
    add("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def _combination_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--stages",
        help="table of stages (.parquet, .csv), or runs of blocks like 0-2,3-5,6-7; equal parts if not given",
    )
    add("--similarity", type=Path, help="table of block similarity: does it predict the gain of a pair?")
    add("--largest", type=int, default=LARGEST, help="blocks of the greedy head")


def _scaling_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--stages", help="table of stages (.parquet, .csv) of all models; equal parts if not given")
    add(
        "--steps",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="training steps of a store, where no card.json beside its weights says them; give several",
    )
    add("--depths", type=numbers, default=list(DEPTHS), help="relative depths at which models are matched")


def _controls_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help="shuffles of the training choices")
    parser.add_argument("--looks", action="store_true",
                        help="open the pictures of --data and measure size, brightness and the like")  # fmt: skip
    add_data_options(parser)


_OPTIONS: dict[str, Callable[[argparse.ArgumentParser], Any]] = {
    "combinations": _combination_options,
    "noise": lambda parser: None,
    "scaling": _scaling_options,
    "controls": _controls_options,
}


def run(arguments: argparse.Namespace) -> None:
    stores = [FeatureStore.open(path) for path in arguments.store]
    pairs = split_pairs(stores[0].read_pairs(), arguments)
    journal = arguments.output / f"{arguments.experiment}-cells"
    written = arguments.output / f"{arguments.experiment}.parquet"
    if arguments.keep and was_made_from(written, stores, all_of_them=arguments.experiment == "scaling"):
        print(f"Kept:     {written}, which was made from these stores")
        return
    common: dict[str, Any] = {
        "streams": arguments.streams,
        "reductions": arguments.reductions,
        "sigmas": arguments.sigmas,
        "facets": arguments.facets,
        "recipe": Recipe(arguments.probe, arguments.scale),
        "seed": arguments.seed,
        "workers": arguments.workers,
        "journal": journal,
    }
    table = _EXPERIMENTS[arguments.experiment](stores, pairs, arguments, common)
    arguments.output.mkdir(parents=True, exist_ok=True)
    table.to_parquet(written, index=False)
    clear(journal)
    if "says" in table:
        for row in table[table["says"].notna()].to_dict("records"):
            where = "" if str(row["says"]).startswith(f"{row['facet']}:") else f"{_where(row)}: "
            print(f"  {where}{row['says']}")
    print(
        f"Table:    {written} ({len(table):,} rows)\nNext:     python -m probing.figures --results {arguments.output}"
    )


def _combinations(stores: list[FeatureStore], pairs: pd.DataFrame, arguments: argparse.Namespace, common: dict) -> Any:
    near = None if arguments.similarity is None else _read_table(arguments.similarity)
    stages = _stages(arguments.stages)
    parts = [
        combinations(store, pairs, stages=stages, similarity=near, blocks=arguments.blocks, largest=arguments.largest,
                     **common)
        for store in stores
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def _noise(stores: list[FeatureStore], pairs: pd.DataFrame, arguments: argparse.Namespace, common: dict) -> Any:
    return noise(stores, pairs, blocks=arguments.blocks, **common)


def _scaling(stores: list[FeatureStore], pairs: pd.DataFrame, arguments: argparse.Namespace, common: dict) -> Any:
    example = "testbed-s-step00600=600"
    steps = {}
    for name, value in named_values("--steps", arguments.steps, example).items():
        try:
            steps[name] = float(value)
        except ValueError:
            said = f"{name}={value}"
            raise UserError(f"--steps wants NAME=VALUE with a number, such as {example}; got {said!r}.") from None
    stages = _stages(arguments.stages)
    return scaling(stores, pairs, stages=stages, steps=steps, depths=arguments.depths, **common)


def _controls(stores: list[FeatureStore], pairs: pd.DataFrame, arguments: argparse.Namespace, common: dict) -> Any:
    looks = item_looks(load_data(arguments, split=None)) if arguments.looks else None
    return controls(stores, pairs, looks=looks, blocks=arguments.blocks, shuffles=arguments.shuffles, **common)


_EXPERIMENTS: dict[str, Callable[..., pd.DataFrame]] = {
    "combinations": _combinations,
    "noise": _noise,
    "scaling": _scaling,
    "controls": _controls,
}


def _stages(said: str | None) -> pd.DataFrame | None:
    if said is None:
        return None
    return _read_table(Path(said)) if Path(said).suffix in (".parquet", ".csv") else parse_stages(said)


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"There is no table at {path}; python -m probing.similarity makes tables of blocks and stages.")
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def _where(row: dict) -> str:
    head = f", {row['head']}" if row.get("kind") == "fit" else ""
    return f"{row['facet']}, {row['stream']} {row['reduction']}, σ = {row['sigma']:g}{head}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
