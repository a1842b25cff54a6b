"""Experiments beyond the reward curve: ``python -m probing.analyse EXPERIMENT --store STORE [--store STORE …]``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probing.analysis.combinations import LARGEST, combinations
from probing.analysis.controls import controls
from probing.analysis.identity import identify
from probing.analysis.journal import clear
from probing.analysis.model_sizes import training_steps
from probing.analysis.noise import noise
from probing.analysis.recipe import Recipe
from probing.analysis.reward_curve import SHUFFLES
from probing.analysis.scaling import DEPTHS, scaling
from probing.analysis.stage_runs import parse_stages
from probing.commands import CommandParser, blocks, check_output_folder, named_values, numbers, run_command, words
from probing.errors import UserError
from probing.features import FeatureStore
from probing.preferences.audit import item_image_stats
from probing.preferences.options import add_data_options, add_split_options, load_data, split_pairs
from probing.probes import PROBES, SCALINGS
from probing.result_tables import read_result

_SIMILARITY = "python -m probing.similarity"
"""Makes tables of blocks and stages."""


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.analyse", description=__doc__)
    experiments = parser.add_subparsers(dest="experiment", required=True, metavar="EXPERIMENT")
    said = {
        "combinations": "probes on two blocks and more, within and across stages; is it stages, or width?",
        "noise": "accuracy over block and noise level; several levels or draws together; what redrawn noise moves",
        "scaling": "accuracy against parameters, FLOPs and training steps, over all stores",
        "controls": "the best cell beside random weights, other prompts, latents, shortcuts and shuffled choices",
    }
    for name, help_ in said.items():
        own = experiments.add_parser(name, help=help_, description=help_)
        _add_common(own, name)
        _OPTIONS[name](own)
    return parser


def _add_common(parser: CommandParser, experiment: str) -> None:
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
    add(
        "--keep",
        action="store_true",
        help="leave a table that was made from the same stores, pairs and options by "
        "this version; otherwise make it anew and print what differs",
    )
    add("--overwrite", action="store_true", help="replace a table of another model or store too")
    add("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")


def _combination_options(parser: CommandParser) -> None:
    add = parser.add_argument
    add(
        "--stages",
        help="table of stages (.parquet, .csv), or runs of blocks like 0-2,3-5,6-7; equal parts if not given",
    )
    add("--similarity", type=Path, help="table of block similarity: does it predict the gain of a pair?")
    add("--largest", type=int, default=LARGEST, help="blocks of the greedy head")


def _scaling_options(parser: CommandParser) -> None:
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


def _controls_options(parser: CommandParser) -> None:
    parser.add_argument("--shuffles", type=int, default=SHUFFLES, help="shuffles of the training choices")
    parser.add_argument(
        "--image-stats",
        action="store_true",
        help="open the pictures of --data and measure size, brightness and the like",
    )
    add_data_options(parser)


_OPTIONS: dict[str, Callable[[CommandParser], Any]] = {
    "combinations": _combination_options,
    "noise": lambda parser: None,
    "scaling": _scaling_options,
    "controls": _controls_options,
}


def run(arguments: argparse.Namespace) -> None:
    check_output_folder(arguments.output)
    stores = [FeatureStore.open(path) for path in arguments.store]
    pairs = split_pairs(stores[0].read_pairs(), arguments)
    journal = arguments.output / f"{arguments.experiment}-cells"
    written = arguments.output / f"{arguments.experiment}.parquet"
    asked: dict[str, Any] = {
        "streams": arguments.streams,
        "reductions": arguments.reductions,
        "sigmas": arguments.sigmas,
        "facets": arguments.facets,
        "recipe": Recipe(arguments.probe, arguments.scale),
        "seed": arguments.seed,
        **({} if arguments.experiment == "scaling" else {"blocks": arguments.blocks}),
        **_OWN[arguments.experiment](stores, arguments),
    }
    options = {"experiment": arguments.experiment, **asked, "recipe": vars(asked["recipe"])}
    if arguments.experiment == "scaling":
        cards = (training_steps(store) for store in stores)
        options["steps_of_cards"] = [None if math.isnan(number) else number for number in cards]
    identity = identify(stores, pairs, options, subjects=_subjects(arguments.experiment, stores))
    if arguments.keep:
        difference = identity.difference(written)
        if difference is None:
            print(f"Kept:     {written}, which was made from the same stores, pairs and options")
            return
        print(f"Anew:     {written.name}, because {difference}")
    identity.refuse_others([written], overwrite=arguments.overwrite)
    common = {"workers": arguments.workers, "journal": journal}
    table = _EXPERIMENTS[arguments.experiment](stores, pairs, **asked, **common)
    identity.write({arguments.experiment: table}, arguments.output)
    clear(journal)
    if "statement" in table:
        for row in table[table["statement"].notna()].to_dict("records"):
            where = "" if str(row["statement"]).startswith(f"{row['facet']}:") else f"{_where(row)}: "
            print(f"  {where}{row['statement']}")
    print(
        f"Table:    {written} ({len(table):,} rows)\nNext:     python -m probing.figures --results {arguments.output}"
    )


def _combinations(stores: list[FeatureStore], pairs: pd.DataFrame, **asked: Any) -> pd.DataFrame:
    return pd.concat([combinations(store, pairs, **asked) for store in stores], ignore_index=True)


_EXPERIMENTS: dict[str, Callable[..., pd.DataFrame]] = {
    "combinations": _combinations,
    "noise": noise,
    "scaling": scaling,
    "controls": controls,
}


def _combinations_asked(stores: list[FeatureStore], arguments: argparse.Namespace) -> dict[str, Any]:
    near = None
    if arguments.similarity is not None:
        near = read_result(arguments.similarity, _SIMILARITY, ("block", "other", "value"))
    return {"stages": _stages(arguments.stages), "similarity": near, "largest": arguments.largest}


def _scaling_asked(stores: list[FeatureStore], arguments: argparse.Namespace) -> dict[str, Any]:
    example = "testbed-s-step00600=600"
    steps = {}
    for name, value in named_values("--steps", arguments.steps, example).items():
        try:
            steps[name] = float(value)
        except ValueError:
            given = f"{name}={value}"
            raise UserError(f"--steps expects NAME=VALUE with a number, such as {example}; got {given!r}.") from None
    return {"stages": _stages(arguments.stages), "steps": steps, "depths": arguments.depths}


def _controls_asked(stores: list[FeatureStore], arguments: argparse.Namespace) -> dict[str, Any]:
    image_stats = item_image_stats(load_data(arguments, split=None)) if arguments.image_stats else None
    return {"image_stats": image_stats, "shuffles": arguments.shuffles}


_OWN: dict[str, Callable[[list[FeatureStore], argparse.Namespace], dict[str, Any]]] = {
    "combinations": _combinations_asked,
    "noise": lambda stores, arguments: {},
    "scaling": _scaling_asked,
    "controls": _controls_asked,
}
"""By experiment: the arguments that it alone takes, read before anything is fitted."""


def _subjects(experiment: str, stores: list[FeatureStore]) -> list[FeatureStore]:
    """Pick the stores whose results must not be lost: all of combinations, the trained one of controls, the first."""
    if experiment == "combinations":
        return stores
    trained = [
        store
        for store in stores
        if not store.attributes.get("random_init") and store.attributes.get("prompts", "own") == "own"
    ]
    return (trained or stores)[:1] if experiment == "controls" else stores[:1]


def _stages(text: str | None) -> pd.DataFrame | None:
    if text is None:
        return None
    if Path(text).suffix not in (".parquet", ".csv"):
        return parse_stages(text)
    return read_result(Path(text), _SIMILARITY, ("stage", "first_block", "last_block"))


def _where(row: dict) -> str:
    head = f", {row['head']}" if row.get("kind") == "fit" else ""
    return f"{row['facet']}, {row['stream']} {row['reduction']}, σ = {row['sigma']:g}{head}"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
