"""Score rewards against people's choices by every rule."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from probing.errors import UserError
from probing.preferences import PreferenceData
from probing.statistics import RULES, ScoredPairs, score

BOTH_BAD = "bothbad_vote"
COLUMNS = ("data", "split", "facet", "rule", "value", "ci_low", "ci_high", "n_pairs", "n_prompts", "note")


def score_by_rules(
    data: PreferenceData,
    rewards: pd.DataFrame,
    *,
    rules: Sequence[str] | None = None,
    split: str = "test",
    partial: bool = False,
) -> pd.DataFrame:
    """Score rewards by several rules, facet by facet.

    Args:
        data: Pairs and items; pairs of split ``validation`` tune the parameters of a rule.
        rewards: ``reward`` for each item, identified by ``item_id``, or by ``prompt`` and ``image``; with a column
            ``facet``, each facet has its own rewards.
        rules: Names in :data:`probing.statistics.RULES`; all if None.
        split: The split to score.
        partial: Leave out pairs without both rewards; rules of whole rankings still need every pair of a ranking.

    Returns:
        One row a facet and rule, with the columns :data:`COLUMNS`; a rule that does not apply to these pairs has no
        value, and the reason as its note.

    Raises:
        UserError: Unknown rule or split, rewards of unknown shape, or items without a reward.
    """
    return score_pairs(data.name, data.pairs, rewards_by_item(data, rewards), rules=rules, split=split, partial=partial)


def score_pairs(
    name: str,
    pairs: pd.DataFrame,
    rewards: pd.DataFrame,
    *,
    rules: Sequence[str] | None = None,
    split: str = "test",
    partial: bool = False,
) -> pd.DataFrame:
    """Score rewards by ``item_id`` on a table of pairs; see :func:`score_by_rules`."""
    selected = list(RULES) if rules is None else list(rules)
    unknown = [rule for rule in selected if rule not in RULES]
    if unknown:
        raise UserError(f"Unknown rule {unknown[0]!r}; choose one of {', '.join(RULES)}.")
    splits = set(pairs["split"])
    if split not in splits:
        raise UserError(f"{name} has no pairs of split {split!r}; it has {', '.join(sorted(splits))}.")
    rows = []
    for facet, in_facet in pairs.groupby("facet", sort=True):
        of_facet = rewards[rewards["facet"] == facet] if "facet" in rewards else rewards
        reward_of = of_facet.set_index("item_id")["reward"]
        scored = _scored(name, in_facet[in_facet["split"] == split], reward_of, partial)
        if scored is None:
            continue
        held_out = in_facet[in_facet["split"] == "validation"]
        validation = _scored(name, held_out, reward_of, partial) if split != "validation" else None
        for rule in selected:
            row = {"data": name, "split": split, "facet": facet, "rule": rule}
            try:
                result = score(rule, scored, validation)
                values = (result.value, result.low, result.high, result.pairs, result.prompts, result.note)
            except ValueError as reason:
                values = (np.nan, np.nan, np.nan, 0, 0, str(reason))
            rows.append(row | dict(zip(COLUMNS[4:], values, strict=True)))
    if not rows:
        raise UserError(f"No {split} pair of {name} has both rewards; --list-items writes the items.")
    return pd.DataFrame(rows, columns=list(COLUMNS))


def rewards_by_item(data: PreferenceData, rewards: pd.DataFrame) -> pd.DataFrame:
    """Return rewards by ``item_id``, one an item and facet."""
    if "reward" not in rewards or not pd.api.types.is_numeric_dtype(rewards["reward"]):
        raise UserError(f"Scores need a column of numbers named reward; got {', '.join(map(str, rewards.columns))}.")
    if "item_id" not in rewards:
        if not {"prompt", "image"} <= set(rewards.columns):
            raise UserError("Scores need the column item_id, or prompt and image; --list-items writes them.")
        keys = ["prompt", "image"]
        items = data.items[["item_id", *keys]].astype(dict.fromkeys(keys, str))
        rewards = rewards.astype(dict.fromkeys(keys, str)).merge(items, on=keys, how="inner")
    bad = ~np.isfinite(rewards["reward"])
    if bad.any():
        raise UserError(
            f"Item {rewards.loc[bad, 'item_id'].iloc[0]!r} has no finite reward ({int(bad.sum())} in all); score it."
        )
    keys = ["item_id", "facet"] if "facet" in rewards else ["item_id"]
    repeated = rewards.duplicated(keys)
    if repeated.any():
        raise UserError(f"Item {rewards.loc[repeated, 'item_id'].iloc[0]!r} has two rewards; keep one of each.")
    return rewards


def _scored(name: str, pairs: pd.DataFrame, reward_of: pd.Series, partial: bool) -> ScoredPairs | None:
    first, second = (pairs[side].map(reward_of) for side in ("first", "second"))
    missing = first.isna() | second.isna()
    incomplete = None
    if partial:
        if "list_id" in pairs:
            incomplete = pairs["list_id"].isin(pairs.loc[missing, "list_id"].dropna())[~missing].to_numpy()
        pairs, first, second = pairs[~missing], first[~missing], second[~missing]
    if len(pairs) == 0:
        return None
    if missing.any() and not partial:
        pair = pairs[missing].iloc[0]
        item = pair["first"] if pair["first"] not in reward_of.index else pair["second"]
        raise UserError(
            f"{int(missing.sum()):,} of {len(pairs):,} {pair['split']} pairs of {name} have items without a "
            f"reward, the first being {item!r}; score all items that --list-items writes, or give --partial."
        )
    return ScoredPairs(
        choices=pairs["choice"].to_numpy(dtype=float),
        first=first.to_numpy(dtype=float),
        second=second.to_numpy(dtype=float),
        prompts=pairs["prompt_id"].to_numpy(dtype=str),
        lists=_lists(pairs),
        items=pairs[["first", "second"]].to_numpy(dtype=str).T,
        both_bad=(pairs["vote"] == BOTH_BAD).to_numpy() if "vote" in pairs else None,
        incomplete=incomplete,
    )


def _lists(pairs: pd.DataFrame) -> np.ndarray | None:
    """Return the ranking of each pair; a pair without one is a ranking of two if other pairs have one."""
    if "list_id" not in pairs or pairs["list_id"].isna().all():
        return None
    alone = "pair " + pairs["pair_id"].astype(str)
    return pairs["list_id"].astype(object).where(pairs["list_id"].notna(), alone).to_numpy(dtype=str)
