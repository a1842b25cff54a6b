"""Cells: a planted signal is found where it was planted, nulls are at chance, leaks are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis import CellResults, Recipe, fit_cells, fit_latents
from probing.analysis.results import COLUMNS, KEYS
from probing.errors import UserError
from probing.statistics import cluster_bootstrap
from tests.fakes.fake_store import FIRST_WITH_SIGNAL, NUM_BLOCKS, PROMPTS, FakeStore, make_pairs
from tests.features.small_store import make_small_store


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def trained(pairs):
    return measure_cells(FakeStore(pairs), pairs)


def test_the_planted_signal_is_found_there_and_nowhere_before(trained):
    for row in trained.table.itertuples():
        planted = row.block >= FIRST_WITH_SIGNAL[row.stream] and (row.stream == "image" or row.facet == "alignment")
        if planted:
            assert row.ci_low > 0.55, row.cell
            assert row.cv_accuracy > 0.6, row.cell
        else:
            # 99.9% limits of chance for 150 prompts: many cells are looked at.
            assert abs(row.value - 0.5) < 0.135, row.cell
    early = trained.table.query("stream == 'image' and block < 3")
    assert early["value"].mean() == pytest.approx(0.5, abs=0.03)


def test_every_cell_is_one_row_and_one_column_of_outcomes(trained):
    table, outcomes = trained.table, trained.outcomes
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 2 * 2 * (NUM_BLOCKS + NUM_BLOCKS - 1)
    assert list(outcomes.columns[:3]) == KEYS and set(outcomes.columns[3:]) == set(table["cell"])
    assert len(outcomes) == 2 * PROMPTS["test"]
    row = table.iloc[5]
    mine = outcomes[outcomes["facet"] == row["facet"]]
    assert row["value"] == mine[row["cell"]].mean()
    interval = cluster_bootstrap(mine[row["cell"]].to_numpy(), mine["prompt_id"].to_numpy())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert outcomes.loc[outcomes["facet"] != row["facet"], row["cell"]].isna().all()
    assert (table["n_pairs"] == PROMPTS["test"]).all() and (table["n_train_pairs"] == PROMPTS["train"]).all()
    assert (table["depth"] == (table["block"] + 1) / NUM_BLOCKS).all()
    assert set(table["control"]) == {"trained"} and set(table["model"]) == {"fake"}


def test_the_ceiling_is_the_annotators(trained, pairs):
    test = pairs.query("split == 'test' and facet == 'quality'")
    expected = np.maximum(test["probability"], 1 - test["probability"]).mean()
    assert trained.table.query("facet == 'quality'")["ceiling"].unique() == pytest.approx([expected])
    unknown = measure_cells(FakeStore(pairs), pairs.drop(columns="probability"), sites=Sites(blocks=(4,), sigmas=(0.6,)))
    assert unknown.table["ceiling"].isna().all()


def test_fresh_weights_shuffles_and_latents_are_at_chance_and_named(pairs):
    fresh = measure_cells(FakeStore(pairs, random_init=True, seed=1), pairs).table
    shuffled = measure_cells(FakeStore(pairs), pairs, shuffled=True, sites=Sites(blocks=(3, 4, 5))).table
    latents = measure_latents(FakeStore(pairs), pairs).table
    for table, name, tolerance in ((fresh, "random-init", 0.03), (shuffled, "shuffled", 0.1)):
        assert set(table["control"]) == {name}
        assert table["value"].mean() == pytest.approx(0.5, abs=tolerance)
        assert table["cv_accuracy"].mean() == pytest.approx(0.5, abs=0.03)
    assert set(latents["control"]) == {"latents"}
    assert latents["block"].isna().all() and latents["sigma"].isna().all()
    assert latents["value"].mean() == pytest.approx(0.5, abs=0.1)


def test_shuffling_works_where_the_chosen_item_always_comes_first(pairs):
    first = pairs.copy()
    swap = first["choice"] == 0
    first.loc[swap, ["first", "second"]] = first.loc[swap, ["second", "first"]].to_numpy()
    first["choice"] = 1.0
    asked = {"streams": ["image"], "sigmas": [0.005], "facets": ["quality"]}
    store = FakeStore(pairs)
    true = measure_cells(store, first, **asked).table
    same = measure_cells(store, pairs, **asked).table
    np.testing.assert_allclose(true["value"], same["value"])
    cv = [measure_cells(store, first, shuffled=True, **asked, run=Run(seed=seed)).table["cv_accuracy"] for seed in range(3)]
    assert np.mean(cv) == pytest.approx(0.5, abs=0.03)
    assert len({tuple(values) for values in cv}) == 3


def test_the_order_of_items_and_pairs_changes_nothing(pairs, trained):
    order = np.random.default_rng(0).permutation(2 * len(pairs))
    again = measure_cells(FakeStore(pairs, order=order), pairs.sample(frac=1, random_state=0), sites=Sites(blocks=(4,)))
    merged = again.table.merge(trained.table, on="cell", suffixes=("", "_there"))
    assert len(merged) == len(again.table) > 0
    np.testing.assert_allclose(merged["value"], merged["value_there"])
    np.testing.assert_allclose(merged["ci_low"], merged["ci_low_there"])


def test_test_choices_never_reach_the_probe(pairs, trained):
    flipped = pairs.copy()
    on_test = flipped["split"] == "test"
    flipped.loc[on_test, "choice"] = 1 - flipped.loc[on_test, "choice"]
    table = measure_cells(FakeStore(pairs), flipped, sites=Sites(blocks=(5,))).table.merge(trained.table, on="cell", suffixes=("", "_t"))
    np.testing.assert_allclose(table["value"], 1 - table["value_t"])
    np.testing.assert_array_equal(table["cv_accuracy"], table["cv_accuracy_t"])


@pytest.mark.parametrize("probe", ["logistic", "ridge", "mlp"])
def test_test_items_never_reach_the_probe_nor_its_scaling(pairs, probe):
    """Whatever stands in the test prompts' features: strength, scaling, stopping and choice of cell stay the same."""
    on_test = set(pairs.loc[pairs["split"] == "test", ["first", "second"]].to_numpy().ravel())

    class Spoilt(FakeStore):
        def read(self, *place):
            features = super().read(*place).copy()
            features[np.isin(self.item_ids, list(on_test))] *= 1e6
            return features

    recipe = Recipe(probe, "standard" if probe == "mlp" else "auto")
    asked = {"blocks": [1, 4], "sigmas": [0.6], "facets": ["quality"], "recipe": recipe}
    clean, spoilt = (measure_cells(store(pairs), pairs, **asked).table for store in (FakeStore, Spoilt))
    kept = ["alpha", "scaling", "cv_accuracy", "temperature"]
    pd.testing.assert_frame_equal(clean[kept], spoilt[kept])


