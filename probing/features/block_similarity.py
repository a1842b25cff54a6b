"""Similarity of every two blocks, streamed: tokens are freed as soon as their matrix is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from probing.backbones import Backbone, Streams
from probing.features.kept_inputs import KeptInputs
from probing.features.reading import Masks, Reading, Reduce, read_images, read_trajectories
from probing.features.similarity_plan import SimilarityPlan
from probing.features.token_similarity import MEASURES, fewest_tokens
from probing.preferences import PreferenceData


class SimilaritySite(NamedTuple):
    """Where similarity was measured.

    Attributes:
        source: ``images``, with noise added to them, or ``trajectory``, latents on their way to an image.
        sigma: Noise level.
        step: 0-indexed step of the trajectory; None for images.
        stream: ``image`` or ``text``.
        part: ``all`` image tokens, or the name of the text part.
        measure: Name from :data:`probing.features.token_similarity.MEASURES`.
    """

    source: str
    sigma: float
    step: int | None
    stream: str
    part: str
    measure: str


@dataclass(frozen=True)
class BlockSimilarity:
    """Block × block matrices at one site, a prompt each.

    Attributes:
        site: Where.
        blocks: Which blocks, in running order.
        prompt_ids: (prompt,).
        items: Number of items that each prompt's matrix is the mean of.
        values: Means over the prompt's items.
    """

    site: SimilaritySite
    blocks: tuple[int, ...]
    prompt_ids: np.ndarray
    items: Int[np.ndarray, " prompt"]
    values: Float[np.ndarray, "prompt block block"]


def measure(
    plan: SimilarityPlan,
    backbone: Backbone,
    data: PreferenceData,
    *,
    kept: KeptInputs | None = None,
    advance: Callable[[int], Any] = lambda rows: None,
) -> list[BlockSimilarity]:
    """Measure a backbone on the data's pictures, and on images that it generates from the data's prompts.

    Args:
        plan: Images, steps and measures.
        backbone: Loaded.
        data: Items and prompts.
        kept: What earlier readings encoded; None keeps nothing.
        advance: Called with the number of the plan's rows that were done.

    Raises:
        UserError: A bad image, too little memory.
    """
    reduce = keep_streams(plan.reading.settings.streams)
    matrices = block_similarities(
        read_images(plan.reading, backbone, data, data.items, reduce, kept), plan.measures, advance=advance
    )
    if plan.read_at:
        prompts = data.items.drop_duplicates("prompt_id")
        readings = read_trajectories(
            plan.reading, backbone, prompts, reduce, steps=plan.steps, guidance=plan.guidance, read_at=plan.read_at
        )
        matrices += block_similarities(readings, plan.measures, advance=advance)
    return matrices


def keep_streams(streams: Sequence[str]) -> Reduce:
    """Return the reduction that keeps all tokens of some streams on the device, for :func:`block_similarities`."""

    def reduce(block: int, output: Streams, masks: Masks) -> tuple[int, dict[str, Tensor]]:
        return block, {name: tokens for name in streams if (tokens := output[name]) is not None}

    return reduce


@dataclass
class _Sum:
    """Running sums at one site, by prompt."""

    blocks: tuple[int, ...]
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)

    def add(self, prompt_id: str, matrix: np.ndarray) -> None:
        before = self.sums.get(prompt_id)
        self.sums[prompt_id] = matrix if before is None else before + matrix
        self.items[prompt_id] = self.items.get(prompt_id, 0) + 1


def block_similarities(
    readings: Iterable[Reading], measures: Sequence[str], *, advance: Callable[[int], Any] = lambda rows: None
) -> list[BlockSimilarity]:
    """Measure readings whose reduction is :func:`keep_streams`, item by item, and average them by prompt.

    Only block × block matrices stay in memory. A text part with fewer real tokens than a measure needs is left out.

    Args:
        readings: Of :func:`probing.features.reading.read_images` or
            :func:`probing.features.reading.read_trajectories`.
        measures: Names from :data:`probing.features.token_similarity.MEASURES`.
        advance: Called with the number of rows that were done.

    Returns:
        One entry a site, in the order in which they were first read.
    """
    sums: dict[SimilaritySite, _Sum] = {}
    for reading in readings:
        for row, prompt_id in enumerate(reading.rows["prompt_id"].tolist()):
            for stream, part, blocks, tokens in _tokens_of(reading, row):
                for measure in measures:
                    if tokens.shape[1] < fewest_tokens(measure):
                        continue
                    source = "images" if reading.step is None else "trajectory"
                    site = SimilaritySite(source, reading.sigma, reading.step, stream, part, measure)
                    matrix = MEASURES[measure](tokens).double().cpu().numpy()
                    # The two triangles of a product can differ in the last bit.
                    sums.setdefault(site, _Sum(blocks)).add(prompt_id, (matrix + matrix.T) / 2)
        advance(len(reading.rows))
    return [_finish(site, total) for site, total in sums.items()]


@torch.inference_mode()
def _tokens_of(
    reading: Reading, row: int
) -> Iterator[tuple[str, str, tuple[int, ...], Float[Tensor, "block token channel"]]]:
    """Stack one item's tokens over blocks, stream by stream and part by part, in float32."""
    streams = dict.fromkeys(name for _, tokens in reading.blocks for name in tokens)
    for stream in streams:
        giving = [(block, output[stream]) for block, output in reading.blocks if stream in output]
        blocks = tuple(block for block, _ in giving)
        tokens = torch.stack([output[row].float() for _, output in giving])
        if stream == "image":
            yield stream, "all", blocks, tokens
            continue
        for part, real in reading.parts.items():
            yield stream, part, blocks, tokens[:, real[row]]


def _finish(site: SimilaritySite, total: _Sum) -> BlockSimilarity:
    items = np.array(list(total.items.values()))
    values = np.stack(list(total.sums.values())) / items[:, None, None]
    return BlockSimilarity(site, total.blocks, np.array(list(total.sums)), items, values)
