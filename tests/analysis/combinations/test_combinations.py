"""Combinations of blocks gain only where complementary signals are planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from probing.analysis.combinations import CombinationSettings, measure_combinations
from probing.analysis.combinations.experiment import COLUMNS
from probing.analysis.combinations.mix import fit_mix, mixed_features
from probing.analysis.engine import ALL, CurveReader, Run, Sites, correct, facets_of
from probing.errors import UserError
from probing.probes import LogisticProbe
from probing.statistics import holm, paired_difference
from tests.fakes.planted_store import PlantedStore, planted_pairs

STAGES = pd.DataFrame({"stage": ["B1", "B2"], "first_block": [0, 3], "last_block": [2, 5]})


def two_stages(stream, sigma, block):
    """Each stage carries one half of the reward."""
    return (1.5, 0.0) if block < 3 else (0.0, 1.5)


def one_block(stream, sigma, block):
    """One block carries the whole reward."""
    return (4.0, 4.0) if block == 2 else (0.0, 0.0)


@pytest.fixture(scope="module")
def pairs():
    return planted_pairs(test=600)


@pytest.fixture(scope="module")
def complementary(pairs):
    similarity = pd.DataFrame(
        [{"block": a, "other": b, "value": 0.9 if (a < 3) == (b < 3) else 0.7} for a in range(6) for b in range(6)]
    )
    return measure_combinations(
        PlantedStore(pairs, two_stages, num_blocks=6), pairs, CombinationSettings(stages=STAGES, similarity=similarity)
    )


@pytest.fixture(scope="module")
def alone(pairs):
    return measure_combinations(PlantedStore(pairs, one_block, num_blocks=6), pairs, CombinationSettings(stages=STAGES))


def row(table, **where):
    for key, value in where.items():
        table = table[table[key] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_every_head_has_one_row(complementary):
    assert tuple(complementary.columns) == COLUMNS
    full = complementary[complementary["head"] == "full"]
    assert full["kind"].value_counts().to_dict() == {"single": 6, "pair": 15, "greedy": 4, "subset": 1, "mix": 1}
    assert not complementary.duplicated(["kind", "head", "blocks", "channels"])[complementary["blocks"].notna()].any()
    assert set(complementary["stage_source"]) == {"given"}
    assert set(complementary["stage_runs"]) == {"B1 0-2, B2 3-5"}


def test_pairs_across_stages_gain_with_planted_halves(complementary):
    pairs = complementary.query("kind == 'pair' and head == 'full'")
    across = pairs["stages"] == "B1+B2"
    assert across.sum() == 9 and (pairs.loc[across, "own_gain"] > pairs.loc[~across, "own_gain"].max()).all()
    assert (pairs.loc[across, "own_gain_low"] > 0).all()
    chosen = pairs[pairs["chosen"]]
    assert len(chosen) == 1 and chosen["stages"].item() == "B1+B2" and chosen["gain_low"].item() > 0
    contrast = row(complementary, kind="contrast", head="across-within")
    assert contrast["ci_low"] > 0.02 and "different stages gain more than two of one stage" in contrast["statement"]
    assert row(complementary, kind="contrast", head="pair-widened")["ci_low"] > 0
    assert row(complementary, kind="contrast", head="subset-widened")["ci_low"] > 0


def test_greedy_selection_adds_a_block_of_the_other_half(complementary):
    steps = complementary.query("kind == 'greedy' and head == 'full'")
    assert [len(blocks.split("+")) for blocks in steps["blocks"]] == [1, 2, 3, 4]
    second = [int(block) for block in steps["blocks"].iloc[1].split("+")]
    assert (second[0] < 3) != (second[1] < 3)
    assert steps["blocks"].iloc[0] == row(complementary, kind="single", chosen=True)["blocks"]
    assert steps["blocks"].iloc[3].startswith(steps["blocks"].iloc[1])


def two_halves(pairs, blocks):
    """Two stages of alike blocks, each with one half of the reward."""
    half = blocks // 2
    similarity = pd.DataFrame(
        [
            {"block": a, "other": b, "value": 0.9 if (a < half) == (b < half) else 0.7}
            for a in range(blocks)
            for b in range(blocks)
        ]
    )
    store = PlantedStore(pairs, lambda s, _, block: (1.5, 0.0) if block < half else (0.0, 1.5), num_blocks=blocks)
    return row(measure_combinations(store, pairs, CombinationSettings(similarity=similarity)), kind="relation")


def test_low_similarity_predicts_the_planted_gain(pairs):
    relation = two_halves(pairs, 10)
    assert relation["value"] < -0.6 and relation["ci_high"] < 0 and relation["verdict"] == "below"
    assert relation["statement"].startswith("pairs of less similar blocks gain more: Spearman -")


def test_few_blocks_give_no_verdict_on_similarity(complementary):
    """Six blocks in two stages have ten orders, so the least p-value is 0.1."""
    relation = row(complementary, kind="relation")
    assert relation["value"] < -0.6 and relation["p_value"] >= 0.09 and relation["verdict"] == "too little data"
    assert relation["statement"].startswith("too few blocks or prompts")


def test_nothing_gains_over_a_block_with_the_whole_reward(alone):
    best = row(alone, kind="single", head="full", chosen=True)
    assert best["blocks"] == "2" and best["gain"] == 0
    full = alone.query("head == 'full' and kind != 'single'")
    with_it = full[full["blocks"].str.contains("2") & (full["kind"] != "mix")]
    # More parameters may cost a little accuracy, and never gain.
    assert ((with_it["gain_low"] <= 0) & (with_it["gain_high"] >= -0.02)).all()
    assert (with_it["gain_verdict"] != "above").all()
    for name in ("pair-widened", "subset-widened"):
        contrast = row(alone, kind="contrast", head=name)
        assert contrast["verdict"] != "above" and "is above" not in contrast["statement"], contrast["statement"]
    weights = np.array(row(alone, kind="mix")["weights"].split(), dtype=float)
    assert weights.argmax() == 2 and weights[2] > 0.6


def test_copies_of_one_block_gain_nothing():
    """The same features in every block: no head is above the block itself, nor above it at its width."""
    claimed = []
    for seed in range(6):
        pairs = planted_pairs(test=300, seed=seed)
        store = PlantedStore(pairs, lambda *_: (0.9, 0.9), num_blocks=3, seed=seed)
        first = store.read("image", "mean", 0.1, 0)
        store.read = lambda *_, features=first: features
        table = measure_combinations(store, pairs)
        contrasts = table[(table["kind"] == "contrast") & (table["head"] != "across-within")]
        claimed += [*(contrasts["verdict"] == "above"), *(table["gain_verdict"] == "above")]
    assert np.mean(claimed) < 0.02


def test_a_family_of_hundreds_can_be_significant():
    """Pairs of 24 blocks are 276 tests; a planted gain is found among them."""
    table = pd.DataFrame({"p_value": [1e-6, *[0.5] * 299], "smallest_p_value": 1e-30, "n_prompts": 400, "gain": 0.1})
    verdicts = correct(table, "gain")["verdict"]
    assert verdicts[0] == "above" and set(verdicts[1:]) == {"not distinguished"}
    few = correct(table.assign(smallest_p_value=1e-3), "gain")
    # With seven prompts that differ, no test of three hundred can be significant, and the table says so.
    assert set(few["verdict"][1:]) == {"too little data"} and set(few["family"]) == {"all rows: 300 tests"}
    assert set(correct(table.assign(n_prompts=15), "gain")["verdict"]) == {"too little data"}


def test_gains_are_paired_differences_corrected_together(alone):
    heads = alone[alone["gain"].notna()]
    # The best block is no test of itself, whatever the kind of head that it stands in.
    itself = (heads["blocks"] == "2") & (heads["head"] == "full")
    assert heads.loc[itself, "gain_p_value_holm"].isna().all() and itself.sum() == 2
    tested = heads[~itself]
    np.testing.assert_allclose(tested["gain_p_value_holm"], holm(tested["gain_p_value"].to_numpy(dtype=float)))
    curve = "facet all, stream image, reduction mean, sigma 0.1"
    assert set(tested["gain_family"]) == {f"{curve}: {len(tested)} tests"}
    assert set(heads.loc[heads["kind"] == "pair", "own_gain_family"].dropna()) == {f"{curve}: 17 tests"}
    pair = row(alone, kind="pair", head="full", blocks="2+5")
    assert pair["gain"] == pytest.approx(pair["value"] - row(alone, kind="single", head="full", blocks="2")["value"])
    assert pair["channels"] == 16 and pair["own_gain"] == pytest.approx(pair["gain"])


def test_sentences_say_the_verdict_and_the_p_value_that_decides(alone, complementary):
    stated = pd.concat([alone, complementary]).dropna(subset="statement")
    assert {"above", "not distinguished", "too little data"} <= set(stated["verdict"])
    for verdict, corrected, sentence in zip(
        stated["verdict"], stated["p_value_holm"], stated["statement"], strict=True
    ):
        assert "{" not in sentence
        assert ("after Holm" in sentence) == (verdict == "not distinguished")
        if verdict == "not distinguished":
            assert sentence.endswith(f", p = {corrected:.2g} after Holm.")


def test_families_are_named_by_what_they_hold():
    """Every family of a table of several has its own name, its own number of tests and its own correction."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"facet": ["a", "b"] * 20, "sigma": np.repeat([0.1, np.nan], 20), "p_value": rng.random(40)})
    table.loc[:4, "p_value"] = np.nan
    table = table.assign(smallest_p_value=1e-30, n_prompts=400, gain=0.1).sample(frac=1, random_state=0)
    corrected = correct(table, "gain", by=["facet", "sigma"])
    pd.testing.assert_frame_equal(corrected[table.columns], table)
    for (facet, sigma), rows in corrected.groupby(["facet", "sigma"], dropna=False):
        tested = rows.dropna(subset="p_value")
        assert set(tested["family"]) == {f"facet {facet}, sigma {sigma}: {len(tested)} tests"}
        np.testing.assert_allclose(tested["p_value_holm"], multipletests(tested["p_value"], method="holm")[1])
    assert corrected.loc[corrected["p_value"].isna(), ["p_value_holm", "family", "verdict"]].isna().all(axis=None)


