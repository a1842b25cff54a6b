"""Evaluate rewards on a benchmark by every rule, with paired differences, beside what others published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from probing.analysis.engine import ALL_FACETS
from probing.analysis.published import published
from probing.analysis.scoring import rewards_by_item, score_pairs
from probing.preferences import PreferenceData
from probing.reward.latent_reward import LatentReward
from probing.statistics import holm, outcomes, paired_difference


class Evaluation(NamedTuple):
    """Tables of an evaluation.

    Attributes:
        accuracies: One row a reward, facet and rule: ``reward, data, split, facet, rule, value, ci_low, ci_high,
            n_pairs, n_prompts, note, citation``; published values have a citation and no interval.
        differences: One row a facet and two rewards, on the same pairs: ``first, second, facet, difference, ci_low,
            ci_high, p_value, p_value_holm, n_pairs, n_prompts``; Holm's family is the table.
    """

    accuracies: pd.DataFrame
    differences: pd.DataFrame


def evaluate(
    rewards: Mapping[str, LatentReward | pd.DataFrame],
    data: PreferenceData,
    *,
    rules: Sequence[str] | None = None,
    split: str = "test",
) -> Evaluation:
    """Evaluate rewards.

    Args:
        rewards: By name: rewards that score the pictures, or tables of scores as :func:`probing.score_rewards` takes.
        data: Pairs and pictures; pairs of split ``validation`` tune the parameters of a rule.
        rules: Names of rules; all if None.
        split: The split to score.

    Raises:
        UserError: As :func:`probing.score_rewards` and :meth:`LatentReward.score`.
    """
    used = data.pairs[data.pairs["split"].isin([split, "validation"])]
    needed = pd.unique(used[["first", "second"]].to_numpy().ravel())
    items = data.items[data.items["item_id"].isin(needed)]
    tables = {
        name: reward.score_data(data, items) if isinstance(reward, LatentReward) else rewards_by_item(data, reward)
        for name, reward in rewards.items()
    }
    parts = [used] if used["facet"].nunique() == 1 else [used.assign(facet=ALL_FACETS), used]
    accuracies = pd.concat(
        [
            score_pairs(data.name, part, table, rules=rules, split=split).assign(reward=name, citation=None)
            for name, table in tables.items()
            for part in parts
        ],
        ignore_index=True,
    )
    columns = ["reward", *[name for name in accuracies if name not in ("reward", "citation")], "citation"]
    others = [
        {"reward": one.model, "data": data.name, "facet": ALL_FACETS, "value": one.value, "note": one.note}
        | {"citation": one.source}
        for one in published()
        if data.name.startswith(one.benchmark)
    ]
    if others:
        accuracies = pd.concat([accuracies, pd.DataFrame(others).reindex(columns=accuracies.columns)])
    return Evaluation(accuracies[columns].reset_index(drop=True), _differences(tables, parts, split))


def _differences(tables: Mapping[str, pd.DataFrame], parts: Sequence[pd.DataFrame], split: str) -> pd.DataFrame:
    names, rows = list(tables), []
    for part in parts:
        for facet, pairs in part[part["split"] == split].groupby("facet", sort=True):
            choices, prompts = pairs["choice"].to_numpy(dtype=float), pairs["prompt_id"].to_numpy()
            right = {name: outcomes(_margins(tables[name], pairs), choices) for name in names}
            for number, first in enumerate(names):
                for second in names[number + 1 :]:
                    test = paired_difference(right[first], right[second], prompts)
                    rows.append(
                        {
                            "first": first,
                            "second": second,
                            "facet": facet,
                            "difference": float(test.estimate),
                            "ci_low": float(test.low),
                            "ci_high": float(test.high),
                            "p_value": float(test.p_value),
                            "n_pairs": int((choices != 0.5).sum()),
                            "n_prompts": int(pairs["prompt_id"].nunique()),
                        }
                    )
    table = pd.DataFrame(rows, columns=_DIFFERENCES)
    return table.assign(p_value_holm=holm(table["p_value"].to_numpy(dtype=float)) if len(table) else np.nan)


_DIFFERENCES = ["first", "second", "facet", "difference", "ci_low", "ci_high", "p_value", "n_pairs", "n_prompts"]


def _margins(table: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray:
    reward_of = table.set_index("item_id")["reward"]
    return (pairs["first"].map(reward_of) - pairs["second"].map(reward_of)).to_numpy(dtype=float)
