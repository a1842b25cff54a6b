"""Extract features into a store: plan, check, compute."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from probing.api.workers import run_workers, threads_of
from probing.cluster import Engine
from probing.errors import UserError
from probing.features.plan import ExtractionPlan, binary, make_plan
from probing.features.settings import ENCODED, KEEP_INPUTS, ExtractionOptions, ExtractionSettings
from probing.features.store import FeatureStore
from probing.features.store.documents import read_document
from probing.features.store.leases import Leases
from probing.features.store.quick_check import check_quickly, repair_quickly
from probing.features.work import Work, plan_work
from probing.paths import AnyPath, is_remote, path_of
from probing.preferences import PreferenceData, load_pairs
from probing.preferences.audit import scan_images
from probing.preferences.pair_counts import count_pairs, describe_pairs, unfit_facets
from probing.table_files import write_csv

if TYPE_CHECKING:
    import pandas as pd

    from probing.backbones import Backbone
    from probing.backbones.base import Stage
    from probing.features.extraction import RunComputer
    from probing.features.kept_inputs import KeptInputs

CACHE = Path("cache")


@dataclass(frozen=True)
class Extraction:
    """A planned extraction.

    Attributes:
        work: What is computed, and what is in the store.
        data: Whose items.
        output: Path of the store.
        device: Device of the forwards, as requested.
        keep_inputs: Largest size, in GiB, of the folder of latents and encoded prompts beside the store.
        request: Options that a repair of the store needs.
        notes: What was found while planning, a line each.
        workers: Processes that compute, each with a copy of the model.
        engine: What runs them: ``local`` processes of this machine, or ``ray``.
        checked: Whether pictures and disk have been checked.
    """

    work: Work
    data: PreferenceData
    output: AnyPath
    device: str
    keep_inputs: float = KEEP_INPUTS
    request: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    workers: int = 1
    engine: Engine = "local"
    checked: bool = False

    @property
    def device_type(self) -> str:
        """Type of the device: cpu, cuda, mps."""
        from probing.backbones import device_type

        return device_type(self.device)

    @property
    def plan(self) -> ExtractionPlan:
        return self.work.plan

    def describe(self) -> str:
        """Describe items, forwards, memory, disk and pairs, a line each."""
        counts = count_pairs(self.data.pairs)
        lines = [
            *self.notes,
            self.plan.describe(self.device_type),
            self.work.describe(),
            f"{'pairs':>9}  {describe_pairs(counts)}",
            f"{'output':>9}  {self.output}",
        ]
        if self.engine == "ray":
            lines.append(f"{'workers':>9}  {self.workers} Ray actors, a copy of the model in each")
        elif self.workers > 1:
            threads = f", {threads_of(self.workers)} threads each" if self.device_type == "cpu" else ""
            lines.append(f"{'workers':>9}  {self.workers} processes, a copy of the model in each{threads}")
        others = [f"{state.name} ({state.doing})" for state in Leases(self.output).living()]
        if others:
            lines.append(f"{'joins':>9}  {', '.join(others)}: each computes other runs")
        if unfit := unfit_facets(counts):
            more = f"; and {len(unfit) - 3} more" if len(unfit) > 3 else ""
            lines.append(f"{'warning':>9}  probes cannot be fitted on these pairs: {'; '.join(unfit[:3])}{more}")
        return "\n".join(line for line in lines if line)

    def describe_problems(self) -> str:
        """Describe damage of the store and missing pictures; nothing is changed."""
        lines = [f"{'damaged':>9}  {problem}" for problem in check_quickly(self.output)]
        missing = len(self.data.missing_images())
        return "\n".join([*lines, f"{'missing':>9}  {missing:,} of {len(self.data.items):,} pictures"])

    def run(self) -> tuple[FeatureStore, int, str]:
        """Compute what the store lacks.

        Returns:
            The store, how many items were computed, and a note if nothing was.

        Raises:
            UserError: A bad picture, a full disk, weights that cannot be loaded, too little memory.
        """
        work = self.work
        if work.store is not None and not work.grows and not work.segments():
            Leases(self.output).tidy()
            written = work.store.write_pairs(self.data.pairs)
            return work.store, 0, "the pairs are new" if written else "nothing is new"
        if self.engine == "ray":
            from probing.api.on_ray import run_on_ray

            self._check()
            computed = run_on_ray(self, self.workers)
            return FeatureStore.open(self.output), computed, ""
        if self.workers > 1:
            self._check()
            self._encode_large()
            computed, killed = run_workers(self, self.workers)
            return FeatureStore.open(self.output), computed, "; ".join(killed)
        from probing.features.extraction import extract as compute

        backbone, options = self._loaded()
        extracted = compute(self.plan, backbone, self.data, self.output, **options)
        return extracted.store, extracted.computed, "; ".join(extracted.notes)

    @contextmanager
    def join(self) -> Iterator[RunComputer]:
        """Load the model, and work on the store as one process among others."""
        from probing.features.extraction import join

        backbone, options = self._loaded()
        with join(self.plan, backbone, self.data, self.output, **options) as computer:
            yield computer

    def _loaded(self) -> tuple[Backbone, dict[str, Any]]:
        """Check, encode and load what is needed; return the model, and options of an extraction."""
        # The libraries of the models take seconds to import, and a plan needs none of them.
        from probing.backbones import pick_device
        from probing.features.loading import load_for

        self._check()
        kept, stages = self._encode_large()
        backbone = load_for(self.plan.spec, self.plan.settings, device=pick_device(self.device), stages=stages)
        return backbone, {"request": self.request, "work": self.work, "kept": kept}

    def _check(self) -> None:
        """Refuse pictures that cannot be used, and a store that the disk cannot hold, before anything is computed."""
        import pandas as pd

        if self.checked:
            return
        if "vae" in self._stages(self._open_kept()):
            _require_pictures(self.data, pd.concat(self.work.items_to_compute()))
        _check_disk(self.work, self.output)

    def _stages(self, kept: KeptInputs | None) -> Collection[Stage]:
        """Return the stages of the model that are run."""
        from probing.backbones.base import STAGES

        return STAGES if kept is None else kept.stages_to_load(self.data, self.work.items_to_compute())

    def _encode_large(self) -> tuple[KeptInputs | None, Collection[Stage]]:
        """Encode with one part of a large model at a time; return what is kept, and the stages that are still run."""
        from probing.backbones import pick_device
        from probing.features.in_turn import encode_in_turn, is_large

        kept = self._open_kept()
        stages = self._stages(kept)
        if kept is not None and is_large(self.plan):
            encode_in_turn(self.work, self.data, kept, stages, device=pick_device(self.device))
            stages = self._stages(kept)
        return kept, stages

    def planned_again(self, device: str) -> Extraction:
        """Return what one worker does, on its device."""
        work = plan_work(self.plan, self.data, self.output, parts=self.work.settings["parts"], device=self.device_type)
        return replace(self, work=work, device=device, workers=1, engine="local", checked=True)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open store out; :meth:`planned_again` opens it anew."""
        return {**self.__dict__, "work": replace(self.work, store=None)}

    def _open_kept(self) -> KeptInputs | None:
        """Open the folder of kept latents and prompts; None if nothing is kept, or the model is not here yet."""
        from probing.features.kept_inputs import open_kept

        return open_kept(
            (CACHE if is_remote(self.output) else self.output.parent) / ENCODED,
            self.plan.spec,
            self.plan.settings,
            self.work.settings["parts"],
            self.device_type,
            gib=self.keep_inputs,
            reserved=0 if is_remote(self.output) else _disk(self.work, self.output)[1],
        )