def test_numbers_match_a_calculation_by_hand(pairs, alone):
    store = PlantedStore(pairs, one_block, num_blocks=6)
    (facet,) = facets_of(store, pairs)
    outcomes = []
    for blocks in ((1, 2), (2,)):
        features = np.concatenate([store.read("image", "mean", 0.1, b) for b in blocks], axis=1).astype(float)
        probe = LogisticProbe().fit(facet.train.differences(features), facet.train.choices, facet.train.prompts)
        right = (probe.decision_function(facet.test.differences(features)) > 0) == (facet.test.choices == 1)
        outcomes.append(right.astype(float))
    pair = row(alone, kind="pair", head="full", blocks="1+2")
    assert pair["value"] == pytest.approx(outcomes[0].mean())
    expected = paired_difference(*outcomes, facet.test.prompts)
    assert (pair["own_gain_low"], pair["own_gain_high"]) == pytest.approx((expected.low, expected.high))


def test_no_selection_uses_a_test_prompt(pairs, alone):
    """With flipped test choices, every selection, projection and weight stays the same."""
    flipped = pairs.copy()
    test = flipped["split"] == "test"
    flipped.loc[test, "choice"] = 1 - flipped.loc[test, "choice"]
    again = measure_combinations(
        PlantedStore(flipped, one_block, num_blocks=6), flipped, CombinationSettings(stages=STAGES)
    )
    for column in ("blocks", "chosen", "cv_accuracy", "weights"):
        pd.testing.assert_series_equal(again[column], alone[column])
    heads = alone["channels"].notna()
    np.testing.assert_allclose(again.loc[heads, "value"], 1 - alone.loc[heads, "value"])


