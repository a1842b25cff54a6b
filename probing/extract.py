"""Cache the features of every block of a frozen backbone: ``python -m probing.extract --model sd35-medium``."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from probing.backbones import COMPUTE_DTYPES, load_backbone, model_names, pick_compute_dtype, pick_device, resolve
from probing.backbones.identity import part_digests
from probing.commands import CommandParser, add_transformer_option, blocks, numbers, run_command, words
from probing.data_options import add_data_options, load_data
from probing.errors import UserError
from probing.features import ExtractionSettings, FeatureStore, extract, make_plan
from probing.features.extraction import check_cheaply, mend_cheaply
from probing.features.plan import STREAMS, binary
from probing.features.prompts import PROMPT_RULES
from probing.features.reductions import REDUCTIONS
from probing.features.work import Work, plan_work
from probing.files import write_csv
from probing.preferences import PreferenceData
from probing.preferences.audit import scan_images
from probing.preferences.images import BACKGROUNDS, RESIZES
from probing.preferences.pair_counts import count_pairs, describe_pairs, unfit_facets


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser("probing.extract", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, help=f"a name ({', '.join(model_names())}) or a diffusers pipeline folder")
    add_transformer_option(parser)
    add_data_options(parser)
    add("--split", default=None, help="train, validation or test; all of them if not given")
    add("--sigmas", type=numbers, default=[0.005], help="noise levels in [0, 1], with commas")
    add("--streams", type=words, default=["image"], help=f"with commas, of {', '.join(STREAMS)}")
    add("--reductions", type=words, default=["mean"], help=f"with commas, of {', '.join(REDUCTIONS)}")
    add("--blocks", type=blocks, default="all", help="'all', or 0-indexed numbers with commas")
    add("--resolution", type=int, help="side of the square images in pixels; the model's own if not given")
    add("--resize", choices=RESIZES, default="center-crop", help="how images become square")
    add("--background", choices=BACKGROUNDS, default="white", help="behind transparent and padded parts of images")
    add("--skip-bad-images", action="store_true", help="leave out items whose image cannot be read, with a report")
    add("--batch-size", type=int, default=16, help="items in one forward")
    add("--dtype", choices=["float32", "float16"], default="float32", help="of stored reductions; tokens are float16")
    add("--compute-dtype", choices=["auto", *COMPUTE_DTYPES], default="auto", help="of weights and forwards")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add("--seed", type=int, default=0, help="of the noise, and of fresh weights")
    add("--pair-noise", choices=["independent", "shared"], default="independent", help="noise by item, or by prompt")
    add("--t5-length", type=int, help="positions of the T5 part of the text; the model's own if not given")
    add("--no-t5", action="store_true", help="leave the T5 encoder out; its positions are zeros")
    add("--random-init", action="store_true", help="fresh weights in the transformer: the control of every curve")
    add(
        "--prompts",
        choices=PROMPT_RULES,
        default="own",
        help="the words given with an image: its own, another prompt's (drawn within the split), or none",
    )
    add("--output", type=Path, help="path of the store; cache/MODEL--DATA.zarr if not given")
    add("--dry-run", action="store_true", help="print the plan and stop before anything is loaded")
    return parser


def run(arguments: argparse.Namespace) -> None:
    spec = resolve(arguments.model, arguments.transformer)
    device = pick_device(arguments.device)
    dtype = pick_compute_dtype(arguments.compute_dtype, device)
    settings = ExtractionSettings(
        sigmas=tuple(arguments.sigmas),
        streams=tuple(arguments.streams),
        reductions=tuple(arguments.reductions),
        blocks=None if arguments.blocks is None else tuple(arguments.blocks),
        resolution=spec.resolution if arguments.resolution is None else arguments.resolution,
        resize=arguments.resize,
        background=arguments.background,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        compute_dtype=str(dtype).removeprefix("torch."),
        seed=arguments.seed,
        pair_noise=arguments.pair_noise,
        t5_length=spec.t5_length if arguments.t5_length is None else arguments.t5_length,
        use_t5=not arguments.no_t5,
        random_init=arguments.random_init,
        prompts=arguments.prompts,
    )
    output = arguments.output or _default_output(arguments, spec.name)
    data = load_data(arguments, split=arguments.split)
    if arguments.skip_bad_images and not arguments.dry_run:
        data = _without_bad_images(data, output)
    plan = make_plan(spec, settings, items=len(data.items), prompts=data.items["prompt_id"].nunique())
    if not arguments.dry_run:
        for sentence in mend_cheaply(output):
            print(f"{'damaged':>9}  {sentence}")
    parts = part_digests(spec, random_init=settings.random_init, seed=settings.seed, use_t5=settings.use_t5)
    work = plan_work(plan, data, output, parts=parts, device=device.type)
    _print_plan(work, data, output, device.type)
    if arguments.dry_run:
        for problem in check_cheaply(output):
            print(f"{'damaged':>9}  {problem}")
        print(f"{'missing':>9}  {len(data.missing_images()):,} of {len(data.items):,} pictures")
        return
    if work.store is not None and not work.grows and not work.segments():
        written = work.store.write_pairs(data.pairs)
        _report(work.store, 0, "the pairs are new" if written else "nothing is new")
        return
    _require_pictures(data, work)
    _check_disk(work, output)
    backbone = load_backbone(
        spec,
        device=device,
        compute_dtype=dtype,
        random_init=settings.random_init,
        seed=settings.seed,
        t5_length=settings.t5_length,
        use_t5=settings.use_t5,
    )
    extracted = extract(plan, backbone, data, output, request=_request(arguments), work=work)
    _report(extracted.store, extracted.computed, "")


def _print_plan(work: Work, data: PreferenceData, output: Path, device: str) -> None:
    counts = count_pairs(data.pairs)
    rows = [
        work.plan.describe(device),
        work.describe(),
        f"{'pairs':>9}  {describe_pairs(counts)}",
        f"{'output':>9}  {output}",
    ]
    print("\n".join(row for row in rows if row), flush=True)
    if unfit := unfit_facets(counts):
        print(
            f"{'warning':>9}  probing.fit will refuse these pairs: {'; '.join(unfit[:3])}"
            + (f"; and {len(unfit) - 3} more" if len(unfit) > 3 else ""),
            flush=True,
        )


def _report(store: FeatureStore, computed: int, instead: str) -> None:
    there = len(store.item_ids) - computed
    length = store.attributes["clip_tokens"]
    if cut := int((store.read_column("prompt_clip_tokens") > length).sum()):
        print(
            f"{cut:,} items have a prompt of more than the {length} tokens that CLIP takes, which was cut; "
            f"prompt_clip_tokens in the store gives the lengths."
        )
    print(
        f"{computed:,} items computed"
        + (f", {there:,} were there" if there else "")
        + (f"; {instead}" if instead else "")
        + f".\nFeatures: {store.path}\nPairs:    {store.pairs_path}\n"
        f"Next:     python -m probing.fit --store {store.path}"
    )


def _request(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options that a repair needs beside the store's settings."""
    names = ("model", "transformer", "data", "data_root", "where", "limit", "leaks", "split", "skip_bad_images")
    values = {name: getattr(arguments, name) for name in names}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def _default_output(arguments: argparse.Namespace, model: str) -> Path:
    data = Path(arguments.data).stem + (f"-{arguments.split}" if arguments.split else "")
    model += "-random-init" if arguments.random_init else ""
    model += "" if arguments.prompts == "own" else f"-{arguments.prompts}-prompts"
    model += "" if arguments.seed == 0 else f"-noise-{arguments.seed}"
    model += "" if arguments.pair_noise == "independent" else f"-{arguments.pair_noise}-noise"
    return Path("cache") / f"{model}--{data}.zarr"


