"""Words that a backbone reads: foreign ones come from another prompt of the same split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from probing.backbones import load_backbone, resolve
from probing.errors import UserError
from probing.extract import main
from probing.features.prompts import given_prompts
from probing.testbed.recipes.text import CAPTION_LENGTH
from tests.fakes.tiny_sd3 import T5_LENGTH
from tests.features.test_extraction import CPU, PROMPTS, make_data, run

ITEMS = pd.DataFrame(
    [(f"p{i}-{side}", f"p{i}", f"words {i}") for i in range(20) for side in "ab"],
    columns=["item_id", "prompt_id", "prompt"],
)
PAIRS = pd.DataFrame({"prompt_id": [f"p{i}" for i in range(20)], "split": ["train"] * 12 + ["test"] * 8})


def test_foreign_words_are_another_prompts_of_the_same_split():
    given = pd.Series(given_prompts(ITEMS, PAIRS, "foreign", 0), index=ITEMS["item_id"])
    own = ITEMS.set_index("item_id")["prompt"]
    assert (given != own).all()
    by_prompt = given.groupby(ITEMS.set_index("item_id")["prompt_id"]).agg(["nunique", "first"])
    assert (by_prompt["nunique"] == 1).all()
    assert sorted(by_prompt["first"]) == sorted(own.unique())
    train = {f"words {i}" for i in range(12)}
    assert all((words in train) == (int(item.split("-")[0][1:]) < 12) for item, words in given.items())


def test_the_deal_depends_on_seed_and_prompts_not_on_order():
    once = given_prompts(ITEMS, PAIRS, "foreign", 0)
    shuffled = ITEMS.sample(frac=1, random_state=0)
    again = pd.Series(given_prompts(shuffled, PAIRS, "foreign", 0), index=shuffled.index).sort_index().tolist()
    assert again == once != given_prompts(ITEMS, PAIRS, "foreign", 1)


def test_own_and_empty_words():
    assert given_prompts(ITEMS, PAIRS, "own", 0) == ITEMS["prompt"].tolist()
    assert given_prompts(ITEMS, PAIRS, "empty", 0) == [""] * 40


def test_a_prompt_alone_in_its_split_and_an_unknown_rule_are_refused():
    with pytest.raises(UserError, match="Split 'test' has 1 prompt, so it cannot be given another's words"):
        given_prompts(ITEMS.iloc[:26], PAIRS, "foreign", 0)
    with pytest.raises(UserError, match="Unknown rule of prompts 'none'; known are own, foreign, empty"):
        given_prompts(ITEMS, PAIRS, "none", 0)


@pytest.fixture(scope="module")
def spec(tiny_folder):
    return resolve(str(tiny_folder))


@pytest.fixture(scope="module")
def backbone(spec):
    return load_backbone(spec, device=CPU, compute_dtype=torch.float32, t5_length=T5_LENGTH)


@pytest.mark.parametrize("rule", ["foreign", "empty"])
def test_features_are_those_of_the_given_words(spec, backbone, tmp_path, rule):
    """The same bytes as data whose prompts had been these words from the start."""
    data = make_data()
    actual = run(spec, backbone, data, tmp_path / "a.zarr", prompts=rule).store
    # Two prompts a split exchange their words.
    words = {"foreign": [PROMPTS[1], PROMPTS[0], PROMPTS[3], PROMPTS[2]], "empty": [""] * 4}[rule]
    texts = data.items["prompt_id"].str[-1].astype(int).map(dict(enumerate(words)))
    changed = replace(data, items=data.items.assign(prompt=texts))
    expected = run(spec, backbone, changed, tmp_path / "b.zarr").store
    for stream, reduction in actual.arrays():
        np.testing.assert_array_equal(
            actual.read(stream, reduction, 0.6, 1), expected.read(stream, reduction, 0.6, 1), err_msg=reduction
        )
    own = run(spec, backbone, data, tmp_path / "own.zarr").store
    assert np.abs(actual.read("image", "mean", 0.6, 1) - own.read("image", "mean", 0.6, 1)).max() > 1e-4
    np.testing.assert_array_equal(actual.read_latents("mean"), own.read_latents("mean"))


def test_a_store_records_its_words_and_its_backbones_size(spec, backbone, tmp_path):
    data = make_data()
    own = run(spec, backbone, data, tmp_path / "own.zarr").store
    assert own.attributes["settings"]["prompts"] == "own"
    assert "parameters" not in own.attributes["settings"]
    assert own.attributes["parameters"] == sum(p.numel() for p in backbone.transformer.parameters())
    assert own.attributes["forward_flops"] == spec.architecture.forward_flops(16, CAPTION_LENGTH + T5_LENGTH)
    foreign = run(spec, backbone, data, tmp_path / "foreign.zarr", prompts="foreign").store
    assert foreign.attributes["prompts"] == "foreign"
    with pytest.raises(UserError, match="prompts was 'foreign' and is now 'empty'"):
        run(spec, backbone, data, tmp_path / "foreign.zarr", prompts="empty")
    with pytest.raises(UserError, match="prompts was 'foreign' and is now 'own'"):
        run(spec, backbone, data, tmp_path / "foreign.zarr")


def test_the_plan_names_the_words(capsys):
    for rule, message in (("foreign", "each given another prompt's words"), ("empty", "given no words")):
        assert main(["--model", "testbed-xs", "--limit", "60", "--prompts", rule, "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert message in printed and f"testbed-xs-{rule}-prompts--testbed.zarr" in printed