def test_mix_weights_minimise_the_loss(pairs):
    """No other weights on the simplex have a lower loss with the learned head."""
    store = PlantedStore(
        pairs, lambda stream, sigma, block: (1.0, 1.0) if block in (1, 3) else (0.0, 0.0), num_blocks=5
    )
    (curve,) = ALL.curves_of(store)
    reader, (facet,) = CurveReader(store, curve), facets_of(store, pairs)
    mix = fit_mix(reader.read, curve.blocks, facet.train)
    assert mix.weights.sum() == pytest.approx(1) and mix.weights[[1, 3]].sum() > 0.7
    mixed = mixed_features(mix, reader.read, curve.blocks)
    by_hand = sum(p * reader.read(b) / s for p, b, s in zip(mix.weights, curve.blocks, mix.scales, strict=True))
    np.testing.assert_allclose(mixed, by_hand, rtol=1e-5)
    y = facet.train.choices
    probe = LogisticProbe().fit(facet.train.differences(mixed), y, facet.train.prompts)
    scaled = [reader.read(b) / s for b, s in zip(curve.blocks, mix.scales, strict=True)]
    margins = np.stack([facet.train.differences(features) @ probe.coef_ for features in scaled], axis=1)

    def loss(weights, length):
        m = length * margins @ weights
        return np.mean(np.logaddexp(0, m) - y * m)

    lengths = np.linspace(0.5, 2, 31)
    minimum = min(loss(mix.weights, length) for length in lengths)
    others = np.random.default_rng(0).dirichlet(np.ones(5), size=200)
    assert all(min(loss(w, length) for length in lengths) > minimum - 2e-4 for w in others)


