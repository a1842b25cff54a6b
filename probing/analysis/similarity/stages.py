"""Stages: runs of similar blocks, B1, B2, … from shallow to deep, and their similarity within and across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from probing.analysis.engine import column_names
from probing.analysis.published import PAPER_SIMILARITY, add_published_stages
from probing.analysis.similarity.tables import PROVENANCE, SITE, SUBJECT, Matrices, check_prompts, site_columns, tidy
from probing.errors import UserError
from probing.statistics import MAX_SEGMENTS, SEGMENT_RESAMPLES, find_segments, mean_interval, stationary

COLUMNS = (
    *SUBJECT,
    *SITE,
    *column_names(
        "number chosen stage first_block last_block within stability border_stability number_stability scatter_left "
        "gap gap_error p_value n_prompts",
        with_provenance=False,
    ),
    *PROVENANCE,
)
"""Columns of :func:`find_stages`: the best segmentation for every ``number`` of stages, one row a stage; the number of
the rule is ``chosen``. ``within`` is the mean similarity of two different blocks of the stage (NaN for one block).
``stability`` is the share of resamples whose best segmentation into as many stages has exactly this stage,
``border_stability`` one that begins at the same block, ``number_stability`` the share that chooses this number.
``gap``: see :func:`probing.statistics.find_segments`."""

SIMILARITY_COLUMNS = (
    *SUBJECT,
    *SITE,
    *column_names(
        "number chosen stages_sigma stages_step kind stage other_stage value std ci_low ci_high drift n_block_pairs "
        "n_items n_prompts",
        with_provenance=False,
    ),
    *PROVENANCE,
)
"""Columns of :func:`stage_similarity`: mean similarity of two different blocks, by their two stages; ``kind`` is within
or across, stage ``all`` is every pair of that kind. ``std`` is over prompts. ``drift`` is the value of the same pairs
of blocks if similarity depended on distance alone."""


def find_stages(
    measured: Sequence[Matrices],
    subject: Mapping[str, Any],
    *,
    shortest: int = 1,
    largest: int = MAX_SEGMENTS,
    resamples: int = SEGMENT_RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Divide the blocks of every site into stages.

    Args:
        measured: Matrices by prompt.
        subject: Values of :data:`SUBJECT` and :data:`PROVENANCE`.
        shortest: Fewest blocks of a stage.
        largest: Largest number of stages.
        resamples: Number of resamples of prompts.
        seed: Seed of the resamples.

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
        segments = find_segments(one.values, shortest=shortest, largest=largest, resamples=resamples, seed=seed)
        mean = one.values.mean(axis=0)
        for index, starts in enumerate(segments.starts):
            ends = (*starts[1:], len(blocks))
            common = {
                **subject,
                **site_columns(one),
                "number": index + 1,
                "chosen": segments.number == index + 1,
                "number_stability": segments.number_share[index],
                "scatter_left": segments.scatter[index],
                "gap": segments.gap[index],
                "gap_error": segments.gap_error[index],
                "p_value": segments.p_value,
                "n_prompts": len(one.prompt_ids),
            }
            rows = [
                {
                    **common,
                    "stage": f"B{position + 1}",
                    "first_block": blocks[start],
                    "last_block": blocks[end - 1],
                    "within": _mean_of_pairs(mean[start:end, start:end]),
                    "stability": segments.segment_share[index][position],
                    "border_stability": segments.start_share[index][position],
                }
                for position, (start, end) in enumerate(zip(starts, ends, strict=True))
            ]
            parts.append(pd.DataFrame(rows))
    return tidy(parts, COLUMNS)


def stage_similarity(
    measured: Sequence[Matrices], subject: Mapping[str, Any], stages: pd.DataFrame, *, seed: int = 0
) -> pd.DataFrame:
    """Average similarity within and across stages, at every noise level and step, with intervals over prompts.

    The stages are those of the lowest noise level of the same source, stream and measure, so that a line over noise
    levels follows the same pairs of blocks; into the chosen number of stages, and into the paper's four. They are found
    and measured on the same prompts; ``drift`` is the part of the difference between within and across that distance
    explains.

    Args:
        measured: Matrices by prompt.
        subject: Values of :data:`SUBJECT` and :data:`PROVENANCE`.
        stages: Stages of :func:`find_stages`, from the same matrices.
        seed: Seed of the bootstrap.

    Returns:
        The columns :data:`SIMILARITY_COLUMNS`.
    """
    parts = []
    for one in measured:
        site = site_columns(one)
        same = stages[
            np.logical_and.reduce([stages[name] == site[name] for name in ("source", "stream", "part", "measure")])
        ]
        reference = same[same["sigma"] == same["sigma"].min()]
        numbers = {*reference.loc[reference["chosen"], "number"], PAPER_SIMILARITY.stages}
        for number, rows in reference[reference["number"].isin(numbers)].groupby("number"):
            masks = _masks(rows, np.array(one.blocks))
            masks = {key: mask for key, mask in masks.items() if mask.any()}
            if not masks:
                continue
            means = np.stack([one.values[:, mask].mean(axis=1) for mask in masks.values()], axis=1)
            interval = mean_interval(means, one.prompt_ids)
            drift = stationary(one.values.mean(axis=0))
            table = pd.DataFrame(list(masks), columns=["kind", "stage", "other_stage"]).assign(
                **subject,
                **site,
                number=number,
                chosen=bool(rows["chosen"].iloc[0]),
                stages_sigma=rows["sigma"].iloc[0],
                stages_step=rows["step"].iloc[0],
                value=interval.estimate,
                std=means.std(axis=0, ddof=1),
                ci_low=interval.low,
                ci_high=interval.high,
                drift=[drift[mask].mean() for mask in masks.values()],
                n_block_pairs=[int(mask.sum()) for mask in masks.values()],
                n_items=int(one.items.sum()),
                n_prompts=len(one.prompt_ids),
            )
            parts.append(table.astype({"stages_step": "Int64"}))
    return add_published_stages(tidy(parts, SIMILARITY_COLUMNS))


def _masks(stages: pd.DataFrame, blocks: np.ndarray) -> dict[tuple[str, str, str], Bool[np.ndarray, "block block"]]:
    """Return the masks of pairs of different blocks, each counted once, by kind and both stages."""
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
