"""Tables of block similarity: averaged over prompts with intervals, and by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from probing.analysis.engine import PROVENANCE as STORE_PROVENANCE
from probing.analysis.engine import column_names
from probing.errors import UserError
from probing.statistics import mean_interval

SITE = ("source", "sigma", "step", "stream", "part", "measure")
"""Columns of a similarity's site. ``source`` is images or trajectory; ``step`` is missing for images; ``part`` is all
for image tokens, and the text encoder (clip, t5) for text tokens."""
SUBJECT = ("model", "data", "split", "control", "steps", "guidance")
"""Columns of what is measured; ``control`` is trained or random-init, ``steps`` and ``guidance`` are the sampler's."""
PROVENANCE = tuple(name for name in STORE_PROVENANCE if name != "store")
COLUMNS = (
    *SUBJECT,
    *SITE,
    *column_names(
        "block other stage other_stage value std ci_low ci_high n_items n_prompts num_blocks", with_provenance=False
    ),
    *PROVENANCE,
)
"""Columns of :func:`similarity_table`: every two blocks once, ``block`` ≤ ``other``. ``std`` is over prompts."""


@runtime_checkable
class Matrices(Protocol):
    """Block × block matrices of one site, a prompt each: :class:`probing.features.block_similarity.BlockSimilarity`."""

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


def site_columns(matrices: Matrices) -> dict[str, Any]:
    """Return the columns of a site; noise levels of the sampler's float32 grid are rounded."""
    site = matrices.site._asdict()
    return {**{name: site[name] for name in SITE}, "sigma": round(float(site["sigma"]), 7)}


def check_prompts(measured: Sequence[Matrices]) -> None:
    """Refuse matrices without a spread over prompts.

    Raises:
        UserError: Fewer than two prompts.
    """
    for matrices in measured:
        if len(matrices.prompt_ids) < 2:
            raise UserError(
                f"Similarity is averaged over prompts and needs at least 2 of them, got {len(matrices.prompt_ids)} "
                f"({matrices.site.stream} tokens, {matrices.site.measure}); raise --limit."
            )


def similarity_table(
    measured: Sequence[Matrices], subject: Mapping[str, Any], stages: pd.DataFrame, *, num_blocks: int, seed: int = 0
) -> pd.DataFrame:
    """Average matrices over prompts, with equal weight for each prompt.

    Args:
        measured: Matrices by prompt.
        subject: Values of :data:`SUBJECT` and :data:`PROVENANCE`.
        stages: Stages of :func:`probing.analysis.similarity.find_stages`; the table names each block's chosen stage.
        num_blocks: Number of blocks of the model.
        seed: Seed of the bootstrap over prompts.

    Returns:
        The columns :data:`COLUMNS`.

    Raises:
        UserError: Fewer than two prompts.
    """
    check_prompts(measured)
    parts = []
    for one in measured:
        row, column = np.triu_indices(len(one.blocks))
        interval = mean_interval(one.values[:, row, column], one.prompt_ids)
        entries = {
            "value": interval.estimate,
            "std": one.values[:, row, column].std(axis=0, ddof=1),
            "ci_low": interval.low,
            "ci_high": interval.high,
        }
        site = site_columns(one)
        stage_of_block = _stage_of_block(stages, site)
        blocks = np.array(one.blocks)
        table = pd.DataFrame(
            {
                **subject,
                **site,
                "block": blocks[row],
                "other": blocks[column],
                **entries,
                "n_items": int(one.items.sum()),
                "n_prompts": len(one.prompt_ids),
                "num_blocks": num_blocks,
            }
        )
        table["stage"], table["other_stage"] = (table[side].map(stage_of_block) for side in ("block", "other"))
        parts.append(table)
    return tidy(parts, COLUMNS)


def similarity_by_prompt(measured: Sequence[Matrices], subject: Mapping[str, Any]) -> pd.DataFrame:
    """List each prompt's similarity of every two blocks, so that stages can be found again without a model.

    Returns:
        Columns of :data:`SUBJECT` and :data:`SITE`, ``prompt_id``, ``n_items``, ``block`` < ``other``, ``value``.
    """
    parts = []
    for one in measured:
        row, column = np.triu_indices(len(one.blocks), 1)
        blocks, prompts = np.array(one.blocks), len(one.prompt_ids)
        parts.append(
            pd.DataFrame(
                {
                    **{name: subject[name] for name in SUBJECT},
                    **site_columns(one),
                    "prompt_id": np.repeat(one.prompt_ids, len(row)),
                    "n_items": np.repeat(one.items, len(row)),
                    "block": np.tile(blocks[row], prompts),
                    "other": np.tile(blocks[column], prompts),
                    "value": one.values[:, row, column].ravel(),
                }
            )
        )
    return tidy(parts, (*SUBJECT, *SITE, "prompt_id", "n_items", "block", "other", "value"))


def tidy(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    """Concatenate tables, with the columns in order and steps as integers that may be missing."""
    table = pd.concat([part.astype({"step": "Int64"}) for part in parts], ignore_index=True)
    return table[list(columns)]


def _stage_of_block(stages: pd.DataFrame, site: Mapping[str, Any]) -> dict[int, str]:
    chosen = stages[stages["chosen"] & at_site(stages, site)]
    names: dict[int, str] = {}
    for name, first, last in zip(chosen["stage"], chosen["first_block"], chosen["last_block"], strict=True):
        names |= dict.fromkeys(range(int(first), int(last) + 1), str(name))
    return names


def at_site(table: pd.DataFrame, site: Mapping[str, Any]) -> pd.Series:
    """Return the mask of a site's rows; a missing step equals a missing step."""
    mask = pd.Series(True, index=table.index)
    for name in SITE:
        value = site[name]
        mask &= table[name].isna() if pd.isna(value) else (table[name] == value).fillna(False)
    return mask
