"""Load a backbone as the settings of an extraction say."""

from __future__ import annotations

from collections.abc import Collection

import torch

from probing.backbones import Backbone, BackboneSpec, compute_dtype, load_backbone
from probing.backbones.base import STAGES, Stage
from probing.features.settings import ExtractionSettings


def load_for(
    spec: BackboneSpec, settings: ExtractionSettings, *, device: torch.device, stages: Collection[Stage] = STAGES
) -> Backbone:
    """Load a backbone; arguments and errors are those of :func:`probing.backbones.load_backbone`."""
    return load_backbone(
        spec,
        device=device,
        compute_dtype=compute_dtype(settings.compute_dtype),
        random_init=settings.random_init,
        seed=settings.seed,
        t5_length=settings.t5_length,
        use_t5=settings.use_t5,
        guidance=settings.guidance,
        time_dtype=settings.time_dtype,
        quantization=settings.quantization,
        placement=settings.placement,
        stages=stages,
    )