def extract(
    model: str | Path,
    data: str | Path | PreferenceData = "testbed",
    *,
    transformer: str | Path | None = None,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    output: str | Path | None = None,
    device: str = "auto",
    skip_bad_images: bool = False,
    keep_inputs: float = KEEP_INPUTS,
    workers: int = 1,
    engine: Engine = "local",
    **settings: Any,
) -> FeatureStore:
    """Cache the features of every block of a frozen backbone.

    Args:
        model: Registry name, or a diffusers pipeline folder.
        data: Pairs of :func:`probing.load_pairs`, the name of a data set, or a file of pairs.
        transformer: Folder or safetensors file of a transformer that replaces the model's, such as a fine-tuned one.
        lora: Safetensors file of a LoRA that is added to the transformer, or the folder of one.
        lora_scale: Factor of the LoRA.
        output: Path of the store; ``cache/MODEL--DATA.zarr`` if None. What a store has is not computed again.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.
        skip_bad_images: Leave out items whose picture cannot be read, with a report beside the store.
        keep_inputs: Latents and encoded prompts are kept in ``encoded`` beside the store, up to this many GiB, so that
            another extraction of these data encodes nothing; 0 keeps none. The folder can be deleted at any time.
        workers: Processes that compute, each with a copy of the model; accelerators are taken in turn, a CPU is shared.
        engine: ``local`` processes of this machine, or ``ray``: actors on the cluster of ``RAY_ADDRESS``.
        **settings: Of :class:`probing.features.settings.ExtractionOptions`: ``sigmas``, ``streams``, ``reductions``, …

    Raises:
        UserError: A mistake in what was requested, with its fix.
    """
    return plan_extraction(
        model,
        data,
        transformer=transformer,
        lora=lora,
        lora_scale=lora_scale,
        output=output,
        device=device,
        skip_bad_images=skip_bad_images,
        keep_inputs=keep_inputs,
        workers=workers,
        engine=engine,
        **settings,
    ).run()[0]


