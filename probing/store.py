"""Check, repair, describe, merge or upgrade feature stores: ``python -m probing.store check PATH``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from probing.commands import FAILED, OK, run_command
from probing.errors import UserError
from probing.extract import main as extract
from probing.features import FeatureStore
from probing.features.plan import binary
from probing.features.store import Problem, check, merge, repair, upgrade
from probing.features.store.layout import COLUMNS
from probing.features.store.leases import Leases
from probing.options import Positional, Verb, VerbsParser
from probing.paths import path_of
from probing.progress import format_duration, format_rate, progress

_LISTED_PROBLEMS = 20


@dataclass(frozen=True)
class StoreOption:
    """A store.

    Attributes:
        path: The store.
    """

    path: Positional[Path]


@dataclass(frozen=True)
class CheckOptions(StoreOption):
    """Options of check.

    Attributes:
        quick: Compare sizes of files only, and read none.
    """

    quick: bool = False


@dataclass(frozen=True)
class MergeOptions:
    """Options of merge.

    Attributes:
        store: A store; repeat the option for the others.
        output: Path of the merged store.
    """

    store: tuple[Path, ...]
    output: Path


@dataclass(frozen=True)
class RepairOptions(StoreOption):
    """Options of repair: what has moved since the store was made.

    Attributes:
        model: The model's present folder.
        transformer: Present folder or file of a transformer that replaces the model's.
        lora: Present file or folder of a LoRA.
        data: The data's present name or file.
        data_root: Present folder of the data set's files.
    """

    model: str | None = None
    transformer: Path | None = None
    lora: Path | None = None
    data: str | None = None
    data_root: Path | None = None


def _check(arguments: CheckOptions) -> int:
    problems = _problems(path_of(arguments.path), deep=not arguments.quick)
    for problem in problems[:_LISTED_PROBLEMS]:
        print(problem)
    if len(problems) > _LISTED_PROBLEMS:
        print(f"… and {len(problems) - _LISTED_PROBLEMS:,} more")
    if problems:
        print(
            f"{arguments.path}: {len(problems):,} problems; python -m probing.store repair {arguments.path} fixes them."
        )
        return FAILED
    store = FeatureStore.open(arguments.path)
    missing = int((~store.written).sum())
    print(
        f"{arguments.path}: {'all sizes match' if arguments.quick else 'every file matches'} the records; "
        f"digest {store.digest}."
    )
    if missing:
        print(f"{missing:,} of {len(store.item_ids):,} items are not complete; the same probing.extract continues.")
    return OK


def _repair(arguments: RepairOptions) -> int:
    path = path_of(arguments.path)
    problems = _problems(path, deep=True)
    pairs = f"{path.name}.pairs.parquet"
    if problems:
        with Leases(path).alone("repairing the store"):
            changes = repair(path, [problem for problem in problems if problem.file != pairs])
        print("\n".join(changes or ["the store itself has no problems"]))
    store = FeatureStore.open(path)
    if store.complete and not any(problem.file == pairs for problem in problems):
        print(f"{path}: {'nothing more' if problems else 'nothing'} is missing or damaged.")
        return OK
    return extract(_command(store, arguments))


def _command(store: FeatureStore, arguments: RepairOptions) -> list[str]:
    """Build the options of the extraction that made a store."""
    request: dict[str, Any] = {
        **(store.attributes.get("request") or {}),
        **{k: v for k in ("model", "transformer", "lora", "data", "data_root") if (v := getattr(arguments, k))},
    }
    for name in ("model", "data"):
        if not request.get(name):
            raise UserError(
                f"{store.path} does not name its {name}, so its features cannot be extracted again; give it by "
                f"--{name}, or extract the store anew."
            )
    settings = store.attributes
    values: dict[str, Any] = {
        **{name: value for name, value in request.items() if name != "skip_bad_images"},
        "sigmas": ",".join(repr(sigma) for sigma in store.sigmas),
        **{name: ",".join(settings[name]) for name in ("streams", "reductions")},
        "blocks": ",".join(map(str, settings["blocks"])),
        **{
            name: settings.get(name)
            for name in (
                "resolution",
                "resize",
                "background",
                "batch_size",
                "dtype",
                "compute_dtype",
                "device",
                "seed",
                "pair_noise",
                "t5_length",
                "prompts",
                "guidance",
                "time_dtype",
                "quantization",
            )
        },
        "output": store.path,
        "random_init": "all" if settings["random_init"] == "all" else None,
    }
    flags = {
        "--skip-bad-images": request.get("skip_bad_images"),
        "--no-t5": not settings["use_t5"],
        "--random-init": settings["random_init"] is True,
    }
    options = [
        part
        for name, value in values.items()
        if value is not None
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    return [*options, *(flag for flag, on in flags.items() if on)]


def _info(arguments: StoreOption) -> int:
    store = FeatureStore.open(arguments.path)
    settings = store.attributes
    written = int(store.written.sum())
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    rows = [
        ("store", f"{arguments.path}, schema {store.schema}, {binary(size)}, digest {store.digest}"),
        (
            "model",
            f"{settings.get('model')}, revision {settings.get('revision')}, {store.num_blocks} blocks"
            + (", random-initialised" if settings.get("random_init") else ""),
        ),
        (
            "data",
            f"{settings.get('data')}: {len(store.item_ids):,} items of {len(set(store.prompt_ids)):,} prompts, "
            f"{written:,} complete",
        ),
        ("sigma", ", ".join(f"{sigma:g}" for sigma in store.sigmas)),
        ("arrays", ", ".join(f"{a.name} {a.shape} {a.dtype}" for a in store.specs)),
        (
            "items",
            ", ".join(["item_id", "prompt_id", "prompt_digest", *(c.name for c in COLUMNS)])
            if store.schema > 1
            else "item_id, prompt_id",
        ),
        (
            "settings",
            ", ".join(
                f"{name} {value}" for name, value in settings["settings"].items() if not isinstance(value, dict | list)
            ),
        ),
        ("pairs", str(store.pairs_path) if store.pairs_path.is_file() else "none"),
    ]
    print("\n".join(f"{name:>9}  {text}" for name, text in rows))
    return OK


def _upgrade(arguments: StoreOption) -> int:
    runs = len(FeatureStore.open(arguments.path).runs) if arguments.path.exists() else 0
    with progress(runs, "upgrade", "runs") as bar:
        backup = upgrade(arguments.path, advance=bar.update)
    if backup is None:
        print(f"{arguments.path} has the current schema already.")
        return OK
    print(f"{arguments.path} has the current schema now. The old store is {backup}; you can delete it.")
    return OK


def _merge(arguments: MergeOptions) -> int:
    runs = sum(len(FeatureStore.open(path).runs) for path in arguments.store)
    with progress(runs, "merge", "runs") as bar:
        store = merge(arguments.store, path_of(arguments.output), advance=bar.update)
    sigmas = ", ".join(f"{sigma:g}" for sigma in store.sigmas)
    print(
        f"{len(store.item_ids):,} items at sigma {sigmas}; the {len(arguments.store)} stores are unchanged.\n"
        f"Features: {store.path}\nPairs:    {store.pairs_path}"
    )
    return OK


def _status(arguments: StoreOption) -> int:
    """Say what is done, and who is at work; reads little, and disturbs nobody."""
    store = FeatureStore.open(arguments.path)
    states = Leases(store.path).living()
    complete = int(store.written.sum())
    print(f"{arguments.path}: {complete:,} of {len(store.item_ids):,} items complete")
    if not states:
        print("nobody is at work" + ("" if store.complete else "; the same probing.extract continues") + ".")
        return OK
    rates, now = [], time.time()
    for state in states:
        seconds = max(now - state.started, 1e-9)
        rates.append(state.done / seconds)
        run = "" if state.run is None else f", at run {state.run}"
        print(
            f"{state.name} ({state.doing}): {state.done:,} forwards in {format_duration(seconds)}, "
            f"{format_rate(rates[-1])}/s{run}"
        )
    lacking = max(state.total for state in states) - sum(state.done for state in states)
    if sum(rates) > 0:
        left = format_duration(max(0, lacking) / sum(rates))
        print(f"together {format_rate(sum(rates))}/s; about {max(0, lacking):,} forwards, {left} left")
    return OK


def _problems(path: Path, *, deep: bool) -> list[Problem]:
    files = sum(1 for _ in path.rglob("c/**/*")) if path.is_dir() else 0
    with progress(files, "check", "files") as bar:
        return check(path, deep=deep, advance=bar.update)


PARSER = VerbsParser(
    "probing.store",
    {
        "check": Verb(
            "read every file and compare it with its record; status 1 if something is missing or wrong",
            lambda: CheckOptions,
            _check,
        ),
        "repair": Verb(
            "repair documents and coordinates, and extract again what is missing or wrong",
            lambda: RepairOptions,
            _repair,
        ),
        "info": Verb("print what the store holds, and what it was made from", lambda: StoreOption, _info),
        "merge": Verb(
            "write one store that holds what several hold: other items, or other noise levels",
            lambda: MergeOptions,
            _merge,
        ),
        "status": Verb("print what is done, and who is at work", lambda: StoreOption, _status),
        "upgrade": Verb(
            "rewrite a store of an earlier schema in the current one; the old store is kept beside it",
            lambda: StoreOption,
            _upgrade,
        ),
    },
    __doc__,
)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda call: call(), PARSER, argv)


if __name__ == "__main__":
    raise SystemExit(main())
