"""Small tables of the experiments beyond the reward curve, measured on planted stores."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from probing.analysis.combinations import measure_combinations
from probing.analysis.controls import ControlSettings, measure_controls
from probing.analysis.engine import Sites
from probing.analysis.factorial import FactorialSettings, measure_factorial
from probing.analysis.noise import measure_noise
from probing.analysis.scaling import ScalingSettings, measure_scaling
from tests.fakes.planted_store import PlantedStore, planted_pairs


def plant(stream: str, sigma: float, block: int) -> tuple[float, float]:
    return (0.8, 0.2) if block < 2 else (0.2, 0.8)


@lru_cache(maxsize=1)
def sweep_tables() -> dict[str, pd.DataFrame]:
    """One table an experiment, by the name of its file."""
    pairs = planted_pairs(train=80, test=60)
    shape = {"num_blocks": 4, "sigmas": (0.1, 0.6), "width": 4}
    one = PlantedStore(pairs, plant, noise=1.0, **shape)
    again = PlantedStore(pairs, plant, noise=1.0, draw=1, **shape)
    shared = PlantedStore(pairs, plant, noise=1.0, shared=True, **shape)
    fresh = PlantedStore(pairs, lambda *_: (0.0, 0.0), random_init=True, seed=3, **shape)
    large = PlantedStore(pairs, plant, model="large", seed=4, parameters=4000, forward_flops=9e5, revision="b", **shape)
    return {
        "combinations": measure_combinations(one, pairs, sites=Sites(sigmas=(0.1,))),
        "noise": measure_noise([one, again, shared], pairs),
        "scaling": measure_scaling(
            [one, fresh, large], pairs, ScalingSettings(steps={"large": 300}), sites=Sites(sigmas=(0.1,))
        ),
        "factorial": measure_factorial([one, large], pairs, FactorialSettings(heads=("logistic", "mean_difference"))),
        "controls": measure_controls([one, fresh], pairs, ControlSettings(shuffles=2), sites=Sites(sigmas=(0.1,))),
    }
