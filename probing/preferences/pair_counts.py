"""Count the pairs that probes can be fitted on, before their features are extracted."""

from __future__ import annotations

import pandas as pd

LEAST_TRAINING_PROMPTS = 10
"""Smallest number of prompts with untied training pairs for a probe of a facet."""
LEAST_TEST_PROMPTS = 2
"""Smallest number of prompts with untied test pairs for a probe of a facet."""


def count_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Count pairs, ties and prompts with untied pairs by facet and split.

    Args:
        pairs: ``facet``, ``split``, ``choice`` and ``prompt_id`` of each pair.

    Returns:
        ``facet, split, pairs, ties, untied_prompts``.
    """
    table = pairs.assign(tie=pairs["choice"] == 0.5)
    keys = ["facet", "split"]
    counts = table.groupby(keys, observed=True).agg(pairs=("tie", "size"), ties=("tie", "sum"))
    untied = table[~table["tie"]].groupby(keys, observed=True)["prompt_id"].nunique()
    return counts.join(untied.rename("untied_prompts")).fillna({"untied_prompts": 0}).astype(int).reset_index()


def describe_pairs(counts: pd.DataFrame) -> str:
    """Format the counts of :func:`count_pairs` as one line."""
    splits = counts.groupby("split")["pairs"].sum()
    parts = [f"{count:,} {split}" for split, count in splits.items()]
    ties = int(counts["ties"].sum())
    facets = counts.groupby("facet")["pairs"].sum()
    named = ", ".join(f"{facet} {count:,}" for facet, count in list(facets.items())[:8])
    more = f" and {len(facets) - 8} more" if len(facets) > 8 else ""
    return f"{', '.join(parts)}; {ties:,} ties; facets {named}{more}"


def unfit_facets(counts: pd.DataFrame) -> list[str]:
    """Describe what each facet with too few pairs for a probe lacks."""
    problems = []
    for facet, of_facet in counts.groupby("facet"):
        untied = of_facet.set_index("split")["untied_prompts"]
        for split, least in (("train", LEAST_TRAINING_PROMPTS), ("test", LEAST_TEST_PROMPTS)):
            have = int(untied.get(split, 0))
            if have < least:
                problems.append(f"facet {facet} has untied {split} pairs of {have} prompts, and a probe needs {least}")
    return problems