def test_ties_are_left_out_of_the_score(pairs):
    tied = pairs.copy()
    tied.loc[tied.query("split == 'test'").index[:40], "choice"] = 0.5
    table = measure_cells(FakeStore(pairs), tied, sites=Sites(blocks=(5,), sigmas=(0.6,), streams=("image",))).table
    assert (table["n_pairs"] == PROMPTS["test"] - 20).all() and (table["n_prompts"] == PROMPTS["test"] - 20).all()


def test_a_stream_without_the_last_block_is_left_out_there(pairs):
    table = measure_cells(FakeStore(pairs), pairs, facets=["quality"], sites=Sites(blocks=(4, 5), sigmas=(0.6,))).table
    assert set(zip(table["stream"], table["block"], strict=True)) == {("image", 4), ("image", 5), ("text", 4)}


def test_kept_tokens_are_laid_side_by_side(pairs):
    store = FakeStore(pairs)
    flat = store.read
    store.read = lambda *place: flat(*place).reshape(len(store.item_ids), 2, 5)
    asked = {"blocks": [4], "sigmas": [0.6], "facets": ["quality"]}
    np.testing.assert_array_equal(
        measure_cells(store, pairs, **asked).table["value"], measure_cells(FakeStore(pairs), pairs, **asked).table["value"]
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("oracle",), "known are logistic"),
        (("logistic", "louder"), "known are raw"),
        (("mlp", "whiten"), "always standardises"),
    ],
)
def test_recipes_that_are_none_are_refused(asked, message):
    with pytest.raises(UserError, match=message):
        Recipe(*asked)


@pytest.mark.parametrize("probe", ["ridge", "mean_difference", "pca1", "mlp"])
def test_every_probe_finds_the_planted_block_and_nothing_before_it(pairs, probe):
    asked = {"streams": ["image"], "sigmas": [0.6], "blocks": [1, 4], "facets": ["quality"]}
    table = measure_cells(FakeStore(pairs), pairs, recipe=Recipe(probe), **asked).table.set_index("block")
    assert table.loc[1, "ci_low"] < 0.5 < table.loc[1, "ci_high"]
    # A principal direction need not be the planted one.
    if probe != "pca1":
        assert table.loc[4, "ci_low"] > 0.6
    assert table.loc[4, "probe_seeds"] == (3 if probe == "mlp" else 1)
    assert np.isfinite(table.loc[4, "seed_deviation"]) == (probe == "mlp")


