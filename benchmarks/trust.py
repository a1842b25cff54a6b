"""Coverage of intervals, false verdicts of whole experiments on stores without a signal, and power.

    python benchmarks/trust.py --output benchmarks/trust.csv

Every row is a share of simulated data sets with Wilson's interval. ``coverage``: intervals that hold the truth, 95 ± 2%
where results are not too discrete. ``false verdict``: data sets where a family of an experiment has a verdict, though
nothing is to be found; at most 5 ± 2%. ``power``: planted gains of 5 points that are found among all pairs of 24 and 38
blocks, with 5,000 pairs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm
from statsmodels.stats.proportion import proportion_confint
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parents[1]))

from probing.analysis.combinations import measure_combinations
from probing.analysis.controls import ControlSettings, measure_controls
from probing.analysis.engine import CellResults, correct
from probing.analysis.noise import measure_noise
from probing.analysis.reward_curve import compare, compare_blocks, compare_probes, measure_curve
from probing.analysis.scaling import ScalingSettings, measure_scaling
from probing.result_tables import DECIDED
from probing.statistics import crossed_interval, find_segments, mean_interval, paired_difference, share_interval
from tests.fakes.planted_store import PlantedStore, planted_pairs

GRID = [
    (prompts, pairs, accuracy, dependence)
    for prompts in (20, 50, 100, 1000)
    for pairs, dependences in ((1, (0.0,)), (10, (0.0, 0.3)))
    for accuracy in (0.5, 0.72, 0.9, 0.98)
    for dependence in dependences
]


def rate(hits: np.ndarray) -> dict[str, float]:
    low, high = proportion_confint(int(hits.sum()), len(hits), method="wilson")
    return {"value": float(hits.mean()), "ci_low": float(low), "ci_high": float(high), "data_sets": len(hits)}


def coverage(data_sets: int) -> Iterator[dict[str, object]]:
    for prompts, pairs, accuracy, dependence in tqdm(GRID, desc="coverage"):
        rng = np.random.default_rng(0)
        count = data_sets if prompts < 1000 else max(500, data_sets // 10)
        chance = np.full((prompts, count), accuracy)
        if dependence:
            rest = (1 - dependence) / dependence
            chance = rng.beta(accuracy * rest, (1 - accuracy) * rest, size=chance.shape)
        values = (rng.random((prompts, pairs, count)) < chance[:, None]).astype(float).reshape(-1, count)
        groups = np.repeat(np.arange(prompts), pairs)
        # Another probe of the same accuracy agrees with the first on four pairs in five.
        other = np.where(rng.random(values.shape) < 0.8, values, rng.random(values.shape) < np.repeat(chance, pairs, 0))
        where = {"prompts": prompts, "pairs": pairs, "accuracy": accuracy, "dependence": dependence}
        difference = paired_difference(values, other, groups)
        for name, interval, truth in (
            ("accuracy", share_interval(values, groups), accuracy),
            ("difference", difference, 0.0),
        ):
            hits = (interval.low <= truth + 1e-12) & (truth <= interval.high + 1e-12)
            yield {"kind": "coverage", "what": name, **where, **rate(hits)}
        yield {"kind": "false verdict", "what": "one paired test", **where, **rate(difference.p_value <= 0.05)}


def nothing(pairs: pd.DataFrame, seed: int, blocks: int = 5, **changed: object) -> PlantedStore:
    return PlantedStore(pairs, lambda *_: (0.0, 0.0), num_blocks=blocks, seed=seed, **changed)


def any_verdict(table: pd.DataFrame, *columns: str) -> bool:
    return any(table[column].isin(DECIDED).any() for column in columns)


def null_curve(seed: int) -> dict[str, bool]:
    pairs = planted_pairs(train=120, test=150, seed=seed)
    fresh = [nothing(pairs, 1000 * seed + draw, random_init=True) for draw in (1, 2)]
    results = measure_curve(nothing(pairs, seed), pairs, random_init=fresh, shuffles=20)
    shuffled = results.table[results.table["control"] == "shuffled"]
    low, high = shuffled["ci_low"].iloc[0], shuffled["ci_high"].iloc[0]
    blocks = compare_blocks(results)
    return {
        "reward curve: comparisons": any_verdict(compare(results), "verdict"),
        # One family a curve: the first stands for each.
        "reward curve: blocks": any_verdict(blocks[blocks["control"] == "trained"], "verdict"),
        "reward curve: shuffled interval": bool(low > 0.5 or high < 0.5),
    }


def null_linearity(seed: int) -> dict[str, bool]:
    pairs = planted_pairs(train=120, test=150, seed=seed)
    one, two = (measure_curve(nothing(pairs, seed + shift), pairs, shuffles=0) for shift in (0, 5000))
    other = CellResults(two.table, two.outcomes, two.margins)
    return {"linearity": any_verdict(compare_probes(one.trained, other.trained), "verdict")}


def null_controls(seed: int) -> dict[str, bool]:
    pairs = planted_pairs(train=120, test=150, seed=seed)
    stores = [nothing(pairs, seed), nothing(pairs, seed + 7000, prompts="empty")]
    table = measure_controls(stores, pairs, ControlSettings())
    return {
        "controls: above or below chance": any_verdict(table, "verdict"),
        "controls: differences": any_verdict(table, "difference_verdict"),
    }


def null_combinations(seed: int) -> dict[str, bool]:
    pairs = planted_pairs(train=120, test=150, seed=seed)
    table = measure_combinations(nothing(pairs, seed), pairs)
    kinds = table.groupby("kind")["gain_verdict"].apply(lambda verdicts: verdicts.isin(DECIDED).any())
    copies = PlantedStore(pairs, lambda *_: (0.9, 0.9), num_blocks=4, seed=seed)
    features = copies.read("image", "mean", 0.1, 0)
    copies.read = lambda *_: features
    copied = measure_combinations(copies, pairs)
    contrast = copied[copied["kind"] == "contrast"]
    return {
        **{f"combinations: gains of kind {kind}": bool(kinds[kind]) for kind in ("single", "pair")},
        "combinations: contrasts": any_verdict(table[table["kind"] == "contrast"], "verdict"),
        "combinations: copies of a block, above": bool((copied["gain_verdict"] == "above").any()),
        "combinations: copies of a block, above its width": bool((contrast["verdict"] == "above").any()),
    }


def null_noise(seed: int) -> dict[str, bool]:
    pairs = planted_pairs(train=120, test=150, seed=seed)
    stores = [nothing(pairs, seed, sigmas=(0.1, 0.5), draw=draw, noise=2.0) for draw in (0, 1)]
    table = measure_noise(stores, pairs)
    return {f"noise: {kind}": any_verdict(table[table["kind"] == kind], "gain_verdict") for kind in ("sigmas", "draws")}


def null_scaling(seed: int) -> dict[str, bool]:
    pairs = planted_pairs(train=120, test=150, seed=seed)
    stores = [
        nothing(
            pairs,
            seed + 100 * size,
            blocks=3 + size,
            model=f"m{size}",
            parameters=10.0**size,
            forward_flops=10.0**size,
            revision=f"{size}{fresh}",
            random_init=fresh,
        )
        for size in range(4)
        for fresh in (False, True)
    ]
    table = measure_scaling(stores, pairs, ScalingSettings(depths=(0.5,)))
    fits = table[(table["kind"] == "fit") & (table["against"] == "parameters")]
    return {f"scaling: {series}": any_verdict(part, "verdict") for series, part in fits.groupby("series")}


def null_stages(seed: int) -> dict[str, bool]:
    rng = np.random.default_rng(seed)
    found = {}
    for name, speed in (
        ("even", np.ones(12)),
        ("uneven, uniform", rng.uniform(0.2, 1.8, 12)),
        ("uneven, lognormal", np.exp(0.7 * rng.standard_normal(12))),
    ):
        way = np.cumsum(speed)
        noise = 0.02 * rng.normal(size=(30, 12, 12))
        noise = (noise + noise.transpose(0, 2, 1)) / 2
        noise[:, range(12), range(12)] = 0
        values = np.exp(-np.abs(way[:, None] - way) / 20) + noise
        found[f"stages: drift, {name}"] = find_segments(values, resamples=200, seed=seed).number > 1
    return found


NULLS: tuple[Callable[[int], dict[str, bool]], ...] = (
    null_curve,
    null_linearity,
    null_controls,
    null_combinations,
    null_noise,
    null_scaling,
    null_stages,
)


def false_verdicts(data_sets: int) -> Iterator[dict[str, object]]:
    for experiment in NULLS:
        found = pd.DataFrame([experiment(seed) for seed in tqdm(range(data_sets), desc=experiment.__name__)])
        for name in found:
            yield {"kind": "false verdict", "what": name, **rate(found[name].to_numpy(dtype=bool))}


def power(data_sets: int) -> Iterator[dict[str, object]]:
    """One pair of blocks gains 5 points over the best block, all others nothing; 5,000 test pairs of 2,500 prompts."""
    groups = np.arange(5000) // 2
    for blocks in (24, 38):
        tests = blocks * (blocks - 1) // 2
        found = []
        for seed in range(max(50, data_sets // 4)):
            rng = np.random.default_rng(seed)
            shared = rng.standard_normal(5000)
            single = np.sqrt(0.8) * shared + np.sqrt(0.2) * rng.standard_normal(5000) < norm.ppf(0.72)
            gains = np.array([0.05, *np.zeros(19)])
            scores = np.sqrt(0.8) * shared[:, None] + np.sqrt(0.2) * rng.standard_normal((5000, 20))
            heads = (scores < norm.ppf(0.72 + gains)).astype(float)
            test = paired_difference(heads, np.repeat(single[:, None], 20, axis=1).astype(float), groups)
            # The other pairs of blocks have p-values under the null, as large as they come.
            p_values = np.concatenate([test.p_value, rng.random(tests - 20)])
            table = pd.DataFrame({"p_value": p_values, "smallest_p_value": 1e-300, "n_prompts": 2500, "gain": 0.05})
            found.append(correct(table, "gain")["verdict"].iloc[0] == "above")
        what = f"a gain of 5 points among {tests} pairs of {blocks} blocks"
        yield {"kind": "power", "what": what, **rate(np.array(found))}


def means(data_sets: int) -> Iterator[dict[str, object]]:
    """Values without bounds, of a skewed distribution, that prompts share in part."""
    for prompts, pairs in ((20, 1), (20, 10), (50, 10), (1000, 10)):
        rng = np.random.default_rng(0)
        shape = (prompts, pairs, data_sets if prompts < 1000 else max(500, data_sets // 10))
        values = (rng.gumbel(size=(prompts, 1, shape[2])) + rng.gumbel(size=shape)).reshape(-1, shape[2])
        interval = mean_interval(values, np.repeat(np.arange(prompts), pairs))
        hits = (interval.low <= 2 * np.euler_gamma) & (2 * np.euler_gamma <= interval.high)
        yield {"kind": "coverage", "what": "mean of a skewed value", "prompts": prompts, "pairs": pairs, **rate(hits)}


def null_crossed(data_sets: int) -> dict[str, object]:
    rng, hits = np.random.default_rng(0), []
    groups = np.repeat(np.arange(30), 4)
    for _ in range(data_sets):
        values = rng.normal(size=(30, 1))[groups] + rng.normal(size=20) + 3 * rng.normal(size=(120, 20))
        interval = crossed_interval(values, groups)
        hits.append(bool(interval.low <= 0 <= interval.high))
    return {"kind": "coverage", "what": "mean over prompts and shuffles", **rate(np.array(hits))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-sets", type=int, default=200, help="simulated data sets of each experiment")
    parser.add_argument("--output", type=Path, help="write the table as .csv")
    options = parser.parse_args()
    rows = [
        *coverage(20 * options.data_sets),
        *means(20 * options.data_sets),
        null_crossed(5 * options.data_sets),
        *power(options.data_sets),
        *false_verdicts(options.data_sets),
    ]
    table = pd.DataFrame(rows)
    print(table.to_string(index=False, float_format="%.3f"))
    if options.output:
        table.round(4).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
