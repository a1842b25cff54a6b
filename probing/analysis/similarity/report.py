"""A summary of the stages in a few lines."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

_CURVE = ["control", "source", "stream", "part", "measure"]


def report_similarity(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """Summarise the stages at the lowest noise level."""
    stages = tables["stages"]
    lines = ["Stages at the lowest noise level; gap: share of scatter explained beyond a drift at constant speed"]
    for (control, source, _, part, measure), rows in stages.groupby(_CURVE, sort=False):
        numbers = rows[rows["chosen"]].drop_duplicates(["sigma", "step"]).sort_values("sigma")
        first = numbers.iloc[0]
        lowest = rows[rows["sigma"] == first["sigma"]]
        runs = ", ".join(
            f"{stage} {start}" + (f"…{end}" if end > start else "")
            for stage, start, end in lowest.loc[lowest["chosen"], ["stage", "first_block", "last_block"]].to_numpy()
        )
        likeliest = lowest.loc[lowest["number_stability"].idxmax()]
        higher = ", ".join(map(str, numbers["number"][1:])) or "not measured"
        lines += [
            f"{'' if control == 'trained' else f'{control}: '}{source}, {part} tokens, {measure}, "
            f"σ = {first['sigma']:.3g}: {runs}",
            f"  largest gap {lowest['gap'].max():.3f}, p = {first['p_value']:.2g} in drifts of uneven speed; by "
            f"the gap alone {100 * likeliest['number_stability']:.0f}% of resamples of {first['n_prompts']} prompts "
            f"have {likeliest['number']}; number at higher levels: {higher}",
        ]
    return lines
