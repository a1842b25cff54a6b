"""Frozen, LoRA and fully trained backbones as rewards: Table 3 of DiT-Reward in small, on the testbed.

``python -m probing.testbed.adaptation`` trains every reward that is not there yet, scores the test pairs with each, and
writes the tables ``adaptation.csv`` (accuracies) and ``adaptation_differences.csv`` (paired, over the same pairs).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

import probing
from probing.commands import check_output_folder, run_command
from probing.errors import UserError
from probing.options import OptionsParser
from probing.reward import AdapterSettings, AdaptSettings, LatentReward, adapt
from probing.statistics import holm, outcomes, paired_difference, share_interval
from probing.table_files import write_csv
from probing.testbed.rival import Rival, score_items

FROZEN, RIVAL = "frozen", "testbed-rival"
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
        output: Folder of the tables.
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
        store = probing.extract(model, data, sigmas=[options.sigma], output=options.cache / f"{model}.zarr")
        for seed in range(options.seeds):
            for how, reward in _rewards(model, store, data, seed, options):
                scores[model, how, seed] = _scores(reward, data, options.cache / f"{model}-{how}-{seed}.csv")
                print(f"{model}, {how}, seed {seed}: {_accuracy(scores[model, how, seed], test):.3f}", flush=True)
    rival = score_items(data, Rival.load().rewards).set_index("item_id")["reward"]
    accuracies, differences = tables(scores, rival, test)
    write_csv(options.output / "adaptation.csv", accuracies)
    write_csv(options.output / "adaptation_differences.csv", differences)
    columns = ["model", "how", "facet", "value", "ci_low", "ci_high", "least", "most"]
    print(accuracies[columns].to_string(index=False))
    print(f"Tables:   adaptation.csv, adaptation_differences.csv in {options.output}")


def _rewards(
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


def _scores(reward: LatentReward, data: probing.PreferenceData, path: Path) -> pd.Series:
    """Score the items of the test pairs, or read their scores."""
    if not path.exists():
        test = data.pairs[data.pairs["split"] == "test"]
        ids = pd.unique(test[["first", "second"]].to_numpy().ravel())
        write_csv(path, reward.score_data(data, data.items[data.items["item_id"].isin(ids)]))
    return pd.read_csv(path, dtype={"item_id": str}).set_index("item_id")["reward"]


def _right(rewards: pd.Series, pairs: pd.DataFrame) -> np.ndarray:
    margins = (pairs["first"].map(rewards) - pairs["second"].map(rewards)).to_numpy(dtype=float)
    return outcomes(margins, pairs["choice"].to_numpy(dtype=float))


def _accuracy(rewards: pd.Series, pairs: pd.DataFrame) -> float:
    return float(np.nanmean(_right(rewards, pairs)))


def tables(
    scores: dict[tuple[str, str, int], pd.Series], rival: pd.Series, test: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measure each way of training, mean over its seeds, and compare it with the frozen backbone and with the rival.

    Args:
        scores: By model, way and seed: the reward of every test item.
        rival: Rewards of the discriminative baseline.
        test: The test pairs.

    Returns:
        Accuracies with intervals over prompts, and the least and most of single seeds; paired differences, corrected by
        Holm over the table.
    """
    accuracies, differences = [], []
    facets = ["all", *sorted(test["facet"].unique())]
    ways = list(dict.fromkeys((model, how) for model, how, _ in scores))
    for facet in facets:
        pairs = test if facet == "all" else test[test["facet"] == facet]
        prompts = pairs["prompt_id"].to_numpy()
        untied = pairs["choice"].to_numpy() != 0.5
        ceiling = np.nan
        if "probability" in pairs:
            probability = pairs.loc[untied, "probability"].to_numpy(dtype=float)
            ceiling = float(np.maximum(probability, 1 - probability).mean())
        right = {
            (model, how): np.stack([_right(s, pairs) for (m, h, _), s in scores.items() if (m, h) == (model, how)])
            for model, how in ways
        }
        right[RIVAL, ""] = _right(rival, pairs)[None]
        about = {"facet": facet, "n_pairs": int(untied.sum()), "n_prompts": len(np.unique(prompts[untied]))}
        for (model, how), by_seed in right.items():
            interval = share_interval(by_seed.mean(axis=0), prompts)
            each = np.nanmean(by_seed, axis=1)
            ends = {"value": interval.estimate, "ci_low": interval.low, "ci_high": interval.high}
            accuracies.append(
                {"model": model, "how": how, **about, **{k: float(v) for k, v in ends.items()}, "seeds": len(by_seed)}
                | {"least": float(each.min()), "most": float(each.max()), "ceiling": ceiling}
            )
        comparisons = [((m, h), (m, FROZEN)) for m, h in ways if h != FROZEN] + [(way, (RIVAL, "")) for way in ways]
        for first, second in comparisons:
            test_of = paired_difference(right[first].mean(axis=0), right[second].mean(axis=0), prompts)
            differences.append(
                {"model": first[0], "how": first[1], "against": " ".join(second).strip(), **about}
                | {"difference": float(test_of.estimate), "ci_low": float(test_of.low), "ci_high": float(test_of.high)}
                | {"p_value": float(test_of.p_value)}
            )
    compared = pd.DataFrame(differences)
    return pd.DataFrame(accuracies), compared.assign(p_value_holm=holm(compared["p_value"].to_numpy(dtype=float)))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
