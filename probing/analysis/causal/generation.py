"""Generate pictures under changes of blocks and score them, always from the same captions and noise."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from probing.backbones import Backbone
from probing.errors import UserError
from probing.features.trace import Edit
from probing.interventions import sample_edited
from probing.progress import progress
from probing.table_files import write_parquet


@runtime_checkable
class Judge(Protocol):
    """Scores pictures.

    Attributes:
        identity: What the scores depend on, such as a digest of weights: kept scores of another judge are not used.
    """

    identity: str

    def __call__(self, latents: Float[Tensor, "item channel row column"], captions: Sequence[str]) -> pd.DataFrame:
        """Score finished latents under their captions: one row an item, one column a metric, higher is better."""
        ...


@dataclass(frozen=True)
class GenerationSettings:
    """How pictures are generated.

    Attributes:
        steps: Forwards of the sampler.
        guidance: Scale of classifier-free guidance; 1 for none.
        levels: Noise levels between which blocks are changed.
        batch_size: Pictures at once.
        seed: Of the noise.

    Raises:
        UserError: A number out of range.
    """

    steps: int = 12
    guidance: float = 1.0
    levels: tuple[float, float] = (0.0, 1.0)
    batch_size: int = 48
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch_size) < 1 or not 0 <= self.levels[0] <= self.levels[1] <= 1:
            raise UserError(
                f"Got {self.steps} steps, batches of {self.batch_size} and levels {self.levels[0]:g} to "
                f"{self.levels[1]:g}, expected at least 1, at least 1, and levels within [0, 1]."
            )


@dataclass(frozen=True)
class Change:
    """A change of some blocks.

    Attributes:
        labels: Columns of its rows in the result.
        edits: By block; none for the backbone as it is.
        content: Bytes that decide the edits, such as a direction's, so that a kept result is used for the same change.

    Raises:
        ValueError: Edits without content.
    """

    labels: Mapping[str, Any]
    edits: Mapping[int, Edit] = field(default_factory=dict)
    content: bytes = b""

    def __post_init__(self) -> None:
        if self.edits and not self.content:
            raise ValueError("Got edits without content; give the bytes that decide them.")


def generate(
    backbone: Backbone,
    changes: Iterable[Change],
    captions: Sequence[str],
    judge: Judge,
    settings: GenerationSettings,
    *,
    folder: Path,
) -> pd.DataFrame:
    """Generate a picture of each caption under each change, and score it.

    Args:
        backbone: Loaded, with text encoders.
        changes: The changes.
        captions: One picture each; its noise is the same under every change.
        judge: Scores the latents.
        settings: How to generate.
        folder: Keeps the scores of each change; what is there is not generated again.

    Returns:
        One row a change, caption and metric: the labels, ``caption`` (its number), ``metric``, ``value``.
    """
    with backbone.on_device("text_encoders"):
        words, empty = backbone.encode_prompts(list(captions)), backbone.encode_prompts([""])
    shape = backbone.spec.architecture.latent_shape(backbone.spec.resolution)
    noise = torch.randn((len(captions), *shape), generator=torch.Generator().manual_seed(settings.seed))
    about = (backbone.parts, backbone.scheduler_digest, backbone.dtype, judge.identity, list(captions), settings)
    common = repr(about).encode()
    planned, parts = list(changes), []
    with backbone.on_device("transformer"), progress(len(planned), "generate", "changes") as bar:
        for change in planned:
            name = hashlib.sha256(common + repr(sorted(change.labels.items())).encode() + change.content).hexdigest()
            path = folder / f"{name[:24]}.parquet"
            if not path.exists():
                latents = [
                    sample_edited(
                        backbone,
                        noise[rows],
                        words.rows(torch.arange(rows.start, min(rows.stop, len(captions)))),
                        empty,
                        change.edits,
                        steps=settings.steps,
                        guidance=settings.guidance,
                        levels=settings.levels,
                    )
                    for rows in _batches(len(captions), settings.batch_size)
                ]
                folder.mkdir(parents=True, exist_ok=True)
                write_parquet(path, judge(torch.cat(latents), captions))
            scores = pd.read_parquet(path)
            long = scores.assign(caption=range(len(scores))).melt("caption", var_name="metric")
            parts.append(long.assign(**change.labels))
            bar.update(1)
    return pd.concat(parts, ignore_index=True)


def _batches(items: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, items, size)]