def test_attention_reads_kept_tokens_and_says_so_where_there_are_none(pairs):
    asked = {"streams": ["image"], "sigmas": [0.6], "blocks": [4], "facets": ["quality"]}
    with pytest.raises(UserError, match="give --reductions grid4 or tokens"):
        measure_cells(FakeStore(pairs), pairs, recipe=Recipe("attention"), **asked)
    store = FakeStore(pairs)
    flat = store.read
    store.read = lambda *place: flat(*place).reshape(len(store.item_ids), 5, 2)
    table = measure_cells(store, pairs, recipe=Recipe("attention"), **asked).table
    assert table.loc[0, "ci_low"] > 0.55


def test_the_temperature_is_fitted_out_of_fold_and_makes_margins_log_odds(trained, pairs):
    """Margins of a probe on its own optimum are nearly calibrated; test choices have no part in it."""
    informed = trained.table[(trained.table["stream"] == "image") & (trained.table["block"] >= 3)]
    assert informed["temperature"].between(0.5, 2.0).all()


def test_a_networks_temperature_is_that_of_its_validation_part(pairs):
    asked = {"streams": ["image"], "sigmas": [0.6], "blocks": [4], "facets": ["quality"]}
    row = measure_cells(FakeStore(pairs), pairs, recipe=Recipe("mlp"), **asked).table.iloc[0]
    assert 0.3 < row["temperature"] < 3.0


def test_shares_and_weights_of_the_pairs_reach_the_probe(pairs):
    """Shares of 1 and 0 are choices; pairs without weight are no pairs; test pairs are scored by choice."""
    asked = {"streams": ["image"], "sigmas": [0.6], "blocks": [4], "facets": ["quality"]}
    store = FakeStore(pairs)
    plain = measure_cells(store, pairs, **asked).table
    told = pairs.assign(share_first=pairs["choice"], confidence=1.0)
    same = measure_cells(store, told, recipe=Recipe(labels="share_first", weights="confidence"), **asked).table
    pd.testing.assert_frame_equal(same, plain)
    soft = measure_cells(store, pairs, recipe=Recipe(labels="probability"), **asked).table
    assert not soft[["alpha", "cv_accuracy"]].equals(plain[["alpha", "cv_accuracy"]])
    assert soft["value"].iloc[0] > 0.6
    # Wrong choices of no weight do no harm.
    wrong = np.random.default_rng(0).random(len(pairs)) < 0.4
    spoilt = pairs.assign(
        choice=np.where(wrong & (pairs["split"] == "train"), 1 - pairs["choice"], pairs["choice"]),
        confidence=np.where(wrong, 0.0, 2.0),
    )
    heeded = measure_cells(store, spoilt, recipe=Recipe(weights="confidence"), **asked).table
    ignored = measure_cells(store, spoilt, **asked).table
    assert heeded["cv_accuracy"].iloc[0] > ignored["cv_accuracy"].iloc[0] + 0.1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(labels="share"), "no column of numbers named share; they have choice"),
        (Recipe(weights="facet"), "no column of numbers named facet"),
        (Recipe(labels="reward_first"), "not in .0, 1."),
        (Recipe(weights="reward_first"), "no weights"),
    ],
)
def test_columns_that_are_no_labels_or_weights_are_refused(pairs, recipe, message):
    with pytest.raises(UserError, match=message):
        measure_cells(FakeStore(pairs), pairs, recipe=recipe, facets=["quality"], sites=Sites(blocks=(4,), sigmas=(0.6,)))


def test_margins_are_the_outcomes_reasons(trained, pairs):
    choice = pairs.set_index("pair_id")["choice"]
    assert trained.margins["pair_id"].equals(trained.outcomes["pair_id"])
    for cell in trained.table["cell"]:
        margins, outcomes = trained.margins[cell], trained.outcomes[cell]
        assert margins.isna().equals(outcomes.isna())
        asked = margins.notna()
        chosen_first = choice.loc[trained.margins.loc[asked, "pair_id"]].to_numpy() == 1
        np.testing.assert_array_equal(outcomes[asked], (margins[asked] > 0) == chosen_first)


def test_workers_change_nothing(pairs, trained):
    found = measure_cells(FakeStore(pairs), pairs, run=Run(workers=3))
    pd.testing.assert_frame_equal(found.table, trained.table, rtol=1e-9)


