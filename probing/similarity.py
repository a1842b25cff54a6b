"""Measure how alike a backbone's blocks are, and find its stages: ``python -m probing.similarity --model NAME``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from probing.analysis.identity import Identity, refuse_others, table_digest
from probing.analysis.results import package_version
from probing.analysis.similarity import similarity_by_prompt, similarity_table
from probing.analysis.stages import find_stages, stage_similarity
from probing.backbones import (
    COMPUTE_DTYPES,
    Backbone,
    BackboneSpec,
    load_backbone,
    model_names,
    pick_compute_dtype,
    pick_device,
    resolve,
)
from probing.backbones.sampling import GUIDANCE, STEPS
from probing.commands import CommandParser, add_transformer_option, check_output_folder, numbers, run_command, words
from probing.data_options import add_data_options, load_data
from probing.errors import UserError
from probing.features import ExtractionSettings, make_plan
from probing.features.block_similarity import measure
from probing.features.plan import STREAMS
from probing.features.similarity_plan import SimilarityPlan
from probing.features.token_similarity import MEASURES
from probing.preferences import PreferenceData
from probing.preferences.images import BACKGROUNDS, RESIZES
from probing.progress import progress

TABLES = ("similarity", "trajectory_similarity", "stages", "stage_similarity", "similarity_by_prompt")
CONTROLS = {"trained": False, "random-init": True}


def steps_read(text: str) -> list[int]:
    """Read ``0,10,39`` or ``none`` as an argparse type."""
    if text == "none":
        return []
    try:
        return sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise argparse.ArgumentTypeError(f"wants 'none' or steps like 0,10,39, got {text!r}") from None


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.similarity", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, help=f"a name ({', '.join(model_names())}) or a diffusers pipeline folder")
    add_transformer_option(parser)
    add_data_options(parser)
    parser.set_defaults(limit=256)
    add("--split", default="train", help="train, validation or test, whose items and prompts are read; no choice is")
    add("--sigmas", type=numbers, default="0.005,0.3,0.6", help="noise levels in [0, 1] of pictures, with commas")
    add("--measures", type=words, default="cka,cosine", help=f"with commas, of {', '.join(MEASURES)}")
    add("--streams", type=words, default="image", help=f"with commas, of {', '.join(STREAMS)}")
    add(
        "--trajectory-steps",
        type=steps_read,
        default="0,10,20,30,39",
        help="0-indexed denoising steps to read, with commas; 'none' for pictures alone",
    )
    add("--steps", type=int, default=STEPS, help="of the sampler")
    add("--guidance", type=float, default=GUIDANCE, help="scale of classifier-free guidance; 1 for none")
    add("--control", action="store_true", help="measure the same architecture with fresh weights beside it")
    add("--shortest-stage", type=int, default=1, help="blocks that a stage has at least")
    add("--resolution", type=int, help="side of the square images in pixels; the model's own if not given")
    add("--resize", choices=RESIZES, default="center-crop", help="how images become square")
    add("--background", choices=BACKGROUNDS, default="white", help="behind transparent and padded parts of images")
    add("--batch-size", type=int, default=8, help="items in one forward")
    add("--compute-dtype", choices=["auto", *COMPUTE_DTYPES], default="auto", help="of weights and forwards")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--seed", type=int, default=0, help="of noise, fresh weights and bootstrap")
    add("--t5-length", type=int, help="positions of the T5 part of the text; the model's own if not given")
    add("--no-t5", action="store_true", help="leave the T5 encoder out; its positions are zeros")
    add("--output", type=Path, default=Path("cache/results"), help="folder of the tables")
    add(
        "--keep",
        action="store_true",
        help="leave tables that were made from the same weights, items and options by "
        "this version; otherwise make them anew and print what differs",
    )
    add("--overwrite", action="store_true", help="replace tables of another model too")
    add("--dry-run", action="store_true", help="print the plan and stop before anything is loaded")
    return parser


def run(arguments: argparse.Namespace) -> None:
    if not arguments.dry_run:
        check_output_folder(arguments.output)
    spec = resolve(arguments.model, arguments.transformer)
    device = pick_device(arguments.device)
    dtype = pick_compute_dtype(arguments.compute_dtype, device)
    settings = ExtractionSettings(
        sigmas=tuple(arguments.sigmas),
        streams=tuple(arguments.streams),
        reductions=("tokens",),
        resolution=spec.resolution if arguments.resolution is None else arguments.resolution,
        resize=arguments.resize,
        background=arguments.background,
        batch_size=arguments.batch_size,
        compute_dtype=str(dtype).removeprefix("torch."),
        seed=arguments.seed,
        t5_length=spec.t5_length if arguments.t5_length is None else arguments.t5_length,
        use_t5=not arguments.no_t5,
    )
    if not 1 <= arguments.shortest_stage <= spec.architecture.num_blocks:
        most = spec.architecture.num_blocks
        raise UserError(f"--shortest-stage is 1 … {most} blocks for {spec.name}, got {arguments.shortest_stage}.")
    data = load_data(arguments, split=arguments.split)
    controls = list(CONTROLS)[: 1 + arguments.control]
    plan = SimilarityPlan(
        make_plan(spec, settings, items=len(data.items), prompts=data.items["prompt_id"].nunique()),
        measures=tuple(arguments.measures),
        read_at=tuple(arguments.trajectory_steps),
        steps=arguments.steps,
        guidance=arguments.guidance,
        controls=len(controls),
    )
    print(plan.describe(device.type), f"{'output':>9}  {arguments.output}", sep="\n", flush=True)
    if arguments.dry_run:
        return
    tables_of_all = [arguments.output / f"{name}.parquet" for name in TABLES]
    refuse_others(tables_of_all, [(spec.name, None)], overwrite=arguments.overwrite)
    data.require_images()
    identity: Identity | None = None
    parts: dict[str, list[pd.DataFrame]] = {}
    with progress(plan.rows, spec.name, "matrices") as bar:
        for control in controls:
            backbone = load_backbone(
                spec,
                device=device,
                compute_dtype=dtype,
                random_init=CONTROLS[control],
                seed=settings.seed,
                t5_length=settings.t5_length,
                use_t5=settings.use_t5,
            )
            if identity is None:
                # Of the trained weights; fresh ones follow from the seed.
                identity = _identify(plan, backbone, data, arguments, device.type)
                if arguments.keep and _kept(identity, arguments.output, trajectory=bool(plan.read_at)):
                    return
            measured = measure(plan, backbone, data, advance=bar.update)
            about = _about(plan, backbone, data, arguments.split, control)
            stages = find_stages(measured, about, shortest=arguments.shortest_stage, seed=settings.seed)
            blocks = spec.architecture.num_blocks
            similarity = similarity_table(measured, about, stages, num_blocks=blocks, seed=settings.seed)
            tables = {
                "similarity": similarity[similarity["source"] == "images"],
                "trajectory_similarity": similarity[similarity["source"] == "trajectory"],
                "stages": stages,
                "stage_similarity": stage_similarity(measured, about, stages, seed=settings.seed),
                "similarity_by_prompt": similarity_by_prompt(measured, about),
            }
            for name, table in tables.items():
                parts.setdefault(name, []).append(table)
    assert identity is not None
    if not plan.read_at:
        # One that was measured before would not belong to the tables beside it.
        del parts["trajectory_similarity"]
        (arguments.output / "trajectory_similarity.parquet").unlink(missing_ok=True)
    identity.write({name: pd.concat(of, ignore_index=True) for name, of in parts.items()}, arguments.output)
    _report(pd.concat(parts["stages"], ignore_index=True))
    print(
        f"Tables:   {', '.join(f'{name}.parquet' for name in parts)} in {arguments.output}\n"
        f"Next:     python -m probing.figures --results {arguments.output}"
    )


def _identify(
    plan: SimilarityPlan, backbone: Backbone, data: PreferenceData, arguments: argparse.Namespace, device: str
) -> Identity:
    """Identify the tables by the weights, the items with their prompts, and every option that changes a value."""
    options = {
        **vars(plan.reading.settings),
        "measures": plan.measures,
        "trajectory_steps": plan.read_at,
        "steps": plan.steps,
        "guidance": plan.guidance,
        "controls": plan.controls,
        "shortest_stage": arguments.shortest_stage,
        "split": arguments.split,
        "device": device,
        "scheduler": backbone.scheduler_digest,
    }
    items = data.items[["item_id", "prompt_id", "prompt"]].astype(str)
    # Stamps are cheap; a picture whose file was touched is measured again.
    digest = table_digest(items.assign(picture=[str(data.stamp_of(item)) for item in data.items["item_id"]]))
    name = plan.reading.spec.name
    return Identity(((name, None),), ((None, backbone.revision),), digest, options)


def _kept(identity: Identity, output: Path, *, trajectory: bool) -> bool:
    """Keep all tables or none."""
    names = [name for name in TABLES if trajectory or name != "trajectory_similarity"]
    for name in names:
        difference = identity.difference(output / f"{name}.parquet")
        if difference is not None:
            print(f"Anew:     {name}.parquet, because {difference}")
            return False
    print(f"Kept:     the tables in {output}, which were made from the same weights, items and options")
    return True


def _about(
    plan: SimilarityPlan, backbone: Backbone, data: PreferenceData, split: str | None, control: str
) -> dict[str, Any]:
    spec: BackboneSpec = plan.reading.spec
    return {
        "model": spec.name,
        "data": data.name,
        "split": split,
        "control": control,
        "steps": plan.steps if plan.read_at else None,
        "guidance": plan.guidance if plan.read_at else None,
        "revision": backbone.revision,
        "config_hash": spec.architecture.config_hash,
        "data_fingerprint": data.fingerprint,
        "resolution": plan.reading.settings.resolution,
        "extraction_seed": plan.reading.settings.seed,
        "package_version": package_version(),
    }


def _report(stages: pd.DataFrame) -> None:
    print("Stages at the lowest noise level; gap: share of scatter that cuts explain beyond a drift at constant speed")
    lines = ["control", "source", "stream", "part", "measure"]
    for (control, source, _, part, measured), rows in stages.groupby(lines, sort=False):
        numbers = rows[rows["chosen"]].drop_duplicates(["sigma", "step"]).sort_values("sigma")
        one = numbers.iloc[0]
        here = rows[rows["sigma"] == one["sigma"]]
        runs = ", ".join(
            f"{stage} {first}" + (f"…{last}" if last > first else "")
            for stage, first, last in here.loc[here["chosen"], ["stage", "first_block", "last_block"]].to_numpy()
        )
        print(
            f"  {'' if control == 'trained' else f'{control}: '}{source}, {part} tokens, {measured}, "
            f"σ = {one['sigma']:.3g}: {runs}\n    largest gap {here['gap'].max():.3f}, p = {one['p_value']:.2g}, "
            f"{100 * one['number_stability']:.0f}% of resamples of {one['n_prompts']} prompts have {one['number']}; "
            f"number at higher levels: {', '.join(map(str, numbers['number'][1:])) or 'none measured'}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv)


if __name__ == "__main__":
    raise SystemExit(main())
