"""Block similarity as tables: averaged over prompts with its spread and intervals, and prompt by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probing.errors import UserError
from probing.statistics import cluster_bootstrap

PLACE = ("source", "sigma", "step", "stream", "part", "measure")
"""Columns that say where a similarity was measured. ``source`` is images or trajectory; ``step`` is empty for images;
``part`` is all for image tokens, and the text encoder (clip, t5) for text tokens."""
ABOUT = ("model", "data", "split", "control", "steps", "guidance")
"""Columns that say of what; ``control`` is trained or random-init, ``steps`` and ``guidance`` are the sampler's."""
PROVENANCE = ("revision", "config_hash", "data_fingerprint", "resolution", "extraction_seed", "package_version")
COLUMNS = (
    *ABOUT,
    *PLACE,
    "block",
    "other",
    "stage",
    "other_stage",
    "value",
    "std",
    "ci_low",
    "ci_high",
    "n_items",
    "n_prompts",
    "num_blocks",
    *PROVENANCE,
)
"""Of :func:`similarity_table`: every two blocks once, ``block`` ≤ ``other``. ``std`` is over prompts."""


class Matrices(Protocol):
    """Block × block matrices of one place, a prompt each: :class:`probing.features.block_similarity.BlockSimilarity`
    or its like.
    """

    @property
    def site(self) -> Any: ...
    @property
    def blocks(self) -> tuple[int, ...]: ...
    @property
    def prompt_ids(self) -> np.ndarray: ...
    @property
    def items(self) -> Int[np.ndarray, " prompt"]: ...
    @property
    def values(self) -> Float[np.ndarray, "prompt block block"]: ...


def where(matrices: Matrices) -> dict[str, Any]:
    """Give the columns of a place; a noise level of the sampler's grid in float32 is rounded to what it means."""
    place = matrices.site._asdict()
    return {**{name: place[name] for name in PLACE}, "sigma": round(float(place["sigma"]), 7)}


def check_prompts(measured: Sequence[Matrices]) -> None:
    """Refuse what no spread over prompts can be said of.

    Raises:
        UserError: Fewer than two prompts somewhere.
    """
    for one in measured:
        if len(one.prompt_ids) < 2:
            raise UserError(
                f"Similarity is averaged over prompts and needs at least 2 of them, got {len(one.prompt_ids)} "
                f"({one.site.stream} tokens, {one.site.measure}); raise --limit."
            )


def similarity_table(
    measured: Sequence[Matrices], about: Mapping[str, Any], stages: pd.DataFrame, *, num_blocks: int, seed: int = 0
) -> pd.DataFrame:
    """Average matrices over prompts, each prompt counting once.

    Args:
        measured: Matrices by prompt.
        about: Values of :data:`ABOUT` and :data:`PROVENANCE`.
        stages: Of :func:`probing.analysis.stages.find_stages`; each block's chosen stage is written beside it.
        num_blocks: Of the model.
        seed: Of the bootstrap over prompts.

    Returns:
        The columns :data:`COLUMNS`.

    Raises:
        UserError: Fewer than two prompts.
    """
    check_prompts(measured)
    parts = []
    for one in measured:
        row, column = np.triu_indices(len(one.blocks))
        interval = cluster_bootstrap(one.values[:, row, column], one.prompt_ids, seed=seed)
        entries = {
            "value": interval.estimate,
            "std": one.values[:, row, column].std(axis=0, ddof=1),
            "ci_low": interval.low,
            "ci_high": interval.high,
        }
        place = where(one)
        name_of = _stage_of_block(stages, place)
        blocks = np.array(one.blocks)
        table = pd.DataFrame(
            {
                **about,
                **place,
                "block": blocks[row],
                "other": blocks[column],
                **entries,
                "n_items": int(one.items.sum()),
                "n_prompts": len(one.prompt_ids),
                "num_blocks": num_blocks,
            }
        )
        table["stage"], table["other_stage"] = (table[side].map(name_of) for side in ("block", "other"))
        parts.append(table)
    return tidy(parts, COLUMNS)


def similarity_by_prompt(measured: Sequence[Matrices], about: Mapping[str, Any]) -> pd.DataFrame:
    """List every prompt's similarity of every two blocks once, so that stages can be found anew without a model.

    Returns:
        Columns of :data:`ABOUT` and :data:`PLACE`, ``prompt_id``, ``n_items``, ``block`` < ``other``, ``value``.
    """
    parts = []
    for one in measured:
        row, column = np.triu_indices(len(one.blocks), 1)
        blocks, prompts = np.array(one.blocks), len(one.prompt_ids)
        parts.append(
            pd.DataFrame(
                {
                    **{name: about[name] for name in ABOUT},
                    **where(one),
                    "prompt_id": np.repeat(one.prompt_ids, len(row)),
                    "n_items": np.repeat(one.items, len(row)),
                    "block": np.tile(blocks[row], prompts),
                    "other": np.tile(blocks[column], prompts),
                    "value": one.values[:, row, column].ravel(),
                }
            )
        )
    return tidy(parts, (*ABOUT, *PLACE, "prompt_id", "n_items", "block", "other", "value"))


def tidy(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Put parts below one another, with the columns in order and steps as integers that may be missing."""
    table = pd.concat([part.astype({"step": "Int64"}) for part in parts], ignore_index=True)
    return table[list(columns)]


def _stage_of_block(stages: pd.DataFrame, place: Mapping[str, Any]) -> dict[int, str]:
    here = stages[stages["chosen"] & at(stages, place)]
    names: dict[int, str] = {}
    for name, first, last in zip(here["stage"], here["first_block"], here["last_block"], strict=True):
        names |= dict.fromkeys(range(int(first), int(last) + 1), str(name))
    return names


def at(table: pd.DataFrame, place: Mapping[str, Any]) -> pd.Series:
    """Tell which rows are of a place; an empty step is an empty step."""
    same = pd.Series(True, index=table.index)
    for name in PLACE:
        value = place[name]
        same &= table[name].isna() if pd.isna(value) else (table[name] == value).fillna(False)
    return same