def test_a_killed_run_goes_on_where_it_was(pairs, trained, tmp_path):
    class Dying(FakeStore):
        left = 7

        def read(self, *place):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().read(*place)

    with pytest.raises(KeyboardInterrupt):
        measure_cells(Dying(pairs), pairs, run=Run(journal=tmp_path))
    assert len(list(tmp_path.glob("*.npz"))) == 7

    class Counting(FakeStore):
        reads = 0

        def read(self, *place):
            self.reads += 1
            return super().read(*place)

    store = Counting(pairs)
    resumed = measure_cells(store, pairs, run=Run(journal=tmp_path))
    assert store.reads == len(trained.table) // 2 - 7
    pd.testing.assert_frame_equal(resumed.table, trained.table)
    pd.testing.assert_frame_equal(resumed.outcomes, trained.outcomes)
    # What was measured with other settings or of other pairs is another measurement.
    for changed in ({"recipe": Recipe("ridge")}, {"facets": ["quality"]}, {"control": "shuffled"}):
        other = Counting(pairs)
        measure_cells(other, pairs, **changed, sites=Sites(blocks=(5,), sigmas=(0.6,), streams=("image",)), run=Run(journal=tmp_path))
        assert other.reads == 1
    flipped = pairs.assign(choice=1 - pairs["choice"])
    other = Counting(pairs)
    measure_cells(other, flipped, sites=Sites(blocks=(5,), sigmas=(0.6,), streams=("image",)), run=Run(journal=tmp_path))
    assert other.reads == 1


def leak(pairs, store):
    pairs.loc[pairs.index[0], "prompt_id"] = pairs.query("split == 'test'")["prompt_id"].iloc[0]


def missing(pairs, store):
    pairs.loc[pairs.index[0], "first"] = "nowhere"


def unwritten(pairs, store):
    store.written[3] = False


def few(pairs, store):
    pairs.drop(pairs.query("facet == 'quality' and split == 'train'").index[8:], inplace=True)


def twice(pairs, store):
    pairs.loc[pairs.index[0], "pair_id"] = pairs["pair_id"].iloc[1]


def soft(pairs, store):
    pairs.loc[pairs.index[0], "choice"] = 0.7


def no_column(pairs, store):
    pairs.drop(columns="split", inplace=True)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (leak, "1 prompts are on both sides of the split .one is test000"),
        (missing, "1 of 1800 items of the pairs are not in the store .one is nowhere"),
        (unwritten, "1 of 1800 items are not written yet"),
        (few, "Facet quality has untied train pairs of 8 prompts, expected at least 10"),
        (twice, "more than once"),
        (soft, "not 1 .first., 0 .second. or 0.5"),
        (no_column, "has no split"),
    ],
)
def test_bad_pairs_are_refused(pairs, spoil, message):
    spoilt, store = pairs.copy(), FakeStore(pairs)
    spoil(spoilt, store)
    with pytest.raises(UserError, match=message):
        measure_cells(store, spoilt)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sigmas": [0.3]}, "no sigma 0.3; it has 0.005, 0.6"),
        ({"blocks": [6]}, "no block 6; it has 0, 1, 2, 3, 4, 5"),
        ({"streams": ["audio"]}, "no stream audio"),
        ({"reductions": ["max"]}, "no reduction max"),
        ({"facets": ["charm"]}, "no facet charm; it has alignment, quality"),
        ({"streams": ["text"], "blocks": [5]}, "leave nothing"),
        ({"control": "magic"}, "known are none, shuffled"),
        ({"workers": 0}, "expected 1 or more"),
    ],
)
def test_what_is_not_there_is_refused(pairs, asked, message):
    with pytest.raises(UserError, match=message):
        measure_cells(FakeStore(pairs), pairs, **asked)


def test_a_cell_is_never_joined_twice(trained):
    with pytest.raises(ValueError, match="twice"):
        CellResults.join(trained, trained)


def test_tables_survive_parquet(trained, tmp_path):
    trained.table.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), trained.table)


def test_the_real_store_has_the_interface(tmp_path):
    store = make_small_store(tmp_path / "s.zarr")
    needed = (
        "sigmas",
        "item_ids",
        "attributes",
        "blocks",
        "num_blocks",
        "written",
        "arrays",
        "blocks_of",
        "read",
        "latent_reductions",
        "read_latents",
        "digest",
    )
    assert all(hasattr(store, name) for name in needed)
