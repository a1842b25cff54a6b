"""Published values of other work, each with its paper and table, and the functions that add them to result tables.

Accuracies are shares in [0, 1]. ``DiT-Reward`` is arXiv 2606.23626, ``DiNa-LRM`` arXiv 2602.11146, ``DRM`` arXiv
2605.25661. A value's ``model`` is the reward, ``backbone`` the registry's name of its
backbone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from probing.result_tables import PUBLISHED, published_rows

Training = Literal["trained", "frozen", "random-init"]


@dataclass(frozen=True)
class Published:
    """A pair accuracy.

    Attributes:
        source: Paper, and its table or figure.
        model: The measured reward.
        benchmark: One of :data:`BENCHMARKS`; the sources do not state the version or rule of Pick-a-Pic.
        value: Share of pairs ranked as people did.
        training: Training of the backbone; None if not stated or without a backbone.
        parameters: Parameters of the backbone; None likewise.
        backbone: The backbone's name in the registry; None if it has none.
        blocks: 0-indexed blocks that the head reads; None if not stated.
        note: Further conditions.
    """

    source: str
    model: str
    benchmark: str
    value: float
    training: Training | None = None
    parameters: float | None = None
    backbone: str | None = None
    blocks: tuple[int, ...] | None = None
    note: str = ""


BENCHMARKS = ("imagereward", "pickapic", "hpdv2", "hpdv3")
"""Columns of the paper's Tables 1 and 3, in their order."""
DEFAULT_BLOCKS = (15, 23, 28, 37)
"""Blocks of SD3.5-Large that the paper's head reads, one of each of its four stages."""
PAPER_SIGMA = 0.005
"""The near-clean noise level at which the paper reads single blocks."""
LARGE, MEDIUM = 8.1e9, 2.5e9
"""Parameters of SD3.5-Large and SD3.5-Medium as the paper counts them."""


def _row(
    source: str,
    model: str,
    percents: tuple[float, ...],
    training: Training | None = None,
    parameters: float | None = None,
    backbone: str | None = None,
    benchmarks: tuple[str, ...] = BENCHMARKS,
    note: str = "",
) -> tuple[Published, ...]:
    return tuple(
        Published(source, model, benchmark, round(percent / 100, 6), training, parameters, backbone, note=note)
        for benchmark, percent in zip(benchmarks, percents, strict=True)
    )


_TABLE_1, _TABLE_3 = "DiT-Reward, Table 1", "DiT-Reward, Table 3"

PAPER_ACCURACY: tuple[Published, ...] = (
    *_row(_TABLE_1, "CLIP ViT-H/14", (57.1, 60.8, 65.1, 48.6)),
    *_row(_TABLE_1, "Aesthetic predictor", (57.4, 56.8, 76.8, 59.9)),
    *_row(_TABLE_1, "ImageReward", (65.1, 61.1, 74.0, 58.6)),
    *_row(_TABLE_1, "PickScore", (61.6, 70.5, 79.8, 65.6)),
    *_row(_TABLE_1, "HPS", (61.2, 66.7, 77.6, 63.8)),
    *_row(_TABLE_1, "HPSv2", (65.7, 63.8, 83.3, 65.3)),
    *_row(_TABLE_1, "MPS", (67.5, 63.1, 83.5, 64.3)),
    *_row(_TABLE_1, "HPSv3", (66.8, 65.1, 85.4, 76.9)),
    Published("HPSv3, its own README", "HPSv3", "pickapic", 0.728, note="DiT-Reward's Table 1 has 65.1%"),
    *_row(_TABLE_1, "DiT-Reward SD3.5-L", (67.0, 66.7, 85.6, 77.6), "trained", LARGE, "sd35-large"),
    *_row(_TABLE_3, "DiT-Reward SD3.5-M", (57.9, 60.9, 79.7, 71.5), "trained", MEDIUM, "sd35-medium"),
    *_row(_TABLE_3, "DiT-Reward SD3.5-L", (57.5, 60.9, 78.0, 72.3), "frozen", LARGE, "sd35-large"),
    Published(
        "DiNa-LRM",
        "DiNa-LRM SD3.5-M",
        "hpdv3",
        0.7352,
        "frozen",
        MEDIUM,
        "sd35-medium",
        (3, 7, 11),
        "image and text tokens, query-attention head, noise 0.1 to 0.4",
    ),
    *_row("DRM", "DRM", (73.4, 82.2, 74.0), benchmarks=("pickapic", "hpdv2", "hpdv3"), note="pretrained backbone"),
    *_row(
        "DRM", "DRM, random-initialised", (57.5, 65.0, 59.3), "random-init", benchmarks=("pickapic", "hpdv2", "hpdv3")
    ),
    Published("DRM", "DRM at timestep 750", "hpdv3", 0.651, note="74.0% at timestep 0"),
)
"""Tables 1 and 3, and related work."""

PAPER_CURVE: tuple[Published, ...] = tuple(
    Published("DiT-Reward, Figure 4c", "DiT-Reward SD3.5-L", "hpdv3", value, "frozen", LARGE, "sd35-large", (block,))
    for block, value in ((0, 0.5871), (24, 0.7198))
)
"""The two values of Figure 4c that the paper gives in numbers: its first block and its best."""

PAPER_COMBINATIONS: tuple[tuple[tuple[str, str], Published], ...] = (
    (
        ("B1", "B2"),
        Published(
            "DiT-Reward, Figure 4d",
            "DiT-Reward SD3.5-L",
            "hpdv3",
            0.7265,
            "frozen",
            LARGE,
            "sd35-large",
            note="above B1+B1 and B2+B2",
        ),
    ),
)
"""Figure 4d: probes on two blocks, by the stages of the blocks."""


