"""Stages as an experiment takes them: found from similarity, given by the user, or equal parts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from probing.analysis.similarity.nearest import nearest_rows
from probing.errors import UserError

_RUN = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class StageRuns:
    """Runs of blocks, shallow to deep.

    Attributes:
        names: B1, B2, … or what their table calls them.
        blocks: The blocks of each.
        source: Where they come from: ``equal`` parts, ``given``, or the measure by which they were found.
    """

    names: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    source: str

    def of(self, block: int) -> str:
        """Name the stage of a block."""
        return next(name for name, run in zip(self.names, self.blocks, strict=True) if block in run)


def stage_runs(
    blocks: Sequence[int],
    stages: pd.DataFrame | None = None,
    *,
    model: str | None = None,
    stream: str | None = None,
    reduction: str | None = None,
    sigma: float | None = None,
) -> StageRuns:
    """Cut the blocks of a series into stages.

    Args:
        blocks: The blocks that there are, in order.
        stages: ``stage, first_block, last_block``; of several, those of
            :func:`probing.analysis.nearest.nearest_rows` are taken. Without a table, or where it lacks the model: four
            equal parts, three of fewer than eight blocks.
        model: Whose stages.
        stream: Of which stream; another's will do.
        reduction: Under which reduction.
        sigma: At which noise level.

    Raises:
        UserError: Stages that overlap, leave a block out, or are none of these blocks.
    """
    chosen = None if stages is None else _rows(stages, model, stream, reduction, sigma)
    if chosen is None or not len(chosen):
        parts = np.array_split(np.asarray(blocks), min(len(blocks), 4 if len(blocks) >= 8 else 3))
        equal = tuple(tuple(int(block) for block in part) for part in parts)
        return StageRuns(tuple(f"B{i + 1}" for i in range(len(equal))), equal, "equal")
    chosen = chosen.sort_values("first_block")
    names: list[str] = []
    runs: list[tuple[int, ...]] = []
    for row in chosen.to_dict("records"):
        run = tuple(block for block in blocks if row["first_block"] <= block <= row["last_block"])
        # A stage may lie beyond the blocks of a stream that ends earlier.
        if run:
            names.append(str(row["stage"]))
            runs.append(run)
    held = [block for run in runs for block in run]
    if sorted(held) != sorted(blocks):
        wrong = sorted({b for b in blocks if held.count(b) != 1})
        raise UserError(
            f"Blocks {', '.join(map(str, wrong))} are in no stage or in two; "
            f"every block of {blocks[0]} … {blocks[-1]} belongs to one."
        )
    source = str(chosen["measure"].iloc[0]) if "measure" in chosen else "given"
    return StageRuns(tuple(names), tuple(runs), source)


def parse_stages(text: str) -> pd.DataFrame:
    """Read stages written as ``0-2,3-5,6-7``.

    Raises:
        UserError: It is not written so.
    """
    rows = []
    for place, part in enumerate(text.split(",")):
        match = _RUN.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"Stages are written like 0-2,3-5,6-7, shallow to deep; got {text!r}.")
        rows.append((f"B{place + 1}", int(match[1]), int(match[2] or match[1])))
    return pd.DataFrame(rows, columns=["stage", "first_block", "last_block"])


def _rows(
    stages: pd.DataFrame, model: str | None, stream: str | None, reduction: str | None, sigma: float | None
) -> pd.DataFrame:
    missing = {"stage", "first_block", "last_block"} - set(stages)
    if missing:
        raise UserError(
            f"The table of stages has no {', '.join(sorted(missing))}; it needs stage, first_block, last_block."
        )
    return nearest_rows(stages, model=model, stream=stream, reduction=reduction, sigma=sigma, any_stream=True)
