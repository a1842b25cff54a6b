"""Factorial design: planted effects are measured as least squares measures them, and nothing else is claimed."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import Recipe, Run, Sites
from probing.analysis.factorial import FactorialSettings, measure_factorial, report_factorial
from probing.analysis.factorial.effects import FACTORS, effects
from probing.analysis.factorial.experiment import COLUMNS
from probing.errors import UserError
from tests.fakes.planted_store import PlantedStore, planted_pairs

LINEAR = FactorialSettings(heads=("logistic", "mean_difference"))
MODELS = {"small": (4, 0.3), "middle": (6, 0.6), "large": (8, 1.0)}
"""Blocks, and strength of the planted signal in image tokens at σ = 0.1."""


@pytest.fixture(scope="module")
def pairs():
    return planted_pairs(test=500)


def store_of(pairs, name, plant, **attributes):
    blocks, _ = MODELS[name]
    number = list(MODELS).index(name)
    attributes = {"model": name, "parameters": 10.0 ** (6 + number), "revision": name} | attributes
    return PlantedStore(
        pairs,
        plant,
        num_blocks=blocks,
        sigmas=(0.1, 0.6),
        streams=("image", "text"),
        seed=10 * number,
        forward_flops=1e9,
        **attributes,
    )


def planted_stores(pairs, models=tuple(MODELS)):
    """Text tokens carry nothing; a high noise level takes the signal of the large model only."""

    def plant(strength, lost):
        return lambda stream, sigma, block: (
            (0.0, 0.0) if stream == "text" or (lost and sigma > 0.5) else (strength, strength)
        )

    return [store_of(pairs, name, plant(MODELS[name][1], name == "large")) for name in models]


@pytest.fixture(scope="module")
def table(pairs):
    return measure_factorial(planted_stores(pairs)[::-1], pairs, LINEAR)


def one(table, kind, **columns):
    rows = table[table["kind"] == kind]
    for name, value in columns.items():
        rows = rows[rows[name] == value]
    (row,) = rows.to_dict("records")
    return row


def test_every_combination_is_a_cell_once_in_the_order_of_parameters(table):
    cells = table[table["kind"] == "cell"]
    assert tuple(table.columns) == COLUMNS
    assert len(cells) == 2 * 3 * 2 * 3 and not cells[list(FACTORS)].duplicated().any()
    assert list(cells["model"].unique()) == ["small", "middle", "large"]
    assert list(cells["stream"].unique()) == ["image", "text", "image+text"]
    small = cells[(cells["model"] == "small") & (cells["head"] == "logistic")].set_index(["stream", "sigma"])
    # Depths 0.42, 0.63, 0.76 and 1 of 4 blocks; the text stream has no fourth.
    assert small.loc[("image", 0.1), "blocks"] == "1+2+3" and small.loc[("text", 0.1), "blocks"] == "1+2"
    assert small.loc[("image+text", 0.1), "channels"] == 5 * 8


def test_planted_effects_are_found_and_named(table):
    text = one(table, "main", factor="stream", level="text")
    assert text["verdict"] == "below" and text["value"] < -0.1
    assert "text is below image, mean over every head, sigma, model" in text["statement"]
    both = one(table, "main", factor="stream", level="image+text")
    assert abs(both["value"]) < 0.05
    assert one(table, "main", factor="model", level="middle")["verdict"] == "above"
    lost = one(table, "interaction", factor="sigma", level="σ = 0.6", other_factor="model", other_level="large")
    assert lost["verdict"] == "below" and "σ = 0.6 less σ = 0.1 is smaller at large than at small" in lost["statement"]
    settings = {"head": "logistic", "stream": "image"}
    assert one(table, "simple", sigma=0.1, **settings)["verdict"] == "above"
    assert one(table, "simple", sigma=0.6, **settings)["verdict"] == "below"
    # Under settings that favour it the smallest model beats the largest.
    reversal = one(table, "reversal")
    assert reversal["verdict"] == "above" and (reversal["level"], reversal["against"]) == ("small", "large")
    lines = report_factorial({"factorial": table})
    assert len(lines) == 1 + 2 + 1 + 2 + 1 and all(line.startswith("all: ") for line in lines)


def test_effects_are_those_of_least_squares(table):
    """Main effects and interactions are the coefficients of a linear model with those terms, levels coded from the
    first one."""
    cells = table[table["kind"] == "cell"].reset_index(drop=True)
    dummies = {factor: pd.get_dummies(cells[factor].astype(str), dtype=float) for factor in FACTORS}
    levels = {factor: list(cells[factor].astype(str).unique()) for factor in FACTORS}

    def columns(factor):
        # Centred, so that a main effect is the mean over the other factors' levels.
        return {(factor, level): dummies[factor][level] - 1 / len(levels[factor]) for level in levels[factor][1:]}

    terms = {key: column for factor in FACTORS for key, column in columns(factor).items()}
    for first, second in combinations(FACTORS, 2):
        for one_key, left in columns(first).items():
            for other_key, right in columns(second).items():
                terms[one_key, other_key] = left * right
    design = np.column_stack([np.ones(len(cells)), *terms.values()])
    solution = np.linalg.lstsq(design, cells["value"].to_numpy(dtype=float), rcond=None)[0][1:]
    expected = dict(zip(terms, solution, strict=True))

    def plain(level):
        return str(level).removeprefix("σ = ")

    measured = {}
    for row in table[table["kind"].isin(["main", "interaction"])].to_dict("records"):
        key = row["factor"], plain(row["level"])
        if row["kind"] == "interaction":
            key = key, (row["other_factor"], plain(row["other_level"]))
        measured[key] = row["value"]
    assert measured.keys() == expected.keys()
    for key, value in measured.items():
        assert value == pytest.approx(expected[key], abs=1e-9), key


def test_the_interval_of_an_interaction_is_that_of_its_weighted_outcomes():
    """Bootstrap over prompts."""
    rng = np.random.default_rng(0)
    outcomes = (rng.random((400, 4)) < [0.5, 0.6, 0.5, 0.8]).astype(float)
    cells = pd.DataFrame(
        {
            "head": "logistic",
            "stream": ["image", "image", "text", "text"],
            "sigma": [0.1, 0.6, 0.1, 0.6],
            "model": "m",
            "cv_accuracy": 0.5,
        }
    )
    found = effects(cells, outcomes, np.arange(400).astype(str))
    row = found[found["kind"] == "interaction"].iloc[0]
    by_pair = outcomes @ [1, -1, -1, 1]
    assert row["value"] == pytest.approx(by_pair.mean())
    means = by_pair[rng.integers(400, size=(4000, 400))].mean(axis=1)
    assert row["ci_high"] - row["ci_low"] == pytest.approx(np.ptp(np.quantile(means, [0.025, 0.975])), rel=0.1)


def test_without_effects_none_is_claimed(pairs):
    stores = [store_of(pairs, name, lambda *_: (0.6, 0.6)) for name in ("small", "middle")]
    table = measure_factorial(stores, pairs, LINEAR, sites=Sites(streams=("image",)))
    tested = table[table["kind"] != "cell"]
    assert set(tested["verdict"]) == {"not distinguished"}
    assert tested["statement"].str.contains("not distinguished|not measurably").all()


def test_networks_and_attention_read_the_same_blocks(pairs):
    stores = planted_stores(pairs, ("small",))
    few = Sites(streams=("image",), sigmas=(0.1,))
    heads = FactorialSettings(heads=("logistic", "mlp", "attention"))
    table = measure_factorial(stores, pairs, heads, sites=few, recipe=Recipe(scaling="whiten"), run=Run(progress=False))
    cells = table[table["kind"] == "cell"].set_index("head")
    assert list(cells.index) == ["logistic", "mlp", "attention"] and set(cells["blocks"]) == {"1+2+3"}
    assert (cells["value"] > 0.55).all()
    assert set(table["kind"]) == {"cell", "main"}


def test_what_is_no_design_is_refused(pairs):
    stores = planted_stores(pairs, ("small", "large"))
    fresh = store_of(pairs, "middle", lambda *_: (0.0, 0.0), random_init=True)
    again = store_of(pairs, "small", lambda *_: (0.0, 0.0), revision="other")
    one_cell = Sites(streams=("image",), sigmas=(0.1,))
    for given, settings, sites, message in (
        ([*stores, fresh], LINEAR, Sites(), "has random weights"),
        ([stores[0], stores[0]], LINEAR, Sites(), "the same weights"),
        ([*stores, again], LINEAR, Sites(), "Two stores are of small"),
        (stores, LINEAR, Sites(blocks=(1,)), "leave out --blocks"),
        (stores[:1], FactorialSettings(heads=("logistic",)), one_cell, "Nothing varies"),
        ([], LINEAR, Sites(), "no store to measure"),
    ):
        with pytest.raises(UserError, match=message):
            measure_factorial(given, pairs, settings, sites=sites)
    for options, message in (
        ({"heads": ("logistic", "logistic")}, "expected each once"),
        ({"heads": ("tree",)}, "Unknown probe"),
        ({"depths": (0.0,)}, "above 0"),
    ):
        with pytest.raises(UserError, match=message):
            FactorialSettings(**options)
