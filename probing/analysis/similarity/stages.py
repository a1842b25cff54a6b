"""Stages: runs of similar blocks, B1, B2, … from shallow to deep, and how alike they are within and across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.analysis.published import PAPER_SIMILARITY, add_published_stages
from probing.analysis.similarity.tables import ABOUT, PLACE, PROVENANCE, Matrices, check_prompts, tidy, where
from probing.errors import UserError
from probing.statistics import MAX_SEGMENTS, SEGMENT_RESAMPLES, cluster_bootstrap, find_segments, stationary

COLUMNS = (
    *ABOUT,
    *PLACE,
    "number",
    "chosen",
    "stage",
    "first_block",
    "last_block",
    "within",
    "stability",
    "border_stability",
    "number_stability",
    "scatter_left",
    "gap",
    "gap_error",
    "p_value",
    "n_prompts",
    *PROVENANCE,
)
"""Of :func:`find_stages`: the best segmentation into every ``number`` of stages, a row a stage; the rule's number is
``chosen``. ``within`` is the mean similarity of two different blocks of the stage (none: it has one block).
``stability`` is the share of resamples whose best segmentation into as many stages has exactly this one,
``border_stability`` one that begins where it begins, ``number_stability`` the share that chooses this number. ``gap``:
see :func:`probing.statistics.find_segments`."""

SIMILARITY_COLUMNS = (
    *ABOUT,
    *PLACE,
    "number",
    "chosen",
    "stages_sigma",
    "stages_step",
    "kind",
    "stage",
    "other_stage",
    "value",
    "std",
    "ci_low",
    "ci_high",
    "drift",
    "n_block_pairs",
    "n_items",
    "n_prompts",
    *PROVENANCE,
)
"""Of :func:`stage_similarity`: mean similarity of two different blocks, by the two stages they are in; ``kind`` is
within or across, stage ``all`` is every pair of that kind. ``std`` is over prompts. ``drift`` is what the same pairs of
blocks would have if similarity depended on distance alone."""


def find_stages(
    measured: Sequence[Matrices],
    about: Mapping[str, Any],
    *,
    shortest: int = 1,
    largest: int = MAX_SEGMENTS,
    resamples: int = SEGMENT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Cut the blocks of every place into stages.

    Args:
        measured: Matrices by prompt.
        about: Values of :data:`ABOUT` and :data:`PROVENANCE`.
        shortest: Blocks that a stage has at least.
        largest: Number of stages that is tried at most.
        resamples: Of prompts.
        seed: Of the resamples.

    Returns:
        The columns :data:`COLUMNS`.

    Raises:
        UserError: Fewer than two prompts or blocks, or stages longer than the model is deep.
    """
    check_prompts(measured)
    parts = []
    for one in measured:
        blocks = np.array(one.blocks)
        if len(blocks) < 2 or np.any(np.diff(blocks) != 1):
            raise UserError(f"Stages are runs of blocks and need two or more in a row, got blocks {blocks.tolist()}.")
        if not 1 <= shortest <= len(blocks):
            raise UserError(f"--shortest-stage is 1 … {len(blocks)} blocks for this model, got {shortest}.")
        found = find_segments(one.values, shortest=shortest, largest=largest, resamples=resamples, seed=seed)
        mean = one.values.mean(axis=0)
        for index, starts in enumerate(found.starts):
            ends = (*starts[1:], len(blocks))
            common = {
                **about,
                **where(one),
                "number": index + 1,
                "chosen": found.number == index + 1,
                "number_stability": found.number_share[index],
                "scatter_left": found.scatter[index],
                "gap": found.gap[index],
                "gap_error": found.gap_error[index],
                "p_value": found.p_value,
                "n_prompts": len(one.prompt_ids),
            }
            rows = [
                {
                    **common,
                    "stage": f"B{position + 1}",
                    "first_block": blocks[start],
                    "last_block": blocks[end - 1],
                    "within": _mean_of_pairs(mean[start:end, start:end]),
                    "stability": found.segment_share[index][position],
                    "border_stability": found.start_share[index][position],
                }
                for position, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]
            parts.append(pd.DataFrame(rows))
    return tidy(parts, COLUMNS)


