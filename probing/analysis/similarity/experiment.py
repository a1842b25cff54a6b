"""Similarity of a backbone's blocks, and the stages that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from probing.analysis.engine import Context, Identity, Run, Tables, package_version, table_digest
from probing.analysis.similarity.stages import find_stages, stage_similarity
from probing.analysis.similarity.tables import similarity_by_prompt, similarity_table
from probing.backbones.sampling import GUIDANCE, STEPS
from probing.errors import UserError
from probing.progress import progress

if TYPE_CHECKING:
    import torch

    from probing.backbones import BackboneSpec
    from probing.features.similarity_plan import SimilarityPlan
    from probing.preferences import PreferenceData

TABLES = ("similarity", "trajectory_similarity", "stages", "stage_similarity", "similarity_by_prompt")
"""``trajectory_similarity`` is missing if no step is read."""


@dataclass(frozen=True)
class SimilaritySettings:
    """On what and how similarity is measured.

    Attributes:
        sigmas: Noise levels in [0, 1] of the pictures.
        streams: Token streams, of image and text.
        measures: Measures of similarity, of cka, cosine, cosine_token, procrustes and knn.
        trajectory_steps: 0-indexed denoising steps to read; none reads pictures only.
        steps: Denoising steps of the sampler.
        guidance: Scale of classifier-free guidance; 1 for none.
        random_init: Also measure the same architecture with random weights.
        shortest_stage: Fewest blocks of a stage.
        resolution: Side of the square images in pixels; default: the model's own.
        resize: How images become square.
        background: Colour behind transparent and padded parts of images.
        batch_size: Items in one forward.
        t5_length: Positions of the T5 part of the text; default: the model's own.
        use_t5: Use the T5 encoder; without it its positions are zeros.
    """

    sigmas: tuple[float, ...] = (0.005, 0.3, 0.6)
    streams: tuple[str, ...] = ("image",)
    measures: tuple[str, ...] = ("cka", "cosine")
    trajectory_steps: tuple[int, ...] = (0, 10, 20, 30, 39)
    steps: int = STEPS
    guidance: float = GUIDANCE
    random_init: bool = False
    shortest_stage: int = 1
    resolution: int | None = None
    resize: Literal["center-crop", "pad", "stretch"] = "center-crop"
    background: Literal["white", "gray", "black"] = "white"
    batch_size: int = 8
    t5_length: int | None = None
    use_t5: bool = True


def plan_similarity(
    spec: BackboneSpec, data: PreferenceData, settings: SimilaritySettings, *, dtype: torch.dtype, seed: int
) -> SimilarityPlan:
    """Check the settings against the model and the data; nothing is loaded.

    Raises:
        UserError: Settings that do not fit the model or the data.
    """
    from probing.features import ExtractionSettings, make_plan
    from probing.features.similarity_plan import SimilarityPlan

    num_blocks = spec.architecture.num_blocks
    if not 1 <= settings.shortest_stage <= num_blocks:
        raise UserError(f"--shortest-stage is 1 … {num_blocks} blocks for {spec.name}, got {settings.shortest_stage}.")
    reading = ExtractionSettings(
        sigmas=settings.sigmas,
        streams=settings.streams,
        reductions=("tokens",),
        resolution=spec.resolution if settings.resolution is None else settings.resolution,
        resize=settings.resize,
        background=settings.background,
        batch_size=settings.batch_size,
        compute_dtype=str(dtype).removeprefix("torch."),
        seed=seed,
        t5_length=spec.t5_length if settings.t5_length is None else settings.t5_length,
        use_t5=settings.use_t5,
        guidance=spec.architecture.guidance,
    )
    return SimilarityPlan(
        make_plan(spec, reading, items=len(data.items), prompts=data.items["prompt_id"].nunique()),
        measures=settings.measures,
        read_at=tuple(sorted(set(settings.trajectory_steps))),
        steps=settings.steps,
        guidance=settings.guidance,
        controls=1 + settings.random_init,
    )


def measure_similarity(
    plan: SimilarityPlan,
    data: PreferenceData,
    settings: SimilaritySettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    split: str | None = None,
    run: Run | None = None,
) -> dict[str, pd.DataFrame]:
    """Measure similarity and stages of a backbone, and on request of random weights as a control.

    Args:
        plan: The plan of :func:`plan_similarity`.
        data: Items and pictures.
        settings: As given to the plan.
        device: Device of the forwards.
        dtype: Type of weights and forwards.
        split: Split of the items, for the tables.
        run: How to run; its seed must be the plan's.

    Returns:
        The tables :data:`TABLES`.

    Raises:
        UserError: A missing picture, weights that cannot be loaded, too little memory.
    """
    from probing.backbones import part_digests
    from probing.backbones.base import STAGES, Stage
    from probing.features.block_similarity import measure
    from probing.features.kept_inputs import open_kept
    from probing.features.loading import load_for
    from probing.features.reading import runs_of

    run = run or Run()
    spec, reading = plan.reading.spec, plan.reading.settings
    digests = part_digests(spec, random_init=False, seed=reading.seed, use_t5=reading.use_t5)
    kept = open_kept(run.encoded, spec, reading, digests, device.type)
    runs = list(runs_of(data.items, reading.batch_size))
    parts: dict[str, list[pd.DataFrame]] = {}
    with progress(plan.rows, spec.name, "matrices", enabled=run.progress) as bar:
        for control in ("trained", "random-init")[: plan.controls]:
            needed: frozenset[Stage] = STAGES if kept is None else kept.stages_to_load(data, runs)
            # A trajectory starts from words, and those of the empty prompt.
            words: frozenset[Stage] = frozenset({"text_encoders"} if plan.read_at else ())
            drawn = replace(reading, random_init=control == "random-init")
            backbone = load_for(spec, drawn, device=device, stages=needed | words)
            matrices = measure(plan, backbone, data, kept=kept, advance=bar.update)
            subject = _subject(plan, backbone.revision, data, split, control)
            stages = find_stages(matrices, subject, shortest=settings.shortest_stage, seed=reading.seed)
            num_blocks = spec.architecture.num_blocks
            similarity = similarity_table(matrices, subject, stages, num_blocks=num_blocks, seed=reading.seed)
            tables = {
                "similarity": similarity[similarity["source"] == "images"],
                "trajectory_similarity": similarity[similarity["source"] == "trajectory"],
                "stages": stages,
                "stage_similarity": stage_similarity(matrices, subject, stages, seed=reading.seed),
                "similarity_by_prompt": similarity_by_prompt(matrices, subject),
            }
            for name, table in tables.items():
                parts.setdefault(name, []).append(table)
    if not plan.read_at:
        del parts["trajectory_similarity"]
    return {name: pd.concat(of, ignore_index=True) for name, of in parts.items()}


def _subject(
    plan: SimilarityPlan, revision: str, data: PreferenceData, split: str | None, control: str
) -> Mapping[str, Any]:
    spec = plan.reading.spec
    return {
        "model": spec.name,
        "data": data.name,
        "split": split,
        "control": control,
        "steps": plan.steps if plan.read_at else None,
        "guidance": plan.guidance if plan.read_at else None,
        "revision": revision,
        "config_hash": spec.architecture.config_hash,
        "data_fingerprint": data.fingerprint,
        "resolution": plan.reading.settings.resolution,
        "extraction_seed": plan.reading.settings.seed,
        "package_version": package_version(),
    }


def run_similarity(context: Context, settings: SimilaritySettings) -> Tables:
    """Measure the similarity of the model's blocks on the data's items."""
    model, data = context.model, context.data
    assert model is not None and data is not None
    plan = plan_similarity(model.spec, data, settings, dtype=model.dtype, seed=context.run.seed)
    data.require_images()
    return measure_similarity(
        plan, data, settings, device=model.device, dtype=model.dtype, split=context.split, run=context.run
    )


def identify_similarity(context: Context, settings: SimilaritySettings) -> Identity | None:
    """Identify the tables by the trained weights, the items with their prompts, and every option that changes a value.

    Random weights follow from the seed. None if the model has not been downloaded yet.
    """
    from probing.backbones import part_digests, revision_of
    from probing.backbones.identity import local_folder, scheduler_digest

    model, data = context.model, context.data
    assert model is not None and data is not None
    plan = plan_similarity(model.spec, data, settings, dtype=model.dtype, seed=context.run.seed)
    parts = part_digests(model.spec, random_init=False, seed=context.run.seed, use_t5=settings.use_t5)
    folder = local_folder(model.spec)
    if parts is None or folder is None:
        return None
    options = {
        **vars(plan.reading.settings),
        "measures": plan.measures,
        "trajectory_steps": plan.read_at,
        "steps": plan.steps,
        "guidance": plan.guidance,
        "controls": plan.controls,
        "shortest_stage": settings.shortest_stage,
        "split": context.split,
        "device": model.device.type,
        "scheduler": scheduler_digest(folder),
    }
    items = data.items[["item_id", "prompt_id", "prompt"]].astype(str)
    # Compare file stamps, which are cheap; a touched picture is measured again.
    digest = table_digest(items.assign(picture=[str(data.stamp_of(item)) for item in data.items["item_id"]]))
    return Identity(((model.spec.name, None),), ((None, revision_of(parts)),), digest, options)


def describe_similarity(context: Context, settings: SimilaritySettings) -> str:
    """Describe the plan: matrices, forwards, memory."""
    model, data = context.model, context.data
    assert model is not None and data is not None
    plan = plan_similarity(model.spec, data, settings, dtype=model.dtype, seed=context.run.seed)
    return plan.describe(model.device.type)


def tables_similarity(settings: SimilaritySettings) -> list[str]:
    """Return the names of the tables that the settings lead to."""
    return [name for name in TABLES if settings.trajectory_steps or name != "trajectory_similarity"]