def test_a_resumed_measurement_is_the_same(pairs, tmp_path):
    store = PlantedStore(pairs, two_stages, num_blocks=3)
    once = measure_combinations(store, pairs, run=Run(journal=tmp_path))

    read = store.read

    def read_first_block(stream, reduction, sigma, block):
        assert block == 0, "read again"
        return read(stream, reduction, sigma, block)

    # One block is read for its width; every fit comes from the journal.
    store.read = read_first_block
    pd.testing.assert_frame_equal(measure_combinations(store, pairs, run=Run(journal=tmp_path)), once)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"largest": 1}, "expected 2 or more"),
        ({"stages": STAGES.head(1)}, "Blocks 3, 4, 5 are in no stage or in two"),
        ({"stages": STAGES.drop(columns="stage")}, "has no stage; it needs stage, first_block, last_block"),
        ({"similarity": pd.DataFrame({"block": [0]})}, "has no other, value"),
    ],
)
def test_bad_settings_are_refused(pairs, settings, message):
    with pytest.raises(UserError, match=message):
        measure_combinations(PlantedStore(pairs, two_stages, num_blocks=6), pairs, CombinationSettings(**settings))


def test_one_block_is_no_combination(pairs):
    with pytest.raises(UserError, match="Two blocks make a combination, and image has block 2 alone"):
        measure_combinations(PlantedStore(pairs, two_stages, num_blocks=6), pairs, sites=Sites(blocks=(2,)))


def test_too_many_stages_are_refused(pairs):
    stages = pd.DataFrame({"stage": list("abcdefg"), "first_block": range(7), "last_block": [*range(6), 7]})
    with pytest.raises(UserError, match="Got 7 stages, expected at most 6"):
        measure_combinations(PlantedStore(pairs, two_stages), pairs, CombinationSettings(stages=stages))