@dataclass(frozen=True)
class PublishedSimilarity:
    """Figures 4a, 4b and 6: similarity of the image tokens of SD3.5-Large's blocks; the measure is not named.

    Attributes:
        source: Paper and figures.
        backbone: The backbone's name in the registry.
        stages: Number of stages; their borders are not given.
        steps: Number of denoising steps.
        read_at: 0-indexed steps of Figure 6.
        within: Mean similarity within stages, at every step.
        across: Least and largest mean similarity across stages over steps.
        prompt_std: Least and largest standard deviation over prompts.
    """

    source: str
    backbone: str
    stages: int
    steps: int
    read_at: tuple[int, ...]
    within: float
    across: tuple[float, float]
    prompt_std: tuple[float, float]


PAPER_SIMILARITY = PublishedSimilarity(
    source="DiT-Reward, Figures 4a, 4b and 6",
    backbone="sd35-large",
    stages=4,
    steps=40,
    read_at=(0, 10, 20, 30, 39),
    within=0.94,
    across=(0.71, 0.75),
    prompt_std=(0.006, 0.016),
)


@dataclass(frozen=True)
class PublishedCost:
    """Table 2: one scoring at 512², batch 1, on an RTX PRO 6000; milliseconds and gigabytes of memory."""

    scorer: str
    milliseconds: float
    gigabytes: float
    source: str = "DiT-Reward, Table 2"


PAPER_COST: tuple[PublishedCost, ...] = (
    PublishedCost("DiT-Reward from pixels", 154.0, 27.2),
    PublishedCost("HPSv3", 89.0, 16.0),
    PublishedCost("DiT-Reward from latents", 54.0, 16.1),
)


def published(
    *, benchmark: str | None = None, backbone: str | None = None, training: Training | None = None
) -> list[Published]:
    """Select accuracies of :data:`PAPER_ACCURACY`; None selects all."""
    wanted = {"benchmark": benchmark, "backbone": backbone, "training": training}
    return [
        one
        for one in PAPER_ACCURACY
        if all(value is None or getattr(one, name) == value for name, value in wanted.items())
    ]


def add_published_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Add the published accuracies of single blocks of the table's models (:data:`PAPER_CURVE`).

    Args:
        table: Result of :func:`probing.analysis.reward_curve`.

    Returns:
        The same rows, then one a published value with ``control`` :data:`~probing.result_tables.PUBLISHED` and its
        ``citation``; the table itself if nothing is published of its models, or if they are there already.
    """
    models = set(table.loc[table["control"] == "trained", "model"])
    return _add(
        table,
        [
            {
                "model": one.backbone,
                "data": one.benchmark,
                "facet": "all",
                "stream": "image",
                "reduction": "mean",
                "sigma": PAPER_SIGMA,
                "block": block,
                "metric": "accuracy",
                "value": one.value,
                "citation": one.source,
            }
            for one in PAPER_CURVE
            for block in one.blocks or ()
            if one.backbone in models
        ],
    )


def add_published_scaling(table: pd.DataFrame, benchmark: str = "hpdv3") -> pd.DataFrame:
    """Add the published accuracies of backbones whose size is stated.

    Args:
        table: Result of :func:`probing.analysis.scaling.scaling`.
        benchmark: One of :data:`BENCHMARKS`.

    Returns:
        As for :func:`add_published_curve`; ``kind`` is ``published`` too, ``model`` the reward and ``series`` the
        training of its backbone. The table itself if its pairs are not of that benchmark.
    """
    if benchmark not in set(table["data"]):
        return table
    return _add(
        table,
        [
            {
                "model": one.model,
                "data": one.benchmark,
                "facet": "all",
                "kind": PUBLISHED,
                "series": one.training,
                "parameters": one.parameters,
                "metric": "accuracy",
                "value": one.value,
                "citation": one.source,
            }
            for one in published(benchmark=benchmark)
            if one.parameters is not None
        ],
    )


def add_published_stages(table: pd.DataFrame) -> pd.DataFrame:
    """Add the published similarity within and across the stages of the table's models (:data:`PAPER_SIMILARITY`).

    Args:
        table: Result of :func:`probing.analysis.stages.stage_similarity`.

    Returns:
        As for :func:`add_published_curve`: one row within stages, and two across, the least and the largest over steps.
    """
    paper = PAPER_SIMILARITY
    if not ((table["control"] == "trained") & (table["model"] == paper.backbone)).any():
        return table
    levels = [("within", paper.within), *(("across", value) for value in paper.across)]
    common: dict[str, Any] = {
        "model": paper.backbone,
        "source": "trajectory",
        "stream": "image",
        "part": "all",
        "stage": "all",
    }
    common |= {"other_stage": "all", "number": paper.stages, "chosen": True, "citation": paper.source}
    return _add(table, [{**common, "kind": kind, "value": value} for kind, value in levels])


def _add(table: pd.DataFrame, values: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Add rows with these values; all other cells are missing, and integer columns become nullable."""
    if not values or len(published_rows(table)):
        return table
    table = table.assign(citation=None).reset_index(drop=True)
    rows = pd.DataFrame(values).assign(control=PUBLISHED).reindex(columns=table.columns)
    nullable: dict[Any, Any] = dict.fromkeys(table.select_dtypes("integer"), "Int64")
    nullable |= {name: rows[name].dtype for name in table if table[name].isna().all() and rows[name].notna().any()}
    added = table.astype(nullable).reindex(range(len(table) + len(rows)))
    for name in rows.dropna(axis="columns", how="all"):
        added.loc[len(table) :, name] = rows[name].to_numpy()
    return added.astype({name: table[name].dtype for name in table if added[name].notna().all()})