def stage_similarity(
    measured: Sequence[Matrices], about: Mapping[str, Any], stages: pd.DataFrame, *, seed: int = 0
) -> pd.DataFrame:
    """Average similarity within and across stages, at every noise level and step, with intervals over prompts.

    The stages are those of the lowest noise level of the same source, stream and measure, so that one line follows the
    same pairs of blocks: the number that the rule chose, and the paper's four beside it. They are found and measured on
    the same prompts; ``drift`` says how much of the difference between within and across is distance alone.

    Args:
        measured: Matrices by prompt.
        about: Values of :data:`ABOUT` and :data:`PROVENANCE`.
        stages: Of :func:`find_stages`, of the same matrices.
        seed: Of the bootstrap.

    Returns:
        The columns :data:`SIMILARITY_COLUMNS`.
    """
    parts = []
    for one in measured:
        place = where(one)
        same = stages[
            np.logical_and.reduce([stages[name] == place[name] for name in ("source", "stream", "part", "measure")])
        ]
        reference = same[same["sigma"] == same["sigma"].min()]
        numbers = {*reference.loc[reference["chosen"], "number"], PAPER_SIMILARITY.stages}
        for number, rows in reference[reference["number"].isin(numbers)].groupby("number"):
            masks = _masks(rows, np.array(one.blocks))
            kept = {key: mask for key, mask in masks.items() if mask.any()}
            if not kept:
                continue
            means = np.stack([one.values[:, mask].mean(axis=1) for mask in kept.values()], axis=1)
            interval = cluster_bootstrap(means, one.prompt_ids, seed=seed)
            even = stationary(one.values.mean(axis=0))
            table = pd.DataFrame(list(kept), columns=["kind", "stage", "other_stage"]).assign(
                **about,
                **place,
                number=number,
                chosen=bool(rows["chosen"].iloc[0]),
                stages_sigma=rows["sigma"].iloc[0],
                stages_step=rows["step"].iloc[0],
                value=interval.estimate,
                std=means.std(axis=0, ddof=1),
                ci_low=interval.low,
                ci_high=interval.high,
                drift=[even[mask].mean() for mask in kept.values()],
                n_block_pairs=[int(mask.sum()) for mask in kept.values()],
                n_items=int(one.items.sum()),
                n_prompts=len(one.prompt_ids),
            )
            parts.append(table.astype({"stages_step": "Int64"}))
    return add_published_stages(tidy(parts, SIMILARITY_COLUMNS))


def _masks(stages: pd.DataFrame, blocks: np.ndarray) -> dict[tuple[str, str, str], Bool[np.ndarray, "block block"]]:
    """Tell which pairs of different blocks, each counted once, are of which two stages."""
    upper = np.triu(np.ones((len(blocks), len(blocks)), dtype=bool), 1)
    stages = stages.sort_values("first_block")
    member = {
        str(name): (blocks >= first) & (blocks <= last)
        for name, first, last in zip(stages["stage"], stages["first_block"], stages["last_block"], strict=True)
    }
    masks: dict[tuple[str, str, str], np.ndarray] = {}
    within = np.zeros_like(upper)
    for first, second in combinations_with_replacement(member, 2):
        mask = np.outer(member[first], member[second]) & upper
        masks["within" if first == second else "across", first, second] = mask
        if first == second:
            within |= mask
    return {("within", "all", "all"): within, ("across", "all", "all"): upper & ~within, **masks}


def _mean_of_pairs(square: Float[np.ndarray, "block block"]) -> float:
    row, column = np.triu_indices(len(square), 1)
    return float(square[row, column].mean()) if len(row) else float("nan")
