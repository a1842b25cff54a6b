"""Checks against the ground truth: ceilings, accuracy of rewards, use of the planted shortcut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from probing.preferences import PreferenceData
from probing.statistics import outcomes, share_interval


def ceilings(pairs: pd.DataFrame, by: tuple[str, ...] = ("split", "facet")) -> pd.DataFrame:
    """Compute the exact best accuracy of groups of pairs: the mean probability of the likelier choice.

    Returns:
        One row for each group: ``by``, ``ceiling``, ``n_pairs``.
    """
    likelier = pairs["probability"].where(pairs["probability"] > 0.5, 1 - pairs["probability"])
    grouped = likelier.groupby([pairs[name] for name in by], sort=False)
    return grouped.agg(["mean", "size"]).reset_index().rename(columns={"mean": "ceiling", "size": "n_pairs"})


def accuracy(
    data: PreferenceData, rewards: Mapping[str, float], by: tuple[str, ...] = ("split", "facet"), *, seed: int = 0
) -> pd.DataFrame:
    """Measure how often rewards agree with the annotators' choices; a tie counts ½.

    Args:
        data: Pairs with ``probability``.
        rewards: By item id.
        by: Columns of pairs that define the groups.
        seed: Of the bootstrap.

    Returns:
        One row for each group: ``by``, ``accuracy, ci_low, ci_high`` (95% over prompts; NaN for one prompt),
        ``ceiling``, ``n_pairs``.

    Raises:
        ValueError: An item has no reward.
    """
    pairs = data.pairs
    first, second = (pairs[side].map(rewards).to_numpy(float) for side in ("first", "second"))
    if np.isnan(first).any() or np.isnan(second).any():
        raise ValueError("Some items have no reward; give one for each item of the pairs.")
    right = outcomes(first - second, pairs["choice"].to_numpy())
    rows = []
    for key, at in pairs.groupby(list(by), sort=False).indices.items():
        prompts = pairs["prompt_id"].to_numpy()[at]
        ends = (np.nan, np.nan)
        if len(np.unique(prompts)) > 1:
            interval = share_interval(right[at], prompts)
            ends = float(interval.low), float(interval.high)
        rows.append((*(key if isinstance(key, tuple) else (key,)), float(np.nanmean(right[at])), *ends))
    table = pd.DataFrame(rows, columns=[*by, "accuracy", "ci_low", "ci_high"])
    return table.merge(ceilings(pairs, by), on=list(by), how="left")


def truth_check(data: PreferenceData, by: tuple[str, ...] = ("split", "facet")) -> pd.DataFrame:
    """Measure the accuracy of the true reward with :func:`accuracy`; it equals the ceiling within its interval."""
    return accuracy(data, dict(zip(data.items["item_id"], data.items["reward"], strict=True)), by)


def shortcut_check(data: PreferenceData, rewards: Mapping[str, float]) -> pd.DataFrame:
    """Measure accuracy with the planted mark on the chosen and on the rejected image.

    Returns:
        A table as of :func:`accuracy`, by ``split`` and ``marked_chosen``. A reward that ignores the mark has the same
        accuracy in both rows of a split.
    """
    return accuracy(data, rewards, ("split", "marked_chosen"))
