"""The table of frozen and adapted rewards, on planted scores."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.errors import UserError
from probing.testbed.adaptation import FROZEN, RIVAL, AdaptationOptions, run, tables


@pytest.fixture(scope="module")
def planted():
    """200 prompts; the frozen reward is noise, the adapted one orders 9 of 10 pairs, the rival 7 of 10."""
    rng = np.random.default_rng(0)
    test = pd.DataFrame(
        {
            "prompt_id": [f"p{n}" for n in range(200)],
            "first": [f"a{n}" for n in range(200)],
            "second": [f"b{n}" for n in range(200)],
            "choice": 1.0,
            "facet": np.where(np.arange(200) < 100, "alignment", "quality"),
            "probability": 0.9,
        }
    )
    items = [*test["first"], *test["second"]]

    def rewards(share):
        right = rng.random(200) < share
        return pd.Series([*np.where(right, 1.0, -1.0), *np.zeros(200)], index=items)

    scores = {("m", FROZEN, seed): rewards(0.5) for seed in range(3)}
    scores |= {("m", "lora", seed): rewards(0.9) for seed in range(3)}
    return tables(scores, rewards(0.7), test)


def test_accuracies_are_means_over_seeds_with_intervals(planted):
    table = planted[0].set_index(["facet", "model", "how"])
    lora = table.loc[("all", "m", "lora")]
    assert 0.85 < lora["value"] < 0.95 and lora["ci_low"] < lora["value"] < lora["ci_high"]
    assert lora["least"] <= lora["value"] <= lora["most"] and lora["seeds"] == 3 and lora["n_pairs"] == 200
    assert 0.43 < table.loc[("all", "m", FROZEN), "value"] < 0.57
    assert table.loc[("all", RIVAL, ""), "ceiling"] == pytest.approx(0.9)


def test_a_planted_gain_is_found_and_corrected(planted):
    table = planted[1].set_index(["facet", "how", "against"])
    gain = table.loc[("all", "lora", f"m {FROZEN}")]
    assert gain["ci_low"] > 0.2 and gain["p_value_holm"] < 1e-6
    assert table.loc[("all", FROZEN, RIVAL), "difference"] < 0
    assert (table["p_value_holm"] >= table["p_value"]).all()


def test_an_unknown_way_is_refused():
    with pytest.raises(UserError, match="Unknown way 'prefix'; choose of lora, full"):
        run(AdaptationOptions(how=("prefix",)))
