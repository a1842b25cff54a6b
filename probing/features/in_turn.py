"""Encode everything first, with one part of a large model in memory at a time."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Collection

import torch

from probing.backbones.base import Stage
from probing.features.inputs import encode_images, encode_prompts
from probing.features.kept_inputs import KeptInputs
from probing.features.loading import load_for
from probing.features.memory import sentence_for_full_memory
from probing.features.plan import ExtractionPlan
from probing.features.work import Work
from probing.preferences import PreferenceData
from probing.progress import progress

LARGE = 0.4
"""Share of the machine's memory above which a model is loaded part by part."""


def is_large(plan: ExtractionPlan) -> bool:
    """Return whether all parts together would take much of this machine's memory, or of its accelerators'."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return plan.settings.placement == "auto" or plan.weight_bytes > LARGE * memory


def encode_in_turn(
    work: Work, data: PreferenceData, kept: KeptInputs, stages: Collection[Stage], *, device: torch.device
) -> None:
    """Load the text encoders, encode and keep all words, release them; then the same with the VAE and the pictures.

    Items are encoded in the batches of the extraction, so that it finds what it would have computed. What the folder of
    kept inputs has no room for is encoded again when it is read.

    Args:
        work: What is computed afterwards.
        data: Opens the pictures.
        kept: Where it is kept.
        stages: Of ``text_encoders`` and ``vae``, those that are not kept yet.
        device: Where the encoders run.

    Raises:
        UserError: A bad image, too little memory.
    """
    plan, settings = work.plan, work.plan.settings
    segments = [segment for run in work.segments().values() for segment in run]
    encoders: tuple[tuple[Stage, str], ...] = (("text_encoders", "prompts"), ("vae", "pictures"))
    for stage, what in encoders:
        if stage not in stages or not _fits(plan, kept, stage):
            continue
        backbone = load_for(plan.spec, settings, device=device, stages={stage})
        total = sum(segment.stop - segment.start for segment in segments)
        with (
            progress(total, f"{plan.spec.name}: encode", what) as bar,
            sentence_for_full_memory(backbone, settings.resolution),
        ):
            for segment in segments:
                items = work.items.iloc[segment.start : segment.stop]
                if stage == "vae":
                    encode_images(backbone, data, items["item_id"].tolist(), settings, kept)
                else:
                    encode_prompts(backbone, items["prompt"].tolist(), kept)
                bar.update(len(items))
        del backbone
        gc.collect()


def _fits(plan: ExtractionPlan, kept: KeptInputs, stage: str) -> bool:
    """Return whether all that a stage encodes can be kept."""
    architecture = plan.spec.architecture
    if stage == "vae":
        needed = 4 * plan.items * math.prod(architecture.latent_shape(plan.settings.resolution))
    else:
        needed = plan.weight_size * plan.prompts * plan.text_tokens * architecture.text_channels
    return needed < 0.45 * kept.limit
