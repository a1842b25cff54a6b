"""What others published, each value with its table or figure: drawn beside what is measured here, never mixed in.

Accuracies are shares in [0, 1]. ``DiT-Reward`` is arXiv 2606.23626, ``DiNa-LRM`` arXiv 2602.11146, ``DRM`` arXiv
2605.25661. A value's ``model`` is the reward; the backbone under it, where it has one of our names, is ``backbone``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Training = Literal["trained", "frozen", "random-init"]


@dataclass(frozen=True)
class Published:
    """A pair accuracy.

    Attributes:
        source: Paper, and its table or figure.
        model: The reward that was measured.
        benchmark: Of :data:`BENCHMARKS`; the sources do not say which version or rule of Pick-a-Pic.
        value: Share of pairs ranked as people did.
        training: Of the backbone; None where the source does not say or there is none.
        parameters: Of the backbone; None likewise.
        backbone: Its name in the project's registry; None where it has none.
        blocks: 0-indexed blocks that the head reads; None where the source does not say.
        note: What else is to be known.
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
"""Of SD3.5-Large, read by the paper's head, one from each of its four runs of blocks."""
PAPER_SIGMA = 0.005
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
    Published("HPSv3, its own README", "HPSv3", "pickapic", 0.728, note="where DiT-Reward's Table 1 has 65.1%"),
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
"""Tables 1 and 3, and what related work adds."""

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
"""Figure 4d: probes on two blocks, by the runs that the blocks come from."""


@dataclass(frozen=True)
class PublishedSimilarity:
    """Figures 4a, 4b and 6: similarity of the image tokens of SD3.5-Large's blocks; the measure is not named.

    Attributes:
        source: Paper and figures.
        backbone: Its name in the project's registry.
        stages: Runs of similar blocks; their borders are not given.
        steps: Of the denoising.
        read_at: 0-indexed steps of Figure 6.
        within: Mean similarity within runs, at every step.
        across: Least and largest mean similarity across runs over steps.
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
    PublishedCost("DiT-Reward from pixels", 154, 27.2),
    PublishedCost("HPSv3", 89, 16.0),
    PublishedCost("DiT-Reward from latents", 54, 16.1),
)


@dataclass(frozen=True)
class PublishedPolicy:
    """Flow-GRPO: what 18 checkpoints of a policy gained by one judge, and the settings they were trained with."""

    measure: str
    before: float | None
    after: float | None
    gain: tuple[float, ...] | None = None
    source: str = "DiT-Reward, Flow-GRPO"


PAPER_POLICY: tuple[PublishedPolicy, ...] = (
    PublishedPolicy("mean of the first judge, HPSv3's policy to DiT-Reward's", 7.18, 7.41),
    PublishedPolicy("mean of the second judge, HPSv3's policy to DiT-Reward's", 6.61, 7.02),
    PublishedPolicy("quality", None, None, (0.39, 0.69)),
    PublishedPolicy("realism", None, None, (0.38, 0.62)),
    PublishedPolicy("detail", None, None, (0.49, 0.68)),
    PublishedPolicy("prompt alignment", None, None, (-0.09, -0.10)),
    PublishedPolicy("internal reward", -0.94, 5.06),
)
"""Gains are those of the two judges. Reward hacking is visible near step 1020."""
PAPER_POLICY_SETTINGS = {
    "policy": "sd35-large, LoRA",
    "resolution": 512,
    "training_steps": 10,
    "evaluation_steps": 40,
    "guidance": 4.5,
    "group": 16,
    "samples_per_update": 384,
    "beta": 0.01,
    "hacking_visible_at": 1020,
}


def published(
    *, benchmark: str | None = None, backbone: str | None = None, training: Training | None = None
) -> list[Published]:
    """Find the accuracies of :data:`PAPER_ACCURACY` that fit; None asks for any."""
    asked = {"benchmark": benchmark, "backbone": backbone, "training": training}
    return [
        one
        for one in PAPER_ACCURACY
        if all(value is None or getattr(one, name) == value for name, value in asked.items())
    ]