def _without_bad_images(data: PreferenceData, output: Path) -> PreferenceData:
    """Open every picture once, and leave out the items whose picture is missing or cannot be read."""
    bad = scan_images(data, hashes=False).bad
    if len(bad) == 0:
        return data
    items = data.items[data.items["image"].isin(bad["image"])]
    kept = data.without(items["item_id"])
    report = output.with_name(output.name + ".skipped.csv")
    reasons = items[["item_id", "prompt_id", "image"]].merge(bad[["image", "problem", "reason"]], on="image")
    write_csv(report, reasons)
    print(
        f"{len(bad):,} pictures cannot be used: {len(data.items) - len(kept.items):,} of {len(data.items):,} items and "
        f"{len(data.pairs) - len(kept.pairs):,} of {len(data.pairs):,} pairs are left out.\nReasons:  {report}"
    )
    return kept


def _require_pictures(data: PreferenceData, work: Work) -> None:
    """Open every picture of the items to be computed once, so that a bad one is known before anything is computed.

    Raises:
        UserError: Some are missing or cannot be read.
    """
    data.require_images()
    if not data.images.can_be_bad:
        return
    items = work.items_to_compute()
    bad = scan_images(data, items=items, hashes=False).bad
    if len(bad):
        first = bad.iloc[0]
        raise UserError(
            f"{len(bad):,} of {len(items):,} pictures of {data.name} cannot be used, the first being "
            f"{first['image']!r} of item {first['item_id']!r} ({first['reason']}); mend them, or leave them out with "
            f"--skip-bad-images."
        )


def _check_disk(work: Work, output: Path) -> None:
    """Refuse a store that the disk cannot hold, less what is there of it."""
    folder = next(parent for parent in (output.resolve(), *output.resolve().parents) if parent.exists())
    there = sum(file.stat().st_size for file in output.rglob("*") if file.is_file()) if output.exists() else 0
    free = shutil.disk_usage(folder).free
    needed = work.plan.disk_bytes - there
    if needed > free:
        raise UserError(
            f"The store needs {binary(needed)} and {folder} has {binary(free)} free; "
            f"give --output on a larger disk, or ask for less."
        )


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, build_parser(), argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