def plan_extraction(
    model: str | Path,
    data: str | Path | PreferenceData = "testbed",
    *,
    transformer: str | Path | None = None,
    lora: str | Path | None = None,
    lora_scale: float = 1.0,
    output: str | Path | None = None,
    device: str = "auto",
    skip_bad_images: bool = False,
    keep_inputs: float = KEEP_INPUTS,
    workers: int = 1,
    engine: Engine = "local",
    split: str | None = None,
    complete: bool = True,
    request: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Extraction:
    """Plan an extraction; no weights are loaded.

    Args:
        model: As for :func:`extract`. Likewise the next ten.
        data: See there.
        transformer: See there.
        lora: See there.
        lora_scale: See there.
        output: See there.
        device: See there.
        skip_bad_images: See there.
        keep_inputs: See there.
        workers: See there.
        engine: See there.
        split: Split of the data, if only one is extracted; it is part of the default name.
        complete: Take back what a store lost, and check a model folder tensor by tensor; False is a look that takes
            few seconds and changes nothing.
        request: Options to keep in the store for a repair; derived from the arguments by default.
        **settings: See there.

    Raises:
        UserError: As :func:`extract`.
    """
    from probing.backbones import compute_dtype_name, device_type, part_digests, resolve
    from probing.backbones.tuning import of_paths

    if not 0 <= keep_inputs < 2**40:
        raise UserError(f"--keep-inputs is a number of GiB, 0 or more, got {keep_inputs}.")
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}.")
    if engine not in get_args(Engine):
        raise UserError(f"There is no engine {engine!r}; engines are {', '.join(get_args(Engine))}.")
    options = _options(settings)
    tuning = of_paths(transformer, lora, lora_scale)
    spec = resolve(str(model), tuning)
    kind = device_type(device)
    resolved = options.resolve(spec, compute_dtype_name(options.compute_dtype, kind), kind)
    pairs = data if isinstance(data, PreferenceData) else load_pairs(data, split=split)
    name = f"{default_name(spec.name, resolved)}--{pairs.name}{f'-{split}' if split else ''}.zarr"
    path = CACHE / name if output is None else path_of(output)
    notes = [f"{'damaged':>9}  {sentence}" for sentence in (repair_quickly(path) if complete else ())]
    if options.batch_size is None and (stored := _batch_size_of(path)) is not None:
        resolved = replace(resolved, batch_size=stored)
    if skip_bad_images and complete:
        pairs, skipped = without_bad_images(pairs, path)
        notes += [skipped] if skipped else []
    plan = make_plan(spec, resolved, items=len(pairs.items), prompts=pairs.items["prompt_id"].nunique())
    parts = part_digests(
        spec, random_init=resolved.random_init, seed=resolved.seed, use_t5=resolved.use_t5, make_models=complete
    )
    work = plan_work(plan, pairs, path, parts=parts, device=kind)
    if request is None:
        named = None if isinstance(data, PreferenceData) else data
        given = {"model": model, **vars(tuning), "data": named, "split": split}
        request = {name: None if value is None else str(value) for name, value in given.items()}
        request["skip_bad_images"] = skip_bad_images
    return Extraction(work, pairs, path, device, keep_inputs, request, tuple(notes), workers, engine)


