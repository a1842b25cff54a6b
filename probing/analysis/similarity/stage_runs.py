"""Stages of a curve: from a table of similarity, from the user, or equal parts."""

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
        names: B1, B2, … or the names in their table.
        blocks: The blocks of each stage.
        source: ``equal`` parts, ``given``, the measure of the table, or ``equal, cka finds one`` and the like.
    """

    names: tuple[str, ...]
    blocks: tuple[tuple[int, ...], ...]
    source: str

    def of(self, block: int) -> str:
        """Return the name of a block's stage."""
        return next(name for name, run in zip(self.names, self.blocks, strict=True) if block in run)


def stage_runs(
    blocks: Sequence[int],
    stages: pd.DataFrame | None = None,
    *,
    model: str | None = None,
    stream: str | None = None,
    reduction: str | None = None,
    sigma: float | None = None,
    divide_one: bool = False,
) -> StageRuns:
    """Divide the blocks of a curve into stages.

    Args:
        blocks: Blocks of the curve, in order.
        stages: Table with ``stage, first_block, last_block``; of several segmentations,
            :func:`probing.analysis.similarity.nearest.nearest_rows` selects one. Without a table, or for a model that
            it lacks: four equal parts, three for fewer than eight blocks.
        model: Model of the curve.
        stream: Stream of the curve; another one is accepted.
        reduction: Reduction of the curve.
        sigma: Noise level of the curve.
        divide_one: Take equal parts where the table has one stage, so that depths can be compared; the source says so.

    Raises:
        UserError: Stages that overlap or leave a block out.
    """
    chosen = None if stages is None else _rows(stages, model, stream, reduction, sigma)
    if chosen is None or not len(chosen):
        return _equal_parts(blocks, "equal")
    chosen = chosen.sort_values("first_block")
    names: list[str] = []
    runs: list[tuple[int, ...]] = []
    for row in chosen.to_dict("records"):
        run = tuple(block for block in blocks if row["first_block"] <= block <= row["last_block"])
        # A stream that ends earlier lacks the stages beyond its end.
        if run:
            names.append(str(row["stage"]))
            runs.append(run)
    covered = [block for run in runs for block in run]
    if sorted(covered) != sorted(blocks):
        wrong = sorted({block for block in blocks if covered.count(block) != 1})
        raise UserError(
            f"Blocks {', '.join(map(str, wrong))} are in no stage or in two; "
            f"give each block of {blocks[0]} … {blocks[-1]} one stage."
        )
    source = str(chosen["measure"].iloc[0]) if "measure" in chosen else "given"
    if divide_one and len(runs) == 1 and len(blocks) > 1:
        return _equal_parts(blocks, f"equal, {source} finds one")
    return StageRuns(tuple(names), tuple(runs), source)


def _equal_parts(blocks: Sequence[int], source: str) -> StageRuns:
    parts = np.array_split(np.asarray(blocks), min(len(blocks), 4 if len(blocks) >= 8 else 3))
    equal = tuple(tuple(int(block) for block in part) for part in parts)
    return StageRuns(tuple(f"B{i + 1}" for i in range(len(equal))), equal, source)


def parse_stages(text: str) -> pd.DataFrame:
    """Read stages written as ``0-2,3-5,6-7``.

    Raises:
        UserError: Any other text.
    """
    rows = []
    for number, part in enumerate(text.split(",")):
        match = _RUN.fullmatch(part.strip())
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(f"Stages are written like 0-2,3-5,6-7, shallow to deep; got {text!r}.")
        rows.append((f"B{number + 1}", int(match[1]), int(match[2] or match[1])))
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
