"""Frozen, LoRA and fully trained backbones as rewards: Table 3 of DiT-Reward in small, on the testbed.

``python -m probing.testbed.adaptation`` trains every reward that is not there yet, scores the test pairs with each, and
extracts the features of each adapted backbone. It draws ``adaptation`` (accuracies) and ``adaptation_curves`` (the
reward curve of the adapted backbones beside the frozen one's) and writes ``adaptation_differences.csv`` (paired, over
the same pairs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import probing
from probing.analysis.engine import Run, Sites, digest_of, measure_cells
from probing.commands import check_output_folder, run_command
from probing.errors import UserError
from probing.options import OptionsParser
from probing.reward import AdapterSettings, AdaptSettings, LatentReward, adapt
from probing.table_files import write_csv
from probing.testbed.adaptation_tables import FROZEN, curves, right, tables
from probing.testbed.rival import Rival, score_items
from probing.testbed.studies import save_study

RATES = {"lora": 1e-3, "full": 1e-4}
"""Learning rates of the backbone, ten and twenty times those for backbones of billions of parameters."""
HEAD = {"epochs": "30", "learning_rate": "1e-3", "patience": "5", "seeds": "1"}
"""The paper's schedule of the head is meant for a million pairs."""


@dataclass(frozen=True)
class AdaptationOptions:
    """Options of the command.

    Attributes:
        models: Models, separated by commas.
        seeds: Number of seeds.
        how: Ways of adapting, separated by commas: lora, full.
        epochs: Passes over the training pairs.
        sigma: Noise level.
        limit: Largest number of items, by whole prompt groups; default: all.
        cache: Folder of stores and rewards; what is there is not trained again.
        output: Folder of the figures and tables.
    """

    models: tuple[str, ...] = ("testbed-xs", "testbed-s")
    seeds: int = 3
    how: tuple[str, ...] = ("lora", "full")
    epochs: int = 4
    sigma: float = 0.005
    limit: int | None = None
    cache: Path = Path("cache/adaptation")
    output: Path = Path("figures")


PARSER = OptionsParser("probing.testbed.adaptation", AdaptationOptions, __doc__)


def run(options: AdaptationOptions) -> None:
    if unknown := [how for how in options.how if how not in RATES]:
        raise UserError(f"Unknown way {unknown[0]!r}; choose of {', '.join(RATES)}.")
    check_output_folder(options.output)
    data = probing.load_pairs("testbed", limit=options.limit)
    test = data.pairs[data.pairs["split"] == "test"]
    scores: dict[tuple[str, str, int], pd.Series] = {}
    for model in options.models:
        store = backbone_store(model, FROZEN, data, options)
        for seed in range(options.seeds):
            for how, reward in trained_rewards(model, store, data, seed, options):
                check_store(reward, store, options.cache)
                scores[model, how, seed] = _scores(reward, data, options.cache / f"{model}-{how}-{seed}.csv")
                accuracy = float(np.nanmean(right(scores[model, how, seed], test)))
                print(f"{model}, {how}, seed {seed}: {accuracy:.3f}", flush=True)
    rival = score_items(data, Rival.load().rewards).set_index("item_id")["reward"]
    accuracies, differences = tables(scores, rival, test)
    by_block = curves(
        {
            (model, how): measure_cells(
                backbone_store(model, how, data, options),
                data.pairs,
                sites=Sites(streams=("image",)),
                run=Run(journal=options.cache / "fits"),
            )
            for model in options.models
            for how in (FROZEN, *options.how)
        }
    )
    measured = {"adaptation": accuracies, "adaptation_curves": by_block, "adaptation_differences": differences}
    columns = ["model", "how", "facet", "value", "ci_low", "ci_high", "least", "most"]
    print(accuracies[columns].to_string(index=False))
    print(save_study(measured, options.output, PARSER.command(options)))


def backbone_store(
    model: str, how: str, data: probing.PreferenceData, options: AdaptationOptions, *, seed: int = 0
) -> probing.FeatureStore:
    """Extract the features of a backbone: the frozen one, or that of an adapted reward's first seed."""
    name, transformer = model, None
    if how != FROZEN:
        name = f"{model}-{how}-{seed}"
        transformer = options.cache / f"{name}-transformer"
        if not transformer.exists():
            LatentReward.load(options.cache / name).save_transformer(transformer)
    output = options.cache / f"{name}.zarr"
    return probing.extract(model, data, transformer=transformer, sigmas=[options.sigma], output=output)


def trained_rewards(
    model: str, store: probing.FeatureStore, data: probing.PreferenceData, seed: int, options: AdaptationOptions
) -> Iterator[tuple[str, LatentReward]]:
    """Train what is not there: the frozen reward of a seed, then its adapted ones."""
    folder = options.cache / f"{model}-{FROZEN}-{seed}"
    if not folder.exists():
        probing.train_reward(store, preset="dit-reward", options={**HEAD, "seed": str(seed)}).save(folder)
    yield FROZEN, LatentReward.load(folder)
    for how in options.how:
        adapted = options.cache / f"{model}-{how}-{seed}"
        if not adapted.exists():
            settings = AdaptSettings(
                adapter=AdapterSettings(how=how),  # type: ignore[arg-type]
                epochs=options.epochs,
                learning_rate=RATES[how],
                head_learning_rate=1e-4,
                seed=seed,
            )
            encoded, training = options.cache / "encoded", options.cache / f"{adapted.name}.training"
            adapt(LatentReward.load(folder), data, settings, encoded=encoded, checkpoint=training).save(adapted)
        yield how, LatentReward.load(adapted)


def check_store(reward: LatentReward, store: probing.FeatureStore, cache: Path) -> None:
    """Refuse a kept reward that was trained on other features than a store's.

    Raises:
        UserError: It was.
    """
    if reward.manifest.training["store_digest"] != digest_of(store):
        raise UserError(f"{cache} holds rewards that were trained on other items; give another folder, or remove it.")


def _scores(reward: LatentReward, data: probing.PreferenceData, path: Path) -> pd.Series:
    """Score the items of the test pairs, or read their scores."""
    if not path.exists():
        test = data.pairs[data.pairs["split"] == "test"]
        ids = pd.unique(test[["first", "second"]].to_numpy().ravel())
        write_csv(path, reward.score_data(data, data.items[data.items["item_id"].isin(ids)]))
    return pd.read_csv(path, dtype={"item_id": str}).set_index("item_id")["reward"]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
