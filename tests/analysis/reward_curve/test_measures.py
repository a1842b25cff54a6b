"""Measures of margins beyond accuracy, on stores with a planted signal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from probing.analysis.engine import Recipe, Sites, measure_cells
from probing.analysis.reward_curve import compare_probes, massive_activations, measure_curve, measures
from probing.analysis.reward_curve.measures import COLUMNS
from probing.errors import UserError
from probing.probes import LogisticProbe, online_code_length
from tests.fakes.fake_store import CHANNELS, FIRST_WITH_SIGNAL, FakeStore, make_pairs


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def measured(pairs):
    store, random_init = FakeStore(pairs), FakeStore(pairs, random_init=True, seed=1)
    results = measure_curve(
        store, pairs, random_init=[random_init], shuffles=20, sites=Sites(streams=("image",), sigmas=(0.6,))
    )
    table = measures(results, pairs)
    assert tuple(table.columns) == COLUMNS
    return results, table


def of(table, metric, control="trained"):
    rows = table[(table["metric"] == metric) & (table["control"] == control) & table["block"].notna()]
    return rows, rows["block"] >= FIRST_WITH_SIGNAL["image"]


def test_information_is_positive_with_the_signal(measured):
    _, table = measured
    rows, informed = of(table, "information")
    assert (rows.loc[informed, "ci_low"] > 0).all()
    # At most 1 less the entropy of the annotators' choices.
    p = make_pairs().query("split == 'test'")["probability"]
    most = 1 + np.mean(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert (rows["ci_low"] < most).all()
    # One interval in forty lies above 0 by chance, so the value is bounded.
    control, _ = of(table, "information", "random-init")
    assert (rows.loc[~informed, "value"] < 0.05).all() and (control["value"] < 0.05).all()


def test_true_log_odds_have_the_exact_information(measured, pairs):
    """With the true reward as margin and temperature 1, the bits are 1 less the entropy of the choices."""
    results, _ = measured
    table = results.table[results.table["cell"] == results.table["cell"].iloc[0]].assign(temperature=1.0)
    cell = table["cell"].iloc[0]
    truth = pairs.set_index("pair_id").eval("reward_first - reward_second")
    margins = results.margins.assign(**{cell: truth.loc[results.margins["pair_id"]].to_numpy()})
    row = measures(type(results)(table, results.outcomes, margins), pairs).query("metric == 'information'").iloc[0]
    facet = table["facet"].iloc[0]
    p = pairs[(pairs["split"] == "test") & ((facet == "all") | (pairs["facet"] == facet))]["probability"]
    exact = 1 + np.mean(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert row["ci_low"] < exact < row["ci_high"]


def test_the_area_uses_both_orders_of_each_pair(measured, pairs):
    results, table = measured
    rows, informed = of(table, "auroc")
    assert (rows.loc[informed, "ci_low"] > 0.55).all()
    row = rows.iloc[-1]
    of_facet = results.margins[results.margins["facet"] == row["facet"]]
    choices = pairs.set_index("pair_id")["choice"].loc[of_facet["pair_id"]].to_numpy()
    margins = of_facet[row["cell"]].to_numpy()
    assert row["value"] == pytest.approx(roc_auc_score([*choices, *(1 - choices)], [*margins, *-margins]))
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_selectivity_is_accuracy_less_that_of_shuffles(measured):
    results, table = measured
    rows, informed = of(table, "selectivity")
    # The interval is for other shuffles too, whose accuracies differ by ten points and more.
    assert (rows.loc[informed, "ci_low"] > 0.05).all()
    cell = rows.iloc[-1]
    value = results.table.set_index("cell")["value"]
    site = cell["cell"].removeprefix("trained/")
    assert cell["value"] == pytest.approx(value[cell["cell"]] - value[f"shuffled/{site}"])


def test_margins_are_nearly_calibrated(measured):
    rows, informed = of(measured[1], "ece")
    # With 150 pairs a perfectly calibrated probe shows a few points of error by chance.
    assert (rows.loc[informed, "value"] < 0.15).all()


def test_blocks_without_signal_are_not_candidates(measured):
    rows, informed = of(measured[1], "may_be_best")
    assert set(rows["value"]) <= {0.0, 1.0}
    assert (rows.loc[~informed, "value"] == 0).all()
    for _, curve in rows.groupby("facet"):
        assert curve["value"].sum() >= 1


def test_a_linear_signal_needs_no_network(pairs):
    quality = {"facets": ["quality"]}
    sites = Sites(("image",), sigmas=(0.6,), blocks=(4,))
    store = FakeStore(pairs)
    one, two = (
        measure_cells(store, pairs, sites=sites, recipe=Recipe(probe), **quality) for probe in ("logistic", "mlp")
    )
    table = compare_probes(one, two, margin=0.2)
    assert len(table) == 1
    row = table.iloc[0]
    assert (row["probe"], row["other"]) == ("logistic", "mlp")
    assert row["difference"] == pytest.approx(two.table["value"].iloc[0] - one.table["value"].iloc[0])
    assert row["ci_low"] < 0.02
    assert bool(row["equivalent"]) and row["verdict"] == "not distinguished"
    assert not compare_probes(one, two, margin=1e-6)["equivalent"].any()
    with pytest.raises(UserError, match="share no cell"):
        compare_probes(one, measure_cells(store, pairs, sites=Sites(("image",), sigmas=(0.6,), blocks=(3,)), **quality))


def test_a_planted_massive_channel_is_named(pairs):
    class Massive(FakeStore):
        def read(self, stream, reduction, sigma, block):
            features = super().read(stream, reduction, sigma, block).copy()
            if block == 2 and stream == "image":
                features[:, 7] = 500.0
            return features

    table = massive_activations(Massive(pairs)).set_index(["stream", "block", "sigma"])
    row = table.loc[("image", 2, 0.6)]
    assert (row["massive"], row["channels"]) == (1, "7")
    assert row["largest"] == pytest.approx(500.0)
    assert row["share_of_power"] > 0.99
    assert (table.drop(index=[("image", 2, 0.6), ("image", 2, 0.005)])["massive"] == 0).all()
    some = massive_activations(FakeStore(pairs), item_ids=FakeStore(pairs).item_ids[:10].tolist())
    assert (some["items"] == 10).all() and some["ratio"].between(1, CHANNELS).all()


def test_code_length_is_measured_on_request(pairs):
    selection = {"sites": Sites(("image",), sigmas=(0.6,), blocks=(1, 4)), "facets": ["quality"]}
    table = measure_cells(FakeStore(pairs), pairs, recipe=Recipe(code_length=True), **selection).table.set_index(
        "block"
    )
    assert table.loc[4, "compression"] > 1.15 > table.loc[1, "compression"] > 0.8
    assert measure_cells(FakeStore(pairs), pairs, **selection).table["compression"].isna().all()
    with pytest.raises(UserError, match="only of the logistic probe"):
        Recipe("ridge", code_length=True)


def make_code(strength, seed=0, pairs=1000, channels=5):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(pairs, channels))
    y = (rng.random(pairs) < expit(strength * X[:, 0])).astype(float)
    return X, y, np.arange(pairs) // 2


def test_codes_are_short_only_with_information():
    informed, coins = online_code_length(*make_code(4.0)), online_code_length(*make_code(0.0))
    assert informed.compression > 1.5
    assert 0.9 < coins.compression < 1.02
    assert informed.uniform == 1000 and informed.ends[-1] == 1000
    assert informed.cumulative[-1] == informed.bits and list(informed.cumulative) == sorted(informed.cumulative)


def test_each_part_is_coded_by_earlier_parts_alone():
    X, y, groups = make_code(2.0, seed=1)
    code = online_code_length(X, y, groups, parts=(0.5, 1.0), seed=3)
    order = np.random.default_rng(3).permutation(500)[groups]
    first = order < 250
    probe = LogisticProbe().fit(X[first], y[first], groups[first])
    losses = np.logaddexp(0, np.where(y == 1, -1, 1) * probe.decision_function(X))[~first] / np.log(2)
    assert code.ends == (500, 1000)
    assert code.cumulative == pytest.approx((500, 500 + losses.sum()))


@pytest.mark.parametrize("parts", [(), (0.5,), (0.5, 0.2, 1.0), (0.0, 1.0)])
def test_parts_that_do_not_increase_to_one_are_refused(parts):
    with pytest.raises(ValueError, match="increase to 1"):
        online_code_length(*make_code(1.0), parts=parts)
