"""Cache the features of every block of a frozen backbone: ``python -m probing.extract --model sd35-medium``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import probing
from probing.backbones.tuning import UNCHANGED, Tuning
from probing.cluster import Engine
from probing.commands import run_command
from probing.data_options import DataOptions
from probing.features.settings import KEEP_INPUTS, ExtractionOptions
from probing.options import OptionsParser


@dataclass(frozen=True)
class ExtractOptions:
    """Options of the command.

    Attributes:
        model: Registry name, or a diffusers pipeline folder.
        data: Pairs and pictures.
        settings: What to read, and how.
        tuning: Weights that change its transformer.
        split: Split of the data: train, validation or test; default: all.
        skip_bad_images: Leave out items whose picture cannot be read, with a report.
        device: Device of the forwards: auto, cpu, cuda, cuda:1, mps.
        output: Path of the store; default: cache/MODEL--DATA.zarr.
        keep_inputs: Latents and encoded prompts to keep in the folder encoded beside the store, in GiB, so that
            another extraction of these data encodes nothing; 0 keeps none.
        workers: Processes that compute, each with a copy of the model: accelerators are taken in turn, a CPU is
            shared. The same command in another shell, or on another machine that sees the store, joins the work.
        engine: What runs the workers: local processes of this machine, or ray, on the cluster of RAY_ADDRESS.
        dry_run: Print the plan and stop before anything is loaded.
    """

    model: str
    data: DataOptions = field(default_factory=DataOptions)
    settings: ExtractionOptions = field(default_factory=ExtractionOptions)
    tuning: Tuning = UNCHANGED
    split: str | None = None
    skip_bad_images: bool = False
    device: str = "auto"
    output: Path | None = None
    keep_inputs: float = KEEP_INPUTS
    workers: int = 1
    engine: Engine = "local"
    dry_run: bool = False


PARSER = OptionsParser("probing.extract", ExtractOptions, __doc__)


def run(options: ExtractOptions) -> None:
    settings = {field.name: getattr(options.settings, field.name) for field in fields(options.settings)}
    extraction = probing.plan_extraction(
        options.model,
        options.data.load(options.split),
        **vars(options.tuning),
        output=options.output,
        device=options.device,
        skip_bad_images=options.skip_bad_images,
        keep_inputs=options.keep_inputs,
        workers=options.workers,
        engine=options.engine,
        split=options.split,
        complete=not options.dry_run,
        request=_request(options),
        **settings,
    )
    print(extraction.describe(), flush=True)
    if options.dry_run:
        print(extraction.describe_problems())
        return
    report(*extraction.run())


def report(store: probing.FeatureStore, computed: int, note: str) -> None:
    """Print what was computed, and the paths to open next."""
    present = len(store.item_ids) - computed
    limit = store.attributes["clip_tokens"]
    if truncated := int((store.read_column("prompt_clip_tokens") > limit).sum()):
        print(
            f"{truncated:,} items have a prompt of more than the {limit} tokens that the model reads; it was cut, and "
            f"prompt_clip_tokens in the store gives the lengths."
        )
    print(
        f"{computed:,} items computed"
        + (f", {present:,} were in the store" if present else "")
        + (f"; {note}" if note else "")
        + f".\nFeatures: {store.path}\nPairs:    {store.pairs_path}\n"
        f"Next:     python -m probing.measure reward-curve --store {store.path}"
    )


def _request(options: ExtractOptions) -> dict[str, Any]:
    """Return the options that a repair needs beside the store's settings."""
    values = {
        "model": options.model,
        **vars(options.tuning),
        **{field.name: getattr(options.data, field.name) for field in fields(options.data)},
        "split": options.split,
        "skip_bad_images": options.skip_bad_images,
    }
    return {name: _as_option(value) for name, value in values.items()}


def _as_option(value: Any) -> Any:
    """Return a value as a repair can give it as an option again."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or None
    return str(value) if isinstance(value, Path) else value


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(run, PARSER, argv, resumes=True)


if __name__ == "__main__":
    raise SystemExit(main())
