"""``python -m probing.score``: rewards from a file scored by every rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from probing.analysis.scoring import score_by_rules
from probing.errors import UserError
from probing.preferences import PreferenceData
from probing.score import main
from probing.statistics import RULES
from tests.preferences.test_data import make


@pytest.fixture
def data() -> PreferenceData:
    return make(prompts=60)


def rewards_of(data: PreferenceData, right: float = 1.0, seed: int = 0) -> pd.DataFrame:
    """Rewards that agree with a share of the choices."""
    rng = np.random.default_rng(seed)
    pairs = data.pairs
    agrees = np.where(rng.random(len(pairs)) < right, 1.0, -1.0) * np.where(pairs["choice"] > 0.5, 1.0, -1.0)
    return pd.DataFrame(
        {"item_id": [*pairs["first"], *pairs["second"]], "reward": np.concatenate([agrees, np.zeros(len(pairs))])}
    )


def test_accuracy_matches_a_count(data):
    rewards = rewards_of(data, right=0.7)
    reward = rewards.set_index("item_id")["reward"]
    test = data.pairs[data.pairs["split"] == "test"]
    right = (np.sign(test["first"].map(reward) - test["second"].map(reward)) > 0) == (test["choice"] == 1)
    table = score_by_rules(data, rewards).set_index("rule")
    assert table.loc["micro-half", "value"] == pytest.approx(right.mean())
    assert table.loc["macro-half", "value"] == pytest.approx(right.mean())  # one pair a prompt
    assert table.loc["micro-half", "n_pairs"] == len(test) == 20
    assert table.loc["micro-half", "ci_low"] < right.mean() < table.loc["micro-half", "ci_high"]


def test_a_rule_without_a_value_has_a_reason(data):
    table = score_by_rules(data, rewards_of(data)).set_index("rule")
    assert set(table.index) == set(RULES)
    unmeasured = table[table["value"].isna()]
    assert "tuned-tie" in unmeasured.index  # there is no validation split
    assert (unmeasured["note"].str.len() > 10).all()


def test_only_test_pairs_need_rewards(data):
    items = data.select(split="test").items["item_id"]
    rewards = rewards_of(data)
    table = score_by_rules(data, rewards[rewards["item_id"].isin(items)], rules=["micro-half"])
    assert table["value"].iloc[0] == 1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda r: r.iloc[1:], "20 test pairs of d have items without a reward|1 of 20 test pairs"),
        (lambda r: r.assign(reward=np.nan), "no finite reward"),
        (lambda r: pd.concat([r, r.head(1)]), "two rewards"),
        (lambda r: r.rename(columns={"reward": "score"}), "column of numbers named reward"),
        (lambda r: r.rename(columns={"item_id": "item"}), "column item_id, or prompt and image"),
    ],
)
def test_bad_rewards_are_refused(data, damage, message):
    with pytest.raises(UserError, match=message):
        score_by_rules(data, damage(rewards_of(data)))


def test_the_command_scores_the_listed_items(tmp_path, capsys):
    listed, scored, table = (tmp_path / name for name in ("items.csv", "scores.csv", "table.csv"))
    assert main(["--data", "testbed", "--limit", "400", "--list-items", str(listed)]) == 0
    items = pd.read_csv(listed)
    assert set(items) == {"item_id", "prompt", "image"}
    items.assign(reward=items["prompt"].str.len()).to_csv(scored, index=False)
    options = ["--data", "testbed", "--limit", "400", "--scores", str(scored), "--output", str(table)]
    assert main(options) == 0
    output = capsys.readouterr().out
    assert "facet alignment" in output and "micro-half" in output and str(table) in output
    # The length of the prompt is the same for both items: each pair is a predicted tie.
    values = pd.read_csv(table).set_index(["facet", "rule"])["value"]
    assert values["alignment", "micro-half"] == 0.5
    assert values["alignment", "micro-wrong"] == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Give --scores"),
        (["--scores", "none.csv"], "no file"),
        (["--scores", "scores.txt"], "ends in .csv"),
        (["--scores", "none.csv", "--output", "table.xls"], ".csv or .parquet"),
        (["--scores", __file__.replace(".py", ".csv")], "no file"),
    ],
)
def test_mistakes_end_in_status_2(capsys, options, message):
    assert main(["--data", "testbed", "--limit", "40", *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.strip().count("\n") == 0


def test_an_unknown_rule_is_named(tmp_path, capsys):
    scores = tmp_path / "s.csv"
    scores.write_text("item_id,reward\na,1\n")
    assert main(["--data", "testbed", "--limit", "40", "--scores", str(scores), "--rules", "accuracy"]) == 2
    assert "Unknown rule 'accuracy'" in capsys.readouterr().err


def test_partial_scores_the_pairs_with_rewards(data):
    rewards = rewards_of(data)
    some = rewards[rewards["item_id"].isin(data.select(split="test", limit=10).items["item_id"])]
    table = score_by_rules(data, some, rules=["micro-half"], partial=True)
    assert table["n_pairs"].iloc[0] == 5 and table["value"].iloc[0] == 1.0
    with pytest.raises(UserError, match="No test pair of d has both rewards"):
        score_by_rules(data, some.head(0), partial=True)


def test_a_list_that_lacks_a_reward_is_not_whole(data):
    """What is left of it would pass for a shorter list."""
    test = data.pairs.index[data.pairs["split"] == "test"][:3]
    pairs = data.pairs.copy()
    # A list of three pictures a, b, c, of which c has no reward: a and b are left, a whole list of two.
    a, b, c = pairs.loc[test[0], "first"], pairs.loc[test[0], "second"], pairs.loc[test[1], "first"]
    pairs.loc[test, ["first", "second"]] = [(a, b), (b, c), (a, c)]
    pairs.loc[test, ["prompt_id", "list_id"]] = "list"
    of_list = data.items["item_id"].isin([a, b, c])
    items = data.items.assign(
        prompt_id=data.items["prompt_id"].mask(of_list, "list"), prompt=data.items["prompt"].mask(of_list, "words")
    )
    lists = replace(data, items=items, pairs=pairs[(pairs["split"] != "test") | pairs.index.isin(test)])
    rewards = rewards_of(data)
    whole = score_by_rules(lists, rewards).set_index("rule")
    assert np.isfinite(whole.loc["kendall", "value"]) and whole.loc["micro-half", "n_pairs"] == 3
    table = score_by_rules(lists, rewards[rewards["item_id"] != c], partial=True).set_index("rule")
    assert table.loc["micro-half", "n_pairs"] == 1
    assert np.isnan(table.loc["kendall", "value"]) and "lack an item's reward" in table.loc["kendall", "note"]


def test_a_split_without_rankings_is_not_one_ranking(data):
    """Other splits have rankings, so the column exists and is empty for this split."""
    rewards = rewards_of(data, right=0.7)
    lists = data.pairs["prompt_id"].where(data.pairs["split"] != "test")
    table = score_by_rules(replace(data, pairs=data.pairs.assign(list_id=lists)), rewards)
    pd.testing.assert_frame_equal(table, score_by_rules(data, rewards))
