"""Splits keep prompt groups whole, keep their shares, and can hold out source models."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from probing.errors import UserError
from probing.preferences.splits import hold_out_models, normalise_prompt, split_by_prompt, split_pairs, stratified_folds

PROMPTS = st.lists(st.integers(0, 30), min_size=30, max_size=90).map(lambda rows: [f"p{i}" for i in [*rows, *range(8)]])


@given(PROMPTS, st.integers(0, 5), st.floats(0.1, 0.9))
def test_a_split_cuts_no_prompt_and_keeps_its_share(prompts, seed, fraction):
    prompts = pd.Series(prompts)
    count = prompts.nunique()
    split = split_by_prompt(prompts, test_fraction=fraction, seed=seed)
    assert prompts.groupby(prompts).apply(lambda rows: split[rows.index].nunique()).eq(1).all()
    tests = prompts[split == "test"].nunique()
    assert abs(tests - fraction * count) <= 1 and 0 < tests < count
    # The order of the rows decides nothing.
    order = np.random.default_rng(seed).permutation(len(prompts))
    shuffled = split_by_prompt(prompts.iloc[order], test_fraction=fraction, seed=seed)
    assert (shuffled.sort_index() == split).all()


@given(PROMPTS, st.integers(2, 6), st.integers(0, 5))
def test_folds_cut_no_prompt_and_are_even(prompts, folds, seed):
    prompts = pd.Series(prompts)
    strata = prompts.map(lambda p: int(p[1:]) % 3)
    fold_of = stratified_folds(prompts, folds, strata=strata, seed=seed)
    table = pd.DataFrame({"prompt": prompts, "fold": fold_of, "stratum": strata})
    assert (table.groupby("prompt")["fold"].nunique() == 1).all()
    sizes = table.drop_duplicates("prompt")["fold"].value_counts().reindex(range(folds), fill_value=0)
    assert sizes.max() - sizes.min() <= 1


def test_strata_keep_their_shares_where_chance_would_not():
    """Ten prompts of a rare facet among a thousand: each split has its fifth of them."""
    prompts = pd.Series([f"p{i}" for i in range(1000)])
    facet = pd.Series(["rare" if i < 10 else "common" for i in range(1000)])
    for seed in range(20):
        split = split_by_prompt(prompts, strata=facet, seed=seed)
        assert (split[facet == "rare"] == "test").sum() == 2
        assert (split == "test").sum() == 200
    chance = [(split_by_prompt(prompts, seed=seed)[facet == "rare"] == "test").sum() for seed in range(20)]
    assert len(set(chance)) > 1
    folds = stratified_folds(prompts, 5, strata=facet)
    assert (np.bincount(folds[facet == "rare"], minlength=5) == 2).all()


def pairs_of(rng, count=600, **extra):
    return pd.DataFrame(
        {
            "pair_id": [f"pair{i}" for i in range(count)],
            "prompt_id": [f"p{i // 2}" for i in range(count)],
            "first": "a",
            "second": "b",
            "choice": 1.0,
            "split": "train",
            "facet": "all",
            "source_model_first": rng.choice(["flux", "sdxl", "sd2", "real"], count),
            "source_model_second": rng.choice(["flux", "sdxl", "sd2", "real"], count),
            **extra,
        }
    )


def test_held_out_models_are_never_trained_on():
    pairs = pairs_of(np.random.default_rng(0))
    made = hold_out_models(pairs, ["flux", "real"])
    has_held_out = made[["source_model_first", "source_model_second"]].isin(["flux", "real"]).any(axis=1)
    assert (has_held_out == (made["split"] == "test")).all()
    assert not set(made.loc[made["split"] == "train", "prompt_id"]) & set(
        made.loc[made["split"] == "test", "prompt_id"]
    )
    assert set(made["pair_id"]) < set(pairs["pair_id"])


def test_an_official_split_is_kept_when_models_are_held_out():
    rng = np.random.default_rng(1)
    pairs = pairs_of(rng)
    pairs["split"] = np.where(pairs["prompt_id"].str[1:].astype(int) % 4 == 0, "test", "train")
    made = hold_out_models(pairs, ["sdxl"]).set_index("pair_id")["split"]
    assert (made == pairs.set_index("pair_id")["split"][made.index]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: hold_out_models(p, ["dalle"]), r"source models dalle to hold out; these pairs have"),
        (lambda p: hold_out_models(p, []), "none to hold out"),
        (lambda p: hold_out_models(p.drop(columns="source_model_first"), ["flux"]), "name no source models"),
        (lambda p: hold_out_models(p, ["flux", "sdxl", "sd2", "real"]), "No train pair without"),
        (lambda p: split_pairs(p, "random"), "Unknown split rule 'random'"),
        (lambda p: split_pairs(p, "prompt", held_out=["flux"]), "need the split rule source-model"),
        (lambda p: split_pairs(p, "official", stratify="facet"), "strata need the rule prompt"),
        (lambda p: split_pairs(p, "prompt", stratify="style"), "no column 'style'"),
        (lambda p: split_by_prompt(p["prompt_id"], test_fraction=1.0), "between 0 and 1"),
        (lambda p: split_by_prompt(p["prompt_id"].head(2)), "at least 2 different prompts"),
        (lambda p: stratified_folds(p["prompt_id"].head(4), 3), "give 2 to 2 folds"),
    ],
)
def test_impossible_splits_are_refused_with_the_reason(call, message):
    with pytest.raises(UserError, match=message):
        call(pairs_of(np.random.default_rng(2)))


def test_splitting_by_prompt_accepts_strata():
    pairs = pairs_of(np.random.default_rng(3), facet=["all", "rare"] * 300)
    made = split_pairs(pairs, "prompt", stratify="facet", seed=4)
    assert (made["split"] == split_by_prompt(pairs["prompt_id"], strata=pairs["facet"], seed=4)).all()
    assert split_pairs(pairs).equals(pairs)


@given(st.text(max_size=30))
def test_normalised_prompts_are_unchanged(text):
    normal = normalise_prompt(text)
    assert normalise_prompt(normal) == normal
    assert normalise_prompt(f"  {text.upper().lower()} \n") == normalise_prompt(text.upper().lower())


def test_spellings_of_one_prompt_are_one():
    assert len({normalise_prompt(text) for text in ("A cat", " a  CAT\t", "ａ cat", "a\u00a0cat")}) == 1
    assert normalise_prompt("a cat") != normalise_prompt("a car")
