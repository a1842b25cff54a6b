"""Cells: planted signals are measured at their site, controls are at chance, leaks are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probing.analysis.engine import (
    KEYS,
    CellResults,
    Recipe,
    Run,
    Sites,
    average_draws,
    facets_of,
    measure_cells,
    measure_latents,
    read_for_fits,
    read_site,
)
from probing.analysis.engine.results import COLUMNS
from probing.analysis.reward_curve.rewards import best_rewards
from probing.errors import UserError
from probing.features import FeatureStore
from probing.probes import DiskRows, LogisticProbe
from probing.statistics import share_interval
from tests.fakes.disk_store import write_store
from tests.fakes.fake_store import FIRST_WITH_SIGNAL, NUM_BLOCKS, PROMPTS, FakeStore, make_pairs
from tests.features.small_store import make_small_store

IMAGE_CELL = {"sites": Sites(("image",), sigmas=(0.6,), blocks=(4,)), "facets": ["quality"]}
"""One cell of the image stream that carries the signal."""


@pytest.fixture(scope="module")
def pairs():
    return make_pairs()


@pytest.fixture(scope="module")
def trained(pairs):
    return measure_cells(FakeStore(pairs), pairs)


def test_planted_signals_are_measured_at_their_site_only(trained):
    for row in trained.table[trained.table["facet"] != "all"].itertuples():
        planted = row.block >= FIRST_WITH_SIGNAL[row.stream] and (row.stream == "image" or row.facet == "alignment")
        if planted:
            assert row.ci_low > 0.55, row.cell
            assert row.cv_accuracy > 0.6, row.cell
        else:
            # 99.9% limits of chance for 150 prompts, since there are many cells.
            assert abs(row.value - 0.5) < 0.135, row.cell
    together = trained.table.query("facet == 'all' and stream == 'image' and block >= @FIRST_WITH_SIGNAL['image']")
    assert (together["ci_low"] > 0.6).all()
    early = trained.table.query("stream == 'image' and block < 3")
    assert early["value"].mean() == pytest.approx(0.5, abs=0.03)


def test_each_cell_is_a_row_and_a_column(trained):
    table, outcomes = trained.table, trained.outcomes
    assert tuple(table.columns) == COLUMNS
    assert len(table) == 3 * 2 * (NUM_BLOCKS + NUM_BLOCKS - 1)
    assert list(outcomes.columns[:3]) == KEYS and set(outcomes.columns[3:]) == set(table["cell"])
    assert len(outcomes) == 4 * PROMPTS["test"]
    row = table.iloc[5]
    of_facet = outcomes[outcomes["facet"] == row["facet"]]
    assert row["value"] == of_facet[row["cell"]].mean()
    interval = share_interval(of_facet[row["cell"]].to_numpy(), of_facet["prompt_id"].to_numpy())
    assert (row["ci_low"], row["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert outcomes.loc[outcomes["facet"] != row["facet"], row["cell"]].isna().all()
    pairs = table["facet"].map({"all": 2}).fillna(1)
    assert (table["n_pairs"] == pairs * PROMPTS["test"]).all() and (table["n_prompts"] == PROMPTS["test"]).all()
    assert (table["n_train_pairs"] == pairs * PROMPTS["train"]).all()
    assert (table["depth"] == (table["block"] + 1) / NUM_BLOCKS).all()
    assert set(table["control"]) == {"trained"} and set(table["model"]) == {"fake"}


def test_the_ceiling_is_the_annotators_agreement(trained, pairs):
    test = pairs.query("split == 'test' and facet == 'quality'")
    expected = np.maximum(test["probability"], 1 - test["probability"]).mean()
    assert trained.table.query("facet == 'quality'")["ceiling"].unique() == pytest.approx([expected])
    without = measure_cells(
        FakeStore(pairs), pairs.drop(columns="probability"), sites=Sites(blocks=(4,), sigmas=(0.6,))
    )
    assert without.table["ceiling"].isna().all()


def test_controls_are_at_chance_and_named(pairs):
    random_init = measure_cells(FakeStore(pairs, random_init=True, seed=1), pairs).table
    latents = measure_latents(FakeStore(pairs), pairs).table
    assert set(random_init["control"]) == {"random-init"}
    assert random_init["value"].mean() == pytest.approx(0.5, abs=0.03)
    assert random_init["cv_accuracy"].mean() == pytest.approx(0.5, abs=0.03)
    assert set(latents["control"]) == {"latents"}
    assert latents["block"].isna().all() and latents["sigma"].isna().all()
    assert latents["value"].mean() == pytest.approx(0.5, abs=0.1)


def test_shuffling_works_with_the_chosen_item_always_first(pairs):
    first = pairs.copy()
    swap = first["choice"] == 0
    first.loc[swap, ["first", "second"]] = first.loc[swap, ["second", "first"]].to_numpy()
    first["choice"] = 1.0
    selection = {"sites": Sites(("image",), sigmas=(0.005,)), "facets": ["quality"]}
    store = FakeStore(pairs)
    true = measure_cells(store, first, shuffles=40, **selection).table
    same = measure_cells(store, pairs, **selection).table
    np.testing.assert_allclose(true.query("control == 'trained'")["value"], same["value"])
    shuffled = true[true["control"] == "shuffled"]
    assert len(shuffled) == len(same) and (shuffled["draws"] == 40).all()
    assert ((shuffled["ci_low"] < 0.5) & (shuffled["ci_high"] > 0.5)).mean() > 0.8
    # A single shuffle has a random direction; their range is far wider than the interval of their mean.
    assert ((shuffled["draw_low"] < shuffled["ci_low"]) & (shuffled["ci_high"] < shuffled["draw_high"])).all()


def test_shuffles_are_refits_at_the_probes_own_strength(pairs):
    """The labels of one shuffle, fitted by a probe with that strength alone, give the same margins."""
    store = FakeStore(pairs)
    (facet,) = facets_of(store, pairs, ["quality"])
    features = store.read("image", "mean", 0.6, 4)
    recipe = Recipe()
    probe = recipe.fit(features, facet.train)
    margins = recipe.shuffled_margins(probe, features, facet.train, facet.test, 3, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    y = facet.train.choices
    swapped = rng.random((3, len(y))) < 0.5
    for number, swap in enumerate(swapped):
        permuted = rng.permutation(np.where(swap, 1 - y, y))
        rows = np.where(swap[:, None], facet.train.rows[:, ::-1], facet.train.rows)
        alone = LogisticProbe(alphas=(probe.alpha_,)).fit_pairs(features, rows, permuted, facet.train.prompts)
        np.testing.assert_allclose(margins[:, number], alone.pair_margins(features, facet.test.rows)[:, 0], atol=1e-3)


def test_draws_of_random_weights_are_averaged(pairs):
    selection = {"sites": Sites(("image",), sigmas=(0.6,)), "facets": ["quality"]}
    draws = [measure_cells(FakeStore(pairs, random_init=True, seed=seed), pairs, **selection) for seed in (1, 2, 3)]
    mean = average_draws(draws).table
    by_draw = np.stack([draw.table["value"] for draw in draws], axis=1)
    np.testing.assert_allclose(mean["value"], by_draw.mean(axis=1))
    np.testing.assert_allclose(mean["draw_low"], by_draw.min(axis=1))
    assert (mean["draws"] == 3).all() and ((mean["ci_low"] < 0.5) & (mean["ci_high"] > 0.5)).mean() > 0.6
    with pytest.raises(ValueError, match="the same cells"):
        average_draws([draws[0], measure_cells(FakeStore(pairs), pairs, **selection)])


def test_the_order_of_items_and_pairs_changes_nothing(pairs, trained):
    order = np.random.default_rng(0).permutation(2 * len(pairs))
    again = measure_cells(FakeStore(pairs, order=order), pairs.sample(frac=1, random_state=0), sites=Sites(blocks=(4,)))
    merged = again.table.merge(trained.table, on="cell", suffixes=("", "_before"))
    assert len(merged) == len(again.table) > 0
    np.testing.assert_allclose(merged["value"], merged["value_before"])
    np.testing.assert_allclose(merged["ci_low"], merged["ci_low_before"])


def test_test_choices_never_reach_the_probe(pairs, trained):
    flipped = pairs.copy()
    on_test = flipped["split"] == "test"
    flipped.loc[on_test, "choice"] = 1 - flipped.loc[on_test, "choice"]
    table = measure_cells(FakeStore(pairs), flipped, sites=Sites(blocks=(5,))).table.merge(
        trained.table, on="cell", suffixes=("", "_t")
    )
    np.testing.assert_allclose(table["value"], 1 - table["value_t"])
    np.testing.assert_array_equal(table["cv_accuracy"], table["cv_accuracy_t"])


@pytest.mark.parametrize("probe", ["logistic", "ridge", "mlp"])
def test_test_items_never_reach_the_probe_nor_its_scaling(pairs, probe):
    """With other features of the test items, strength, scaling, stopping and selection stay the same."""
    on_test = set(pairs.loc[pairs["split"] == "test", ["first", "second"]].to_numpy().ravel())

    class AlteredTest(FakeStore):
        def read(self, *site):
            features = super().read(*site).copy()
            features[np.isin(self.item_ids, list(on_test))] *= 1e6
            return features

    recipe = Recipe(probe, "standard" if probe == "mlp" else "auto")
    selection = {"sites": Sites(sigmas=(0.6,), blocks=(1, 4)), "facets": ["quality"], "recipe": recipe}
    clean, altered = (measure_cells(store(pairs), pairs, **selection).table for store in (FakeStore, AlteredTest))
    columns = ["alpha", "scaling", "cv_accuracy", "temperature"]
    pd.testing.assert_frame_equal(clean[columns], altered[columns])


def test_ties_are_not_scored(pairs):
    tied = pairs.copy()
    tied.loc[tied.query("split == 'test'").index[:40], "choice"] = 0.5
    table = measure_cells(FakeStore(pairs), tied, sites=Sites(blocks=(5,), sigmas=(0.6,), streams=("image",))).table
    quality = table[table["facet"] == "quality"]
    assert (quality["n_pairs"] == PROMPTS["test"] - 20).all()
    assert (quality["n_prompts"] == PROMPTS["test"] - 20).all()


def test_a_stream_may_lack_the_last_block(pairs):
    table = measure_cells(FakeStore(pairs), pairs, facets=["quality"], sites=Sites(blocks=(4, 5), sigmas=(0.6,))).table
    assert set(zip(table["stream"], table["block"], strict=True)) == {("image", 4), ("image", 5), ("text", 4)}


def test_tokens_are_concatenated(pairs):
    store = FakeStore(pairs)
    flat = store.read
    store.read = lambda *site: flat(*site).reshape(len(store.item_ids), 2, 5)
    selection = {"sites": Sites(sigmas=(0.6,), blocks=(4,)), "facets": ["quality"]}
    np.testing.assert_array_equal(
        measure_cells(store, pairs, **selection).table["value"],
        measure_cells(FakeStore(pairs), pairs, **selection).table["value"],
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("oracle",), "known are logistic"),
        (("logistic", "louder"), "known are raw"),
        (("mlp", "whiten"), "always standardises"),
    ],
)
def test_unknown_recipes_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        Recipe(*names)


@pytest.mark.parametrize("probe", ["ridge", "mean_difference", "pca1", "mlp"])
def test_every_probe_measures_the_planted_block_only(pairs, probe):
    selection = {"sites": Sites(("image",), sigmas=(0.6,), blocks=(1, 4)), "facets": ["quality"]}
    table = measure_cells(FakeStore(pairs), pairs, recipe=Recipe(probe), **selection).table.set_index("block")
    assert table.loc[1, "ci_low"] < 0.5 < table.loc[1, "ci_high"]
    # A principal direction need not be the planted one.
    if probe != "pca1":
        assert table.loc[4, "ci_low"] > 0.6
    assert table.loc[4, "probe_seeds"] == (3 if probe == "mlp" else 1)
    assert np.isfinite(table.loc[4, "seed_deviation"]) == (probe == "mlp")


def test_attention_needs_tokens(pairs):
    with pytest.raises(UserError, match="give --reductions grid4 or tokens"):
        measure_cells(FakeStore(pairs), pairs, recipe=Recipe("attention"), **IMAGE_CELL)
    store = FakeStore(pairs)
    flat = store.read
    store.read = lambda *site: flat(*site).reshape(len(store.item_ids), 5, 2)
    table = measure_cells(store, pairs, recipe=Recipe("attention"), **IMAGE_CELL).table
    assert table.loc[0, "ci_low"] > 0.55


def test_temperatures_of_informed_cells_are_near_one(trained, pairs):
    """Margins of a probe on its own optimum are nearly calibrated; test choices have no part in it."""
    informed = trained.table[(trained.table["stream"] == "image") & (trained.table["block"] >= 3)]
    assert informed["temperature"].between(0.5, 2.0).all()


def test_a_network_has_a_temperature(pairs):
    row = measure_cells(FakeStore(pairs), pairs, recipe=Recipe("mlp"), **IMAGE_CELL).table.iloc[0]
    assert 0.3 < row["temperature"] < 3.0


def test_labels_and_weights_reach_the_probe(pairs):
    """Shares of 1 and 0 are choices; pairs without weight are no pairs; test pairs are scored by choice."""
    store = FakeStore(pairs)
    plain = measure_cells(store, pairs, **IMAGE_CELL).table
    labelled = pairs.assign(share_first=pairs["choice"], confidence=1.0)
    same = measure_cells(store, labelled, recipe=Recipe(labels="share_first", weights="confidence"), **IMAGE_CELL).table
    pd.testing.assert_frame_equal(same, plain)
    soft = measure_cells(store, pairs, recipe=Recipe(labels="probability"), **IMAGE_CELL).table
    assert not soft[["alpha", "cv_accuracy"]].equals(plain[["alpha", "cv_accuracy"]])
    assert soft["value"].iloc[0] > 0.6
    # Wrong choices of weight 0 change nothing.
    wrong = np.random.default_rng(0).random(len(pairs)) < 0.4
    noisy = pairs.assign(
        choice=np.where(wrong & (pairs["split"] == "train"), 1 - pairs["choice"], pairs["choice"]),
        confidence=np.where(wrong, 0.0, 2.0),
    )
    weighted = measure_cells(store, noisy, recipe=Recipe(weights="confidence"), **IMAGE_CELL).table
    unweighted = measure_cells(store, noisy, **IMAGE_CELL).table
    assert weighted["cv_accuracy"].iloc[0] > unweighted["cv_accuracy"].iloc[0] + 0.1


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(labels="share"), "no column of numbers named share; they have choice"),
        (Recipe(weights="facet"), "no column of numbers named facet"),
        (Recipe(labels="reward_first"), "not in .0, 1."),
        (Recipe(weights="reward_first"), "no weights"),
    ],
)
def test_bad_label_and_weight_columns_are_refused(pairs, recipe, message):
    with pytest.raises(UserError, match=message):
        measure_cells(
            FakeStore(pairs), pairs, recipe=recipe, facets=["quality"], sites=Sites(blocks=(4,), sigmas=(0.6,))
        )


def test_outcomes_follow_from_margins(trained, pairs):
    choice = pairs.set_index("pair_id")["choice"]
    assert trained.margins["pair_id"].equals(trained.outcomes["pair_id"])
    for cell in trained.table["cell"]:
        margins, outcomes = trained.margins[cell], trained.outcomes[cell]
        assert margins.isna().equals(outcomes.isna())
        measured = margins.notna()
        chosen_first = choice.loc[trained.margins.loc[measured, "pair_id"]].to_numpy() == 1
        np.testing.assert_array_equal(outcomes[measured], (margins[measured] > 0) == chosen_first)


def test_workers_change_nothing(pairs, trained):
    results = measure_cells(FakeStore(pairs), pairs, run=Run(workers=3))
    pd.testing.assert_frame_equal(results.table, trained.table, rtol=1e-9)


def test_an_interrupted_run_continues(pairs, trained, tmp_path):
    class Interrupted(FakeStore):
        left = 7

        def read(self, *site):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return super().read(*site)

    with pytest.raises(KeyboardInterrupt):
        measure_cells(Interrupted(pairs), pairs, run=Run(journal=tmp_path))
    # Seven sites of three facets.
    assert len(list(tmp_path.glob("*.npz"))) == 21

    class Counting(FakeStore):
        reads = 0

        def read(self, *site):
            self.reads += 1
            return super().read(*site)

    store = Counting(pairs)
    resumed = measure_cells(store, pairs, run=Run(journal=tmp_path))
    assert store.reads == len(trained.table) // 3 - 7
    pd.testing.assert_frame_equal(resumed.table, trained.table)
    pd.testing.assert_frame_equal(resumed.outcomes, trained.outcomes)
    cell = {"sites": Sites(("image",), sigmas=(0.6,), blocks=(5,)), "run": Run(journal=tmp_path)}

    def count_reads(pairs, **changed):
        store = Counting(pairs)
        measure_cells(store, pairs, **cell, **changed)
        return store.reads

    # Other settings or pairs are another measurement; fewer facets are not.
    assert count_reads(pairs, recipe=Recipe("ridge")) == 1
    assert count_reads(pairs, shuffles=2) == 1
    assert count_reads(pairs.assign(choice=1 - pairs["choice"])) == 1
    assert count_reads(pairs, facets=["quality"]) == 0


def leak(pairs, store):
    pairs.loc[pairs.index[0], "prompt_id"] = pairs.query("split == 'test'")["prompt_id"].iloc[0]


def missing(pairs, store):
    pairs.loc[pairs.index[0], "first"] = "nowhere"


def unwritten(pairs, store):
    store.written[3] = False


def few(pairs, store):
    pairs.drop(pairs.query("facet == 'quality' and split == 'train'").index[8:], inplace=True)


def repeated(pairs, store):
    pairs.loc[pairs.index[0], "pair_id"] = pairs["pair_id"].iloc[1]


def graded(pairs, store):
    pairs.loc[pairs.index[0], "choice"] = 0.7


def no_column(pairs, store):
    pairs.drop(columns="split", inplace=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (leak, "1 prompts are in train and test .one is test000"),
        (missing, "1 of 1800 items of the pairs are not in the store .one is nowhere"),
        (unwritten, "1 of 1800 items are not written yet"),
        (few, "Facet quality has untied train pairs of 8 prompts, expected at least 10"),
        (repeated, "more than once"),
        (graded, "not 1 .first., 0 .second. or 0.5"),
        (no_column, "has no split"),
    ],
)
def test_bad_pairs_are_refused(pairs, damage, message):
    changed, store = pairs.copy(), FakeStore(pairs)
    damage(changed, store)
    with pytest.raises(UserError, match=message):
        measure_cells(store, changed)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"sites": Sites(sigmas=(0.3,))}, "no sigma 0.3; it has 0.005, 0.6"),
        ({"sites": Sites(blocks=(6,))}, "no block 6; it has 0, 1, 2, 3, 4, 5"),
        ({"sites": Sites(("audio",))}, "no stream audio"),
        ({"sites": Sites(reductions=("max",))}, "no reduction max"),
        ({"facets": ["charm"]}, "no facet charm; it has all, alignment, quality"),
        ({"sites": Sites(("text",), blocks=(5,))}, "leave nothing"),
    ],
)
def test_selections_that_the_store_lacks_are_refused(pairs, selection, message):
    with pytest.raises(UserError, match=message):
        measure_cells(FakeStore(pairs), pairs, **selection)


def test_a_run_needs_a_worker():
    with pytest.raises(UserError, match="expected 1 or more"):
        Run(workers=0)


def test_a_cell_is_never_joined_twice(trained):
    with pytest.raises(ValueError, match="twice"):
        CellResults.join(trained, trained)


def test_tables_survive_parquet(trained, tmp_path):
    trained.table.to_parquet(tmp_path / "table.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), trained.table)


def test_feature_stores_are_feature_sources(tmp_path):
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


def test_cells_name_the_list_of_their_block_where_there_are_several(pairs):
    plain, several = FakeStore(pairs), FakeStore(pairs)
    selection = {"sites": Sites(blocks=(1, 4), sigmas=(0.6,), streams=("image",))}
    several.attributes = {**several.attributes, "block_lists": [["double", 3], ["single", NUM_BLOCKS - 3]]}
    named = measure_cells(several, pairs, **selection).table
    assert named.groupby("block")["block_list"].first().to_dict() == {1: "double", 4: "single"}
    assert "block_list" not in measure_cells(plain, pairs, **selection).table


@pytest.mark.slow
def test_features_that_do_not_fit_into_memory_give_the_same_measurements(tmp_path):
    pairs = make_pairs()
    store = FeatureStore.open(write_store(tmp_path / "s.zarr", pairs))
    (tmp_path / "journal").mkdir()
    whole = measure_cells(store, pairs, shuffles=2, run=Run(progress=False))
    # The journal's folder holds the features meanwhile.
    on_disk = Run(progress=False, memory=1e-9, journal=tmp_path / "journal")
    streamed = measure_cells(store, pairs, shuffles=2, run=on_disk)
    # A margin near 0 may change its sign.
    for name in ("value", "cv_accuracy"):
        np.testing.assert_allclose(streamed.table[name], whole.table[name], atol=5e-3)
    assert streamed.table[["cell", "control", "alpha"]].equals(whole.table[["cell", "control", "alpha"]])
    rewards = best_rewards(store, pairs, whole.table, run=on_disk)
    expected = best_rewards(store, pairs, whole.table)
    np.testing.assert_allclose(rewards["reward"], expected["reward"], rtol=1e-3, atol=1e-4)
    # Other probes read what they are given, whatever it takes.
    ridge = measure_cells(store, pairs, recipe=Recipe("ridge"), run=Run(progress=False, memory=1e-9))
    assert np.isfinite(ridge.table["value"]).all()


def test_a_site_on_disk_has_the_bytes_of_one_in_memory_and_the_same_errors(tmp_path):
    pairs = make_pairs()
    path = write_store(tmp_path / "s.zarr", pairs)
    store = FeatureStore.open(path)
    site = Sites().of(store)[0]
    kept = read_for_fits(store, site, most_bytes=1, folder=tmp_path)
    assert isinstance(kept, DiskRows) and np.array_equal(kept[:], read_site(store, site))
    assert isinstance(read_for_fits(store, site, most_bytes=1e12), np.ndarray)
    file = path / store.spec("features/image/mean").file(0, 0)
    content = bytearray(file.read_bytes())
    content[8] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_for_fits(FeatureStore.open(path), site, most_bytes=1)


def test_memory_of_fits_is_checked():
    with pytest.raises(UserError, match="memory of 0 GiB for fits, expected more than 0"):
        Run(memory=0)
    assert Run(memory=2, workers=4).bytes_of_a_fit == 2**29