def _batch_size_of(path: AnyPath) -> int | None:
    """Return the batch size of a store; None if there is no store, or its document cannot be read yet."""
    try:
        stored = read_document(path).get("batch_size") if path.is_dir() else None
    except UserError:
        return None
    return stored if isinstance(stored, int) and stored > 0 else None


def default_name(model: str, settings: ExtractionSettings) -> str:
    """Name a store by its model and by the settings that make it a control or another draw."""
    parts = [
        model,
        {True: "random-init", "all": "random-pipeline", False: ""}[settings.random_init],
        "" if settings.prompts == "own" else f"{settings.prompts}-prompts",
        "" if settings.seed == 0 else f"noise-{settings.seed}",
        "" if settings.pair_noise == "independent" else f"{settings.pair_noise}-noise",
        "" if settings.time_dtype == "float32" else "rounded-time",
        settings.quantization or "",
    ]
    return "-".join(part for part in parts if part)


def without_bad_images(data: PreferenceData, output: AnyPath) -> tuple[PreferenceData, str]:
    """Open every picture once, and leave out the items whose picture is missing or cannot be read.

    Returns:
        The remaining data, and lines for a person; empty if no picture is bad.
    """
    bad = scan_images(data, hashes=False).bad
    if len(bad) == 0:
        return data, ""
    items = data.items[data.items["image"].isin(bad["image"])]
    remaining = data.without(items["item_id"])
    report = output.with_name(output.name + ".skipped.csv")
    reasons = items[["item_id", "prompt_id", "image"]].merge(bad[["image", "problem", "reason"]], on="image")
    write_csv(report, reasons)
    return remaining, (
        f"{len(bad):,} pictures cannot be used: {len(data.items) - len(remaining.items):,} of {len(data.items):,} "
        f"items and {len(data.pairs) - len(remaining.pairs):,} of {len(data.pairs):,} pairs are left out.\n"
        f"Reasons:  {report}"
    )


def _options(settings: Mapping[str, Any]) -> ExtractionOptions:
    names = [field.name for field in fields(ExtractionOptions)]
    unknown = [name for name in settings if name not in names]
    if unknown:
        raise UserError(f"An extraction has no setting {unknown[0]!r}; its settings are {', '.join(names)}.")
    values: dict[str, Any] = {name: tuple(value) if _is_list(value) else value for name, value in settings.items()}
    return replace(ExtractionOptions(), **values)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | tuple)


def _require_pictures(data: PreferenceData, items: pd.DataFrame) -> None:
    """Open every picture of the items to be computed, so that a bad one is found before the slow forwards.

    Raises:
        UserError: Some are missing or cannot be read.
    """
    data.require_images()
    if not data.images.can_be_bad:
        return
    bad = scan_images(data, items=items, hashes=False).bad
    if len(bad):
        first = bad.iloc[0]
        raise UserError(
            f"{len(bad):,} of {len(items):,} pictures of {data.name} cannot be used, the first being "
            f"{first['image']!r} of item {first['item_id']!r} ({first['reason']}); repair them, or leave them out with "
            f"--skip-bad-images."
        )


def _check_disk(work: Work, output: AnyPath) -> None:
    """Refuse a store that the disk cannot hold."""
    free, needed = _disk(work, output)
    if needed > free:
        raise UserError(
            f"The store needs {binary(needed)} and the disk of {output} has {binary(free)} free; "
            f"give --output on a larger disk, or extract less."
        )


def _disk(work: Work, output: AnyPath) -> tuple[int, int]:
    """Return the free bytes of a store's disk, and the bytes that the store will add."""
    if is_remote(output):
        return sys.maxsize, work.plan.disk_bytes
    folder = next(parent for parent in (output.resolve(), *output.resolve().parents) if parent.exists())
    present = sum(file.stat().st_size for file in output.rglob("*") if file.is_file()) if output.exists() else 0
    return shutil.disk_usage(folder).free, work.plan.disk_bytes - present
